"""A job: the work behind a resource, its states, and which transitions are legal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from nas.errors import ConflictError


class JobKind(StrEnum):
    """What a worker does for the job."""

    IMPORT_DATASET = "import_dataset"
    TRAIN = "train"
    SEARCH = "search"
    SPECIALISE = "specialise"
    EVALUATE = "evaluate"
    VERIFY = "verify"
    MAKE_WORK_FILE = "make_work_file"
    FIT_LATENCY = "fit_latency"


class JobState(StrEnum):
    """Where a job stands. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Whether no transition leaves this state."""
        return not _LEGAL[self]


_LEGAL: dict[JobState, frozenset[JobState]] = {
    # Queued to cancelled directly: nobody works on it, so nobody has to stop.
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    # Back to queued when a lease runs out or a worker drains.
    JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING, JobState.QUEUED}),
    # A job may finish its last step before it notices the request: it is cancelled all the same.
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.CANCELLED: frozenset(),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
}


def check_transition(current: JobState, target: JobState) -> None:
    """Raise ConflictError unless a job may go from `current` to `target`."""
    if target not in _LEGAL[current]:
        allowed = ", ".join(sorted(_LEGAL[current])) or "nothing: the state is final"
        raise ConflictError(f"a job that is {current} cannot become {target}; allowed from here: {allowed}")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job has come: `done` of `total` units of its current phase."""

    phase: str
    done: int
    total: int
    eta_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row of the queue, as read."""

    id: str
    kind: JobKind
    state: JobState
    state_reason: str | None
    spec: dict[str, Any]
    resource_id: str
    """The data set, supernet, search, subnet or other resource that this job makes."""
    attempt: int
    """How many workers have claimed it."""
    progress: Progress | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    updated_at: datetime
