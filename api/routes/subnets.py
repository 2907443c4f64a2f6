"""/v1/subnets: networks taken out of a supernet, and the files of their bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from api.best import best_evaluation
from api.deletions import delete
from api.deps import ArtifactsDep, CreationDep, Name, ServicesDep, SessionDep, SupernetFilter
from api.downloads import DOWNLOAD_RESPONSES, download
from api.known import KnownNetworks
from api.pages import PageDep
from api.problems import ProblemError
from api.schemas.artifacts import Artifacts, describe_artifact
from api.schemas.common import Page, ResourcePatch
from api.schemas.subnets import Subnet, SubnetCreate, describe_subnet
from api.strict import StrictRoute
from api.trained import TrainedSupernet, trained_supernet
from nas.architecture import Architecture
from nas.costs import costs
from nas.errors import ConflictError, NotFoundError
from nas.job import JobState
from nas.store import evaluations, searches, subnets, verifications
from nas.store.deletion import SUBNET
from nas.store.resources import WithJob, rename
from nas.store.subnets import OwnWeights
from nas.store.tables import SubnetRow
from nas.verification import Training

router = APIRouter(prefix="/subnets", tags=["subnets"], route_class=StrictRoute)


@dataclass(frozen=True)
class _Choice:
    """Which network to take out of which supernet."""

    supernet: TrainedSupernet
    architecture: Architecture
    own_weights: OwnWeights | None = None
    """Those of a training of its own; None: what it inherits."""


@router.post("", status_code=201, response_model=Subnet, operation_id="create_subnet")
def create_subnet(body: SubnetCreate, create: CreationDep, services: ServicesDep) -> Response:
    """Take a network out; a worker recalibrates, exports and checks it, then publishes the bundle."""

    def make(session: Session) -> Subnet:
        choice = _choose(session, services.known, body)
        model = choice.supernet.costs
        found = subnets.create(
            session,
            display_name=body.display_name,
            labels=body.labels,
            supernet_id=choice.supernet.id,
            architecture=choice.architecture,
            costs=costs(
                model.space,
                choice.architecture,
                num_classes=model.num_classes,
                in_channels=model.in_channels,
            ),
            spec=body.spec(),
            own_weights=choice.own_weights,
        )
        return describe_subnet(found, {})

    return create(body, make)


@router.get("", operation_id="list_subnets")
def list_subnets(session: SessionDep, page: PageDep, supernet_id: SupernetFilter = None) -> Page[Subnet]:
    """Subnets, newest first."""
    read = partial(subnets.list, session, supernet_id=supernet_id)
    return page.of_resources("subnets", read, partial(_described, session))


@router.get("/{subnet_id}", operation_id="get_subnet")
def get_subnet(subnet_id: Name, session: SessionDep) -> Subnet:
    """One subnet."""
    return _described(session, [subnets.get(session, subnet_id)])[0]


@router.patch("/{subnet_id}", operation_id="change_subnet")
def change_subnet(subnet_id: Name, body: ResourcePatch, services: ServicesDep) -> Subnet:
    """Rename a subnet or label it anew, until its job has ended."""
    with services.database.begin() as session:
        rename(session, SubnetRow, subnet_id, body.changes(), noun="subnet")
        return get_subnet(subnet_id, session)


@router.delete("/{subnet_id}", status_code=204, response_class=Response, operation_id="delete_subnet")
def delete_subnet(subnet_id: Name, services: ServicesDep) -> Response:
    """Delete a subnet that has ended, with the files of its bundle; its figures stay with the supernet."""
    return delete(services, SUBNET, subnet_id)


@router.get("/{subnet_id}/artifacts", operation_id="list_subnet_artifacts")
def list_subnet_artifacts(subnet_id: Name, session: SessionDep) -> Artifacts:
    """The files of the bundle; none before it is published."""
    subnets.get(session, subnet_id)
    found = subnets.artifacts(session, subnet_id)
    folder = f"/v1/subnets/{subnet_id}/artifacts"
    return Artifacts(items=[describe_artifact(folder, artifact) for artifact in found])


@router.head("/{subnet_id}/artifacts/{name}", include_in_schema=False)
@router.get(
    "/{subnet_id}/artifacts/{name}",
    operation_id="download_subnet_artifact",
    response_class=Response,
    responses=DOWNLOAD_RESPONSES,
)
def download_subnet_artifact(
    subnet_id: Name, name: Name, request: Request, session: SessionDep, store: ArtifactsDep
) -> Response:
    """One file. Its ETag is its SHA-256; Range, If-Range and If-None-Match are understood."""
    _check_published(subnets.get(session, subnet_id))
    return download(request, subnets.artifact(session, subnet_id, name), store)


def _choose(session: Session, known: KnownNetworks, body: SubnetCreate) -> _Choice:
    if body.search_id is not None and body.trial_number is not None:
        return _chosen_by_trial(session, body.search_id, body.trial_number)
    if body.verification_id is not None:
        assert body.network_number is not None and body.training is not None
        training = Training(body.training)
        return _chosen_by_training(session, body.verification_id, body.network_number, training)
    assert body.supernet_id is not None
    supernet = trained_supernet(session, body.supernet_id)
    if body.architecture is not None:
        return _Choice(supernet, supernet.parse_architecture(body.architecture))
    assert body.constraints is not None
    supernet = supernet.on_device(session, body.device)
    bounds = supernet.parse_bounds(body.constraints.fields(), prefix="constraints.")
    best = best_evaluation(session, known, supernet, bounds)
    return _Choice(supernet, supernet.parse_architecture(best.architecture))


def _chosen_by_trial(session: Session, search_id: str, number: int) -> _Choice:
    search = searches.get(session, search_id).row
    found = searches.trials(session, search_id, page_size=1, after_number=number - 1)
    if not found or found[0].trial.number != number:
        raise NotFoundError(
            f"search {search_id!r} has no trial {number}; see /v1/searches/{search_id}/trials"
        )
    supernet = trained_supernet(session, search.supernet_id)
    return _Choice(supernet, supernet.parse_architecture(found[0].evaluation.architecture))


def _chosen_by_training(
    session: Session, verification_id: str, network_number: int, training: Training
) -> _Choice:
    found = verifications.get(session, verification_id)
    network = verifications.one_network(session, verification_id, network_number)
    run = next((each.run for each in network.chosen if each.run.training == training), None)
    if run is None:
        remedy = (
            f"verify it with training '{training}'" if found.job.state.is_terminal else "wait for its end"
        )
        raise ConflictError(
            f"verification {verification_id} is {found.job.state} and has no weights of network "
            f"{network_number} trained '{training}'; {remedy}"
        )
    supernet = trained_supernet(session, found.row.supernet_id)
    return _Choice(
        supernet,
        supernet.parse_architecture(network.network.architecture),
        OwnWeights(
            verification_id=verification_id,
            run_number=run.number,
            training=training,
            learning_rate=run.learning_rate,
            epochs=run.epochs,
            seed=found.row.seed,
        ),
    )


def _described(session: Session, found: Sequence[WithJob[SubnetRow]]) -> list[Subnet]:
    ids = {i for subnet in found for i in (subnet.row.evaluation_val_id, subnet.row.evaluation_test_id)}
    known = sorted(i for i in ids if i is not None)
    measured = dict(zip(known, evaluations.get_many(session, known), strict=True))
    return [describe_subnet(subnet, measured) for subnet in found]


def _check_published(found: WithJob[SubnetRow]) -> None:
    if found.row.published_at is not None:
        return
    state = found.job.state
    remedy = "specialise it again" if state.is_terminal else "wait for its job to succeed"
    detail = f"subnet {found.row.id} is {state} and has no files; {remedy}"
    raise ProblemError("subnet-not-ready", 409, detail, state=JobState(state))
