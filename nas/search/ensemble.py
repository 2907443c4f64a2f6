"""An ensemble: regressors fitted to bootstrap resamples, whose disagreement says how little is known.

Which regressor the members are is passed in, so that nothing here needs a library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.pareto import Floats

NUM_MEMBERS = 24
"""Some nine of them have not seen a network that was learned from: enough for their mean to err much as that
of all does. With eight it errs more, and intervals come out too wide."""

Predict = Callable[[Floats], Floats]
"""Targets (n,) of features (n, f)."""
Fit = Callable[[Floats, Floats, int], Predict]
"""Learns from features (n, f), targets (n,) and a seed."""


@dataclass(frozen=True)
class Ensemble:
    """Members fitted to bootstrap resamples of the networks measured."""

    members: tuple[Predict, ...]
    held_out: Floats
    """For each network learned from, (n,), the mean of the members that did not see it."""
    held_out_spread: Floats
    """Their standard deviation about it, with the floor."""
    floor: float
    """Added to every spread: what members agree on is not certain for that."""

    @classmethod
    def fit(
        cls,
        features: Floats,
        targets: Floats,
        fit: Fit,
        rng: np.random.Generator,
        *,
        num_members: int = NUM_MEMBERS,
    ) -> Ensemble:
        """One that has seen features (n, f) and targets (n,)."""
        num = len(targets)
        drawn = rng.integers(num, size=(num_members, num))
        seeds = rng.integers(2**31, size=num_members).tolist()
        members = tuple(fit(features[d], targets[d], s) for d, s in zip(drawn, seeds, strict=True))
        opinions = np.stack([member(features) for member in members])
        was_seen = np.stack([np.isin(np.arange(num), d) for d in drawn])
        mean, spread = _of_unseen(opinions, was_seen)
        floor = float(np.median(np.abs(targets - mean)))
        return cls(members, mean, spread + floor, floor)

    def opinions(self, features: Floats) -> Floats:
        """What each member expects, shape (members, n)."""
        return np.stack([member(features) for member in self.members])

    def mean_and_spread(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean of the members (n,), and their standard deviation with the floor (n,)."""
        opinions = self.opinions(features)
        return opinions.mean(axis=0), opinions.std(axis=0, ddof=1) + self.floor


def _of_unseen(opinions: Floats, was_seen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Mean and standard deviation, for each column, over the members that did not see it.

    Over all members where fewer than two did not: with 24 this hardly ever happens.
    """
    unseen = np.where((~was_seen).sum(axis=0) < 2, 1.0, 1.0 - was_seen)
    count = unseen.sum(axis=0)
    mean = (opinions * unseen).sum(axis=0) / count
    # Unbiased, like that over all members: they are not equally many.
    variance = ((opinions - mean) ** 2 * unseen).sum(axis=0) / (count - 1)
    return mean, np.sqrt(variance)
