"""Sums that bounded costs are held against from below, branch by branch.

The logarithm of a sum lies above the chord between two of its values, so a sum of parts times a factor is,
as a logarithm, no less than another sum: the chord's, with what the factor is known to be at least. That one
is at its least for the choices taken together, where sum and factor alone would each want their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

ROOM = 1e-10
"""Logarithms are compared with this much room: more than the rounding of some hundred numbers makes of it."""
_TINY = 1e-300
_LOG_OF_NOTHING = -1e9
"""Below the logarithm of any number above 0."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """k sums for each of n branches: no network within the caps is above the most of any."""

    weights: Floats
    """Of the tables, shape (n, k, tables)."""
    added: Floats
    """By option, shape (n, k, options)."""
    offset: Floats
    """Shape (n, k)."""
    most: Floats
    """Shape (n, k)."""

    def take(self, rows: NDArray[np.bool_]) -> Rows:
        """Those of some of the branches."""
        return Rows(
            weights=self.weights[rows], added=self.added[rows], offset=self.offset[rows], most=self.most[rows]
        )

    def with_mixes(self, mixes: Floats, num_logarithms: int) -> Rows:
        """With weighted sums of how far each row is above its most: as it is for the first, which are
        logarithms, as a part of the most for the others. `mixes` are of shape (n, mixes, k).
        """
        if not mixes.shape[1]:
            return self
        is_logarithm = np.arange(self.most.shape[1]) < num_logarithms
        weights = mixes * np.where(is_logarithm, 1.0, 1 / np.maximum(self.most, _TINY))[:, None, :]
        above = self.offset - self.most
        # What has no bound has no weight.
        above[~np.isfinite(above)] = 0.0
        return Rows(
            weights=np.concatenate([self.weights, weights @ self.weights], axis=1),
            added=np.concatenate([self.added, weights @ self.added], axis=1),
            offset=np.concatenate([self.offset, (weights @ above[:, :, None])[:, :, 0]], axis=1),
            most=np.concatenate([self.most, np.full(mixes.shape[:2], ROOM)], axis=1),
        )


@dataclass(frozen=True)
class Chord:
    """start + slope · x is at most ln x between the two values that it was made of."""

    start: Floats
    slope: Floats

    @classmethod
    def between(cls, low: Floats, high: Floats) -> Chord:
        """Of two values each, shape (n,); ln `low` throughout where they are as good as equal."""
        is_some = (low > _TINY) & (low < inf)
        first = np.where(is_some, low, 1.0)
        last = np.where(high > first * (1 + 1e-9), high, inf)
        with np.errstate(invalid="ignore"):
            slope = np.where(last < inf, (np.log(last) - np.log(first)) / (last - first), 0.0)
        start = np.log(first) - slope * first
        return cls(np.where(is_some, start, _LOG_OF_NOTHING), np.where(is_some, slope, 0.0))


def log_of(values: Floats) -> Floats:
    """The logarithm, of numbers too small or too large for it that of the last that are not."""
    return np.asarray(np.log(np.clip(values, _TINY, 1 / _TINY)))


def strain(by_option: Floats, least: Floats, most: Floats) -> Floats:
    """How far of the way from its least to its most an option takes a row, the most of all: (n, options).

    `by_option` (n, k, options), the others (n, k).
    """
    room = np.maximum(most - least, _TINY)[:, :, None]
    with np.errstate(invalid="ignore"):
        shares = np.where(np.isfinite(room), (by_option - least[:, :, None]) / room, 0.0)
    return np.asarray(np.clip(shares, 0.0, 1.0).max(axis=1, initial=0.0))
