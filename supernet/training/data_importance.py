"""Data importance: images are drawn by the norms of their gradients (DA of PA&DA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supernet.training.data_sampler import DataDraw, DataSampler
from supernet.training.importance import (
    ImportanceWeights,
    WeightSums,
    learned_part,
    mixed_probabilities,
)
from supernet.training.rng import Stream, generator_for
from supernet.training.strategy import StrategyState

_UNDECIDED_SCORE = 1.0
"""About that of an image of which a network knows nothing: sqrt(1 - 1 / classes)."""


class ImportanceData(DataSampler):
    """Draws images by how strongly the epoch before was moved by them.

    Source: Lu et al., "PA&DA: Jointly Sampling Path and Data for Consistent NAS", CVPR 2023, and its
    published code; the score, the norm of the loss's gradient by the logits, bounds that of the whole
    gradient (Katharopoulos and Fleuret, ICML 2018) and needs no backward pass.

    The first epoch sees each image once, in a random order. A score is averaged with the one that the
    image got earlier in the epoch, if any. At the end of epoch e of E the probabilities of the next become
    τ score / sum + (1 - τ) / N, τ = e / E up to `limit`, and its images are drawn with replacement, N of
    them less those that fill no whole batch. So the second epoch is still uniform.

    An image that was not drawn scores 0, as in the code, and from epoch to epoch fewer are drawn.

    Deviation: `carries_scores` lets it keep the score that it had (recipe field `carry_scores`).
    """

    wants_scores = True

    def __init__(
        self,
        *,
        num_images: int,
        batch_size: int,
        num_epochs: int,
        steps_per_epoch: int,
        seed: int,
        limit: float,
        weights: ImportanceWeights,
        carries_scores: bool,
    ) -> None:
        """`num_images` are those that the weights learn from."""
        self._num_images = num_images
        self._batch_size = batch_size
        self._num_epochs = num_epochs
        self._steps_per_epoch = steps_per_epoch
        self._seed = seed
        self._limit = limit
        self._weights = weights
        self._carries_scores = carries_scores
        self._scores_n = np.full(num_images, _UNDECIDED_SCORE if carries_scores else 0.0)
        self._is_scored_n = np.zeros(num_images, dtype=np.bool_)
        self._probabilities_n = np.full(num_images, 1 / num_images)
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._sums = WeightSums()
        self._last_epoch: dict[str, float | None] = {}

    # Drawing

    def draw(self, step: int) -> DataDraw:
        """The step's part of its epoch's images, with their weights."""
        epoch, place = divmod(step, self._steps_per_epoch)
        start = place * self._batch_size
        positions_n = self._order_of(epoch)[start : start + self._batch_size]
        ratios_n = 1 / (self._num_images * self._probabilities_n[positions_n])
        return DataDraw(positions_n, self._weights.of(ratios_n))

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            rng = generator_for(self._seed, Stream.DATA_ORDER, epoch, 0)
            self._order = (epoch, self._drawn(rng, is_first=epoch == 0))
        return self._order[1]

    def _drawn(self, rng: np.random.Generator, *, is_first: bool) -> NDArray[np.int64]:
        if is_first:
            return rng.permutation(self._num_images)
        count = self._steps_per_epoch * self._batch_size
        return rng.choice(self._num_images, count, p=self._probabilities_n)

    # Learning

    def observe_scores(self, step: int, draw: DataDraw, scores_n: Tensor) -> None:
        """Notes the batch's scores; an image may be in it more than once."""
        assert draw.positions_n is not None and draw.weights_n is not None
        for position, score in zip(draw.positions_n.tolist(), scores_n.tolist(), strict=True):
            if self._is_scored_n[position]:
                score = (self._scores_n[position] + score) / 2
            self._scores_n[position] = score
            self._is_scored_n[position] = True
        self._sums = self._sums.with_weights(draw.weights_n)

    def end_epoch(self, epoch: int) -> None:
        """Makes the probabilities of the next epoch."""
        part = learned_part(epoch, self._num_epochs, self._limit)
        self._probabilities_n = mixed_probabilities(self._scores_n, part)
        self._last_epoch = {
            "learned_part": part,
            "distinct_part": float(self._is_scored_n.mean()),
            "effective_part": self._sums.effective_part,
        }
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._sums = WeightSums()
        self._is_scored_n[:] = False
        if not self._carries_scores:
            self._scores_n[:] = 0.0

    # What was learned

    def describe(self) -> dict[str, Any]:
        """τ, and of the last whole epoch: the part of the images that were in it, and how large a part of its
        draws equally weighted ones would have been worth as much."""
        return dict(self._last_epoch)

    def state_dict(self) -> StrategyState:
        """Scores of the unfinished epoch and the probabilities it is drawn by."""
        return {
            "scores": torch.from_numpy(self._scores_n),
            "is_scored": torch.from_numpy(self._is_scored_n),
            "probabilities": torch.from_numpy(self._probabilities_n),
            "weight_sums": self._sums.to_json(),
            "last_epoch": self._last_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self._scores_n = state["scores"].numpy().copy()
        self._is_scored_n = state["is_scored"].numpy().copy()
        self._probabilities_n = state["probabilities"].numpy().copy()
        self._sums = WeightSums(*state["weight_sums"])
        self._last_epoch = dict(state["last_epoch"])
        self._order = None
