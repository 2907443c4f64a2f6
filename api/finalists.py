"""Which networks a verification is of: trials of a search, or what a request describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from api.fronts import figures_of_rows, front
from api.problems import invalid_field
from api.trained import TrainedSupernet, latency_of_search
from nas.costs import costs
from nas.errors import ConflictError
from nas.search.settings import parse_objectives
from nas.store import searches
from nas.store.resources import WithJob
from nas.store.searches import TrialWithEvaluation
from nas.store.tables import SearchRow
from nas.store.verifications import ChosenNetwork
from nas.verification import MAX_NETWORKS, MAX_RUNS


def chosen_trials(
    session: Session,
    supernet: TrainedSupernet,
    search: WithJob[SearchRow],
    numbers: Sequence[int] | None,
) -> list[ChosenNetwork]:
    """The trials of these numbers; None: those on the frontier of a search that has ended."""
    trials = (
        _on_frontier(session, search) if numbers is None else [*_numbered(session, search.row.id, numbers)]
    )
    return [
        _chosen(supernet, found.evaluation.architecture, trial_number=found.trial.number) for found in trials
    ]


def given_architectures(
    supernet: TrainedSupernet, descriptions: Sequence[dict[str, Any] | str]
) -> list[ChosenNetwork]:
    """The networks in their order, one given twice once; ProblemError names the first that is none."""
    networks = [
        _chosen(supernet, description, field=f"architectures.{number}")
        for number, description in enumerate(descriptions)
    ]
    return [*{network.architecture.key: network for network in networks}.values()]


def check_num_runs(num_networks: int, num_runs_each: int) -> None:
    """ProblemError where that is more than one job may do."""
    total = num_networks * num_runs_each
    if total > MAX_RUNS:
        message = (
            f"{num_networks} networks of {num_runs_each} trainings each are {total} runs, and {MAX_RUNS} are "
            "the most of one verification; choose fewer networks, trainings or learning_rates"
        )
        raise invalid_field("trainings", num_runs_each, message)


def _on_frontier(session: Session, search: WithJob[SearchRow]) -> list[TrialWithEvaluation]:
    if not search.job.state.is_terminal:
        raise ConflictError(
            f"search {search.row.id} is {search.job.state}, so its frontier may still change; wait for its "
            "end, or name trial_numbers"
        )
    trials = searches.trials(session, search.row.id)
    if not trials:
        raise ConflictError(
            f"search {search.row.id} is {search.job.state} and has no trial; verify networks of another"
        )
    positions = front(
        figures_of_rows([trial.evaluation for trial in trials], latency_of_search(session, search.row)),
        parse_objectives(search.row.objectives),
    )
    if len(positions) > MAX_NETWORKS:
        message = (
            f"the frontier has {len(positions)} networks, and at most {MAX_NETWORKS} are verified at once; "
            "name those you mean by their numbers"
        )
        raise invalid_field("trial_numbers", None, message)
    return [trials[position] for position in positions]


def _numbered(session: Session, search_id: str, numbers: Sequence[int]) -> list[TrialWithEvaluation]:
    found = searches.numbered(session, search_id, numbers)
    for place, number in enumerate(numbers):
        if number not in found:
            message = f"search {search_id} has no trial {number}; see /v1/searches/{search_id}/trials"
            raise invalid_field(f"trial_numbers.{place}", number, message)
    return [found[number] for number in numbers]


def _chosen(
    supernet: TrainedSupernet,
    description: dict[str, Any] | str,
    *,
    field: str = "architecture",
    trial_number: int | None = None,
) -> ChosenNetwork:
    architecture, model = supernet.parse_architecture(description, field=field), supernet.costs
    return ChosenNetwork(
        architecture=architecture,
        costs=costs(model.space, architecture, num_classes=model.num_classes, in_channels=model.in_channels),
        trial_number=trial_number,
    )
