"""Gradients: one flat buffer for all of them, how the networks of a step are weighted, and clipping."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nas.recipe import MAX_SLOTS, ClipKind
from supernet.training.collective import Collective
from supernet.training.paths import Role
from supernet.training.strategy import Strategy


class FlatGradients:
    """All gradients in one buffer, of which every `parameter.grad` is a view.

    Backward passes add to the views, so one step needs one reduction whatever the number of networks,
    and a parameter that no network used has a gradient of exactly 0 on every rank.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        size = sum(p.numel() for p in self._parameters)
        first = self._parameters[0]
        self._buffer = torch.zeros(size + MAX_SLOTS, dtype=first.dtype, device=first.device)
        self.values = self._buffer[:size]
        """Every gradient, shape (number of parameters,), in the order of the parameters."""
        self.losses = self._buffer[size:]
        """The loss of each slot. They ride in the same buffer to be summed over ranks for free."""
        sizes = [p.numel() for p in self._parameters]
        pieces = zip(self.values.split(sizes), self._parameters, strict=True)
        self._views = [piece.view_as(p) for piece, p in pieces]

    def start(self) -> None:
        """Zeroes the buffer and makes it the parameters' gradient, whatever that was."""
        self._buffer.zero_()
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view

    def sum_over(self, collective: Collective) -> None:
        """Adds the other ranks' gradients and losses: the step's one reduction."""
        collective.all_reduce_sum(self._buffer)


class GradientPolicy(Strategy, ABC):
    """Weighs the networks of a step and treats the sum."""

    @abstractmethod
    def weight(self, role: Role, epsilon: float) -> float:
        """The factor on this network's loss."""

    @abstractmethod
    def clip(self, gradients_p: Tensor) -> None:
        """Changes the summed gradients, shape (number of parameters,), in place."""


class SummedGradients(GradientPolicy):
    """Gradients of all networks added, not averaged; those other than the largest times epsilon."""

    def __init__(self, clip: ClipKind, threshold: float) -> None:
        self._clip = clip
        self._threshold = threshold

    def weight(self, role: Role, epsilon: float) -> float:
        """1 for the largest, epsilon for the others."""
        return 1.0 if role is Role.MAX else epsilon

    def clip(self, gradients_p: Tensor) -> None:
        """As `ClipKind` says."""
        match self._clip:
            case ClipKind.NORM:
                norm = torch.linalg.vector_norm(gradients_p)
                gradients_p.mul_((self._threshold / (norm + 1e-6)).clamp(max=1.0))
            case ClipKind.VALUE:
                gradients_p.clamp_(-self._threshold, self._threshold)
