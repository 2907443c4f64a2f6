"""Accuracy predicted by an ensemble, with intervals that hold the truth as often as they say.

Which regressor the members are is passed in, so that nothing here needs a library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isfinite

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from nas.pareto import Floats

CONFIDENCE = 0.9
"""How often an interval is to hold the accuracy measured."""
NUM_MEMBERS = 24
"""Some nine of them have not seen a network that was learned from: enough for their mean to err much as that
of all does. With eight it errs more, and intervals come out too wide."""

Predict = Callable[[Floats], Floats]
"""Targets (n,) of features (n, f)."""
Fit = Callable[[Floats, Floats, int], Predict]
"""Learns from features (n, f), targets (n,) and a seed."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network's accuracy was expected to be before it was measured."""

    accuracy: float
    """Fraction of images, 0 to 1."""
    low: float
    high: float
    """Between which it was to lie nine times in ten; infinite where too few were measured to say."""

    @property
    def has_interval(self) -> bool:
        """Whether enough was measured for the interval to say anything."""
        return isfinite(self.low) and isfinite(self.high)

    def holds(self, accuracy: float) -> bool:
        """Whether the interval holds what was measured."""
        return self.low <= accuracy <= self.high


@dataclass(frozen=True)
class Predictor:
    """Members fitted to bootstrap resamples of the networks measured."""

    members: tuple[Predict, ...]
    held_out: Floats
    """For each network learned from, (n,), the mean of the members that did not see it."""
    held_out_spread: Floats
    """Their standard deviation about it."""
    floor: float
    """Added to every spread: what members agree on is not certain for that."""

    @classmethod
    def fit(
        cls,
        features: Floats,
        accuracies: Floats,
        fit: Fit,
        rng: np.random.Generator,
        *,
        num_members: int = NUM_MEMBERS,
    ) -> Predictor:
        """An ensemble that has seen features (n, f) and accuracies (n,)."""
        num = len(accuracies)
        drawn = rng.integers(num, size=(num_members, num))
        seeds = rng.integers(2**31, size=num_members).tolist()
        members = tuple(fit(features[d], accuracies[d], s) for d, s in zip(drawn, seeds, strict=True))
        opinions = np.stack([member(features) for member in members])
        was_seen = np.stack([np.isin(np.arange(num), d) for d in drawn])
        mean, spread = _of_unseen(opinions, was_seen)
        return cls(members, mean, spread, floor=float(np.median(np.abs(accuracies - mean))))

    def outlooks(self, features: Floats, num: int = 8) -> Floats:
        """Accuracies (num, n) from gloomy to bright: evenly spread quantiles of a normal distribution each.

        Trees never expect more than the best they saw. What may surpass it shows in the brightest alone.
        """
        means, spreads = self.mean_and_spread(features)
        return np.asarray(means + ndtri((np.arange(num)[:, None] + 0.5) / num) * spreads, dtype=np.float64)

    def opinions(self, features: Floats) -> Floats:
        """What each member expects, shape (members, n)."""
        return np.stack([member(features) for member in self.members])

    def held_out_scores(self, accuracies: Floats) -> Floats:
        """Errors on the networks learned from, by members that did not see them, in units of the spread."""
        return scores(accuracies, self.held_out, self.held_out_spread + self.floor)

    def mean_and_spread(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean of the members (n,), and their standard deviation with the floor (n,)."""
        opinions = self.opinions(features)
        return opinions.mean(axis=0), opinions.std(axis=0, ddof=1) + self.floor


def scores(accuracies: Floats, means: Floats, spreads: Floats) -> Floats:
    """Absolute errors in units of the spread: what intervals are calibrated by."""
    # Where neither error nor spread is left, nothing was missed.
    return np.abs(accuracies - means) / np.maximum(spreads, np.finfo(np.float64).tiny)


def conformal_factor(calibration: Floats, confidence: float = CONFIDENCE) -> float:
    """By how many spreads an interval must reach, given scores (n,) of networks not learned from.

    The ceil((n + 1) confidence)-th smallest score: an exchangeable network lies within with at least that
    probability. Infinite where n is too small for it. Source: Lei et al., "Distribution-Free Predictive
    Inference for Regression", JASA 113 (2018), section 2.2 and, for errors scaled by a spread, 5.2.
    """
    rank = ceil((len(calibration) + 1) * confidence)
    return float(np.sort(calibration)[rank - 1]) if rank <= len(calibration) else float("inf")


def predictions(means: Floats, spreads: Floats, factor: float) -> Sequence[Prediction]:
    """Means (n,) with intervals of `factor` spreads (n,) to both sides."""
    rows = zip(means.tolist(), (factor * spreads).tolist(), strict=True)
    return [Prediction(mean, mean - reach, mean + reach) for mean, reach in rows]


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
