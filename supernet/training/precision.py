"""Precision: in which numbers the networks of a step are run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext

import torch

from supernet.training.strategy import Strategy


class Precision(Strategy, ABC):
    """Says how a forward pass computes. Weights, losses, gradients and updates keep the weights' type."""

    @abstractmethod
    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        """Inside, forward passes on this device are run so; backward passes belong outside."""


class FullPrecision(Precision):
    """In the numbers that the weights are."""

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        """Changes nothing."""
        del device
        return nullcontext()


class Bfloat16Autocast(Precision):
    """Convolutions and matrix products in bfloat16, what adds up many numbers in float32.

    As torch's autocast has it. Bfloat16 has the range of float32, so losses need no scaling.
    """

    def forward(self, device: torch.device) -> AbstractContextManager[object]:
        """Torch's autocast, whose casts of weights end with the forward pass."""
        return torch.autocast(device.type, torch.bfloat16)
