"""Rank correlations, and their bootstrap intervals over networks and trainings at once.

A resample is a count for each network: all of its correlations are then products of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Correlation = Callable[..., Vector | float]

SEED = 0


def kendall_tau(x_n: NDArray, y_n: NDArray) -> float:
    """Kendall's tau-b, which allows for ties."""
    return float(tau_of_resamples(x_n, y_n, np.ones((1, len(x_n))))[0])


def spearman_rho(x_n: NDArray, y_n: NDArray) -> float:
    """The correlation of ranks, equal values sharing their mean rank."""
    return float(rho_of_resamples(x_n, y_n, np.ones((1, len(x_n))))[0])


def within_bins(
    correlation: Callable[[NDArray, NDArray], float], x_n: NDArray, y_n: NDArray, bins_n: NDArray
) -> float:
    """The plain mean over bins of the correlation among the networks of a bin."""
    return float(np.mean([correlation(x_n[bins_n == b], y_n[bins_n == b]) for b in np.unique(bins_n)]))


def tau_of_resamples(x_n: NDArray, y_n: NDArray, counts_rn: Vector) -> Vector:
    """Tau-b of each resample, shape (r,). Copies of one network are ties in both and so count for nothing."""
    x_nn, y_nn = (np.sign(v[:, None] - v[None, :]).astype(float) for v in (np.asarray(x_n), np.asarray(y_n)))
    agree, of_x, of_y = (_quadratic(counts_rn, m) for m in (x_nn * y_nn, x_nn**2, y_nn**2))
    return _divided(agree, np.sqrt(of_x * of_y))


def rho_of_resamples(x_n: NDArray, y_n: NDArray, counts_rn: Vector) -> Vector:
    """Spearman's rho of each resample, shape (r,)."""
    first, second = (_centred_ranks(np.asarray(v), counts_rn) for v in (x_n, y_n))
    weighted = counts_rn * first
    spread = np.sqrt((weighted * first).sum(1) * (counts_rn * second * second).sum(1))
    return _divided((weighted * second).sum(1), spread)


def _quadratic(counts_rn: Vector, m_nn: Vector) -> Vector:
    return ((counts_rn @ m_nn) * counts_rn).sum(1)


def _centred_ranks(values_n: NDArray, counts_rn: Vector) -> Vector:
    below_nn = (values_n[None, :] < values_n[:, None]).astype(float)
    equal_nn = (values_n[None, :] == values_n[:, None]).astype(float)
    ranks_rn = counts_rn @ (below_nn + equal_nn / 2).T
    mean_r1 = (counts_rn * ranks_rn).sum(1, keepdims=True) / counts_rn.sum(1, keepdims=True)
    return ranks_rn - mean_r1


def _divided(above: Vector, below: Vector) -> Vector:
    # Where all values are tied nothing is ranked: no agreement, rather than no number.
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % percentile interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled_r: Vector) -> Interval:
        """The percentiles of what the resamples gave."""
        low, high = np.percentile(resampled_r, [2.5, 97.5]).tolist()
        return cls(value, low, high)

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class Bootstrap:
    """Resamples of networks, bin by bin so that each bin keeps its size, shared by all that is compared."""

    def __init__(self, bins_n: NDArray, num_resamples: int) -> None:
        self._bins_n = np.asarray(bins_n)
        rng = np.random.default_rng([SEED, 0])
        self._counts_rn = np.zeros((num_resamples, len(self._bins_n)))
        for number in np.unique(self._bins_n):
            members = np.flatnonzero(self._bins_n == number)
            even = np.full(len(members), 1 / len(members))
            self._counts_rn[:, members] = rng.multinomial(len(members), even, size=num_resamples)

    def of(self, correlation: Correlation, runs: Sequence[tuple[NDArray, NDArray]]) -> tuple[float, Vector]:
        """(mean over runs, the same of each resample) of a correlation among all networks.

        `runs` are pairs of what is compared, one for each training; trainings are resampled too.
        """
        return self._over_runs([self._one(correlation, x, y, self._everything) for x, y in runs])

    def within(
        self, correlation: Correlation, runs: Sequence[tuple[NDArray, NDArray]]
    ) -> tuple[float, Vector]:
        """The same, as the mean over bins."""
        return self._over_runs([self._one(correlation, x, y, self._each_bin) for x, y in runs])

    @property
    def _everything(self) -> list[NDArray]:
        return [np.arange(len(self._bins_n))]

    @property
    def _each_bin(self) -> list[NDArray]:
        return [np.flatnonzero(self._bins_n == number) for number in np.unique(self._bins_n)]

    def _one(
        self, correlation: Correlation, x_n: NDArray, y_n: NDArray, groups: list[NDArray]
    ) -> tuple[float, Vector]:
        once = [correlation(x_n[g], y_n[g], np.ones((1, len(g))))[0] for g in groups]
        resampled = [correlation(x_n[g], y_n[g], self._counts_rn[:, g]) for g in groups]
        return float(np.mean(once)), np.mean(resampled, axis=0)

    def _over_runs(self, runs: Sequence[tuple[float, Vector]]) -> tuple[float, Vector]:
        values_s = np.array([value for value, _ in runs])
        resampled_sr = np.stack([resampled for _, resampled in runs])
        # Another generator, so that the networks of a resample do not depend on the number of runs.
        rng = np.random.default_rng([SEED, 1, len(runs)])
        even = np.full(len(runs), 1 / len(runs))
        counts_rs = rng.multinomial(len(runs), even, size=resampled_sr.shape[1])
        return float(values_s.mean()), (counts_rs.T * resampled_sr).sum(0) / len(runs)
