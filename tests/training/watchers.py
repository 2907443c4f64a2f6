"""Strategies that note what a step shows them, and a trainer that has them."""

from dataclasses import replace

import numpy as np
import torch

from supernet.training import Trainer
from supernet.training.data_sampler import DataDraw, DataSampler
from supernet.training.paths import UniformPaths
from tests.training.toy import ToyBatches, toy_recipe, toy_trainer, wake_gammas

PLAIN = {"dropout": 0.0, "clip": "none", "warmup_fraction": 0.0}
"""Nothing that draws, nothing that cuts: gradients add up exactly."""


class WatchingPaths(UniformPaths):
    """Uniform, each network with a factor of its own; keeps the gradients of the single networks."""

    wants_slot_gradients = True

    def __init__(self, seed=0, importances=(0.5, 3.0)):
        super().__init__(seed)
        self._importances = importances
        self.seen = []

    def draw(self, phase, context):
        slots = super().draw(phase, context)
        return tuple(replace(slot, importance=i) for slot, i in zip(slots, self._importances, strict=True))

    def observe(self, step, slots, gradients):
        norms = [gradients.norms(1 + place) for place in range(len(gradients.parts) - 1)]
        self.seen.append((slots, gradients.parts.clone(), norms))


class GivenData(DataSampler):
    """The same positions and weights at every step; keeps the scores."""

    wants_scores = True

    def __init__(self, positions=None, weights=None):
        self._draw = DataDraw(
            None if positions is None else np.array(positions),
            None if weights is None else np.array(weights, dtype=np.float64),
        )
        self.seen = []

    def draw(self, step):
        del step
        return self._draw

    def observe_scores(self, step, draw, scores_n):
        assert draw is self._draw
        self.seen.append((step, scores_n.clone()))


def trainer_with(*, recipe=None, dtype=torch.float64, collective=None, kind=None, **strategies):
    """A toy run whose gradients are all alive, with these strategies in place of its recipe's."""
    recipe = recipe or toy_recipe(**PLAIN)
    toy = toy_trainer(recipe=recipe, dtype=dtype, **({} if kind is None else {"kind": kind}))
    wake_gammas(toy.supernet)
    batches = ToyBatches(batch_size=recipe.batch_size, dtype=dtype)
    return Trainer(toy.supernet, batches, replace(toy.stack, **strategies), collective=collective)
