"""Measuring: a network's accuracy on a split, with its own batch-norm statistics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from nas.architecture import Architecture
from nas.ports import StopCheck, never_stop
from nas.trial import Evaluation, Split
from supernet.batchnorm import BatchStatistics, MeanAndVariance, Statistics, mean_statistics
from supernet.data.batches import (
    calibration_id,
    calibration_pixels,
    evaluation_batches,
    evaluation_pixels,
)
from supernet.data.preprocess import ResizedSplits
from supernet.graph import run_block, split_into_blocks
from supernet.network import Supernet
from supernet.pieces import run_in_pieces
from supernet.prefixes import Prefix, PrefixCache

BatchT = TypeVar("BatchT")

CALIBRATION_BATCH_SIZE = 200
"""As Once-for-All recalibrates."""
EVALUATION_BATCH_SIZE = 500
"""Also what a bundle's `verify.py` uses: sums round alike."""
SEARCH_KEPT_BYTES = 512 * 2**20
"""Of activations that a measuring process keeps while searching a finished supernet."""

_RunBlocks = Callable[[Sequence[range], Tensor], Tensor]


class SubnetEvaluator:
    """Measures networks of one supernet on one data set. Not thread-safe.

    Neither the order of the networks nor what is kept between them shows in a result.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: ResizedSplits,
        *,
        checkpoint: str,
        max_kept_bytes: int = 0,
        stop_check: StopCheck = never_stop,
    ) -> None:
        """`checkpoint` is the SHA-256 of the supernet's weights: it names what was measured. The data is on
        the supernet's device.

        Up to `max_kept_bytes` of activations are kept for networks that begin alike. That is for weights
        that change no more: leave it at 0 while the supernet trains. `stop_check` is called before each
        batch.
        """
        self._supernet = supernet
        self._data = data
        self._kept = PrefixCache(max_bytes=max_kept_bytes)
        self._stop_check = stop_check
        self.checkpoint = checkpoint
        self.calibration = calibration_id(data.splits, CALIBRATION_BATCH_SIZE)

    def statistics(self, architecture: Architecture) -> Statistics:
        """Batch-norm statistics of this network on the calibration images."""
        return self._subject(architecture).statistics

    def evaluate(self, architecture: Architecture, split: Split = Split.VAL) -> Evaluation:
        """The network's accuracy as it stands in the supernet, recalibrated first."""
        started = time.perf_counter()
        predictions = self._subject(architecture).predictions(split)
        return self._evaluation(architecture, split, predictions, started)

    def measure(
        self, logits_of: Callable[[Tensor], Tensor], architecture: Architecture, split: Split
    ) -> Evaluation:
        """The accuracy of what `logits_of` computes on the images of `split`: an extracted module, say."""
        started = time.perf_counter()
        resolution = self._supernet.space.resolution_px(architecture)
        batches = evaluation_batches(self._data, split, resolution, EVALUATION_BATCH_SIZE)
        with torch.no_grad():
            predictions = torch.cat(
                [
                    logits_of(images).argmax(dim=1).cpu()
                    for images, _ in _until_stopped(batches, self._stop_check)
                ]
            )
        return self._evaluation(architecture, split, predictions, started)

    def _subject(self, architecture: Architecture) -> _Subject:
        return _Subject(self._supernet, architecture, self._data, self._kept, self._stop_check)

    def _evaluation(
        self, architecture: Architecture, split: Split, predictions: Tensor, started: float
    ) -> Evaluation:
        labels = self._data.labels(split)
        is_correct = predictions == labels
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


class _Subject:
    """One network being measured."""

    def __init__(
        self,
        supernet: Supernet,
        architecture: Architecture,
        data: ResizedSplits,
        kept: PrefixCache,
        stop_check: StopCheck,
    ) -> None:
        self._supernet = supernet
        self._data = data
        self._kept = kept
        self._stop_check = stop_check
        self._resolution = supernet.space.resolution_px(architecture)
        self._layers = supernet.lower(architecture)
        self._blocks = split_into_blocks(self._layers)
        self._stops = kept.stops_worth_keeping(self._layers, self._blocks)

    @cached_property
    @torch.no_grad()
    def statistics(self) -> Statistics:
        """The same, to the bit, as `recalibrate` gives."""
        batches = calibration_pixels(self._data, self._resolution, CALIBRATION_BATCH_SIZE)
        stoppable = _until_stopped(batches, self._stop_check)
        return mean_statistics(self._calibrate(i, pixels) for i, pixels in enumerate(stoppable))

    @torch.no_grad()
    def predictions(self, split: Split) -> Tensor:
        """(N,) the classes that the network finds, on the processor."""
        return torch.cat([logits.argmax(dim=1).cpu() for logits in self.logits(split)])

    @torch.no_grad()
    def logits(self, split: Split) -> Iterator[Tensor]:
        """(N, classes) of each batch."""
        run_layer = self._supernet.layer_runner(self.statistics.normalise)

        def run(blocks: Sequence[range], x: Tensor) -> Tensor:
            return run_in_pieces(self._layers, blocks, x, run_layer)

        batches = evaluation_pixels(self._data, split, self._resolution, EVALUATION_BATCH_SIZE)
        for i, pixels in enumerate(_until_stopped(batches, self._stop_check)):
            yield self._run(run, (split, i), pixels, {})

    def _calibrate(self, number: int, pixels: Tensor) -> BatchStatistics:
        statistics = BatchStatistics()
        run_layer = self._supernet.layer_runner(statistics.normalise)

        def run(blocks: Sequence[range], x: Tensor) -> Tensor:
            for block in blocks:
                x = run_block(self._layers, block, x, run_layer)
            return x

        self._run(run, ("calibration", number), pixels, statistics.by_slot)
        return statistics

    def _run(
        self, run: _RunBlocks, batch: tuple[str, int], pixels: Tensor, statistics: dict[str, MeanAndVariance]
    ) -> Tensor:
        """The network's output, begun where a network that begins alike has left off.

        `run` writes to `statistics` what it measures; what was measured before is put there.
        """
        prefix = self._kept.longest(batch, self._layers, self._stops)
        if prefix is None:
            done, x = 0, self._data.normalise(pixels)
        else:
            done, x = prefix.stop, prefix.output
            statistics.update(prefix.batch_statistics)
        for stop in (stop for stop in self._stops if stop > done):
            x = run(self._blocks_between(done, stop), x)
            self._kept.keep(batch, self._layers, Prefix(stop, x, dict(statistics)))
            done = stop
        return run(self._blocks_between(done, len(self._layers)), x)

    def _blocks_between(self, start: int, stop: int) -> Sequence[range]:
        return [block for block in self._blocks if start <= block.start < stop]


def _until_stopped(batches: Iterable[BatchT], stop_check: StopCheck) -> Iterator[BatchT]:
    for batch in batches:
        stop_check()
        yield batch
