"""Jobs that no worker will finish: taken back from dead ones, or failed."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from nas.job import JobState
from nas.store.job_rows import HELD, move, num_fruitless
from nas.store.tables import JobRow

_ENDED = {JobState.FAILED: "failed", JobState.CANCELLED: "been cancelled"}


def take_back_expired(session: Session) -> int:
    """Queue again, or end, what has an expired lease; how many."""
    expired = (
        select(JobRow)
        .where(JobRow.state.in_(HELD), JobRow.lease_expires_at <= func.clock_timestamp())
        .with_for_update(skip_locked=True)
    )
    rows = session.scalars(expired).all()
    for row in rows:
        if row.state == JobState.CANCELLING:
            move(session, row, JobState.CANCELLED, reason="its worker died while it was being cancelled")
        elif is_exhausted(row):
            fail_exhausted(session, row)
        else:
            move(session, row, JobState.QUEUED, reason=f"lease expired: worker {row.worker} was lost")
    return len(rows)


def is_exhausted(row: JobRow) -> bool:
    """Whether as many attempts in a row as may be have landed nothing: the next would end like them."""
    return num_fruitless(row) >= row.max_attempts


def fail_exhausted(session: Session, row: JobRow) -> None:
    """End a job that kills its worker again and again without getting further."""
    told = f"killed its worker {num_fruitless(row)} times in a row without getting further"
    if row.phase is not None:
        told += f", last in phase {row.phase!r} at {row.done} of {row.total}"
    # What an earlier attempt said about itself is the best clue there is.
    row.error = f"{told}; {row.error}" if row.error else told
    move(session, row, JobState.FAILED, reason=f"{row.max_attempts} attempts in a row landed nothing")


def fail_orphans(session: Session) -> int:
    """Fail what waits for a job that did not succeed; how many."""
    dependency = aliased(JobRow)
    dead = (JobState.FAILED, JobState.CANCELLED)
    orphans = (
        select(JobRow, dependency.state)
        .join(dependency, dependency.id == JobRow.depends_on)
        .where(JobRow.state == JobState.QUEUED, dependency.state.in_(dead))
        .with_for_update(skip_locked=True, of=JobRow)
    )
    found = session.execute(orphans).all()
    for row, state in found:
        row.error = f"job {row.depends_on}, which it needs, has {_ENDED[JobState(state)]}"
        move(session, row, JobState.FAILED, reason=row.error)
    session.flush()
    return len(found)
