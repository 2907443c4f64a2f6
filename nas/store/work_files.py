"""Work files: what a probe is to measure, made by a worker and kept in the artefact store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nas.job import JobKind
from nas.store.artifacts import Artifact, StoredArtifact
from nas.store.ids import Prefix, new_id
from nas.store.resources import Cursor, WithJob, create_resource, get_resource, get_row, list_resources
from nas.store.tables import WorkFileRow

NAME = "work.zip"
MEDIA_TYPE = "application/zip"
_NOUN = "work file"


@dataclass(frozen=True, kw_only=True)
class WorkPlan:
    """What is to be in a work file."""

    search_space: str
    num_classes: int
    in_channels: int
    batch: int
    num_networks: int
    max_blocks: int
    seed: int
    architectures: Sequence[dict[str, Any]] = ()
    """Networks that are to be in it beside the `num_networks` drawn ones."""


def create(
    session: Session, plan: WorkPlan, *, display_name: str, labels: dict[str, str], spec: dict[str, Any]
) -> WithJob[WorkFileRow]:
    """A work file to be made."""
    row = WorkFileRow(id=new_id(Prefix.WORK_FILE), display_name=display_name, labels=labels, **_columns(plan))
    return create_resource(session, row, kind=JobKind.MAKE_WORK_FILE, spec=spec)


def get(session: Session, work_file_id: str) -> WithJob[WorkFileRow]:
    """The work file and its job."""
    return get_resource(session, WorkFileRow, work_file_id, noun=_NOUN)


def list(session: Session, *, page_size: int, after: Cursor | None = None) -> Sequence[WithJob[WorkFileRow]]:
    """A page of work files, newest first."""
    return list_resources(session, WorkFileRow, page_size=page_size, after=after)


def publish(
    session: Session, work_file_id: str, stored: StoredArtifact, *, num_blocks: int, num_blocks_of_space: int
) -> None:
    """It is made, and there."""
    row = get_row(session, WorkFileRow, work_file_id, noun=_NOUN)
    row.uri, row.size_bytes, row.sha256 = stored.uri, stored.size_bytes, stored.sha256
    row.num_blocks, row.num_blocks_of_space = num_blocks, num_blocks_of_space
    session.flush()


def artifact(row: WorkFileRow) -> Artifact | None:
    """Its bytes; None until it is made."""
    if row.uri is None or row.size_bytes is None or row.sha256 is None:
        return None
    return Artifact(
        name=NAME, size_bytes=row.size_bytes, sha256=row.sha256, media_type=MEDIA_TYPE, uri=row.uri
    )


def published_uris(session: Session, work_file_id: str) -> set[str]:
    """Where its bytes lie, as far as a row says."""
    uris = session.scalars(select(WorkFileRow.uri).where(WorkFileRow.id == work_file_id))
    return {uri for uri in uris if uri is not None}


def _columns(plan: WorkPlan) -> dict[str, Any]:
    return {**asdict(plan), "architectures": [*plan.architectures]}


def plan_of(row: WorkFileRow) -> WorkPlan:
    """The row's plan."""
    return WorkPlan(**{name: getattr(row, name) for name in WorkPlan.__dataclass_fields__})


def folder_of(work_file_id: str) -> str:
    """Where its bytes lie in the artefact store."""
    return f"work-files/{work_file_id}"
