"""Data sets: registered by the API, filled in by the import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from nas.errors import NotFoundError
from nas.job import JobKind
from nas.store.artifacts import Artifact
from nas.store.ids import Prefix, new_id
from nas.store.resources import Cursor, WithJob, create_resource, get_resource, get_row, list_resources
from nas.store.tables import DatasetFileRow, DatasetRow


@dataclass(frozen=True, kw_only=True)
class DatasetContents:
    """What the import found in the images."""

    fingerprint: str
    fingerprint_format: int
    """Of `supernet.data`: fingerprints of different formats say nothing of each other."""
    num_classes: int
    in_channels: int
    image_height: int
    image_width: int
    class_names: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    num_train: int
    num_calibration: int
    num_val: int
    num_test: int
    num_unreadable: int
    """Images of the source that could not be read and were left out."""
    stored_rule: str
    """How the images were brought to one shape, in words."""
    given_splits: Sequence[str]
    """Splits that the source itself has; the others were drawn from its train split."""


def create(
    session: Session,
    *,
    display_name: str,
    labels: dict[str, str],
    source: dict[str, Any],
    spec: dict[str, Any],
) -> WithJob[DatasetRow]:
    """A data set to be imported, and the job that will."""
    row = DatasetRow(id=new_id(Prefix.DATASET), display_name=display_name, labels=labels, source=source)
    return create_resource(session, row, kind=JobKind.IMPORT_DATASET, spec=spec)


def get(session: Session, dataset_id: str) -> WithJob[DatasetRow]:
    """The data set and its job."""
    return get_resource(session, DatasetRow, dataset_id, noun="data set")


def list(session: Session, *, page_size: int, after: Cursor | None = None) -> Sequence[WithJob[DatasetRow]]:
    """A page of data sets, newest first."""
    return list_resources(session, DatasetRow, page_size=page_size, after=after)


def set_contents(session: Session, dataset_id: str, contents: DatasetContents) -> None:
    """What the import found; imported again, it is replaced."""
    row = get_row(session, DatasetRow, dataset_id, noun="data set")
    row.fingerprint = contents.fingerprint
    row.fingerprint_format = contents.fingerprint_format
    row.num_classes = contents.num_classes
    row.in_channels = contents.in_channels
    row.image_height, row.image_width = contents.image_height, contents.image_width
    row.class_names = [*contents.class_names]
    row.mean, row.std = [*contents.mean], [*contents.std]
    row.num_train, row.num_calibration = contents.num_train, contents.num_calibration
    row.num_val, row.num_test = contents.num_val, contents.num_test
    row.num_unreadable, row.stored_rule = contents.num_unreadable, contents.stored_rule
    row.given_splits = [*contents.given_splits]
    session.flush()


def set_files(session: Session, dataset_id: str, files: Sequence[Artifact]) -> None:
    """The splits as files, in place of those there were."""
    session.execute(delete(DatasetFileRow).where(DatasetFileRow.dataset_id == dataset_id))
    if files:
        session.execute(insert(DatasetFileRow), [{"dataset_id": dataset_id, **asdict(f)} for f in files])


def files(session: Session, dataset_id: str) -> Sequence[Artifact]:
    """The splits as files, by name; none before the import has ended."""
    query = select(DatasetFileRow).where(DatasetFileRow.dataset_id == dataset_id)
    return [_as_artifact(row) for row in session.scalars(query.order_by(DatasetFileRow.name))]


def file(session: Session, dataset_id: str, name: str) -> Artifact:
    """One split as a file."""
    row = session.get(DatasetFileRow, (dataset_id, name))
    if row is None:
        allowed = (
            ", ".join(repr(found.name) for found in files(session, dataset_id))
            or "none (register the images again)"
        )
        raise NotFoundError(f"data set {dataset_id!r} has no file {name!r}; its files: {allowed}")
    return _as_artifact(row)


def published_uris(session: Session, dataset_id: str) -> set[str]:
    """Where the files' bytes lie."""
    return {found.uri for found in files(session, dataset_id)}


def _as_artifact(row: DatasetFileRow) -> Artifact:
    return Artifact(
        name=row.name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        media_type=row.media_type,
        uri=row.uri,
    )


def set_report(session: Session, dataset_id: str, report: dict[str, Any]) -> None:
    """What the import saw of the images, whether or not it could take them in."""
    get_row(session, DatasetRow, dataset_id, noun="data set").report = report
    session.flush()


def fingerprints(session: Session) -> set[str]:
    """Of all data sets that are imported."""
    found = session.scalars(select(DatasetRow.fingerprint).where(DatasetRow.fingerprint.is_not(None)))
    return {fingerprint for fingerprint in found if fingerprint is not None}
