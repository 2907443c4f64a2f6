"""/v1/verifications and /v1/searches/{id}/finalists: networks chosen at the end, measured to the end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from api.deletions import delete
from api.deps import CreationDep, Name, ServicesDep, SessionDep, SupernetFilter
from api.finalists import check_num_runs, chosen_trials, given_architectures
from api.pages import PageDep, each
from api.schemas.common import CreateRequest, Page, ResourcePatch
from api.schemas.evaluations import Latency
from api.schemas.verifications import (
    Finalists,
    FinalistsCreate,
    Verification,
    VerificationCreate,
    VerificationRun,
    VerifiedNetwork,
    describe_finalist,
    describe_network,
    describe_run,
    describe_verification,
)
from api.strict import StrictRoute
from api.trained import TrainedSupernet, latency_of_search, trained_supernet
from nas.recipes import recipe_from_json
from nas.store import searches, supernets, verifications
from nas.store.deletion import VERIFICATION
from nas.store.resources import WithJob, rename
from nas.store.tables import VerificationRow
from nas.store.verifications import ChosenNetwork
from nas.verification import PlannedRun, Training, plan_runs

router = APIRouter(tags=["verifications"], route_class=StrictRoute)

_FINALISTS = "/searches/{search_id}/finalists"
_VERIFICATIONS = "/verifications"
_LARGEST_NUMBER = 2**31 - 1


@router.post(_FINALISTS, status_code=201, response_model=Verification, operation_id="create_finalists")
def create_finalists(search_id: Name, body: FinalistsCreate, create: CreationDep) -> Response:
    """Measure a search's finalists on all of val as they will be published, and once on test.

    The answer is a verification without trainings. A network that is measured on test already keeps that
    figure, whoever asked for it, and the test images are not touched again.
    """

    def make(session: Session) -> Verification:
        supernet, networks = _of_search(session, search_id, body.trial_numbers)
        spec = {"search_id": search_id, **body.spec(), "trainings": []}
        return _create(session, body, supernet, networks, [], seed=0, spec=spec)

    return create(body, make)


@router.get(_FINALISTS, operation_id="list_finalists")
def list_finalists(search_id: Name, session: SessionDep) -> Finalists:
    """The search's trials that are measured on test: by this call's POST, a verification or a subnet."""
    found = searches.get(session, search_id)
    finalists = searches.finalists(session, search_id)
    describe = partial(describe_finalist, proposer=found.row.proposer)
    latency = latency_of_search(session, found.row)
    figures: Sequence[Latency | None] = [None] * len(finalists)
    if latency is not None:
        figures = latency.of_rows([finalist.evaluation for finalist in finalists], session)
    return Finalists(
        search_id=search_id,
        supernet_id=found.row.supernet_id,
        state=found.job.state,
        items=[describe(each, latency=figure) for each, figure in zip(finalists, figures, strict=True)],
    )


@router.post(_VERIFICATIONS, status_code=201, response_model=Verification, operation_id="create_verification")
def create_verification(body: VerificationCreate, create: CreationDep) -> Response:
    """Train chosen networks on their own, or fine-tune them, to verify what they inherit.

    Ray Tune trains each at a few learning rates; the best on val is chosen, and measured once on test. The
    `networks` tell inherited beside trained, with the paired difference and its interval.
    """

    def make(session: Session) -> Verification:
        if body.search_id is not None:
            supernet, networks = _of_search(session, body.search_id, body.trial_numbers)
        else:
            assert body.supernet_id is not None
            assert body.architectures is not None
            supernet = trained_supernet(session, body.supernet_id)
            networks = given_architectures(supernet, body.architectures)
        runs = _planned(session, supernet, body)
        check_num_runs(len(networks), len(runs))
        return _create(session, body, supernet, networks, runs, seed=body.seed, spec=body.spec())

    return create(body, make)


@router.get(_VERIFICATIONS, operation_id="list_verifications")
def list_verifications(
    session: SessionDep, page: PageDep, supernet_id: SupernetFilter = None
) -> Page[Verification]:
    """Verifications, newest first."""
    read = partial(verifications.list, session, supernet_id=supernet_id)
    return page.of_resources("verifications", read, partial(_described, session))


@router.get(f"{_VERIFICATIONS}/{{verification_id}}", operation_id="get_verification")
def get_verification(verification_id: Name, session: SessionDep) -> Verification:
    """One verification."""
    return _described(session, [verifications.get(session, verification_id)])[0]


@router.patch(f"{_VERIFICATIONS}/{{verification_id}}", operation_id="change_verification")
def change_verification(verification_id: Name, body: ResourcePatch, services: ServicesDep) -> Verification:
    """Rename a verification or label it anew, until its job has ended."""
    with services.database.begin() as session:
        rename(session, VerificationRow, verification_id, body.changes(), noun="verification")
        return get_verification(verification_id, session)


@router.delete(
    f"{_VERIFICATIONS}/{{verification_id}}",
    status_code=204,
    response_class=Response,
    operation_id="delete_verification",
)
def delete_verification(verification_id: Name, services: ServicesDep) -> Response:
    """Delete a verification that has ended, with its runs; what is measured stays with the supernet, so that
    test is not touched again."""
    return delete(services, VERIFICATION, verification_id)


@router.get(f"{_VERIFICATIONS}/{{verification_id}}/networks", operation_id="list_verified_networks")
def list_verified_networks(
    verification_id: Name, session: SessionDep, page: PageDep
) -> Page[VerifiedNetwork]:
    """Each network: what it inherits, what it learned on its own, and the difference."""
    row = verifications.get(session, verification_id).row
    kind = f"{verification_id}/networks"
    after = page.after_number(kind, first=0, limit=_LARGEST_NUMBER)
    found = verifications.networks(session, verification_id, page_size=page.num_to_read, after_number=after)
    return page.cut(kind, found, lambda item: (item.network.number,), each(partial(describe_network, row)))


@router.get(f"{_VERIFICATIONS}/{{verification_id}}/runs", operation_id="list_verification_runs")
def list_verification_runs(
    verification_id: Name, session: SessionDep, page: PageDep
) -> Page[VerificationRun]:
    """Every training, in the order of their numbers."""
    verifications.get(session, verification_id)
    kind = f"{verification_id}/runs"
    after = page.after_number(kind, first=0, limit=_LARGEST_NUMBER)
    found = verifications.runs(session, verification_id, page_size=page.num_to_read, after_number=after)
    return page.cut(kind, found, lambda item: (item.run.number,), each(describe_run))


def _of_search(
    session: Session, search_id: str, numbers: Sequence[int] | None
) -> tuple[TrainedSupernet, list[ChosenNetwork]]:
    search = searches.get(session, search_id)
    supernet = trained_supernet(session, search.row.supernet_id)
    return supernet, chosen_trials(session, supernet, search, numbers)


def _planned(session: Session, supernet: TrainedSupernet, body: VerificationCreate) -> list[PlannedRun]:
    recipe = recipe_from_json(supernets.get(session, supernet.id).row.recipe)
    trainings = [Training(name) for name in body.trainings]
    return plan_runs(recipe, trainings, rates=body.learning_rates, epochs=body.epochs)


def _create(
    session: Session,
    body: CreateRequest,
    supernet: TrainedSupernet,
    networks: Sequence[ChosenNetwork],
    runs: Sequence[PlannedRun],
    *,
    seed: int,
    spec: dict[str, Any],
) -> Verification:
    found = verifications.create(
        session,
        display_name=body.display_name,
        labels=body.labels,
        supernet_id=supernet.id,
        seed=seed,
        networks=networks,
        runs=runs,
        spec=spec,
    )
    return _described(session, [found])[0]


def _described(session: Session, found: Sequence[WithJob[VerificationRow]]) -> list[Verification]:
    counts = verifications.counts(session, [verification.row.id for verification in found])
    return [describe_verification(verification, counts[verification.row.id]) for verification in found]
