"""One job's row: locked, moved from state to state, and told of in events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nas.errors import LeaseLostError, NotFoundError
from nas.job import Job, JobKind, JobState, Progress, check_transition
from nas.store.tables import JobEventRow, JobRow

HELD = (JobState.RUNNING, JobState.CANCELLING)
"""The states in which a worker holds the job."""


@dataclass(frozen=True)
class Lease:
    """A job held by a worker, and the token that proves it."""

    job: Job
    token: str


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """Something that happened to a job: a new state, a new phase, or a worker's own message."""

    id: int
    job_id: str
    kind: str
    payload: dict[str, Any]
    created_at: datetime


def add_event(session: Session, job_id: str, kind: str, payload: dict[str, Any]) -> None:
    """Tell the job's watchers something, if and when the session's transaction commits.

    The caller holds the job's row lock, which is what makes ids of one job commit in their order:
    a reader that continues after the last id it saw misses nothing.
    """
    session.add(JobEventRow(job_id=job_id, kind=kind, payload=payload))


def move(session: Session, row: JobRow, target: JobState, *, reason: str | None) -> None:
    """The one place where a state changes."""
    check_transition(JobState(row.state), target)
    row.state = target
    row.state_reason = reason
    if target not in HELD:
        row.lease_token = row.lease_expires_at = row.worker = None
    if target.is_terminal:
        row.ended_at = now(session)
        row.eta_seconds = None  # of a job that has ended nothing is left
    payload: dict[str, Any] = {"state": target, "reason": reason}
    if target == JobState.FAILED:
        payload["error"] = row.error
    add_event(session, row.id, "state", payload)
    session.flush()


def lock(session: Session, job_id: str) -> JobRow:
    """The job's row, which nobody else changes until the transaction ends."""
    # Whatever the session already holds of the row was read before the lock.
    query = select(JobRow).where(JobRow.id == job_id).with_for_update()
    row = session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        raise NotFoundError(f"no job {job_id!r}")
    return row


def lock_leased(session: Session, lease: Lease) -> JobRow:
    """The row under lock, or LeaseLostError when the lease is no longer good."""
    session.flush()
    row = lock(session, lease.job.id)
    if row.lease_token != lease.token:
        raise LeaseLostError(f"job {row.id} was taken from this worker: it is {row.state} now")
    # Asked after the lock is held: waiting for it may have outlasted the lease.
    if row.lease_expires_at is None or row.lease_expires_at <= now(session):
        raise LeaseLostError(f"the lease on job {row.id} ran out; renew it more often or make it longer")
    return row


def note_landed(row: JobRow, count: int) -> None:
    """The job has `count` of its units of work safe: growth clears the record of fruitless attempts."""
    if count > row.landed:
        row.landed, row.landed_at_attempt = count, row.attempt


def num_fruitless(row: JobRow) -> int:
    """How many attempts in a row, up to the latest, have landed nothing."""
    return row.attempt - row.landed_at_attempt


def now(session: Session) -> datetime:
    """The time on the database's clock, as the statement runs."""
    moment: datetime = session.scalars(select(func.clock_timestamp())).one()
    return moment


def as_job(row: JobRow) -> Job:
    """The row as the domain knows it."""
    progress = None
    if row.phase is not None:
        progress = Progress(
            phase=row.phase, done=row.done or 0, total=row.total or 0, eta_seconds=row.eta_seconds
        )
    return Job(
        id=row.id,
        kind=JobKind(row.kind),
        state=JobState(row.state),
        state_reason=row.state_reason,
        spec=row.spec,
        resource_id=row.resource_id,
        attempt=row.attempt,
        progress=progress,
        error=row.error,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        updated_at=row.updated_at,
    )


def as_event(row: JobEventRow) -> JobEvent:
    """The event as watchers see it."""
    return JobEvent(
        id=row.id, job_id=row.job_id, kind=row.kind, payload=row.payload, created_at=row.created_at
    )
