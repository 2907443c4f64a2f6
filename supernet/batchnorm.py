"""Recalibration: the batch-norm statistics of one network, measured, not inherited.

Recalibrate before every measurement: the statistics that training saw describe a mixture of networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.architecture import Architecture
from supernet.elastic.batch_norm import EPS

if TYPE_CHECKING:
    from supernet.network import Supernet


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
    totals = _Totals()
    for batch in batches:
        images = batch if isinstance(batch, Tensor) else batch[0]
        supernet.run(images, architecture, totals.normalise)
        totals.num_batches += 1
    return totals.statistics()


class _Totals:
    """Sums each batch's statistics while normalising by them."""

    def __init__(self) -> None:
        self.num_batches = 0
        self._means: dict[str, Tensor] = {}
        self._variances: dict[str, Tensor] = {}

    def normalise(self, x: Tensor, slot: str, weight: Tensor, bias: Tensor) -> Tensor:
        mean, variance = torch.zeros_like(weight), torch.zeros_like(weight)
        # With momentum 1 the "running" buffers end up holding exactly this batch's statistics.
        x = F.batch_norm(x, mean, variance, weight, bias, training=True, momentum=1.0, eps=EPS)
        self._means[slot] = self._means.get(slot, 0) + mean
        self._variances[slot] = self._variances.get(slot, 0) + variance
        return x

    def statistics(self) -> Statistics:
        if not self.num_batches:
            raise ValueError("recalibration needs at least one batch of training images")
        return Statistics(
            means={slot: total / self.num_batches for slot, total in self._means.items()},
            variances={slot: total / self.num_batches for slot, total in self._variances.items()},
        )
