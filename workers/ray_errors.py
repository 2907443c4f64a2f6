"""What Ray says of a failure, without the traceback that it puts into its messages."""

from __future__ import annotations

from ray.train import WorkerGroupError


def sentence(error: Exception | None) -> str:
    """What went wrong; of several ranks each one's, where they differ."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        by_text: dict[str, list[str]] = {}
        for rank, failure in sorted(error.worker_failures.items()):
            by_text.setdefault(f"{type(failure).__name__}: {_last_line(failure)}", []).append(str(rank))
        return "; ".join(f"rank {', '.join(ranks)}: {text}" for text, ranks in by_text.items())
    return _last_line(error)


def _last_line(error: Exception | None) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
