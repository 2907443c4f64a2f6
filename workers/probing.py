"""Measuring a run's probes: on val, each with batch-norm statistics of its own, at a bounded cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nas.ports import StopCheck
from nas.probes import ProbeNetwork, ProbeResult, choose_probes
from nas.trial import Split
from supernet.data import DataSplits, ResizedSplits
from supernet.evaluate import SubnetEvaluator
from supernet.network import Supernet
from supernet.training.rng import Stream, generator_for

_PROBE = "probe during training"
"""In place of a checkpoint's SHA-256: probes are shown as such, never recorded as evaluations."""

_LARGEST_SHARE = 0.05
"""Of the images that an epoch takes through networks, forward and back: so many see the drawn probes."""
_PASSES = 3
"""Forward, and back at twice the cost."""
_LEAST_IMAGES = 100
"""On val, and as many for the statistics: on fewer an accuracy says nothing."""


class Probing:
    """The ends of the space on all of val, as the curves have them; drawn networks on a part of it.

    The part is chosen so that the drawn networks cost at most a twentieth of the training, counted in images
    times passes; where an epoch is short, `_LEAST_IMAGES` each. It is drawn by the run's seed and the same at
    every epoch, so a network compares with itself.
    """

    def __init__(
        self,
        supernet: Supernet,
        splits: DataSplits,
        *,
        num_drawn: int,
        seed: int,
        num_images_trained: int,
        stop_check: StopCheck,
    ) -> None:
        """`num_images_trained` go through a network in an epoch, once for each network that they train."""
        self.networks = choose_probes(
            supernet.space,
            num_drawn,
            generator_for(seed, Stream.PROBE, 0, 0),
            num_classes=supernet.num_classes,
            in_channels=supernet.in_channels,
        )
        self.chance = float(splits.val.class_counts.max() / len(splits.val))
        """How often the best guess is right that does not look at the image."""
        budget = _LARGEST_SHARE * _PASSES * num_images_trained / max(1, num_drawn)
        part = _part_of(
            splits, max(_LEAST_IMAGES, round(budget / 2)), generator_for(seed, Stream.PROBE, 0, 1)
        )
        device = next(supernet.parameters()).device
        self._of_ends, self._of_drawn = (
            SubnetEvaluator(
                supernet,
                ResizedSplits(images, device=device),
                checkpoint=_PROBE,
                stop_check=stop_check,
            )
            for images in (splits, part)
        )

    def measure_ends(self) -> tuple[ProbeResult, ProbeResult]:
        """The largest network and the smallest."""
        largest, smallest = (self._result(network, self._of_ends) for network in self.networks[:2])
        return largest, smallest

    def measure_drawn(self) -> tuple[ProbeResult, ...]:
        """The others."""
        return tuple(self._result(network, self._of_drawn) for network in self.networks[2:])

    def _result(self, network: ProbeNetwork, evaluator: SubnetEvaluator) -> ProbeResult:
        found = evaluator.evaluate(network.architecture, Split.VAL)
        return ProbeResult(
            number=network.number,
            num_correct=found.num_correct,
            num_images=found.num_images,
            duration_s=found.duration_s,
        )


def _part_of(splits: DataSplits, num_images: int, rng: np.random.Generator) -> DataSplits:
    """So many random images of val, and of calibration the first; all where there are no more."""
    chosen = np.sort(rng.permutation(len(splits.val))[:num_images])
    return replace(splits, val=splits.val.take(chosen), calibration=splits.calibration[:num_images])
