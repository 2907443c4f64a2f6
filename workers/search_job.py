"""Runs `search` jobs: Optuna proposes, a pool of Ray actors measures, every result lands as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from sqlalchemy.orm import Session

from nas.architecture import Architecture
from nas.devices.latency_costs import DeviceCosts, networks_of
from nas.errors import InvalidRequestError
from nas.job import Job
from nas.pareto import Objective, normalise
from nas.ports import Evaluator
from nas.prefilter.certificate import Verdict, certify
from nas.prefilter.last_resort import last_resort
from nas.search.constraints import Bounds
from nas.search.cost_model import CostModel, SpaceCosts
from nas.search.forecasts import forecast_report, is_forecast
from nas.search.loop import SearchLoop
from nas.search.proposers import make_proposer
from nas.search.region import FeasibleRegion
from nas.search.rounds import ForecastReport, Round, SearchTrial
from nas.search.settings import ACCURACY, ProposerName, SearchSettings, parse_objectives
from nas.store import evaluations, searches, supernets
from nas.store.database import Database
from nas.store.jobs import JobQueue, add_event
from nas.store.latency import read_model, source_of
from nas.store.tables import SearchRow
from nas.trial import Evaluation
from supernet.device import CPU, take_device
from supernet.training.state import differences, machine_of, repeats_bits
from workers.context import JobContext
from workers.open_evaluator import EvaluatorFactory, OpenedWhenNeeded
from workers.prefiltering import open_prefilter
from workers.service import Finish
from workers.trained import TrainedSupernet, describe_supernet

_CERTIFICATE_S = 5.0
"""The service gave up sooner; a proof found here still saves the whole search. A cancel waits for it."""
_LAST_RESORT_S = 20.0
"""For descents to a network within the bounds, or to what is nearest, where nothing else found any."""
_STARTED, _RESUMED = "search_started", "resumed"


class SearchJob:
    """Searches a trained supernet."""

    def __init__(
        self,
        database: Database,
        *,
        open_evaluator: EvaluatorFactory,
        device: str = CPU.type,
    ) -> None:
        """`open_evaluator` comes from the wiring: it says what measures, on the device of this name."""
        self._database = database
        self._open_evaluator = open_evaluator
        self._device = device

    def run(self, job: Job, context: JobContext) -> Finish:
        """Search to the end; a search that was killed repeats only what was in flight."""
        with self._database.session() as session:
            row = searches.get(session, job.resource_id).row
            trained = describe_supernet(session, supernets.get(session, row.supernet_id).row)
            inherited = _inherited(session, row, trained)
            costs = _costs(session, row, trained)
        region = FeasibleRegion(costs, Bounds.parse(row.constraints, costs))
        witness = _witness(region)
        loop_settings = _settings(row)
        loop = SearchLoop[Evaluation](
            region=region,
            settings=loop_settings,
            proposer=make_proposer(region, loop_settings),
            inherited=inherited,
            prefilter=open_prefilter(
                job.id, row, trained, context,
                region=region, settings=loop_settings, make_proposer=make_proposer,
            ),
            last_resort=partial(last_resort, region, witness=witness, limit_s=_LAST_RESORT_S),
        )  # fmt: skip
        context.report("search", 0, loop.num_trials)
        recorder = _Recorder(job.id, row, trained, context, num_trials=loop.num_trials)
        recorder.recall(self._database)
        _tell_start(self._database, job, context, take_device(self._device))
        evaluator = OpenedWhenNeeded(partial(self._open_evaluator, trained, context.check))
        try:
            outcome = loop.run(
                partial(recorder.evaluate, evaluator),
                known=recorder.known_before,
                on_round=recorder.on_round,
            )
        finally:
            evaluator.close()

        def finish(session: Session) -> None:
            searches.set_stop_reason(session, row.id, outcome.stop_reason)
            payload = {"stop_reason": outcome.stop_reason, "num_trials": len(outcome.trials)}
            add_event(session, job.id, "search_ended", payload)

        return finish


def _tell_start(database: Database, job: Job, context: JobContext, device: torch.device) -> None:
    """Tell where the search measures, and whether what it repeats is still measured to the same bits.

    Where actors run on other machines than this one, theirs is not seen.
    """
    here = machine_of(device)
    attempts = JobQueue(database).events_of_kinds(job.id, (_STARTED, _RESUMED))
    departures: list[str] = []
    if attempts:
        last = attempts[-1].payload
        departures = [*last["departures"], *differences(last["machine"], here)]
        if not repeats_bits(device):
            departures.append(f"device: {device.type} does not repeat its sums bit for bit")
    payload = {"machine": here, "is_exact": not departures, "departures": departures}
    with context.transaction() as session:
        add_event(session, job.id, _RESUMED if attempts else _STARTED, payload)


@dataclass(frozen=True)
class _Recorded:
    """An evaluation and the row it stands in."""

    evaluation: Evaluation
    id: int


class _Recorder:
    """What the search knows, by architecture key; each new evaluation is written the moment it comes."""

    def __init__(
        self,
        job_id: str,
        row: SearchRow,
        trained: TrainedSupernet,
        context: JobContext,
        *,
        num_trials: int,
    ) -> None:
        self._job_id = job_id
        self._row = row
        self._trained = trained
        self._context = context
        self._num_trials = num_trials
        self._known: dict[str, _Recorded] = {}
        self._frozen: frozenset[int] = frozenset()
        self._objectives = parse_objectives(row.objectives)
        self._forecasts: list[SearchTrial[Evaluation]] = []
        """Trials predicted with an interval before they were measured."""
        self._num_measured = 0
        """Trials on evaluations that were not known at the start."""
        self._num_done = 0
        """Trials whose evaluation is recorded, those of the round in hand included."""

    def recall(self, database: Database) -> None:
        """Know everything measured in exactly this way, by this search or another.

        What was known before the search's first attempt stays written: its trials on those are reused ones.
        """
        with database.session() as session:
            for key, row in evaluations.known(session, self._trained.protocol).items():
                evaluation = evaluations.as_evaluation(row, self._trained.space.parse(row.architecture))
                self._known[key] = _Recorded(evaluation, row.id)
        ids = sorted(known.id for known in self._known.values())
        with self._context.transaction() as session:
            self._frozen = frozenset(searches.freeze_known(session, self._row.id, ids))

    @property
    def known_before(self) -> list[tuple[Architecture, float]]:
        """What was measured before the search's first attempt, in that order, with accuracies."""
        known = sorted(
            (each for each in self._known.values() if each.id in self._frozen), key=lambda each: each.id
        )
        return [(each.evaluation.architecture, each.evaluation.accuracy) for each in known]

    def evaluate(
        self, evaluator: Evaluator, numbered: Sequence[tuple[int, Architecture]]
    ) -> list[Evaluation]:
        """A round's evaluations in order: those known, and the rest measured now."""
        missing = [architecture for _, architecture in numbered if architecture.key not in self._known]
        first_number, _ = numbered[0]
        self._num_done = first_number + len(numbered) - len(missing)
        self._context.check()
        evaluator.evaluate(missing, self._record)
        return [self._known[architecture.key].evaluation for _, architecture in numbered]

    def on_round(self, round_: Round[Evaluation]) -> None:
        """The round and its trials in one transaction, and an event with the frontier so far."""
        self._forecasts += filter(is_forecast, round_.trials)
        num_trials = round_.trials[-1].number + 1
        reference = normalise(round_.reference[None, :], self._objectives)[0].tolist()
        report = forecast_report(self._forecasts, _binned_by(self._objectives))
        with self._context.transaction() as session:
            for trial in round_.trials:
                self._record_trial(session, trial, predicted_from=round_.trials[0].number)
            searches.record_round(
                session,
                self._row.id,
                number=round_.index,
                num_trials=num_trials,
                num_measured=self._num_measured,
                hypervolume=round_.hypervolume,
                reference=reference,
                forecasts=report,
            )
            payload = {
                "round": round_.index,
                "num_trials": num_trials,
                "num_measured": self._num_measured,
                "frontier": [trial.number for trial in round_.frontier],
                "hypervolume": round_.hypervolume,
                "reference": dict(zip(self._row.objectives, reference, strict=True)),
                "predictor": _told(report),
            }
            add_event(session, self._job_id, "round", payload)
        self._report()

    def _record_trial(self, session: Session, trial: SearchTrial[Evaluation], *, predicted_from: int) -> None:
        evaluation_id = self._known[trial.architecture.key].id
        is_reused = evaluation_id in self._frozen
        self._num_measured += not is_reused
        searches.record_trial(
            session,
            self._row.id,
            number=trial.number,
            evaluation_id=evaluation_id,
            round=trial.round,
            is_reused=is_reused,
            origin=trial.origin,
            prediction=trial.prediction,
            predicted_from=predicted_from if trial.prediction else None,
        )

    def _record(self, evaluation: Evaluation) -> None:
        architecture = evaluation.architecture
        with self._context.transaction() as session:
            costs = self._trained.costs(architecture)
            code = self._trained.code(architecture)
            evaluation_id, is_new = evaluations.record(
                session, self._trained.row.id, evaluation, costs, code=code
            )
            if not is_new:
                # Another search was quicker. Its row is what this one, resumed, would be told.
                row = evaluations.get(session, evaluation_id)
                evaluation = evaluations.as_evaluation(row, architecture)
            self._num_done += 1
            self._context.landed(self._num_done)
        self._known[architecture.key] = _Recorded(evaluation, evaluation_id)
        self._report()

    def _report(self) -> None:
        self._context.report("search", self._num_done, self._num_trials)


def _costs(session: Session, row: SearchRow, trained: TrainedSupernet) -> CostModel:
    """Exact ones, and the latency on its device, by what predicted it when the search was made."""
    exact = SpaceCosts(
        space=trained.space,
        num_classes=trained.description.num_classes,
        in_channels=trained.description.in_channels,
    )
    source = source_of(row)
    if source is None:
        return exact
    return DeviceCosts(exact=exact, model=read_model(session, source, networks_of(exact)))


def _witness(region: FeasibleRegion) -> Architecture | None:
    """A network that keeps the bounds, None where that is undecided; InvalidRequestError where none does."""
    answer = certify(region, limit_s=_CERTIFICATE_S)
    if answer.verdict is Verdict.INFEASIBLE:
        raise InvalidRequestError(answer.reason)
    return answer.architecture


def _inherited(session: Session, row: SearchRow, trained: TrainedSupernet) -> list[Architecture]:
    """The networks of the search that this one extends; its end is final, so every attempt reads the same."""
    if row.extends is None:
        return []
    return [
        trained.space.parse(found.evaluation.architecture) for found in searches.trials(session, row.extends)
    ]


def _binned_by(objectives: Sequence[Objective]) -> str:
    """The cost within whose bins predictions are compared: the first that is sought, else MACs."""
    return next((objective.name for objective in objectives if objective != ACCURACY), "macs")


def _told(report: ForecastReport | None) -> dict[str, Any] | None:
    """The report under the names that answers use."""
    if report is None:
        return None
    return {
        "num_forecasts": report.num_selected,
        "coverage_90": report.coverage,
        "num_ranked": report.num_ranked,
        "within_bin_tau": report.within_bin_tau,
    }


def _settings(row: SearchRow) -> SearchSettings:
    return SearchSettings(
        num_trials=row.num_trials,
        objectives=parse_objectives(row.objectives),
        seed=row.seed,
        proposer=ProposerName(row.proposer),
        flat_rounds=row.flat_rounds,
    )
