"""A network that was chosen out of a supernet: extracted, measured on val, and on test once, whoever asks."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from sqlalchemy.orm import Session

from nas.architecture import Architecture
from nas.ports import StopCheck
from nas.store import evaluations
from nas.store.database import Database
from nas.store.exclusive import exclusively
from nas.trial import Evaluation, Split
from supernet.data import ResizedSplits
from supernet.evaluate import SubnetEvaluator
from supernet.extract import PlainNetwork, extract
from supernet.network import Supernet
from workers.context import JobContext
from workers.figures import PublishedFigures, settle_figures
from workers.trained import TrainedSupernet


class ChosenNetwork:
    """The very module that is published, with its own batch-norm statistics."""

    def __init__(
        self,
        trained: TrainedSupernet,
        supernet: Supernet,
        data: ResizedSplits,
        architecture: Architecture,
        stop_check: StopCheck,
    ) -> None:
        """`supernet` has the final weights, on the processor: of the whole space or of this network alone."""
        self.architecture = architecture
        # In a space of one it is the only network, and has no choices.
        is_alone = trained.description.network is not None
        self.in_supernet = supernet.space.largest() if is_alone else architecture
        self._trained = trained
        self._data = data
        self._stop_check = stop_check
        self._evaluator = SubnetEvaluator(
            supernet, data, checkpoint=trained.checkpoint, stop_check=stop_check
        )
        self.statistics = self._evaluator.statistics(self.in_supernet)
        self.network: PlainNetwork = extract(supernet, self.in_supernet, self.statistics)

    def settle(self, database: Database, context: JobContext) -> PublishedFigures:
        """Its figures. Those on test are recorded before anybody else may measure them, or were before."""
        key = self.architecture.key
        lock = f"test of {self._trained.row.id} {self._trained.checkpoint} {key}"
        with exclusively(database, lock, self._stop_check):
            figures = settle_figures(
                self._measure,
                lambda split, calibration: self._recorded(database, split, calibration),
                statistics_id=self._statistics_id,
            )
            if not figures.is_test_reused:
                with context.transaction() as session:
                    self.record(session, figures.evaluations[Split.TEST])
        return figures

    def record(self, session: Session, evaluation: Evaluation) -> tuple[int, bool]:
        """The evaluation's row, and whether it is new."""
        costs = self._trained.costs(self.architecture)
        code = self._trained.code(self.architecture)
        return evaluations.record(session, self._trained.row.id, evaluation, costs, code=code)

    @property
    def _statistics_id(self) -> str:
        """Names the batch-norm statistics by their content, and so the very network that is published."""
        digest = hashlib.sha256()
        for tensors in (self.statistics.means, self.statistics.variances):
            for slot in sorted(tensors):
                digest.update(tensors[slot].numpy().tobytes())
        return digest.hexdigest()[:12]

    def _measure(self, split: Split) -> Evaluation:
        """The accuracy of the extracted module, which is what a card promises."""
        measured = self._evaluator.measure(self.network, self.in_supernet, split)
        return replace(measured, architecture=self.architecture)

    def _recorded(self, database: Database, split: Split, calibration: str) -> Evaluation | None:
        """What is recorded of this network with these weights on all of `split`."""
        num_images = len(self._data.labels(split))
        protocol = replace(
            self._trained.protocol, split=split, num_images=num_images, calibration=calibration
        )
        with database.session() as session:
            row = evaluations.find(session, protocol, self.architecture.key)
        return None if row is None else evaluations.as_evaluation(row, self.architecture)
