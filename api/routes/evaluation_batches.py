"""/v1/supernets/{id}/evaluations and /v1/evaluation-batches: networks that others choose, measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from api.best import described_on
from api.deletions import delete
from api.deps import CreationDep, DeviceQuery, Name, ServicesDep, SessionDep, SupernetFilter
from api.given import given_networks
from api.latency import latency_by
from api.pages import PageDep, each
from api.schemas.common import Page, ResourcePatch
from api.schemas.evaluation_batches import (
    EvaluationBatch,
    EvaluationBatchCreate,
    EvaluationItem,
    describe_batch,
    describe_item,
)
from api.schemas.evaluations import Evaluation
from api.strict import LongBodyRoute
from api.trained import trained_supernet
from nas.store import evaluation_batches, evaluations
from nas.store.deletion import EVALUATION_BATCH
from nas.store.latency import source_of
from nas.store.resources import WithJob, rename
from nas.store.tables import EvaluationBatchRow

router = APIRouter(tags=["evaluations"], route_class=LongBodyRoute)

_EVALUATIONS = "/supernets/{supernet_id}/evaluations"
_BATCHES = "/evaluation-batches"
_LARGEST_NUMBER = 2**31 - 1


@router.post(_EVALUATIONS, status_code=201, response_model=EvaluationBatch, operation_id="create_evaluations")
def create_evaluations(supernet_id: Name, body: EvaluationBatchCreate, create: CreationDep) -> Response:
    """Measure these networks, whoever chose them: any optimiser can drive a supernet.

    The answer is a batch, whose `networks` are these in the order given. What the supernet has
    measured already is taken over at once; what is measured joins the supernet's evaluations, for `best`,
    the frontier and later searches. An architecture that is none of the space is refused, and nothing made.
    """

    def make(session: Session) -> EvaluationBatch:
        supernet = trained_supernet(session, supernet_id).on_device(session, body.device)
        bounds = supernet.parse_bounds(body.constraints.fields(), prefix="constraints.")
        found = evaluation_batches.create(
            session,
            display_name=body.display_name,
            labels=body.labels,
            protocol=supernet.protocol,
            constraints=bounds.to_fields(),
            networks=given_networks(supernet, body.architectures, bounds),
            spec=body.spec(),
            latency_source=None if supernet.device is None else supernet.device.source,
        )
        return _described(session, [found])[0]

    return create(body, make)


@router.get(_EVALUATIONS, operation_id="list_supernet_evaluations")
def list_supernet_evaluations(
    supernet_id: Name, session: SessionDep, page: PageDep, device: DeviceQuery = None
) -> Page[Evaluation]:
    """Every network measured with the final weights, whatever chose it; newest first."""
    supernet = trained_supernet(session, supernet_id).on_device(session, device)
    kind = f"{supernet_id}/evaluations"
    before_id = None if page.token is None else page.after_number(kind, first=1)
    found = evaluations.recorded(session, supernet.protocol, page_size=page.num_to_read, before_id=before_id)
    return page.cut(kind, found, lambda row: (row.id,), partial(described_on, session, supernet))


@router.get(_BATCHES, operation_id="list_evaluation_batches")
def list_evaluation_batches(
    session: SessionDep, page: PageDep, supernet_id: SupernetFilter = None
) -> Page[EvaluationBatch]:
    """Evaluation batches, newest first."""
    read = partial(evaluation_batches.list, session, supernet_id=supernet_id)
    return page.of_resources("evaluation-batches", read, partial(_described, session))


@router.get(f"{_BATCHES}/{{batch_id}}", operation_id="get_evaluation_batch")
def get_evaluation_batch(batch_id: Name, session: SessionDep) -> EvaluationBatch:
    """One evaluation batch."""
    return _described(session, [evaluation_batches.get(session, batch_id)])[0]


@router.patch(f"{_BATCHES}/{{batch_id}}", operation_id="change_evaluation_batch")
def change_evaluation_batch(batch_id: Name, body: ResourcePatch, services: ServicesDep) -> EvaluationBatch:
    """Rename an evaluation batch or label it anew, until its job has ended."""
    with services.database.begin() as session:
        rename(session, EvaluationBatchRow, batch_id, body.changes(), noun="evaluation batch")
        return get_evaluation_batch(batch_id, session)


@router.delete(
    f"{_BATCHES}/{{batch_id}}",
    status_code=204,
    response_class=Response,
    operation_id="delete_evaluation_batch",
)
def delete_evaluation_batch(batch_id: Name, services: ServicesDep) -> Response:
    """Delete an evaluation batch that has ended; what it measured stays known to its supernet."""
    return delete(services, EVALUATION_BATCH, batch_id)


@router.get(f"{_BATCHES}/{{batch_id}}/networks", operation_id="list_evaluation_batch_networks")
def list_evaluation_batch_networks(
    batch_id: Name, session: SessionDep, page: PageDep
) -> Page[EvaluationItem]:
    """The networks in the order they were given, with what is known of each so far."""
    batch = evaluation_batches.get(session, batch_id).row
    after = page.after_number(batch_id, first=0, limit=_LARGEST_NUMBER)
    found = evaluation_batches.items(session, batch_id, page_size=page.num_to_read, after_number=after)
    source, described = source_of(batch), None
    if source is not None:
        exact = trained_supernet(session, batch.supernet_id).costs
        described = latency_by(session, exact, source).described
    describe = partial(describe_item, batch, described)
    return page.cut(batch_id, found, lambda item: (item.item.number,), each(describe))


def _described(session: Session, found: Sequence[WithJob[EvaluationBatchRow]]) -> list[EvaluationBatch]:
    counts = evaluation_batches.counts(session, [batch.row.id for batch in found])
    return [describe_batch(batch, counts[batch.row.id]) for batch in found]
