"""Collective: what the ranks of a data-parallel run tell each other.

Every rank runs the same networks on its own part of the batch. Losses are divided by the size of the
whole batch, so that gradients *summed* over ranks are those of one process. Two things differ: each rank
draws its own dropout, and batch norm sees the rank's own part only, unless it is synchronised.
"""

from __future__ import annotations

from typing import Protocol

import torch.distributed as dist
from torch import Tensor


class Collective(Protocol):
    """The place of this process among its peers, and the two exchanges that training needs."""

    @property
    def rank(self) -> int:
        """From 0."""
        ...

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        ...

    def all_reduce_sum(self, flat: Tensor) -> None:
        """Replaces `flat` on every rank by the sum over ranks."""
        ...

    def broadcast(self, tensor: Tensor) -> None:
        """Replaces `tensor` on every rank by that of rank 0."""
        ...


class SingleProcess:
    """No peers."""

    rank = 0
    world_size = 1

    def all_reduce_sum(self, flat: Tensor) -> None:
        """Nothing to add."""

    def broadcast(self, tensor: Tensor) -> None:
        """Nobody to tell."""


class TorchCollective:
    """The default process group of torch.distributed, which the caller has set up (gloo, nccl)."""

    @property
    def rank(self) -> int:
        """From 0."""
        return dist.get_rank()

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return dist.get_world_size()

    def all_reduce_sum(self, flat: Tensor) -> None:
        """One all-reduce of the whole tensor."""
        dist.all_reduce(flat, op=dist.ReduceOp.SUM)

    def broadcast(self, tensor: Tensor) -> None:
        """From rank 0."""
        dist.broadcast(tensor, src=0)
