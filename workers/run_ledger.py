"""What the trainings of a verification come to, written the moment it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nas.store import evaluations, verifications
from nas.store.tables import VerificationRow, VerificationRunRow
from workers.context import JobContext
from workers.single_run import MeasuredRun
from workers.trained import TrainedSupernet


class RunLedger:
    """Writes rows, and tells how far the runs are."""

    def __init__(
        self,
        row: VerificationRow,
        trained: TrainedSupernet,
        context: JobContext,
        due: Iterable[VerificationRunRow],
        *,
        on_landed: Callable[[], None],
    ) -> None:
        """`on_landed` is called within the transaction of each result."""
        self._row = row
        self._trained = trained
        self._context = context
        self._epochs = {run.number: run.epochs for run in due}
        self._num_done = dict.fromkeys(self._epochs, 0)
        self._on_landed = on_landed

    def on_epoch(self, number: int, num_done: int) -> None:
        """So many epochs of the run are done."""
        self._num_done[number] = num_done
        self.report()

    def on_measured(self, number: int, measured: MeasuredRun) -> None:
        """A row for the evaluation, and the run's own."""
        costs = self._trained.costs(measured.evaluation.architecture)
        with self._context.transaction() as session:
            evaluation_id, _ = evaluations.record(
                session,
                self._row.supernet_id,
                measured.evaluation,
                costs,
                code=self._trained.code(measured.evaluation.architecture),
            )
            verifications.record_run(
                session,
                self._row.id,
                number,
                evaluation_val_id=evaluation_id,
                weights_uri=measured.weights_uri,
                rate_factor=measured.rate_factor,
            )
            self._on_landed()
        self.on_epoch(number, self._epochs[number])

    def on_failed(self, number: int, error: str) -> None:
        """The run's row alone."""
        with self._context.transaction() as session:
            verifications.fail_run(session, self._row.id, number, error)
            self._on_landed()
        self.on_epoch(number, self._epochs[number])

    def report(self) -> None:
        """How many epochs are done, of those that were due."""
        self._context.report("train", sum(self._num_done.values()), sum(self._epochs.values()))
