"""What was measured: each network once for a checkpoint, a split and a calibration.

Answers come out of the candidates: the evaluations that no other one supersedes. One supersedes another
when it is at least as accurate, no dearer in any cost, and before it in `_BEST_FIRST`. Whatever the bounds,
the best network is a candidate, and so is every network of every frontier; of a million evaluations, about a
thousand are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Double, cast, func, not_, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from nas.architecture import Architecture
from nas.errors import InvalidRequestError, NotFoundError
from nas.store.tables import EvaluationRow
from nas.trial import Evaluation, Split

_COSTS: dict[str, InstrumentedAttribute[int]] = {
    "macs": EvaluationRow.macs,
    "params": EvaluationRow.params,
    "size_bytes": EvaluationRow.size_bytes,
    "peak_activation_bytes": EvaluationRow.peak_activation_bytes,
}

_COLUMNS: dict[str, InstrumentedAttribute[int]] = {
    "evaluation_id": EvaluationRow.id,
    "num_correct": EvaluationRow.num_correct,
    "num_images": EvaluationRow.num_images,
    **_COSTS,
}

_BEST_FIRST = (EvaluationRow.num_correct.desc(), EvaluationRow.macs, EvaluationRow.id)
"""Of equally accurate networks the one with fewer MACs, of equals in both the one measured first."""

_LARGEST_COST = 2**63 - 1
_SMALLEST_DIVISOR = 1e-200
"""PostgreSQL refuses a quotient too large for a double; costs divided by this are not."""

IntColumn = npt.NDArray[np.int64]

Limits = Mapping[str, float]
"""The most that a network may cost, by the name of the cost; one on the limit keeps it."""


@dataclass(frozen=True, kw_only=True)
class EvaluationProtocol:
    """How accuracies were measured; those of one protocol compare, for they are of the same images."""

    supernet_id: str
    checkpoint: str
    split: Split
    num_images: int
    calibration: str


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
    session: Session,
    supernet_id: str,
    evaluation: Evaluation,
    costs: Mapping[str, int],
    *,
    code: bytes | None = None,
) -> tuple[int, bool]:
    """The evaluation's id, and whether it is new: one already recorded stands as it was first written.

    `code` is the network's (`evaluation_columns.packed_code`). Without it answers by latency parse the
    network each time that a process first reads it.
    """
    protocol = EvaluationProtocol(
        supernet_id=supernet_id,
        checkpoint=evaluation.checkpoint,
        split=evaluation.split,
        num_images=evaluation.num_images,
        calibration=evaluation.calibration,
    )
    # An unknown cost is an error, never zero: a missing name raises KeyError here.
    figures = {"num_correct": evaluation.num_correct, **{name: int(costs[name]) for name in _COSTS}}
    is_superseded = _is_superseded(session, protocol, figures)
    inserted = session.scalar(
        insert(EvaluationRow)
        .values(_values(protocol, evaluation) | figures | {"is_superseded": is_superseded, "code": code})
        .on_conflict_do_nothing(constraint="uq_evaluations_identity")
        .returning(EvaluationRow.id)
    )
    if inserted is not None:
        if not is_superseded:
            _supersede(session, protocol, figures)
        return inserted, True
    existing = find(session, protocol, evaluation.architecture.key)
    assert existing is not None  # it is what the new one met
    return existing.id, False


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


def find(session: Session, protocol: EvaluationProtocol, architecture_key: str) -> EvaluationRow | None:
    """The evaluation of one network measured in exactly this way."""
    return session.scalar(
        select(EvaluationRow).where(
            *is_measured_by(protocol), EvaluationRow.architecture_key == architecture_key
        )
    )


def known(session: Session, protocol: EvaluationProtocol) -> dict[str, EvaluationRow]:
    """Everything measured in exactly this way, by architecture key."""
    query = select(EvaluationRow).where(*is_measured_by(protocol)).order_by(EvaluationRow.id)
    return {row.architecture_key: row for row in session.scalars(query)}


def recorded(
    session: Session, protocol: EvaluationProtocol, *, page_size: int, before_id: int | None = None
) -> Sequence[EvaluationRow]:
    """A page of everything measured in exactly this way, newest first."""
    query = select(EvaluationRow).where(*is_measured_by(protocol))
    if before_id is not None:
        query = query.where(EvaluationRow.id < before_id)
    return session.scalars(query.order_by(EvaluationRow.id.desc()).limit(page_size)).all()


def best(session: Session, protocol: EvaluationProtocol, limits: Limits) -> EvaluationRow | None:
    """The most accurate evaluation that keeps every limit, by cost name; None where none does.

    Ties go to fewer MACs, then to the one recorded first.
    """
    query = select(EvaluationRow).where(*_is_candidate(protocol), *_keeps(limits))
    return session.scalars(query.order_by(*_BEST_FIRST).limit(1)).first()


def nearest(session: Session, protocol: EvaluationProtocol, limits: Limits) -> EvaluationRow | None:
    """The evaluation whose largest ratio of a cost to its limit is the smallest; None where there is none.

    A limit of 0 has no ratio: 1 and the cost stand for it. Ties as in `best`.
    """
    ratios = [_ratio(_cost(name), limit) for name, limit in limits.items()]
    worst = [func.greatest(*ratios)] if ratios else []
    query = select(EvaluationRow).where(*_is_candidate(protocol))
    return session.scalars(query.order_by(*worst, *_BEST_FIRST).limit(1)).first()


def rivals(
    session: Session,
    protocol: EvaluationProtocol,
    limits: Limits,
    *,
    least_correct: int,
    but: int,
    count: int,
) -> Sequence[EvaluationRow]:
    """The candidates that keep every limit with so many images right, but for the one of this id.

    Cheapest first, by the first cost that is limited, or by MACs.
    """
    cost = _cost(next(iter(limits), "macs"))
    query = select(EvaluationRow).where(
        *_is_candidate(protocol),
        *_keeps(limits),
        EvaluationRow.num_correct >= least_correct,
        EvaluationRow.id != but,
    )
    return session.scalars(query.order_by(cost, EvaluationRow.id).limit(count)).all()


def candidates(session: Session, protocol: EvaluationProtocol, limits: Limits) -> EvaluationColumns:
    """The candidates that keep every limit, as columns: they hold the frontier of any objectives."""
    return _columns(session, [*_is_candidate(protocol), *_keeps(limits)])


def measured(session: Session, protocol: EvaluationProtocol, limits: Limits) -> EvaluationColumns:
    """All that keep every limit, as columns; of a million evaluations that takes seconds."""
    return _columns(session, [*is_measured_by(protocol), *_keeps(limits)])


def bitmaps(session: Session, evaluation_ids: list[int]) -> list[bytes]:
    """Which images each got right, one bit an image, in the order of the ids given."""
    query = select(EvaluationRow.id, EvaluationRow.correct_bitmap).where(EvaluationRow.id.in_(evaluation_ids))
    found = {row.id: row.correct_bitmap for row in session.execute(query)}
    return [found[evaluation_id] for evaluation_id in evaluation_ids]


def count(session: Session, protocol: EvaluationProtocol, limits: Limits) -> int:
    """How many evaluations keep every limit, candidates or not."""
    query = select(func.count()).where(*is_measured_by(protocol), *_keeps(limits))
    return session.execute(query).scalar_one()


@dataclass(frozen=True, kw_only=True)
class Durations:
    """How long measuring took."""

    count: int
    mean_s: float | None
    """Of one evaluation; None where there is none."""


def durations(session: Session, protocol: EvaluationProtocol) -> Durations:
    """Of everything measured in exactly this way."""
    query = select(func.count(), func.avg(EvaluationRow.duration_s)).where(*is_measured_by(protocol))
    number, mean_s = session.execute(query).one()
    return Durations(count=number, mean_s=mean_s)


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


def _values(protocol: EvaluationProtocol, evaluation: Evaluation) -> dict[str, object]:
    return {
        **asdict(protocol),
        "architecture_key": evaluation.architecture.key,
        "architecture": evaluation.architecture.to_json(),
        "per_class_correct": [*evaluation.per_class_correct],
        "per_class_images": [*evaluation.per_class_images],
        "correct_bitmap": evaluation.correct_bitmap,
        "duration_s": evaluation.duration_s,
    }


# Candidates


def _is_superseded(session: Session, protocol: EvaluationProtocol, figures: Mapping[str, int]) -> bool:
    """Whether a recorded evaluation supersedes one with these figures that is still to be recorded."""
    # Those recorded before it come first among equals, so equality will do.
    query = select(EvaluationRow.id).where(
        *_is_candidate(protocol),
        EvaluationRow.num_correct >= figures["num_correct"],
        *(cost <= figures[name] for name, cost in _COSTS.items()),
    )
    return session.execute(query.limit(1)).first() is not None


def _supersede(session: Session, protocol: EvaluationProtocol, figures: Mapping[str, int]) -> None:
    """Those that the evaluation with these figures, just recorded, supersedes are candidates no more."""
    superseded = select(EvaluationRow.id).where(
        *_is_candidate(protocol),
        EvaluationRow.num_correct <= figures["num_correct"],
        *(cost >= figures[name] for name, cost in _COSTS.items()),
        or_(
            EvaluationRow.num_correct < figures["num_correct"],
            EvaluationRow.macs > figures["macs"],
        ),
    )
    # A row that another transaction holds is being marked by it. Waiting could end in a deadlock; and one
    # candidate too many, as two transactions that do not see each other leave, changes no answer.
    free = superseded.with_for_update(skip_locked=True, key_share=True)
    session.execute(
        update(EvaluationRow).where(EvaluationRow.id.in_(free)).values(is_superseded=True),
        execution_options={"synchronize_session": False},
    )


# Reading


def _columns(session: Session, conditions: list[ColumnElement[bool]]) -> EvaluationColumns:
    query = select(*_COLUMNS.values()).where(*conditions)
    rows = session.execute(query.order_by(EvaluationRow.macs, EvaluationRow.id)).all()
    table = np.array([tuple(row) for row in rows], dtype=np.int64).reshape(-1, len(_COLUMNS))
    return EvaluationColumns(**{name: table[:, i] for i, name in enumerate(_COLUMNS)})


# Conditions


def is_measured_by(protocol: EvaluationProtocol) -> list[ColumnElement[bool]]:
    """The conditions that an evaluation's row was measured in exactly this way."""
    return [getattr(EvaluationRow, name) == value for name, value in asdict(protocol).items()]


def _is_candidate(protocol: EvaluationProtocol) -> list[ColumnElement[bool]]:
    return [*is_measured_by(protocol), not_(EvaluationRow.is_superseded)]


def _keeps(limits: Limits) -> list[ColumnElement[bool]]:
    # Costs are whole numbers: one is within the limit exactly when it is within its floor.
    return [_cost(name) <= int(min(limit, _LARGEST_COST)) for name, limit in limits.items()]


def _ratio(cost: InstrumentedAttribute[int], limit: float) -> ColumnElement[Any]:
    number = cast(cost, Double)
    return number / max(limit, _SMALLEST_DIVISOR) if limit > 0 else 1.0 + number


def _cost(name: str) -> InstrumentedAttribute[int]:
    if name not in _COSTS:
        raise InvalidRequestError(
            f"no cost {name!r} is kept with an evaluation; there are {', '.join(_COSTS)}"
        )
    return _COSTS[name]
