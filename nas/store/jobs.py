"""The job queue: rows claimed with a lease on the database's clock.

Every transition happens under a lock on the job's row and leaves an event in the same transaction.
A worker writes results only inside `leased`, which holds that lock and has checked the lease: one
that comes back from the dead finds its token gone and cannot write.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from nas.errors import ConflictError, NotFoundError
from nas.job import Job, JobKind, JobState, Progress
from nas.store.database import Database
from nas.store.ids import Prefix, new_id
from nas.store.job_recovery import fail_exhausted, fail_orphans, is_exhausted, take_back_expired
from nas.store.job_rows import (
    JobEvent,
    Lease,
    add_event,
    as_event,
    as_job,
    lock,
    lock_leased,
    move,
    note_landed,
    now,
)
from nas.store.tables import JobEventRow, JobRow

__all__ = ["JobEvent", "JobQueue", "Lease", "add_event", "as_job"]


class JobQueue:
    """Jobs as rows. Holds nothing in memory: any number of processes may use the same queue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def enqueue(
        session: Session,
        *,
        kind: JobKind,
        resource_id: str,
        spec: dict[str, Any],
        depends_on: str | None = None,
    ) -> Job:
        """A new queued job, in the caller's transaction: its resource appears with it or not at all."""
        row = JobRow(
            id=new_id(Prefix.JOB), kind=kind, resource_id=resource_id, spec=spec, depends_on=depends_on
        )
        session.add(row)
        session.flush()
        add_event(session, row.id, "state", {"state": JobState.QUEUED, "reason": None})
        return as_job(row)

    def get(self, job_id: str) -> Job:
        """The job as it stands."""
        with self._database.session() as session:
            row = session.get(JobRow, job_id)
            if row is None:
                raise NotFoundError(f"no job {job_id!r}")
            return as_job(row)

    def list(
        self,
        *,
        page_size: int,
        after: tuple[datetime, str] | None = None,
        states: Collection[JobState] | None = None,
    ) -> Sequence[Job]:
        """A page of jobs, newest first; `after` is the last one's (created_at, id)."""
        query = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(page_size)
        if after is not None:
            query = query.where(tuple_(JobRow.created_at, JobRow.id) < tuple_(*after))
        if states is not None:
            query = query.where(JobRow.state.in_(states))
        with self._database.session() as session:
            return [as_job(row) for row in session.scalars(query)]

    def ended(self, kind: JobKind, *, within_s: float | None = None) -> Sequence[Job]:
        """Jobs that may have left something behind: ended, and not at their first attempt in success.

        `within_s` looks at the last so many seconds alone.
        """
        ends = [state for state in JobState if state.is_terminal]
        left = or_(JobRow.state != JobState.SUCCEEDED, JobRow.attempt > 1)
        query = select(JobRow).where(JobRow.kind == kind, JobRow.state.in_(ends), JobRow.attempt > 0, left)
        if within_s is not None:
            query = query.where(JobRow.ended_at > func.clock_timestamp() - timedelta(seconds=within_s))
        with self._database.session() as session:
            return [as_job(row) for row in session.scalars(query)]

    def have_ended(self, kind: JobKind, resource_ids: Collection[str]) -> dict[str, JobState]:
        """How the job of each of the resources has ended; one that this database does not know has not."""
        ends = [state for state in JobState if state.is_terminal]
        query = select(JobRow.resource_id, JobRow.state).where(
            JobRow.kind == kind, JobRow.resource_id.in_(resource_ids), JobRow.state.in_(ends)
        )
        with self._database.session() as session:
            return {resource_id: JobState(state) for resource_id, state in session.execute(query)}

    def claim(self, worker: str, *, lease_s: float, kinds: Collection[JobKind] | None = None) -> Lease | None:
        """The oldest job that can start, now leased to `worker`; None when there is none."""
        with self._database.begin() as session:
            while (row := session.scalar(_claimable(kinds))) is not None:
                if not is_exhausted(row):
                    return _grant(session, row, worker=worker, lease_s=lease_s)
                fail_exhausted(session, row)
        return None

    def sweep(self) -> int:
        """Take back what dead workers held and fail what can never start; the number of jobs changed."""
        with self._database.begin() as session:
            num_changed = take_back_expired(session)
            # A job failed here may itself be waited for.
            while num_failed := fail_orphans(session):
                num_changed += num_failed
        return num_changed

    def heartbeat(
        self, lease: Lease, *, lease_s: float, progress: Progress | None = None, landed: int = 0
    ) -> JobState:
        """Renew the lease and tell how far the work is; the state, so that the worker sees `cancelling`.

        `landed` is how much of the work, in the job's own unit, a next attempt would not have to repeat.
        """
        with self._database.begin() as session:
            row = lock_leased(session, lease)
            row.lease_expires_at = now(session) + timedelta(seconds=lease_s)
            note_landed(row, landed)
            if progress is not None:
                _set_progress(session, row, progress)
            return JobState(row.state)

    @contextmanager
    def leased(self, lease: Lease) -> Iterator[Session]:
        """A transaction that owns the job: every result of a worker is written through one.

        Keep it short: heartbeats of the same job wait for it.
        """
        with self._database.begin() as session:
            lock_leased(session, lease)
            yield session

    @staticmethod
    def note_progress(lease: Lease, session: Session, progress: Progress) -> None:
        """Within `leased`: how far the work is, told with what the transaction writes."""
        _set_progress(session, session.get_one(JobRow, lease.job.id), progress)

    @staticmethod
    def land(lease: Lease, session: Session, count: int) -> None:
        """Within `leased`: the job has `count` of its units of work safe once the transaction commits."""
        note_landed(session.get_one(JobRow, lease.job.id), count)

    @staticmethod
    def lose(lease: Lease, session: Session) -> None:
        """Within `leased`: nothing that the job had landed is there any more."""
        session.get_one(JobRow, lease.job.id).landed = 0

    def succeed(self, lease: Lease, session: Session | None = None) -> JobState:
        """End the job well, within `leased` when its session is given. One being cancelled ends cancelled."""
        return self._end(lease, JobState.SUCCEEDED, session=session)

    def fail(self, lease: Lease, error: str) -> JobState:
        """End the job for a reason that trying again would not mend."""
        return self._end(lease, JobState.FAILED, error=error)

    def cancelled(self, lease: Lease) -> JobState:
        """The worker has seen the request to cancel and stopped."""
        return self._end(lease, JobState.CANCELLED)

    def release(self, lease: Lease, reason: str) -> JobState:
        """Give the job back unfinished, as a draining worker does: the attempt does not count."""
        with self._database.begin() as session:
            row = lock_leased(session, lease)
            if row.state == JobState.CANCELLING:
                move(session, row, JobState.CANCELLED, reason=reason)
            else:
                row.attempt -= 1
                # Else the attempt that takes this one's number would seem to have landed what this one did.
                row.landed_at_attempt = min(row.landed_at_attempt, row.attempt)
                move(session, row, JobState.QUEUED, reason=reason)
            return JobState(row.state)

    def note_lost(self, lease: Lease, error: str) -> None:
        """What ended this attempt, for who looks at the job; the lease runs out by itself."""
        with self._database.begin() as session:
            lock_leased(session, lease).error = error

    def request_cancel(self, job_id: str) -> Job:
        """Ask for the job to stop; asking again changes nothing. ConflictError once it has ended."""
        with self._database.begin() as session:
            row = lock(session, job_id)
            state = JobState(row.state)
            if state == JobState.QUEUED:
                move(session, row, JobState.CANCELLED, reason="cancelled before it started")
            elif state == JobState.RUNNING:
                move(session, row, JobState.CANCELLING, reason="cancel requested")
            elif state in (JobState.SUCCEEDED, JobState.FAILED):
                raise ConflictError(f"job {job_id} has {state}; only a job that goes on can be cancelled")
            session.flush()
            return as_job(row)

    def events(self, job_id: str, *, after_id: int = 0, limit: int = 100) -> Sequence[JobEvent]:
        """Events newer than `after_id`, oldest first."""
        query = (
            select(JobEventRow)
            .where(JobEventRow.job_id == job_id, JobEventRow.id > after_id)
            .order_by(JobEventRow.id)
            .limit(limit)
        )
        with self._database.session() as session:
            return [as_event(row) for row in session.scalars(query)]

    def events_of_kinds(self, job_id: str, kinds: Collection[str]) -> Sequence[JobEvent]:
        """All of the job's events of these kinds, oldest first."""
        query = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.kind.in_(kinds))
        with self._database.session() as session:
            return [as_event(row) for row in session.scalars(query.order_by(JobEventRow.id))]

    def _end(
        self, lease: Lease, target: JobState, *, error: str | None = None, session: Session | None = None
    ) -> JobState:
        with self._database.begin() if session is None else nullcontext(session) as active:
            row = lock_leased(active, lease)
            if error is not None or target is JobState.SUCCEEDED:
                row.error = error
            is_cancelling = row.state == JobState.CANCELLING
            move(active, row, JobState.CANCELLED if is_cancelling else target, reason=row.state_reason)
            return JobState(row.state)


def _claimable(kinds: Collection[JobKind] | None) -> Select[JobRow]:
    dependency = aliased(JobRow)
    is_ready = or_(
        JobRow.depends_on.is_(None),
        select(dependency.id)
        .where(dependency.id == JobRow.depends_on, dependency.state == JobState.SUCCEEDED)
        .exists(),
    )
    query = select(JobRow).where(JobRow.state == JobState.QUEUED, is_ready)
    if kinds is not None:
        query = query.where(JobRow.kind.in_(kinds))
    return query.order_by(JobRow.created_at, JobRow.id).limit(1).with_for_update(skip_locked=True, of=JobRow)


def _grant(session: Session, row: JobRow, *, worker: str, lease_s: float) -> Lease:
    moment = now(session)
    row.attempt += 1
    row.worker = worker
    row.lease_token = secrets.token_hex(16)
    row.lease_expires_at = moment + timedelta(seconds=lease_s)
    row.started_at = row.started_at or moment
    move(session, row, JobState.RUNNING, reason=None)
    session.flush()
    return Lease(as_job(row), row.lease_token)


def _set_progress(session: Session, row: JobRow, progress: Progress) -> None:
    if progress.phase != row.phase:
        add_event(session, row.id, "progress", asdict(progress))
    row.phase, row.done, row.total = progress.phase, progress.done, progress.total
    row.eta_seconds = progress.eta_seconds
