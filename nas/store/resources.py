"""What the resources share: each is one row and the job that makes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.orm import Session

from nas.errors import ConflictError, NotFoundError
from nas.job import Job, JobKind, JobState
from nas.store.job_rows import lock
from nas.store.jobs import JobQueue, as_job
from nas.store.tables import (
    DatasetRow,
    EvaluationBatchRow,
    JobRow,
    MeasurementsRow,
    ResourceRow,
    SearchRow,
    SubnetRow,
    SupernetRow,
    VerificationRow,
    WorkFileRow,
)

R = TypeVar("R", bound=ResourceRow)

_MADE_BY: Mapping[JobKind, type[ResourceRow]] = {
    JobKind.IMPORT_DATASET: DatasetRow,
    JobKind.TRAIN: SupernetRow,
    JobKind.SEARCH: SearchRow,
    JobKind.SPECIALISE: SubnetRow,
    JobKind.EVALUATE: EvaluationBatchRow,
    JobKind.VERIFY: VerificationRow,
    JobKind.MAKE_WORK_FILE: WorkFileRow,
    JobKind.FIT_LATENCY: MeasurementsRow,
}

Cursor = tuple[datetime, str]
"""Where a page ended: the last resource's `created_at` and `id`."""


@dataclass(frozen=True)
class WithJob(Generic[R]):
    """A resource as read: its own columns, and its job."""

    row: R
    job: Job

    @property
    def cursor(self) -> Cursor:
        """What to pass as `after` for the page that begins behind this resource."""
        return self.row.created_at, self.row.id


def create_resource(
    session: Session, row: R, *, kind: JobKind, spec: dict[str, Any], depends_on: str | None = None
) -> WithJob[R]:
    """The new resource and the job that will make it, which waits for the job `depends_on`."""
    job = JobQueue.enqueue(session, kind=kind, resource_id=row.id, spec=spec, depends_on=depends_on)
    row.job_id = job.id
    session.add(row)
    session.flush()
    return WithJob(row, job)


def get_resource(session: Session, model: type[R], resource_id: str, *, noun: str) -> WithJob[R]:
    """The resource and its job; NotFoundError names what is missing."""
    found = session.execute(
        select(model, JobRow).join(JobRow, JobRow.id == model.job_id).where(model.id == resource_id)
    ).first()
    if found is None:
        raise NotFoundError(f"no {noun} {resource_id!r}; list those there are")
    return WithJob(found[0], as_job(found[1]))


def get_row(session: Session, model: type[R], resource_id: str, *, noun: str) -> R:
    """The resource's row alone, for changing it."""
    row = session.get(model, resource_id)
    if row is None:
        raise NotFoundError(f"no {noun} {resource_id!r}; list those there are")
    return row


def hold(session: Session, model: type[R], resource_id: str, *, noun: str) -> WithJob[R]:
    """The resource and its job, neither of which can be deleted until the transaction ends.

    For what is about to refer to it: else it could go between the look and the reference.
    """
    found = get_resource(session, model, resource_id, noun=noun)
    # The job first, as deletion does: two that lock in another order could wait for each other for ever.
    for held, row_id in ((JobRow, found.job.id), (model, resource_id)):
        query = select(held.id).where(held.id == row_id).with_for_update(read=True, key_share=True)
        if session.scalar(query) is None:
            raise NotFoundError(f"no {noun} {resource_id!r}; list those there are")
    return found


@dataclass(frozen=True)
class Names:
    """What a user calls a resource."""

    display_name: str
    labels: dict[str, str]


def names_of(session: Session, jobs: Collection[Job]) -> dict[str, Names]:
    """The names of the resources that these jobs make, by job; those deleted meanwhile are left out."""
    found: dict[str, Names] = {}
    for kind in {job.kind for job in jobs}:
        model = _MADE_BY[kind]
        query = select(model.job_id, model.display_name, model.labels).where(
            model.job_id.in_([job.id for job in jobs if job.kind is kind])
        )
        found |= {job_id: Names(name, labels) for job_id, name, labels in session.execute(query)}
    return found


def rename(
    session: Session, model: type[R], resource_id: str, changes: Mapping[str, Any], *, noun: str
) -> None:
    """Set `display_name` or `labels`, or both; ConflictError once the job has ended: the end is final."""
    found = get_resource(session, model, resource_id, noun=noun)
    # Under lock, so that the job does not end meanwhile.
    state = JobState(lock(session, found.job.id).state)
    if state.is_terminal:
        raise ConflictError(f"{noun} {resource_id} has {state}, and is final; names are given before the end")
    for name in ("display_name", "labels"):
        if name in changes:
            setattr(found.row, name, changes[name])
    session.flush()


def list_resources(
    session: Session,
    model: type[R],
    *,
    page_size: int,
    after: Cursor | None = None,
    where: Sequence[ColumnElement[bool]] = (),
) -> list[WithJob[R]]:
    """A page, newest first. Keyset pagination: a page costs the same however deep it lies."""
    query = select(model, JobRow).join(JobRow, JobRow.id == model.job_id).where(*where)
    if after is not None:
        query = query.where(tuple_(model.created_at, model.id) < tuple_(*after))
    query = query.order_by(model.created_at.desc(), model.id.desc()).limit(page_size)
    return [WithJob(row, as_job(job)) for row, job in session.execute(query)]
