"""Batch norm in training: whose statistics the networks of a step are normalised by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from supernet.elastic.batch_norm import EPS, Normaliser, normalise_by_batch
from supernet.training.collective import Collective
from supernet.training.strategy import Strategy


class BatchNormPolicy(Strategy, ABC):
    """Says where training takes its batch-norm statistics from."""

    @abstractmethod
    def normaliser(self, collective: Collective) -> Normaliser:
        """For one step."""

    def exchanges(self, collective: Collective) -> bool:
        """Whether ranks exchange something within a pass, and so must do it in one order."""
        del collective
        return False


class LocalBatchNorm(BatchNormPolicy):
    """Each rank by its own part of the batch."""

    def normaliser(self, collective: Collective) -> Normaliser:
        """The statistics of whatever is normalised."""
        del collective
        return normalise_by_batch


class SynchronisedBatchNorm(BatchNormPolicy):
    """All ranks by the whole batch: the forward and the gradients of one process, at two exchanges a layer.

    The exchanges come on top of the step's one reduction of gradients, in the forward and again in the
    backward pass.
    """

    def normaliser(self, collective: Collective) -> Normaliser:
        """The statistics of what all ranks normalise together; their parts are of one size."""
        if collective.world_size == 1:
            return normalise_by_batch

        def normalise(x: Tensor, slot: str, weight: Tensor, bias: Tensor) -> Tensor:
            del slot
            count = x.numel() // x.shape[1] * collective.world_size
            # In the type of the weights: where x comes in bfloat16, its sums would be worth nothing.
            wide = x.to(weight.dtype)
            mean = _sum_over_ranks(wide.sum((0, 2, 3)), collective) / count
            centred = wide - mean.view(-1, 1, 1)
            # After the mean, not as the difference of two large sums, which float32 would spoil.
            variance = _sum_over_ranks(centred.square().sum((0, 2, 3)), collective) / count
            scale = weight * torch.rsqrt(variance + EPS)
            return (centred * scale.view(-1, 1, 1) + bias.view(-1, 1, 1)).to(x.dtype)

        return normalise

    def exchanges(self, collective: Collective) -> bool:
        """Where there are several ranks."""
        return collective.world_size > 1


class _SumOverRanks(torch.autograd.Function):
    """The sum reaches every rank, so that every rank's part gets the gradients of all."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, collective: Collective) -> Tensor:
        ctx.collective = collective
        total = part.clone()
        collective.all_reduce_sum(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        ctx.collective.all_reduce_sum(total)
        return total, None


def _sum_over_ranks(part: Tensor, collective: Collective) -> Tensor:
    total: Tensor = _SumOverRanks.apply(part, collective)
    return total
