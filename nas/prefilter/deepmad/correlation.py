"""Whether DeepMAD's objective ranks networks as their measured accuracies do, beyond what their cost says.

Spearman's rank correlation, and the same with MACs held: networks that cost more have both the higher
objective and, mostly, the higher accuracy, which says nothing for choosing among networks of like cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from nas.pareto import Floats

LEAST_NETWORKS = 12
"""From fewer nothing is concluded: their resamples are too much alike."""
_NUM_RESAMPLES = 1000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Of a sample, with the 95 % interval of its bootstrap."""

    value: float
    interval_95: tuple[float, float]

    @property
    def is_positive(self) -> bool:
        """Whether even the low end of the interval is above zero."""
        return self.interval_95[0] > 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How DeepMAD's objective goes with accuracy; None where it cannot be said."""

    num_networks: int
    spearman: RankCorrelation | None = None
    spearman_given_macs: RankCorrelation | None = None
    """With MACs held: the partial correlation of the ranks."""

    @property
    def is_trusted(self) -> bool:
        """Whether both correlations are above zero beyond the doubt that their intervals leave."""
        return all(known is not None and known.is_positive for known in self._known)

    @property
    def reason(self) -> str:
        """Why it is trusted, or why not."""
        num = self.num_networks
        if num < LEAST_NETWORKS:
            return f"networks measured so far: {num}; {LEAST_NETWORKS} are the least to judge by"
        told = f"the objective's rank correlation with the accuracy of {num} networks measured"
        for known, where in zip(self._known, ("", ", MACs held,"), strict=True):
            if known is None:
                return f"{told}{where} is undefined, for one of the two is always the same"
            if not known.is_positive:
                interval = "95 % interval {:.2f} to {:.2f}".format(*known.interval_95)
                return f"{told}{where} is {known.value:.2f}, {interval}: not surely above 0"
        return f"{told} is surely above 0, also with MACs held"

    @property
    def _known(self) -> tuple[RankCorrelation | None, RankCorrelation | None]:
        return self.spearman, self.spearman_given_macs


def agreement(objectives: Floats, accuracies: Floats, macs: Floats, rng: np.random.Generator) -> Agreement:
    """All of shape (n,), a number a network."""
    num = len(objectives)
    if num < LEAST_NETWORKS:
        return Agreement(num)
    drawn = np.concatenate([np.arange(num)[None], rng.integers(num, size=(_NUM_RESAMPLES, num))])
    plain, given = _correlations(objectives[drawn], accuracies[drawn], macs[drawn])
    return Agreement(num, _with_interval(plain), _with_interval(given))


def _correlations(x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Of each row (m, n) the correlation of the ranks of x and y, and the same with those of z held."""
    x, y, z = (_standard_ranks(values) for values in (x, y, z))
    xy, xz, yz = (x * y).mean(axis=1), (x * z).mean(axis=1), (y * z).mean(axis=1)
    # What follows MACs to the rank leaves nothing to correlate.
    left = np.sqrt(np.maximum(1 - xz**2, 0.0) * np.maximum(1 - yz**2, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        given = np.where(left > 1e-9, (xy - xz * yz) / left, np.nan)
    return np.clip(xy, -1.0, 1.0), np.clip(given, -1.0, 1.0)


def _standard_ranks(values: Floats) -> Floats:
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    spread = ranks.std(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(ranks / spread)


def _with_interval(values: Floats) -> RankCorrelation | None:
    """The first is the sample's, the others its resamples'."""
    if not np.isfinite(values[0]):
        return None
    low, high = np.nanpercentile(values[1:], _PERCENTILES).tolist()
    return RankCorrelation(float(values[0]), (low, high))
