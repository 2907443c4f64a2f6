"""/v1/searches: networks under constraints, and the frontier they make."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from api.deletions import delete
from api.deps import CreationDep, IfNoneMatch, Name, ServicesDep, SessionDep, SupernetFilter
from api.etags import tagged_json
from api.feasibility import certificate_of, refuse_infeasible, remedy_of, witness_of
from api.fronts import figures_of_rows, front, probabilities
from api.latency import DeviceLatency
from api.pages import PageDep, each
from api.problems import invalid_field
from api.schemas.common import Page, ResourcePatch
from api.schemas.evaluations import FrontierTrial, Trial, describe_trial
from api.schemas.search_rounds import SearchRound, describe_round
from api.schemas.search_spaces import describe_space_alone
from api.schemas.searches import (
    DurationSource,
    Search,
    SearchCreate,
    SearchFrontier,
    SearchValidation,
    describe_search,
)
from api.strict import StrictRoute
from api.studies import optuna_journal
from api.trained import TrainedSupernet, latency_of_search, trained_supernet
from nas.devices.device import LATENCY
from nas.errors import InvalidRequestError
from nas.prefilter.deepmad.search_filter import check_scored
from nas.prefilter.names import PrefilterName
from nas.search.constraints import Bounds
from nas.search.settings import parse_objectives
from nas.store import evaluations, probes, searches, supernets
from nas.store.deletion import SEARCH
from nas.store.resources import WithJob, rename
from nas.store.searches import TrialWithEvaluation
from nas.store.tables import SearchRow
from search_spaces import SPACES

router = APIRouter(prefix="/searches", tags=["searches"], route_class=StrictRoute)

_LARGEST_NUMBER = 2**31 - 1
_JSON_LINES = "application/jsonl"


@router.post("", status_code=201, response_model=Search, operation_id="create_search")
def create_search(body: SearchCreate, create: CreationDep, services: ServicesDep) -> Response:
    """Search a trained supernet; constraints that no network can keep are refused."""

    def make(session: Session) -> Search:
        asked, supernet, bounds = _read(session, body)
        refuse_infeasible(services, supernet, bounds)
        found = searches.create(
            session,
            display_name=asked.display_name,
            labels=asked.labels,
            supernet_id=supernet.id,
            constraints=bounds.to_fields(),
            objectives=asked.objectives,
            num_trials=asked.num_trials,
            proposer=asked.proposer,
            seed=asked.seed,
            prefilter=asked.prefilter,
            extends=asked.extends,
            flat_rounds=asked.flat_rounds,
            latency_source=None if supernet.device is None else supernet.device.source,
            spec=asked.spec(),
        )
        return describe_search(found, None)

    return create(body, make)


@router.post(":validate", operation_id="validate_search")
def validate_search(body: SearchCreate, services: ServicesDep) -> SearchValidation:
    """The dry run of a search: whether any network keeps the constraints, and what it would cost.

    Nothing is made. What a creating request would refuse is refused, but for constraints that no network
    keeps: these are answered.
    """
    # A transaction, because a search to be extended is held while it is looked at.
    with services.database.begin() as session:
        asked, supernet, bounds = _read(session, body)
        known = evaluations.durations(session, supernet.protocol)
        per_network_s, seconds_from = _seconds_per_network(session, supernet, known)
    answer = certificate_of(services, supernet, bounds)
    # A space has no more to measure than all of its networks.
    num_measured = min(asked.num_trials, supernet.costs.space.size())
    return SearchValidation(
        supernet_id=supernet.id,
        device=asked.device,
        constraints=bounds.to_fields(),
        objectives=[*asked.objectives],
        num_trials=asked.num_trials,
        verdict=answer.verdict,
        reason=answer.reason,
        witness=witness_of(supernet, answer),
        **dict(remedy_of(supernet, answer)),
        search_space=describe_space_alone(supernet.costs),
        num_evaluations=known.count,
        seconds_per_network=per_network_s,
        seconds_from=seconds_from,
        estimated_seconds=None if per_network_s is None else per_network_s * num_measured,
    )


@router.get("", operation_id="list_searches")
def list_searches(session: SessionDep, page: PageDep, supernet_id: SupernetFilter = None) -> Page[Search]:
    """Searches, newest first."""
    read = partial(searches.list, session, supernet_id=supernet_id)
    return page.of_resources("searches", read, partial(_described, session))


@router.get("/{search_id}", operation_id="get_search")
def get_search(search_id: Name, session: SessionDep) -> Search:
    """One search."""
    return _described(session, [searches.get(session, search_id)])[0]


@router.patch("/{search_id}", operation_id="change_search")
def change_search(search_id: Name, body: ResourcePatch, services: ServicesDep) -> Search:
    """Rename a search or label it anew, until its job has ended."""
    with services.database.begin() as session:
        rename(session, SearchRow, search_id, body.changes(), noun="search")
        return get_search(search_id, session)


@router.delete("/{search_id}", status_code=204, response_class=Response, operation_id="delete_search")
def delete_search(search_id: Name, services: ServicesDep) -> Response:
    """Delete a search that has ended, with its trials; what it measured stays known to its supernet.

    Refused while another search extends it; `used_by` names it."""
    return delete(services, SEARCH, search_id)


@router.get("/{search_id}/trials", operation_id="list_search_trials")
def list_search_trials(search_id: Name, session: SessionDep, page: PageDep) -> Page[Trial]:
    """Trials in the order of their numbers."""
    search = searches.get(session, search_id).row
    after = page.after_number(search_id, first=0, limit=_LARGEST_NUMBER)
    found = searches.trials(session, search_id, page_size=page.num_to_read, after_number=after)
    describe = partial(_described_trials, session, search, latency_of_search(session, search))
    return page.cut(search_id, found, lambda trial: (trial.trial.number,), describe)


@router.get("/{search_id}/rounds", operation_id="list_search_rounds")
def list_search_rounds(search_id: Name, session: SessionDep, page: PageDep) -> Page[SearchRound]:
    """Rounds in their order: hypervolume, and how well was predicted what the proposer chose."""
    search = searches.get(session, search_id).row
    kind = f"{search_id}/rounds"
    after = page.after_number(kind, first=0, limit=_LARGEST_NUMBER)
    found = searches.rounds(session, search_id, page_size=page.num_to_read, after_number=after)
    describe = each(partial(describe_round, objectives=search.objectives))
    return page.cut(kind, found, lambda row: (row.number,), describe)


@router.get(
    "/{search_id}/optuna-journal",
    operation_id="get_search_optuna_journal",
    response_class=StreamingResponse,
    responses={200: {"description": "A JSON object a line.", "content": {_JSON_LINES: {}}}},
)
def get_search_optuna_journal(search_id: Name, services: ServicesDep) -> Response:
    """The trials so far as an Optuna study, a file for its JournalFileBackend: optuna-dashboard reads it.

    The study's name is the search's id. Values are as measured, constraints are costs less their limits, and
    what was predicted is a user attribute of its own. Of networks equal in every objective, `best_trials`
    shows all, and the search's frontier one."""
    with services.database.session() as session:
        search = searches.get(session, search_id).row
        space = SPACES[supernets.get(session, search.supernet_id).row.search_space]
        latency = latency_of_search(session, search)
    return StreamingResponse(
        optuna_journal(services.database, search, space, latency),
        media_type=_JSON_LINES,
        headers={"Content-Disposition": f'attachment; filename="{search_id}.log"'},
    )


@router.get("/{search_id}/pareto", response_model=SearchFrontier, operation_id="get_search_pareto")
def get_search_pareto(search_id: Name, session: SessionDep, if_none_match: IfNoneMatch = None) -> Response:
    """The whole frontier of this search's trials, also while it runs."""
    found = searches.get(session, search_id)
    trials = searches.trials(session, search_id)
    # That of these trials, however many rounds have come since they were read.
    last_round = searches.get_round(session, search_id, trials[-1].trial.round) if trials else None
    rows = [trial.evaluation for trial in trials]
    latency = latency_of_search(session, found.row)
    figures = figures_of_rows(rows, latency)
    objectives = parse_objectives(found.row.objectives)
    positions = front(figures, objectives)
    shown = _described_trials(session, found.row, latency, [trials[position] for position in positions])
    chances = probabilities(
        figures,
        objectives,
        positions,
        lambda needed: [rows[position].correct_bitmap for position in needed],
        num_images=rows[0].num_images if rows else 0,
    )
    frontier = SearchFrontier(
        search_id=search_id,
        supernet_id=found.row.supernet_id,
        state=found.job.state,
        objectives=found.row.objectives,
        num_trials=len(trials),
        round=None if last_round is None else describe_round(last_round, found.row.objectives),
        items=[
            FrontierTrial(**dict(trial), frontier_probability=chance)
            for trial, chance in zip(shown, chances, strict=True)
        ],
    )
    return tagged_json(frontier, if_none_match)


def _seconds_per_network(
    session: Session, supernet: TrainedSupernet, known: evaluations.Durations
) -> tuple[float | None, DurationSource | None]:
    if known.mean_s is not None:
        return known.mean_s, DurationSource.EVALUATIONS
    mean_s = probes.mean_duration_of_ends(session, supernet.id)
    return mean_s, None if mean_s is None else DurationSource.PROBES


def _described(session: Session, found: Sequence[WithJob[SearchRow]]) -> list[Search]:
    latest = searches.latest_rounds(session, [search.row.id for search in found])
    return [describe_search(search, latest.get(search.row.id)) for search in found]


def _read(session: Session, body: SearchCreate) -> tuple[SearchCreate, TrainedSupernet, Bounds]:
    """The request whole, its supernet, and its bounds resolved; ProblemError where one cannot be had."""
    asked = _completed(session, body)
    assert asked.supernet_id is not None
    supernet = trained_supernet(session, asked.supernet_id).on_device(session, asked.device)
    if LATENCY in asked.objectives and supernet.device is None:
        message = "latency_ms is of a device; name one as `device`, or leave the objective out"
        raise invalid_field("objectives", asked.objectives, message)
    _refuse_unscored(asked, supernet)
    return asked, supernet, supernet.parse_bounds(asked.constraints.fields(), prefix="constraints.")


def _refuse_unscored(asked: SearchCreate, supernet: TrainedSupernet) -> None:
    """ProblemError where the pre-filter has nothing to say of the supernet's space."""
    if asked.prefilter == PrefilterName.NONE:
        return
    try:
        check_scored(supernet.costs.space)
    except InvalidRequestError as error:
        message = f"{error}, or leave the pre-filter out"
        raise invalid_field("prefilter", asked.prefilter, message) from error


def _completed(session: Session, body: SearchCreate) -> SearchCreate:
    """The request whole; ProblemError where the search to extend is of another supernet."""
    if body.extends is None:
        return body
    asked = body.completed(searches.get(session, body.extends).row)
    assert asked.supernet_id is not None
    try:
        searches.check_extensible(session, body.extends, asked.supernet_id)
    except InvalidRequestError as error:
        raise invalid_field("extends", body.extends, str(error)) from error
    return asked


def _described_trials(
    session: Session, search: SearchRow, latency: DeviceLatency | None, found: Sequence[TrialWithEvaluation]
) -> list[Trial]:
    describe = partial(describe_trial, proposer=search.proposer)
    if latency is None:
        return [describe(trial) for trial in found]
    figures = latency.of_rows([trial.evaluation for trial in found], session)
    return [describe(trial, latency=figure) for trial, figure in zip(found, figures, strict=True)]
