"""Data samplers: which images each step sees, and how much each counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from supernet.training.strategy import Strategy


@dataclass(frozen=True)
class DataDraw:
    """The images of one step, over all ranks."""

    positions_n: NDArray[np.int64] | None = None
    """Among the images that the weights learn from; None: the next of a new random order each epoch."""
    weights_n: NDArray[np.float64] | None = None
    """Factors on their losses; None: 1 for each."""


class DataSampler(Strategy, ABC):
    """Says which images one step trains on."""

    wants_scores = False
    """Whether `observe_scores` is to be called."""

    @abstractmethod
    def draw(self, step: int) -> DataDraw:
        """A pure function of the step and of what was observed before its epoch: the same on every rank."""

    def observe_scores(self, step: int, draw: DataDraw, scores_n: Tensor) -> None:
        """For each image of the draw, over all ranks, the norm of the first slot's gradient by logits."""


class UniformData(DataSampler):
    """Each image once an epoch, in a new random order."""

    def draw(self, step: int) -> DataDraw:
        """The batches' own order."""
        del step
        return DataDraw()
