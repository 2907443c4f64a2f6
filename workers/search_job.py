"""Runs `search` jobs: Optuna proposes, a pool of Ray actors measures, every result lands as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from nas.architecture import Architecture
from nas.errors import InvalidRequestError
from nas.job import Job
from nas.ports import Evaluator
from nas.search.constraints import Bounds
from nas.search.cost_model import SpaceCosts
from nas.search.feasible import Verdict, check_feasible
from nas.search.loop import SearchLoop
from nas.search.proposers import make_proposer
from nas.search.region import FeasibleRegion
from nas.search.rounds import Round
from nas.search.settings import ProposerName, SearchSettings, parse_objectives
from nas.store import evaluations, searches, supernets
from nas.store.database import Database
from nas.store.jobs import add_event
from nas.store.tables import SearchRow
from nas.trial import Evaluation, Split
from search_spaces import SPACES
from workers.context import JobContext
from workers.service import Finish
from workers.trained import TrainedSupernet, describe_supernet


@dataclass(frozen=True, kw_only=True)
class OpenEvaluator:
    """An evaluator, and how to let it go."""

    evaluator: Evaluator
    close: Callable[[], None]


class SearchJob:
    """Searches a trained supernet."""

    def __init__(
        self,
        database: Database,
        *,
        open_evaluator: Callable[[TrainedSupernet, Callable[[], None]], OpenEvaluator],
    ) -> None:
        """`open_evaluator` comes from the wiring: it says what measures."""
        self._database = database
        self._open_evaluator = open_evaluator

    def run(self, job: Job, context: JobContext) -> Finish:
        """Search to the end; a search that was killed repeats only what was in flight."""
        with self._database.session() as session:
            row = searches.get(session, job.resource_id).row
            trained = describe_supernet(session, supernets.get(session, row.supernet_id).row)
        region = _region(row, trained)
        loop_settings = _settings(row)
        context.report("search", 0, row.num_trials)
        opened = self._open_evaluator(trained, context.check)
        try:
            recorder = _Recorder(
                self._database, job.id, row, trained, region.costs, context, opened.evaluator
            )
            loop = SearchLoop(
                region=region, settings=loop_settings, proposer=make_proposer(region, loop_settings)
            )
            outcome = loop.run(recorder.evaluate, on_round=recorder.on_round)
        finally:
            opened.close()

        def finish(session: Session) -> None:
            payload = {"stop_reason": outcome.stop_reason, "num_trials": len(outcome.trials)}
            add_event(session, job.id, "search_ended", payload)

        return finish


class _Recorder:
    """Measures what is not known yet and writes each result the moment it comes."""

    def __init__(
        self,
        database: Database,
        job_id: str,
        row: SearchRow,
        trained: TrainedSupernet,
        costs: SpaceCosts,
        context: JobContext,
        evaluator: Evaluator,
    ) -> None:
        self._job_id = job_id
        self._row = row
        self._trained = trained
        self._costs = costs
        self._context = context
        self._evaluator = evaluator
        self._space = SPACES[trained.row.search_space]
        self._ids: dict[str, int] = {}
        """Evaluation by architecture key."""
        self._known = self._read_known(database)
        self._frozen = self._freeze()
        self._num_done = 0

    def evaluate(self, numbered: Sequence[tuple[int, Architecture]]) -> list[Evaluation]:
        """Evaluations in order: those known, and the rest measured now."""
        missing = [architecture for _, architecture in numbered if architecture.key not in self._known]
        self._context.check()
        self._evaluator.evaluate(missing, self._on_result)
        return [self._known[architecture.key] for _, architecture in numbered]

    def on_round(self, round_: Round[Evaluation]) -> None:
        """The round's trials in one transaction, and an event with the frontier so far."""
        with self._context.transaction() as session:
            for trial in round_.trials:
                key = trial.architecture.key
                searches.record_trial(
                    session,
                    self._row.id,
                    number=trial.number,
                    evaluation_id=self._ids[key],
                    round=round_.index,
                    is_reused=self._ids[key] in self._frozen,
                )
            payload = {
                "round": round_.index,
                "num_trials": round_.trials[-1].number + 1,
                "frontier": [trial.number for trial in round_.frontier],
            }
            add_event(session, self._job_id, "round", payload)
        self._num_done = round_.trials[-1].number + 1
        self._context.report("search", self._num_done, self._row.num_trials)

    def _on_result(self, evaluation: Evaluation) -> None:
        architecture = evaluation.architecture
        codes = self._space.encode([architecture])
        costs = {name: int(values[0]) for name, values in self._costs.batch(codes, self._costs.names).items()}
        with self._context.transaction() as session:
            evaluation_id, _ = evaluations.record(session, self._trained.row.id, evaluation, costs)
        self._known[architecture.key] = evaluation
        self._ids[architecture.key] = evaluation_id
        self._num_done += 1
        self._context.report("search", min(self._num_done, self._row.num_trials), self._row.num_trials)

    def _read_known(self, database: Database) -> dict[str, Evaluation]:
        """Everything measured in exactly this way, by this search or another."""
        with database.session() as session:
            rows = evaluations.known(
                session,
                self._trained.row.id,
                checkpoint=self._trained.checkpoint,
                split=Split.VAL,
                num_images=self._trained.num_val,
                calibration=self._trained.calibration,
            )
        self._ids = {key: row.id for key, row in rows.items()}
        return {
            key: evaluations.as_evaluation(row, self._space.parse(row.architecture))
            for key, row in rows.items()
        }

    def _freeze(self) -> frozenset[int]:
        """What was known before this search's first attempt: its trials on those are reused ones."""
        with self._context.transaction() as session:
            return frozenset(searches.freeze_known(session, self._row.id, sorted(self._ids.values())))


def _region(row: SearchRow, trained: TrainedSupernet) -> FeasibleRegion:
    space = SPACES[trained.row.search_space]
    costs = SpaceCosts(
        space=space, num_classes=trained.description.num_classes, in_channels=trained.description.in_channels
    )
    region = FeasibleRegion(costs, Bounds.parse(row.constraints, costs))
    answer = check_feasible(region)
    if answer.verdict is Verdict.INFEASIBLE:
        raise InvalidRequestError(answer.reason)
    return region


def _settings(row: SearchRow) -> SearchSettings:
    return SearchSettings(
        num_trials=row.num_trials,
        objectives=parse_objectives(row.objectives),
        seed=row.seed,
        proposer=ProposerName(row.proposer),
    )
