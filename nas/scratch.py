"""Folders for what is needed only while a process works on it, of which none stays for long.

A process killed with -9 leaves its folder. But each is locked by its owner, and a lock ends with the process,
however that ends. So the next to make such a folder in the same place, or a worker that tidies up, knows what
was left, however long others have been at work in theirs.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_PREFIX = "nas-scratch-"
_LOCK = ".lock"


class ScratchFolder:
    """An empty folder that goes with its owner: by `remove`, when the owner is collected, or at exit."""

    def __init__(self, place: Path | None = None) -> None:
        """In the folder `place`, made where it is missing; None: the system's temporary folder (TMPDIR)."""
        place = place or Path(tempfile.gettempdir())
        place.mkdir(parents=True, exist_ok=True)
        remove_abandoned(place)
        outer, lock = _locked_folder(place)
        self.path = outer / "content"
        self.path.mkdir()
        self.remove = weakref.finalize(self, _remove, outer, lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def is_scratch(folder: Path) -> bool:
    """Whether the folder is one of these, in use or not."""
    return folder.name.startswith(_PREFIX)


def remove_abandoned(place: Path | None = None) -> None:
    """Remove those in `place` (None: the system's temporary folder) whose owner is no more."""
    for outer in (place or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
        try:
            lock = os.open(outer / _LOCK, os.O_RDWR)
        except OSError:
            continue  # another user's, or one that is being made
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(outer, ignore_errors=True)
        except OSError:
            pass  # in use, or on a file system that has no locks and cannot tell
        finally:
            os.close(lock)


def _locked_folder(place: Path) -> tuple[Path, int]:
    while True:
        outer = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        lock = os.open(outer / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if (outer / _LOCK).exists():  # else taken for abandoned before it was locked
            return outer, lock
        os.close(lock)


def _remove(outer: Path, lock: int) -> None:
    shutil.rmtree(outer, ignore_errors=True)
    os.close(lock)
