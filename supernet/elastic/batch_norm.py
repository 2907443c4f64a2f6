"""Batch norm with a shared scale and shift and no running statistics of its own.

Running statistics of a supernet describe a mixture of networks and fit none of them, so none are
kept: training uses the batch's, measuring uses those recalibrated for the one network.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


class Normaliser(Protocol):
    """Where a forward pass takes its batch-norm statistics from."""

    def __call__(self, x: Tensor, slot: str, weight: Tensor, bias: Tensor) -> Tensor:
        """`x` normalised, scaled and shifted; `slot` names the layer."""
        ...


class ElasticBatchNorm(nn.Module):
    """Scale and shift of which a call uses the first channels."""

    def __init__(self, num_channels: int, *, has_zero_init: bool = False) -> None:
        super().__init__()
        initial = torch.zeros if has_zero_init else torch.ones
        self.weight = nn.Parameter(initial(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor, slot: str, normalise: Normaliser) -> Tensor:
        """(N, C, H, W), normalised by the statistics that `normalise` holds for this slot."""
        channels = x.shape[1]
        return normalise(x, slot, self.weight[:channels], self.bias[:channels])


def normalise_by_batch(x: Tensor, slot: str, weight: Tensor, bias: Tensor) -> Tensor:
    """Training: the statistics of this very batch."""
    del slot
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=EPS)


def normalise_by_nothing(x: Tensor, slot: str, weight: Tensor, bias: Tensor) -> Tensor:
    """Mean 0 and variance 1, for checks that need no data; never for measuring."""
    del slot
    mean, variance = torch.zeros_like(weight), torch.ones_like(weight)
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=EPS)
