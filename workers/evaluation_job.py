"""Runs `evaluate` jobs: measures the networks of a batch, each recorded and told of the moment it comes."""

from __future__ import annotations

from sqlalchemy.orm import Session

from nas.architecture import Architecture
from nas.job import Job
from nas.store import evaluation_batches, evaluations, supernets
from nas.store.database import Database
from nas.store.jobs import add_event
from nas.trial import Evaluation
from workers.context import JobContext
from workers.open_evaluator import EvaluatorFactory
from workers.service import Finish
from workers.trained import TrainedSupernet, describe_supernet

_PHASE = "evaluate"


class EvaluationJob:
    """Measures networks that something outside has chosen."""

    def __init__(self, database: Database, *, open_evaluator: EvaluatorFactory) -> None:
        self._database = database
        self._open_evaluator = open_evaluator

    def run(self, job: Job, context: JobContext) -> Finish:
        """Measure what nobody has measured yet; a batch that was killed repeats only what was in flight."""
        batch_id = job.resource_id
        with self._database.session() as session:
            row = evaluation_batches.get(session, batch_id).row
            trained = describe_supernet(session, supernets.get(session, row.supernet_id).row)
        with context.transaction() as session:
            # A search may have measured some since the batch was made.
            evaluation_batches.take_over(session, batch_id, trained.protocol)
            due = evaluation_batches.due(session, batch_id)
            count = evaluation_batches.counts(session, [batch_id])[batch_id]
        missing = [trained.space.parse(description) for description in due]
        recorder = _Recorder(batch_id, trained, context, num_before=count.num_measured, num_due=len(missing))
        recorder.report()
        if missing:
            self._measure(missing, trained, context, recorder)

        def finish(session: Session) -> None:
            count = evaluation_batches.counts(session, [batch_id])[batch_id]
            payload = {"num_measured": count.num_measured, "num_infeasible": count.num_infeasible}
            add_event(session, job.id, "evaluations_ended", payload)

        return finish

    def _measure(
        self,
        missing: list[Architecture],
        trained: TrainedSupernet,
        context: JobContext,
        recorder: _Recorder,
    ) -> None:
        opened = self._open_evaluator(trained, context.check)
        try:
            context.check()
            opened.evaluator.evaluate(missing, recorder.record)
        finally:
            opened.close()


class _Recorder:
    """Writes each evaluation, and what of the batch it answers, in one transaction."""

    def __init__(
        self,
        batch_id: str,
        trained: TrainedSupernet,
        context: JobContext,
        *,
        num_before: int,
        num_due: int,
    ) -> None:
        self._batch_id = batch_id
        self._trained = trained
        self._context = context
        self._num_done = num_before
        self._total = num_before + num_due

    def record(self, evaluation: Evaluation) -> None:
        """Once for each network, whoever was the first to measure it."""
        architecture = evaluation.architecture
        with self._context.transaction() as session:
            costs = self._trained.costs(architecture)
            code = self._trained.code(architecture)
            evaluation_id, is_new = evaluations.record(
                session, self._trained.row.id, evaluation, costs, code=code
            )
            evaluation_batches.link(
                session, self._batch_id, architecture.key, evaluation_id, is_reused=not is_new
            )
            self._num_done += 1
            self._context.landed(self._num_done)
        self.report()

    def report(self) -> None:
        """How far the batch is."""
        self._context.report(_PHASE, self._num_done, self._total)
