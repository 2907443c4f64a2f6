"""Recalibration: the batch-norm statistics of one network, measured, not inherited.

Recalibrate before every measurement: the statistics that training saw describe a mixture of networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.architecture import Architecture
from supernet.elastic.batch_norm import EPS

if TYPE_CHECKING:
    from supernet.network import Supernet


MeanAndVariance = tuple[Tensor, Tensor]
"""Of one batch at one layer; each of shape (channels,)."""


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of every batch norm of one network, by layer name; each of shape (channels,)."""

    means: Mapping[str, Tensor]
    variances: Mapping[str, Tensor]

    def normalise(self, x: Tensor, slot: str, weight: Tensor, bias: Tensor) -> Tensor:
        """`x` normalised by this network's own statistics."""
        mean, variance = self.means[slot], self.variances[slot]
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=EPS)


@torch.no_grad()
def recalibrate(
    supernet: Supernet, architecture: Architecture, batches: Iterable[Tensor | tuple[Tensor, Tensor]]
) -> Statistics:
    """Statistics of `architecture`: the plain mean over `batches` of each batch's mean and variance.

    The variance is the unbiased one, as `nn.BatchNorm2d(momentum=None)` accumulates it. `batches` are
    normalised image tensors (N, C, H, W), or pairs of images and labels. The supernet, its mode
    included, is untouched. Source: Once-for-All's `reset_running_statistics`; AttentiveNAS.
    """
    return mean_statistics(
        _measure_batch(supernet, architecture, batch if isinstance(batch, Tensor) else batch[0])
        for batch in batches
    )


class BatchStatistics:
    """Notes the mean and the unbiased variance of a batch at every layer while normalising by them."""

    def __init__(self) -> None:
        self.by_slot: dict[str, MeanAndVariance] = {}

    def normalise(self, x: Tensor, slot: str, weight: Tensor, bias: Tensor) -> Tensor:
        """`x` normalised by its own statistics."""
        mean, variance = torch.zeros_like(weight), torch.zeros_like(weight)
        # With momentum 1 the "running" buffers end up holding exactly this batch's statistics.
        x = F.batch_norm(x, mean, variance, weight, bias, training=True, momentum=1.0, eps=EPS)
        self.by_slot[slot] = (mean, variance)
        return x


def mean_statistics(batches: Iterable[BatchStatistics]) -> Statistics:
    """The plain mean of the batches' statistics, summed in their order."""
    measured = [batch.by_slot for batch in batches]
    if not measured:
        raise ValueError("recalibration needs at least one batch of training images")

    def mean_of(slot: str, which: int) -> Tensor:
        return reduce(torch.add, (by_slot[slot][which] for by_slot in measured)) / len(measured)

    return Statistics(
        means={slot: mean_of(slot, 0) for slot in measured[0]},
        variances={slot: mean_of(slot, 1) for slot in measured[0]},
    )


def _measure_batch(supernet: Supernet, architecture: Architecture, images: Tensor) -> BatchStatistics:
    statistics = BatchStatistics()
    supernet.run(images, architecture, statistics.normalise)
    return statistics
