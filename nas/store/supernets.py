"""Supernets, their weights and their training curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from nas.errors import NotFoundError
from nas.job import JobKind
from nas.recipes import recipe_from_json
from nas.store import uploads
from nas.store.artifacts import Artifact, ArtifactStore
from nas.store.ids import Prefix, new_id
from nas.store.resources import Cursor, WithJob, create_resource, get_resource, get_row, hold, list_resources
from nas.store.tables import DatasetRow, JobRow, SupernetRow, TrainingPointRow
from nas.weights_file import SUPERNET_FILE, WeightsDescription


@dataclass(frozen=True, kw_only=True)
class TrainingPoint:
    """Where training stood at the end of an epoch."""

    epoch: int
    step: int
    images_seen: int
    train_loss: float
    learning_rate: float
    accuracy_val_largest: float | None = None
    """A probe on `num_images_val` images during training; None when this epoch had none."""
    accuracy_val_smallest: float | None = None
    num_images_val: int | None = None
    strategies: dict[str, Any] = field(default_factory=dict)
    """What the strategies that learn had come to, by their names."""
    elapsed_s: float


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """The weights that a training is to begin from: those of another supernet, or a file that was sent."""

    supernet_id: str | None = None
    upload_id: str | None = None
    sha256: str | None
    """Of the weights' file; None where only a worker can read it, which then sets it."""


def create(
    session: Session,
    *,
    display_name: str,
    labels: dict[str, str],
    dataset_id: str,
    search_space: str,
    recipe: dict[str, Any],
    seed: int,
    num_workers: int,
    spec: dict[str, Any],
    warm_start: WarmStart | None = None,
    num_probes: int = 0,
) -> WithJob[SupernetRow]:
    """A supernet to be trained; its job waits for the data set's import."""
    if warm_start is not None:
        _hold_source(session, warm_start)
    importing = hold(session, DatasetRow, dataset_id, noun="data set").job
    row = SupernetRow(
        id=new_id(Prefix.SUPERNET),
        display_name=display_name,
        labels=labels,
        dataset_id=dataset_id,
        search_space=search_space,
        recipe=recipe,
        seed=seed,
        num_workers=num_workers,
        num_probes=num_probes,
        warm_start_supernet_id=warm_start and warm_start.supernet_id,
        warm_start_upload_id=warm_start and warm_start.upload_id,
        warm_start_sha256=warm_start and warm_start.sha256,
    )
    return create_resource(session, row, kind=JobKind.TRAIN, spec=spec, depends_on=importing.id)


def get(session: Session, supernet_id: str) -> WithJob[SupernetRow]:
    """The supernet and its job."""
    return get_resource(session, SupernetRow, supernet_id, noun="supernet")


@dataclass(frozen=True, kw_only=True)
class TrainedSpace:
    """A space that has a trained supernet, and for what images."""

    search_space: str
    num_classes: int
    in_channels: int


def trained_spaces(session: Session, *, limit: int) -> Sequence[TrainedSpace]:
    """Those of supernets with their final weights, the one that was asked for last first."""
    columns = (SupernetRow.search_space, DatasetRow.num_classes, DatasetRow.in_channels)
    query = (
        select(*columns)
        .join(DatasetRow, DatasetRow.id == SupernetRow.dataset_id)
        .where(SupernetRow.checkpoint.is_not(None), DatasetRow.num_classes.is_not(None))
        .group_by(*columns)
        .order_by(func.max(SupernetRow.created_at).desc())
        .limit(limit)
    )
    return [
        TrainedSpace(search_space=name, num_classes=num_classes or 0, in_channels=in_channels or 0)
        for name, num_classes, in_channels in session.execute(query)
    ]


def list(session: Session, *, page_size: int, after: Cursor | None = None) -> Sequence[WithJob[SupernetRow]]:
    """A page of supernets, newest first."""
    return list_resources(session, SupernetRow, page_size=page_size, after=after)


def set_recipe(session: Session, supernet_id: str, recipe: dict[str, Any]) -> None:
    """The recipe with every default filled in, as the training resolved it."""
    get_row(session, SupernetRow, supernet_id, noun="supernet").recipe = recipe
    session.flush()


def set_resume_departures(session: Session, supernet_id: str, departures: Sequence[str]) -> None:
    """What differed whenever its training went on after a stop."""
    get_row(session, SupernetRow, supernet_id, noun="supernet").resume_departures = [*departures]
    session.flush()


def set_rollbacks(
    session: Session, supernet_id: str, rollbacks: Sequence[dict[str, Any]]
) -> Sequence[dict[str, Any]]:
    """Every return of its training to an earlier state; those that were not known yet.

    Probes that were flat before it may rise again.
    """
    row = get_row(session, SupernetRow, supernet_id, noun="supernet")
    news = rollbacks[len(row.rollbacks) :]
    if news:
        row.rollbacks = [*rollbacks]
        row.probes_flat_at_epoch = None
        session.flush()
    return news


def set_weights(
    session: Session, supernet_id: str, *, checkpoint: str, weights_uri: str, calibration: str
) -> None:
    """The final weights: what every measurement of this supernet is made with from now on."""
    row = get_row(session, SupernetRow, supernet_id, noun="supernet")
    row.checkpoint = checkpoint
    row.weights_uri = weights_uri
    row.calibration = calibration
    session.flush()


def set_warm_start_sha256(session: Session, supernet_id: str, sha256: str) -> None:
    """Which weights the training began from, once a worker has read them."""
    get_row(session, SupernetRow, supernet_id, noun="supernet").warm_start_sha256 = sha256
    session.flush()


def has_checkpoint(session: Session, found: WithJob[SupernetRow]) -> bool:
    """Whether training came as far as its first checkpoint."""
    return session.get_one(JobRow, found.job.id).landed > 0


def describe_weights(session: Session, row: SupernetRow) -> WeightsDescription:
    """What the supernet's weights are of, its training having begun."""
    images = get_row(session, DatasetRow, row.dataset_id, noun="data set")
    # Nothing is trained before its images are imported.
    assert images.in_channels is not None
    assert images.class_names is not None
    assert images.fingerprint is not None
    # A training of before recipes were resolved at creation may have been cancelled with its overrides alone.
    recipe = recipe_from_json(row.recipe)
    return WeightsDescription(
        search_space=row.search_space,
        # Rows do not tell; whoever loads the weights compares them with the space.
        space_fingerprint=None,
        in_channels=images.in_channels,
        class_names=tuple(images.class_names),
        kernel_transform=recipe.kernel_transform,
        data_fingerprint=images.fingerprint,
        recipe=recipe.name.value,
    )


def artifacts(session: Session, supernet_id: str, store: ArtifactStore) -> Sequence[Artifact]:
    """The file of the final weights; none before training ends. Its SHA-256 names the checkpoint."""
    row = get_row(session, SupernetRow, supernet_id, noun="supernet")
    if row.weights_uri is None or row.checkpoint is None:
        return []
    weights = Artifact(
        name=SUPERNET_FILE,
        # Asked of the store, for rows of before this was a download tell only the rest.
        size_bytes=store.size_bytes(row.weights_uri),
        sha256=row.checkpoint,
        media_type="application/octet-stream",
        uri=row.weights_uri,
    )
    return [weights]


def artifact(session: Session, supernet_id: str, name: str, store: ArtifactStore) -> Artifact:
    """One file of the supernet."""
    for found in artifacts(session, supernet_id, store):
        if found.name == name:
            return found
    raise NotFoundError(f"supernet {supernet_id!r} has no artefact {name!r}; it has {SUPERNET_FILE!r}")


def published_uris(session: Session, supernet_id: str) -> set[str]:
    """Where the weights' bytes lie; empty before training ends."""
    uri = get_row(session, SupernetRow, supernet_id, noun="supernet").weights_uri
    return set() if uri is None else {uri}


def record_point(session: Session, supernet_id: str, point: TrainingPoint) -> None:
    """Add a point to the curves; an epoch trained again after a resume replaces its own."""
    values = asdict(point)
    statement = insert(TrainingPointRow).values(supernet_id=supernet_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["supernet_id", "epoch"], set_=values))


def curve(session: Session, supernet_id: str) -> Sequence[TrainingPoint]:
    """Every point of the supernet's training, in order."""
    columns = [column for column in TrainingPointRow.__table__.columns if column.name != "supernet_id"]
    query = select(*columns).where(TrainingPointRow.supernet_id == supernet_id)
    rows = session.execute(query.order_by(TrainingPointRow.epoch)).mappings()
    return [TrainingPoint(**row) for row in rows]


def _hold_source(session: Session, warm_start: WarmStart) -> None:
    if warm_start.supernet_id is not None:
        hold(session, SupernetRow, warm_start.supernet_id, noun="supernet")
    if warm_start.upload_id is not None:
        uploads.hold(session, warm_start.upload_id)
