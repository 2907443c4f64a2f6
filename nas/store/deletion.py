"""What may be deleted, and what goes with it: the rules for every kind of resource.

A resource goes once its job has ended and no other resource refers to it. Its job with its events goes too,
and so do the rows that are nothing without it. Evaluations belong to the supernet, whatever made
them. Bytes go after the commit, by the note that it leaves (see `discards`).

Locks are taken on the job first, then on the resource, here as in `resources.hold`: what is about to refer
to a resource and what is about to delete it wait for each other, and one of them finds the other's work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg.errors import ForeignKeyViolation
from sqlalchemy import ColumnElement, and_, delete, func, or_, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nas.errors import ConflictError, NotFoundError
from nas.job import JobState
from nas.store import discards
from nas.store.job_rows import lock
from nas.store.tables import (
    ArtifactRow,
    Base,
    DatasetFileRow,
    DatasetRow,
    DeviceRow,
    EvaluationBatchRow,
    EvaluationItemRow,
    EvaluationRow,
    JobEventRow,
    JobRow,
    LatencyTableRow,
    MeasuredNetworkRow,
    MeasurementsRow,
    ProbeNetworkRow,
    ProbeResultRow,
    ResourceRow,
    SearchRoundRow,
    SearchRow,
    SubnetRow,
    SupernetRow,
    TrainingPointRow,
    TrialRow,
    UploadRow,
    VerificationRow,
    VerificationRunRow,
    VerifiedNetworkRow,
    WorkFileRow,
)

MAX_LISTED = 100
"""As many users are named when a deletion is refused; all are counted."""

_LONGEST_S = 600
"""A supernet may have a million evaluations."""


@dataclass(frozen=True, kw_only=True)
class ResourceKind:
    """One kind of resource: its names, its table, and what is a part of it."""

    name: str
    """As answers name the kind."""
    noun: str
    """As messages do."""
    collection: str
    """Its place in paths, and in the artefact store."""
    model: type[ResourceRow] | type[UploadRow] | type[DeviceRow]
    parts: tuple[type[Base], ...] = ()
    """Tables whose rows are nothing without it, in the order in which they can go."""
    owns: tuple[ResourceKind, ...] = ()
    """Kinds of resources that are nothing without it: they do not keep it, and go with it once they may."""


DATASET = ResourceKind(
    name="dataset",
    noun="data set",
    collection="datasets",
    model=DatasetRow,
    parts=(DatasetFileRow,),
)
SUPERNET = ResourceKind(
    name="supernet",
    noun="supernet",
    collection="supernets",
    model=SupernetRow,
    parts=(EvaluationRow, TrainingPointRow, ProbeResultRow, ProbeNetworkRow),
)
SEARCH = ResourceKind(
    name="search",
    noun="search",
    collection="searches",
    model=SearchRow,
    parts=(TrialRow, SearchRoundRow),
)
SUBNET = ResourceKind(
    name="subnet", noun="subnet", collection="subnets", model=SubnetRow, parts=(ArtifactRow,)
)
EVALUATION_BATCH = ResourceKind(
    name="evaluation_batch",
    noun="evaluation batch",
    collection="evaluation-batches",
    model=EvaluationBatchRow,
    parts=(EvaluationItemRow,),
)
VERIFICATION = ResourceKind(
    name="verification",
    noun="verification",
    collection="verifications",
    model=VerificationRow,
    parts=(VerificationRunRow, VerifiedNetworkRow),
)
UPLOAD = ResourceKind(name="upload", noun="upload", collection="uploads", model=UploadRow)
WORK_FILE = ResourceKind(name="work_file", noun="work file", collection="work-files", model=WorkFileRow)
MEASUREMENTS = ResourceKind(
    name="measurements",
    noun="measurements",
    collection="measurements",
    model=MeasurementsRow,
    parts=(MeasuredNetworkRow,),
)
DEVICE = ResourceKind(
    name="device",
    noun="device",
    collection="devices",
    model=DeviceRow,
    parts=(LatencyTableRow,),
    owns=(MEASUREMENTS,),
)

KINDS = (
    DATASET,
    SUPERNET,
    SEARCH,
    SUBNET,
    EVALUATION_BATCH,
    VERIFICATION,
    UPLOAD,
    WORK_FILE,
    MEASUREMENTS,
    DEVICE,
)


@dataclass(frozen=True, kw_only=True)
class User:
    """A resource that refers to another."""

    kind: str
    id: str
    display_name: str


class ResourceInUseError(ConflictError):
    """Other resources refer to it; `used_by` holds the first of them, `num_users` counts them all."""

    def __init__(self, message: str, *, used_by: Sequence[User], num_users: int) -> None:
        super().__init__(message)
        self.used_by = tuple(used_by)
        self.num_users = num_users


def delete_resource(session: Session, kind: ResourceKind, resource_id: str) -> None:
    """Delete the resource and what goes with it; its bytes once the transaction commits.

    NotFoundError if it does not exist, ConflictError while its job goes on, ResourceInUseError where another
    resource refers to it.
    """
    session.execute(text(f"SET LOCAL statement_timeout = '{_LONGEST_S}s'"))
    row = session.get(kind.model, resource_id)
    if row is None:
        raise NotFoundError(f"no {kind.noun} {resource_id!r}")
    job_id = row.job_id if isinstance(row, ResourceRow) else None
    if job_id is not None:
        _check_ended(lock(session, job_id), kind, resource_id)
    if session.get(kind.model, resource_id, with_for_update=True, populate_existing=True) is None:
        raise NotFoundError(f"no {kind.noun} {resource_id!r}")
    _check_unused(session, kind, resource_id)
    for owned in kind.owns:
        for owned_id in _owned(session, kind, resource_id, owned):
            delete_resource(session, owned, owned_id)
    discards.discard(session, folder_of(kind, resource_id))
    try:
        _delete_rows(session, kind, resource_id, job_id)
    except IntegrityError as error:
        if not isinstance(error.orig, ForeignKeyViolation):
            raise
        # A table that the rules above do not know: refusing is right whatever it means.
        message = f"{kind.noun} {resource_id} is in use: {error.orig.diag.message_detail}"
        raise ResourceInUseError(message, used_by=(), num_users=1) from error


def folder_of(kind: ResourceKind, resource_id: str) -> str:
    """Where the resource's bytes lie in the artefact store, if it has any."""
    return f"{kind.collection}/{resource_id}"


def _check_ended(job: JobRow, kind: ResourceKind, resource_id: str) -> None:
    state = JobState(job.state)
    if not state.is_terminal:
        raise ConflictError(
            f"{kind.noun} {resource_id} is {state}; cancel its job or wait for its end, then delete it"
        )


def _check_unused(session: Session, kind: ResourceKind, resource_id: str) -> None:
    users, num_users = [], 0
    for user_kind, refers in _users(kind, resource_id):
        model = user_kind.model
        assert not issubclass(model, DeviceRow), "a device refers to nothing"
        num_users += session.execute(select(func.count()).select_from(model).where(refers)).scalar_one()
        found = select(model.id, model.display_name).where(refers).order_by(model.created_at, model.id)
        users += [
            User(kind=user_kind.name, id=user_id, display_name=name)
            for user_id, name in session.execute(found.limit(MAX_LISTED))
        ]
    if users:
        shown = users[:3]
        listed = ", ".join(f"{user.kind} {user.id}" for user in shown)
        more = f" and {num_users - len(shown)} more" if num_users > len(shown) else ""
        raise ResourceInUseError(
            f"{kind.noun} {resource_id} is used by {listed}{more}; delete what uses it first",
            used_by=users[:MAX_LISTED],
            num_users=num_users,
        )


def _users(kind: ResourceKind, resource_id: str) -> Iterator[tuple[ResourceKind, ColumnElement[bool]]]:
    """The kinds that can refer to the resource, each with the condition that a row of it does.

    Read off the tables' foreign keys: a column added to refer to a resource protects it without a word here,
    for ever, or until the row's job has ended where deletion may null it.
    """
    for user_kind in KINDS:
        if user_kind in kind.owns:
            continue
        columns = _references(user_kind.model, kind.model)
        if columns:
            yield user_kind, or_(*(_needs(user_kind.model, column, resource_id) for column in columns))


def _owned(session: Session, kind: ResourceKind, resource_id: str, owned: ResourceKind) -> Sequence[str]:
    (owner,) = _references(owned.model, kind.model)
    return session.scalars(select(owned.model.id).where(owner == resource_id)).all()


def _needs(
    model: type[ResourceRow] | type[UploadRow] | type[DeviceRow], column: ColumnElement[str], resource_id: str
) -> ColumnElement[bool]:
    """The condition that a row refers to the resource and still needs it.

    A reference that deletion may null is what a job begins from: it is needed until the job has ended.
    """
    refers = column == resource_id
    if not _may_be_nulled(column) or not issubclass(model, ResourceRow):
        return refers
    ends = [state for state in JobState if state.is_terminal]
    goes_on = select(JobRow.id).where(JobRow.id == model.job_id, JobRow.state.not_in(ends))
    return and_(refers, goes_on.exists())


def _may_be_nulled(column: ColumnElement[str]) -> bool:
    return any(key.ondelete == "SET NULL" for key in column.foreign_keys)


def _references(model: type[Base], target: type[Base]) -> list[ColumnElement[str]]:
    return [column for column in model.__table__.columns if column.references(target.__table__.c.id)]


def _delete_rows(session: Session, kind: ResourceKind, resource_id: str, job_id: str | None) -> None:
    for part in kind.parts:
        (owner,) = _references(part, kind.model)
        session.execute(delete(part).where(owner == resource_id), execution_options=_UNSYNCHRONISED)
    session.execute(delete(kind.model).where(kind.model.id == resource_id), execution_options=_UNSYNCHRONISED)
    if job_id is not None:
        for model, column in ((JobEventRow, JobEventRow.job_id), (JobRow, JobRow.id)):
            session.execute(delete(model).where(column == job_id), execution_options=_UNSYNCHRONISED)
    session.expire_all()


_UNSYNCHRONISED = {"synchronize_session": False}
"""Nothing is read again in this session, and matching a million rows in memory would take minutes."""
