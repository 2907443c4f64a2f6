"""Supernets, their weights and their training curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from nas.job import JobKind
from nas.store.ids import Prefix, new_id
from nas.store.resources import Cursor, WithJob, create_resource, get_resource, get_row, hold, list_resources
from nas.store.tables import DatasetRow, SupernetRow, TrainingPointRow


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
    elapsed_s: float


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
) -> WithJob[SupernetRow]:
    """A supernet to be trained; its job waits for the data set's import."""
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
    )
    return create_resource(session, row, kind=JobKind.TRAIN, spec=spec, depends_on=importing.id)


def get(session: Session, supernet_id: str) -> WithJob[SupernetRow]:
    """The supernet and its job."""
    return get_resource(session, SupernetRow, supernet_id, noun="supernet")


def list(session: Session, *, page_size: int, after: Cursor | None = None) -> Sequence[WithJob[SupernetRow]]:
    """A page of supernets, newest first."""
    return list_resources(session, SupernetRow, page_size=page_size, after=after)


def set_recipe(session: Session, supernet_id: str, recipe: dict[str, Any]) -> None:
    """The recipe with every default filled in, as the training resolved it."""
    get_row(session, SupernetRow, supernet_id, noun="supernet").recipe = recipe
    session.flush()


def set_weights(
    session: Session, supernet_id: str, *, checkpoint: str, weights_uri: str, calibration: str
) -> None:
    """The final weights: what every measurement of this supernet is made with from now on."""
    row = get_row(session, SupernetRow, supernet_id, noun="supernet")
    row.checkpoint = checkpoint
    row.weights_uri = weights_uri
    row.calibration = calibration
    session.flush()


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
