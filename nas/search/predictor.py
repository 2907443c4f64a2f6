"""Accuracy predicted by two models that know different things, with intervals that hold the truth as often as
they say.

Boosted trees learn what single decisions do; a Gaussian process learns smoothly from a network's figures as a
whole, and so from fewer networks. How much each counts is told by its errors on networks held out from it.

Deviation: the usual advice is an ensemble of trees alone, and a neural network from 500 measurements on.
Searches measure fewer, and there the process beside the trees is what finds the front (decision 20).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite

import numpy as np
from scipy.special import ndtri

from nas.pareto import Floats, Indices
from nas.search.ensemble import Ensemble, Fit
from nas.search.process import GaussianProcess

CONFIDENCE = 0.9
"""How often an interval is to hold the accuracy measured."""
_LEAST_ERROR = 0.01
"""Added to every error before its logarithm is taken: a faultless network has one too, and what a handful of
images tell apart near it weighs little."""


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
    """Both models, fitted to the merits of the networks measured."""

    process: GaussianProcess
    ensemble: Ensemble
    share: float
    """Of the process in what both say together, 0 to 1."""
    figures: Indices
    """The columns of the features that the process reads."""

    @classmethod
    def fit(
        cls,
        features: Floats,
        accuracies: Floats,
        fit: Fit,
        rng: np.random.Generator,
        *,
        figures: Indices | None = None,
    ) -> Predictor:
        """One that has seen features (n, f) and accuracies (n,); `fit` makes the ensemble's members.

        `figures` are the columns that the process reads, None for all.
        """
        columns = np.arange(features.shape[1]) if figures is None else figures
        merits = merits_of(accuracies)
        ensemble = Ensemble.fit(features, merits, fit, rng)
        process = GaussianProcess.fit(features[:, columns], merits, rng)
        return cls(process, ensemble, _best_share(merits, process.held_out, ensemble.held_out), columns)

    def outlooks(self, features: Floats, num: int = 8) -> Floats:
        """Accuracies (num, n) from gloomy to bright: evenly spread quantiles of a normal distribution of each
        merit."""
        means, spreads = self.mean_and_spread(features)
        return accuracies_at(means + ndtri((np.arange(num)[:, None] + 0.5) / num) * spreads)

    def held_out_scores(self, accuracies: Floats) -> Floats:
        """Errors on the networks learned from, as if each had not been seen, in units of the spread."""
        means = self._together(self.process.held_out, self.ensemble.held_out)
        spreads = self._together(self.process.held_out_spread, self.ensemble.held_out_spread)
        return scores(accuracies, means, spreads)

    def mean_and_spread(self, features: Floats) -> tuple[Floats, Floats]:
        """The merits expected (n,), and how far off they may be (n,)."""
        told = zip(
            self.process.mean_and_spread(features[:, self.figures]),
            self.ensemble.mean_and_spread(features),
            strict=True,
        )
        means, spreads = (self._together(*pair) for pair in told)
        return means, spreads

    def _together(self, process: Floats, ensemble: Floats) -> Floats:
        return self.share * process + (1 - self.share) * ensemble


def merits_of(accuracies: Floats) -> Floats:
    """Less the logarithms of the errors: what predictors learn.

    A change of a network takes away a part of its errors rather than a number of points; and where some
    networks fail badly, points would tell of little else.
    """
    return np.asarray(-np.log(1.0 - accuracies + _LEAST_ERROR))


def accuracies_at(merits: Floats) -> Floats:
    """The accuracies (n,) of such merits, 0 and 1 where those are out of reach."""
    return np.asarray(np.clip(1.0 + _LEAST_ERROR - np.exp(-merits), 0.0, 1.0))


def scores(accuracies: Floats, means: Floats, spreads: Floats) -> Floats:
    """Absolute errors of predicted merits in units of the spread: what intervals are calibrated by."""
    # Where neither error nor spread is left, nothing was missed.
    return np.abs(merits_of(accuracies) - means) / np.maximum(spreads, np.finfo(np.float64).tiny)


def conformal_factor(calibration: Floats, confidence: float = CONFIDENCE) -> float:
    """By how many spreads an interval must reach, given scores (n,) of networks not learned from.

    The ceil((n + 1) confidence)-th smallest score: an exchangeable network lies within with at least that
    probability. Infinite where n is too small for it. Source: Lei et al., "Distribution-Free Predictive
    Inference for Regression", JASA 113 (2018), section 2.2 and, for errors scaled by a spread, 5.2.
    """
    rank = ceil((len(calibration) + 1) * confidence)
    return float(np.sort(calibration)[rank - 1]) if rank <= len(calibration) else float("inf")


def predictions(means: Floats, spreads: Floats, factor: float) -> Sequence[Prediction]:
    """The accuracies at merits (n,), with intervals of `factor` spreads (n,) of merit to both sides."""
    lows, highs = (accuracies_at(means + sign * factor * spreads) for sign in (-1.0, 1.0))
    if np.isinf(factor):
        lows, highs = np.full(len(means), -np.inf), np.full(len(means), np.inf)
    rows = zip(accuracies_at(means).tolist(), lows.tolist(), highs.tolist(), strict=True)
    return [Prediction(*row) for row in rows]


def _best_share(targets: Floats, first: Floats, second: Floats) -> float:
    """Of `first` (n,) in a mean with `second` (n,), from 0 to 1, that makes the squares of the errors least.

    Source: Wolpert, "Stacked generalization", Neural Networks 5 (1992), with the two made to sum to one.
    """
    apart = first - second
    square = float(apart @ apart)
    return float(np.clip((targets - second) @ apart / square, 0.0, 1.0)) if square > 0 else 0.5
