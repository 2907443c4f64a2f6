"""What was measured: each network once for a checkpoint, a split and a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from nas.architecture import Architecture
from nas.errors import InvalidRequestError, NotFoundError
from nas.store.tables import EvaluationRow
from nas.trial import Evaluation, Split

_BOUNDED: dict[str, InstrumentedAttribute[int]] = {
    "max_macs": EvaluationRow.macs,
    "max_params": EvaluationRow.params,
    "max_size_bytes": EvaluationRow.size_bytes,
    "max_peak_activation_bytes": EvaluationRow.peak_activation_bytes,
}

_FRONTIER_COLUMNS: dict[str, InstrumentedAttribute[int]] = {
    "evaluation_id": EvaluationRow.id,
    "num_correct": EvaluationRow.num_correct,
    "num_images": EvaluationRow.num_images,
    "macs": EvaluationRow.macs,
    "params": EvaluationRow.params,
    "size_bytes": EvaluationRow.size_bytes,
    "peak_activation_bytes": EvaluationRow.peak_activation_bytes,
}

IntColumn = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EvaluationColumns:
    """Evaluations as columns of equal length, cheapest in MACs first: what a frontier is computed on."""

    evaluation_id: IntColumn
    num_correct: IntColumn
    num_images: IntColumn
    macs: IntColumn
    params: IntColumn
    size_bytes: IntColumn
    peak_activation_bytes: IntColumn

    def __len__(self) -> int:
        return len(self.evaluation_id)

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """Fraction of images classified rightly."""
        return self.num_correct / self.num_images


def record(
    session: Session, supernet_id: str, evaluation: Evaluation, costs: Mapping[str, int]
) -> tuple[int, bool]:
    """The evaluation's id, and whether it is new: one already recorded stands as it was first written."""
    values = _values(supernet_id, evaluation, costs)
    inserted = session.scalar(
        insert(EvaluationRow)
        .values(values)
        .on_conflict_do_nothing(constraint="uq_evaluations_identity")
        .returning(EvaluationRow.id)
    )
    if inserted is not None:
        return inserted, True
    identity = _is_measured_as(supernet_id, evaluation.checkpoint, evaluation.split)
    existing = session.execute(
        select(EvaluationRow.id).where(
            *identity,
            EvaluationRow.architecture_key == evaluation.architecture.key,
            EvaluationRow.num_images == evaluation.num_images,
            EvaluationRow.calibration == evaluation.calibration,
        )
    )
    return existing.scalar_one(), False


def get(session: Session, evaluation_id: int) -> EvaluationRow:
    """One evaluation, whole."""
    row = session.get(EvaluationRow, evaluation_id)
    if row is None:
        raise NotFoundError(f"no evaluation {evaluation_id}")
    return row


def get_many(session: Session, evaluation_ids: list[int]) -> list[EvaluationRow]:
    """Evaluations in the order of the ids given."""
    query = select(EvaluationRow).where(EvaluationRow.id.in_(evaluation_ids))
    rows = {row.id: row for row in session.scalars(query)}
    if missing := [evaluation_id for evaluation_id in evaluation_ids if evaluation_id not in rows]:
        raise NotFoundError(f"no evaluation {missing[0]}")
    return [rows[evaluation_id] for evaluation_id in evaluation_ids]


def find(
    session: Session,
    supernet_id: str,
    architecture_key: str,
    *,
    checkpoint: str,
    split: Split,
    num_images: int,
    calibration: str,
) -> EvaluationRow | None:
    """The evaluation of one network measured in exactly this way."""
    return session.scalar(
        select(EvaluationRow).where(
            *_is_measured_as(supernet_id, checkpoint, split),
            EvaluationRow.architecture_key == architecture_key,
            EvaluationRow.num_images == num_images,
            EvaluationRow.calibration == calibration,
        )
    )


def known(
    session: Session,
    supernet_id: str,
    *,
    checkpoint: str,
    split: Split,
    num_images: int,
    calibration: str,
) -> dict[str, EvaluationRow]:
    """Everything measured in exactly this way, by architecture key."""
    query = (
        select(EvaluationRow)
        .where(
            *_is_measured_as(supernet_id, checkpoint, split),
            EvaluationRow.num_images == num_images,
            EvaluationRow.calibration == calibration,
        )
        .order_by(EvaluationRow.id)
    )
    return {row.architecture_key: row for row in session.scalars(query)}


def frontier_rows(
    session: Session,
    supernet_id: str,
    checkpoint: str,
    *,
    split: Split = Split.VAL,
    bounds: Mapping[str, int] | None = None,
    num_images: int | None = None,
    calibration: str | None = None,
) -> EvaluationColumns:
    """The evaluations within `bounds` (`max_macs`, …) as columns.

    Accuracies on different images do not compare: give `num_images` and `calibration` where a
    supernet has been measured in more than one way.
    """
    conditions = _is_measured_as(supernet_id, checkpoint, split)
    conditions += [_bound(name, bound) for name, bound in (bounds or {}).items()]
    if num_images is not None:
        conditions.append(EvaluationRow.num_images == num_images)
    if calibration is not None:
        conditions.append(EvaluationRow.calibration == calibration)
    query = select(*_FRONTIER_COLUMNS.values()).where(*conditions)
    rows = session.execute(query.order_by(EvaluationRow.macs, EvaluationRow.id)).all()
    table = np.array([tuple(row) for row in rows], dtype=np.int64).reshape(-1, len(_FRONTIER_COLUMNS))
    return EvaluationColumns(**{name: table[:, i] for i, name in enumerate(_FRONTIER_COLUMNS)})


def as_evaluation(row: EvaluationRow, architecture: Architecture) -> Evaluation:
    """The row as the domain knows it; `architecture` is its JSON parsed by the space."""
    return Evaluation(
        architecture=architecture,
        checkpoint=row.checkpoint,
        split=Split(row.split),
        num_images=row.num_images,
        calibration=row.calibration,
        num_correct=row.num_correct,
        per_class_correct=tuple(row.per_class_correct),
        per_class_images=tuple(row.per_class_images),
        correct_bitmap=row.correct_bitmap,
        duration_s=row.duration_s,
    )


def _values(supernet_id: str, evaluation: Evaluation, costs: Mapping[str, int]) -> dict[str, object]:
    return {
        "supernet_id": supernet_id,
        "checkpoint": evaluation.checkpoint,
        "architecture_key": evaluation.architecture.key,
        "architecture": evaluation.architecture.to_json(),
        "split": evaluation.split,
        "num_images": evaluation.num_images,
        "calibration": evaluation.calibration,
        "num_correct": evaluation.num_correct,
        "per_class_correct": [*evaluation.per_class_correct],
        "per_class_images": [*evaluation.per_class_images],
        "correct_bitmap": evaluation.correct_bitmap,
        "duration_s": evaluation.duration_s,
        # An unknown cost is an error, never zero: a missing name raises KeyError here.
        **{name: int(costs[name]) for name in ("macs", "params", "size_bytes", "peak_activation_bytes")},
    }


def _is_measured_as(supernet_id: str, checkpoint: str, split: Split) -> list[ColumnElement[bool]]:
    return [
        EvaluationRow.supernet_id == supernet_id,
        EvaluationRow.checkpoint == checkpoint,
        EvaluationRow.split == split,
    ]


def _bound(name: str, bound: int) -> ColumnElement[bool]:
    if name not in _BOUNDED:
        raise InvalidRequestError(f"no bound {name!r}; a frontier can be bounded by {', '.join(_BOUNDED)}")
    return _BOUNDED[name] <= bound
