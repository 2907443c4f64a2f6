"""How far a job is, on stderr: one line renewed on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TextIO

from nas.client.resource import Resource
from nas.commands.text import duration, printable

_SPARSE_S = 30.0
_SPARSE_SHARE = 0.1
_EARLY_ENDS = {
    "flat": "its last rounds gained next to no hypervolume",
    "exhausted": "every network within the constraints is measured",
    "nothing_new_found": "no other network within the constraints was found; there may be some",
}
"""What else than its budget ends a search."""


class ProgressLine:
    """Called with the resource whenever it has moved; a context manager that leaves the line behind tidy."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._rate = _Rate()
        self._sparse = _Sparse()
        self._is_open = False
        self._num_rollbacks = 0
        self._is_flat_told = False
        self._is_end_told = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_open:
            self._write("\n")
            self._is_open = False

    def __call__(self, resource: Resource) -> None:
        """Show where it stands; above that, once, what befell a training on the way."""
        self._tell_news(resource)
        progress = resource["progress"] if resource.state.value == "running" else None
        if progress is None or not progress["total"]:
            self.show(f"{resource.id}  {resource.state}", key=(resource.state.value, None))
            return
        per_second = self._rate.of(progress)
        share = progress["done"] / progress["total"]
        text = f"{resource.id}  {_line(progress, share, per_second)}{_hypervolume(resource)}"
        self.show(text, key=(progress["phase"], int(share / _SPARSE_SHARE)))

    def _tell_news(self, resource: Resource) -> None:
        rollbacks = resource.get("rollbacks", [])
        for rollback in rollbacks[self._num_rollbacks :]:
            self._note(
                f"{resource.id}  rolled back from step {rollback['from_step']:,} to {rollback['step']:,}, "
                f"learning rate times {rollback['rate_factor']:g}: {rollback['reason']}"
            )
        self._num_rollbacks = len(rollbacks)
        flat_at = resource.get("probes_flat_at_epoch")
        if flat_at is not None and not self._is_flat_told:
            self._note(
                f"{resource.id}  no probe has risen since epoch {flat_at}: more training may not help; see: "
                f"nas supernet probes {resource.id}"
            )
            self._is_flat_told = True
        early = _EARLY_ENDS.get(str(resource.get("stop_reason")))
        if early is not None and not self._is_end_told:
            self._note(f"{resource.id}  ended before its trials were spent: {early}")
            self._is_end_told = True

    def _note(self, text: str) -> None:
        """A line that stays."""
        start = "\r\x1b[K" if self._is_open else ""
        self._write(f"{start}{printable(text)}\n")
        self._is_open = False

    def sent(self, name: str, num_sent: int, num_bytes: int | None) -> None:
        """Show how much of a file has been sent."""
        whole = f" of {num_bytes / 1e6:,.1f}" if num_bytes else ""
        share = int(num_sent / num_bytes / _SPARSE_SHARE) if num_bytes else num_sent >> 27
        self.show(f"{name}  {num_sent / 1e6:,.1f}{whole} MB sent", key=("sent", share))

    def show(self, text: str, *, key: tuple[str, int | None]) -> None:
        """Show the line; where lines stay, only one a `key`, or one in thirty seconds."""
        text = printable(text)
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            # To the first column, the line, and nothing right of it.
            self._write(f"\r{text[:width]}\x1b[K")
            self._is_open = True
        elif self._sparse.is_due(key):
            self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Rate:
    """Units a second of one phase, from when it was first seen."""

    def __init__(self) -> None:
        self._phase: str | None = None
        self._begin = (0.0, 0)

    def of(self, progress: Mapping[str, Any]) -> float | None:
        """None until something was done before our eyes."""
        now, done = time.monotonic(), progress["done"]
        if progress["phase"] != self._phase or done < self._begin[1]:
            self._phase, self._begin = progress["phase"], (now, done)
            return None
        elapsed_s, num_done = now - self._begin[0], done - self._begin[1]
        return num_done / elapsed_s if num_done and elapsed_s else None


class _Sparse:
    """Which lines are worth one that stays."""

    def __init__(self) -> None:
        self._last: tuple[str, int | None] | None = None
        self._at = 0.0

    def is_due(self, key: tuple[str, int | None]) -> bool:
        """Whether the key is new, or the last line is old."""
        now = time.monotonic()
        if key == self._last and now - self._at < _SPARSE_S:
            return False
        self._last, self._at = key, now
        return True


def _line(progress: Mapping[str, Any], share: float, per_second: float | None) -> str:
    parts = [progress["phase"], f"{share:4.0%}", f"{progress['done']:,}/{progress['total']:,}"]
    left_s = progress["eta_seconds"]
    if per_second is not None:
        parts.append(f"{per_second:.3g}/s")
        if left_s is None:
            left_s = (progress["total"] - progress["done"]) / per_second
    if left_s is not None:
        parts.append(f"about {duration(left_s)} left")
    return "  ".join(parts)


def _hypervolume(resource: Resource) -> str:
    """Of a search's frontier after its last round."""
    latest = resource.get("latest_round")
    return "" if latest is None else f"  hypervolume {latest['hypervolume']:.4g}"
