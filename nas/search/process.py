"""A Gaussian process: what is alike in its features is expected to measure alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

from nas.pareto import Floats, Indices

_LENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Over which the expectation varies, in standard deviations of the features taken together …"""
_NOISES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""… and the variance of what they do not tell, as a part of what they do: the likeliest pair is taken."""
_MAX_LEARNED = 1000
"""Of more networks so many are drawn: time grows with the third power."""
_TINY = 1e-12


@dataclass(frozen=True)
class GaussianProcess:
    """Fitted to targets; knows what it would have said of each without having seen it.

    Matérn kernel of order 5/2 on standardised features, one length for all of them. Length and noise are
    those of the highest marginal likelihood, the scale is the likeliest beside them. Source: Rasmussen and
    Williams, "Gaussian Processes for Machine Learning" (2006), 4.2.1, 5.4.1 and, for what is held out, 5.4.2.
    """

    held_out: Floats
    """For each network (n,) what is expected of it by all the others that were learned from."""
    held_out_spread: Floats
    """Its standard deviation, noise included."""
    _scaling: _Scaling
    _posterior: _Posterior

    @classmethod
    def fit(cls, features: Floats, targets: Floats, rng: np.random.Generator) -> GaussianProcess:
        """That of features (n, f) and targets (n,). O(n³)."""
        learned = np.arange(len(targets))
        if len(targets) > _MAX_LEARNED:
            learned = np.sort(rng.choice(learned, _MAX_LEARNED, replace=False))
        scaling = _Scaling.of(features[learned], targets[learned])
        posterior = _Posterior.likeliest(scaling.points(features[learned]), scaling.values(targets[learned]))
        # Those not drawn were not seen in any case.
        means, spreads = posterior.mean_and_spread(scaling.points(features))
        means[learned], spreads[learned] = posterior.left_out()
        return cls(*scaling.told(means, spreads), scaling, posterior)

    def mean_and_spread(self, features: Floats) -> tuple[Floats, Floats]:
        """What is expected (n,), and its standard deviation (n,), noise included."""
        return self._scaling.told(*self._posterior.mean_and_spread(self._scaling.points(features)))


@dataclass(frozen=True)
class _Scaling:
    """Features and targets to mean 0 and variance 1; features that never vary are left out."""

    varies: Indices
    shift: Floats
    stretch: Floats
    mean: float
    spread: float

    @classmethod
    def of(cls, features: Floats, targets: Floats) -> _Scaling:
        spread = features.std(axis=0)
        varies = np.flatnonzero(spread > _TINY)
        # Distances between networks stay of one size however many features there are.
        stretch = spread[varies] * np.sqrt(max(1, len(varies)))
        shift = features[:, varies].mean(axis=0)
        return cls(varies, shift, stretch, float(targets.mean()), max(float(targets.std()), _TINY))

    def points(self, features: Floats) -> Floats:
        return np.asarray((features[:, self.varies] - self.shift) / self.stretch)

    def values(self, targets: Floats) -> Floats:
        return (targets - self.mean) / self.spread

    def told(self, means: Floats, spreads: Floats) -> tuple[Floats, Floats]:
        return self.mean + self.spread * means, self.spread * spreads


@dataclass(frozen=True)
class _Posterior:
    """The process after points (n, f) with values (n,) of mean 0 and variance 1."""

    points: Floats
    values: Floats
    length: float
    noise: float
    factor: tuple[Floats, bool]
    """Cholesky's, of the kernel with the noise on its diagonal."""

    @classmethod
    def likeliest(cls, points: Floats, values: Floats) -> _Posterior:
        distances = cdist(points, points)
        # One by one: kept together they would fill much memory.
        tried = (
            cls(points, values, length, noise, _factor(distances, length, noise))
            for length, noise in product(_LENGTHS, _NOISES)
        )
        return max(tried, key=lambda posterior: posterior.log_likelihood)

    @cached_property
    def weights(self) -> Floats:
        return np.asarray(cho_solve(self.factor, self.values))

    @cached_property
    def variance(self) -> float:
        """Of the process, the likeliest."""
        return max(float(self.values @ self.weights) / len(self.values), _TINY)

    @property
    def log_likelihood(self) -> float:
        """At that variance, less what is the same for every length and noise."""
        half_log_determinant = float(np.log(np.diag(self.factor[0])).sum())
        return float(-0.5 * len(self.values) * np.log(self.variance)) - half_log_determinant

    def mean_and_spread(self, points: Floats) -> tuple[Floats, Floats]:
        alike = _matern(cdist(points, self.points) / self.length)
        explained = (alike * cho_solve(self.factor, alike.T).T).sum(axis=1)
        variance = self.variance * (np.maximum(1.0 - explained, 0.0) + self.noise)
        return np.asarray(alike @ self.weights), np.sqrt(variance)

    def left_out(self) -> tuple[Floats, Floats]:
        """Mean and spread at each point by all the others."""
        precision = np.diag(cho_solve(self.factor, np.eye(len(self.values))))
        return self.values - self.weights / precision, np.sqrt(self.variance / precision)


def _factor(distances: Floats, length: float, noise: float) -> tuple[Floats, bool]:
    factor, is_lower = cho_factor(_matern(distances / length) + noise * np.eye(len(distances)), lower=True)
    return np.asarray(factor), is_lower


def _matern(distances: Floats) -> Floats:
    scaled = np.sqrt(5.0) * distances
    return np.asarray((1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))
