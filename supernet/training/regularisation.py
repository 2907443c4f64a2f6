"""Regularisation: which networks get dropout, which parameters decay.

Weight decay is coupled (added to the gradient) and applied once a step by the optimizer. Where the largest
network contains every shared weight, as with elastic sizes, this equals an L2 penalty on the largest network
alone, as BigNAS asks. Adding the penalty to each network's loss would count shared weights several times.

Deviation: in a space that chooses between operations, the largest network lacks the weights of the others;
they decay at every step too, which keeps the rule the same for all weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from torch import nn

from supernet.training.paths import Role
from supernet.training.strategy import Strategy


class Regularisation(Strategy, ABC):
    """Says how strongly each network is regularised."""

    @abstractmethod
    def dropout(self, role: Role) -> float:
        """Rate of the dropout before the classifier."""


class LargestOnly(Regularisation):
    """Dropout for the largest network alone: small networks underfit rather than overfit (BigNAS).

    Deviation: AttentiveNAS and AlphaNet, whose loop is BigNAS's, also skip blocks of the largest network's
    last two stages at random (drop-connect 0.2). No recipe offers it: it is for runs of hundreds of epochs,
    and in short ones networks do not overfit.
    """

    def __init__(self, *, dropout: float) -> None:
        self._dropout = dropout

    def dropout(self, role: Role) -> float:
        """The rate for the largest, 0 for the others."""
        return self._dropout if role is Role.MAX else 0.0


class EveryNetwork(Regularisation):
    """Dropout for all networks alike (Once-for-All)."""

    def __init__(self, *, dropout: float) -> None:
        self._dropout = dropout

    def dropout(self, role: Role) -> float:
        """The rate, whatever the role."""
        del role
        return self._dropout


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimizer: weights, which decay, and biases and batch norms, which do not."""
    kept = list(parameters)
    return [
        {"params": [p for p in kept if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in kept if p.ndim <= 1], "weight_decay": 0.0},
    ]
