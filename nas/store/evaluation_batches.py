"""Networks given from outside, in batches: an item for each, which points at an evaluation once measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, not_, select, update
from sqlalchemy.orm import Session

from nas.architecture import Architecture
from nas.costs import COST_NAMES
from nas.job import JobKind
from nas.store import latency
from nas.store.evaluations import EvaluationProtocol, is_measured_by
from nas.store.ids import Prefix, new_id
from nas.store.latency import LatencySource
from nas.store.resources import Cursor, WithJob, create_resource, get_resource, hold, list_resources
from nas.store.tables import EvaluationBatchRow, EvaluationItemRow, EvaluationRow, SupernetRow


@dataclass(frozen=True, kw_only=True)
class GivenNetwork:
    """A network as it is asked for: spelled canonically, with its exact costs."""

    architecture: Architecture
    costs: Mapping[str, int]
    is_infeasible: bool
    """It breaks a constraint of its batch."""
    latency_ms: float | None = None
    """Predicted, where the batch has a device."""


@dataclass(frozen=True)
class ItemWithEvaluation:
    """An item as read, and what was measured, if it was."""

    item: EvaluationItemRow
    evaluation: EvaluationRow | None


@dataclass(frozen=True, kw_only=True)
class ItemCounts:
    """How far a batch is, by its items."""

    num_measured: int
    num_infeasible: int


def create(
    session: Session,
    *,
    display_name: str,
    labels: dict[str, str],
    protocol: EvaluationProtocol,
    constraints: dict[str, Any],
    networks: Sequence[GivenNetwork],
    spec: dict[str, Any],
    latency_source: LatencySource | None = None,
) -> WithJob[EvaluationBatchRow]:
    """A batch to be measured under the protocol; what is measured already is taken over at once."""
    training = hold(session, SupernetRow, protocol.supernet_id, noun="supernet").job
    latency.hold(session, latency_source)
    row = EvaluationBatchRow(
        id=new_id(Prefix.EVALUATION_BATCH),
        display_name=display_name,
        labels=labels,
        supernet_id=protocol.supernet_id,
        constraints=constraints,
        num_architectures=len(networks),
        **latency.columns_of(latency_source),
    )
    found = create_resource(session, row, kind=JobKind.EVALUATE, spec=spec, depends_on=training.id)
    items = [_values(row.id, number, network) for number, network in enumerate(networks)]
    session.execute(insert(EvaluationItemRow), items)
    take_over(session, row.id, protocol)
    return found


def get(session: Session, batch_id: str) -> WithJob[EvaluationBatchRow]:
    """The batch and its job."""
    return get_resource(session, EvaluationBatchRow, batch_id, noun="evaluation batch")


def list(
    session: Session, *, page_size: int, after: Cursor | None = None, supernet_id: str | None = None
) -> Sequence[WithJob[EvaluationBatchRow]]:
    """A page of batches, newest first; of one supernet where given."""
    where = [] if supernet_id is None else [EvaluationBatchRow.supernet_id == supernet_id]
    return list_resources(session, EvaluationBatchRow, page_size=page_size, after=after, where=where)


def items(
    session: Session, batch_id: str, *, page_size: int | None = None, after_number: int = -1
) -> Sequence[ItemWithEvaluation]:
    """Items in the order they were given, each with its evaluation; all of them without a page size."""
    query = (
        select(EvaluationItemRow, EvaluationRow)
        .outerjoin(EvaluationRow, EvaluationRow.id == EvaluationItemRow.evaluation_id)
        .where(EvaluationItemRow.batch_id == batch_id, EvaluationItemRow.number > after_number)
        .order_by(EvaluationItemRow.number)
        .limit(page_size)
    )
    return [ItemWithEvaluation(item, evaluation) for item, evaluation in session.execute(query)]


def counts(session: Session, batch_ids: Collection[str]) -> dict[str, ItemCounts]:
    """For each of the batches, how many items are measured and how many never will be."""
    item = EvaluationItemRow
    query = (
        select(item.batch_id, func.count(item.evaluation_id), func.count().filter(item.is_infeasible))
        .where(item.batch_id.in_(batch_ids))
        .group_by(item.batch_id)
    )
    return {
        batch_id: ItemCounts(num_measured=num_measured, num_infeasible=num_infeasible)
        for batch_id, num_measured, num_infeasible in session.execute(query)
    }


def take_over(session: Session, batch_id: str, protocol: EvaluationProtocol) -> None:
    """Give the items still to be measured what is measured already in exactly this way."""
    session.execute(
        update(EvaluationItemRow)
        .where(
            *_is_due(batch_id),
            EvaluationRow.architecture_key == EvaluationItemRow.architecture_key,
            *is_measured_by(protocol),
        )
        .values(evaluation_id=EvaluationRow.id, is_reused=True),
        execution_options=_UNSYNCHRONISED,
    )


def due(session: Session, batch_id: str) -> Sequence[dict[str, Any]]:
    """The distinct networks still to be measured, as JSON, in the order they were first given."""
    query = (
        select(EvaluationItemRow.architecture_key, EvaluationItemRow.architecture)
        .where(*_is_due(batch_id))
        .order_by(EvaluationItemRow.number)
    )
    # The first of equal keys stays.
    distinct: dict[str, dict[str, Any]] = {}
    for key, architecture in session.execute(query):
        distinct.setdefault(key, architecture)
    return [*distinct.values()]


def link(
    session: Session, batch_id: str, architecture_key: str, evaluation_id: int, *, is_reused: bool
) -> None:
    """The network is measured: all its items point there."""
    session.execute(
        update(EvaluationItemRow)
        .where(*_is_due(batch_id), EvaluationItemRow.architecture_key == architecture_key)
        .values(evaluation_id=evaluation_id, is_reused=is_reused),
        execution_options=_UNSYNCHRONISED,
    )


def _is_due(batch_id: str) -> Any:
    item = EvaluationItemRow
    return item.batch_id == batch_id, not_(item.is_infeasible), item.evaluation_id.is_(None)


def _values(batch_id: str, number: int, network: GivenNetwork) -> dict[str, Any]:
    return {
        "batch_id": batch_id,
        "number": number,
        "architecture_key": network.architecture.key,
        "architecture": network.architecture.to_json(),
        "is_infeasible": network.is_infeasible,
        "latency_ms": network.latency_ms,
        **{name: int(network.costs[name]) for name in COST_NAMES},
    }


_UNSYNCHRONISED = {"synchronize_session": False}
"""Nothing that was changed so is read again from the session's own memory."""
