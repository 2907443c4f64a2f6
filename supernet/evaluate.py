"""Measuring: a network's accuracy on a split, with its own batch-norm statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from nas.architecture import Architecture
from nas.ports import StopCheck, never_stop
from nas.trial import Evaluation, Split
from supernet.batchnorm import Statistics, recalibrate
from supernet.data.batches import calibration_batches, calibration_id, evaluation_batches
from supernet.data.preprocess import ResizedSplits
from supernet.network import Supernet

BatchT = TypeVar("BatchT")

CALIBRATION_BATCH_SIZE = 200
"""As Once-for-All recalibrates."""
EVALUATION_BATCH_SIZE = 500
"""Also what a bundle's `verify.py` uses: sums round alike."""


class SubnetEvaluator:
    """Measures networks of one supernet on one data set. Not thread-safe."""

    def __init__(
        self, supernet: Supernet, data: ResizedSplits, *, checkpoint: str, stop_check: StopCheck = never_stop
    ) -> None:
        """`checkpoint` is the SHA-256 of the supernet's weights: it names what was measured.

        `stop_check` is called before each batch.
        """
        self._stop_check = stop_check
        self._supernet = supernet
        self._data = data
        self.checkpoint = checkpoint
        self.calibration = calibration_id(data.splits, CALIBRATION_BATCH_SIZE)

    def statistics(self, architecture: Architecture) -> Statistics:
        """Batch-norm statistics of this network on the calibration images."""
        resolution = self._supernet.space.resolution_px(architecture)
        batches = calibration_batches(self._data, resolution, CALIBRATION_BATCH_SIZE)
        return recalibrate(self._supernet, architecture, self._until_stopped(batches))

    def evaluate(self, architecture: Architecture, split: Split = Split.VAL) -> Evaluation:
        """The network's accuracy as it stands in the supernet, recalibrated first."""
        started = time.perf_counter()
        statistics = self.statistics(architecture)

        def logits_of(images: Tensor) -> Tensor:
            return self._supernet.run(images, architecture, statistics.normalise)

        return self.measure(logits_of, architecture, split, started=started)

    def measure(
        self,
        logits_of: Callable[[Tensor], Tensor],
        architecture: Architecture,
        split: Split,
        *,
        started: float | None = None,
    ) -> Evaluation:
        """The accuracy of what `logits_of` computes on the images of `split`: an extracted module, say."""
        started = time.perf_counter() if started is None else started
        labels = self._data.labels(split)
        is_correct = self._predictions(logits_of, architecture, split) == labels
        num_classes = self._data.splits.num_classes
        return Evaluation(
            architecture=architecture,
            checkpoint=self.checkpoint,
            split=split,
            num_images=len(labels),
            calibration=self.calibration,
            num_correct=int(is_correct.sum()),
            per_class_correct=tuple(torch.bincount(labels[is_correct], minlength=num_classes).tolist()),
            per_class_images=tuple(torch.bincount(labels, minlength=num_classes).tolist()),
            correct_bitmap=np.packbits(is_correct.numpy()).tobytes(),
            duration_s=time.perf_counter() - started,
        )

    @torch.no_grad()
    def _predictions(
        self, logits_of: Callable[[Tensor], Tensor], architecture: Architecture, split: Split
    ) -> Tensor:
        resolution = self._supernet.space.resolution_px(architecture)
        batches = evaluation_batches(self._data, split, resolution, EVALUATION_BATCH_SIZE)
        return torch.cat([logits_of(images).argmax(dim=1) for images, _ in self._until_stopped(batches)])

    def _until_stopped(self, batches: Iterable[BatchT]) -> Iterator[BatchT]:
        for batch in batches:
            self._stop_check()
            yield batch
