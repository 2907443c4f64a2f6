"""Hypervolume gained: what each candidate would add to a front, and a batch that adds most together."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from nas.pareto import Floats, Indices, hypervolume, pareto_front
from nas.search.sampled_gain import SampledFronts, shortlist

_NUM_RIVALS = 400
"""Candidates looked at again after each choice of a batch: those that promised most before it."""


class Fronts(Protocol):
    """In every opinion on the candidates, the front measured and the candidates chosen so far."""

    def mean_gains(self, rows: Indices) -> Floats:
        """What each of the candidates at `rows`, alone, adds to the front in the mean; shape (rows,)."""

    def choose(self, row: int) -> None:
        """Take the candidate for measured, in every opinion as it holds it."""


def gains(losses: Floats, front: Floats, corner: Floats) -> Floats:
    """What each row of losses (n, m), alone, adds to the hypervolume of the front (k, m); shape (n,).

    All minimised, below the reference point `corner` (m,). O(n k) in one and two objectives; beyond, one
    hypervolume for each row that is not dominated.
    """
    front = front[(front < corner).all(axis=1)]
    front = front[pareto_front(front)]
    if len(corner) == 1:
        return np.maximum(np.min(front, initial=corner[0]) - losses[:, 0], 0.0)
    if len(corner) == 2:
        return _gains_in_plane(losses, front, corner)
    gained = np.zeros(len(losses))
    for row in np.flatnonzero((losses < corner).all(axis=1)):
        # What the row dominates, less what of it the front dominates too.
        shared = hypervolume(np.maximum(front, losses[row]), corner)
        gained[row] = max(0.0, float(np.prod(corner - losses[row])) - shared)
    return gained


def best_batch(samples: Floats, front: Floats, corner: Floats, count: int) -> list[int]:
    """Up to `count` candidates, each chosen for the mean gain over the samples, given those chosen before it.

    `samples` (s, n, m) are s opinions on the losses of n candidates. In every opinion the chosen are taken
    for measured as it holds them, so that a batch spreads out. Where nothing gains beside them, as with one
    objective after the best in every opinion, the next is chosen as if they were not there; and where nothing
    gains on the front either, as if that were not. Fewer where no opinion holds one below the corner.

    Gains are exact in one and two objectives, and found at drawn points beyond (`sampled_gain`).
    """
    if len(corner) <= 2:
        return _best_batch(samples, front, corner, count)
    listed = shortlist(samples, front, corner)
    return [int(listed[i]) for i in _best_batch(samples[:, listed], front, corner, count)]


def _best_batch(samples: Floats, front: Floats, corner: Floats, count: int) -> list[int]:
    chosen: list[int] = []
    for start in (front, front[:0]):
        if len(chosen) == count:
            break
        alone = _fronts(samples, start, corner).mean_gains(np.arange(samples.shape[1]))
        while len(chosen) < count and _without(alone, chosen).max(initial=0.0) > 0:
            fronts = _fronts(samples, start, corner)
            chosen += _spread_batch(fronts, _without(alone, chosen), count - len(chosen))
    return chosen


def _fronts(samples: Floats, front: Floats, corner: Floats) -> Fronts:
    return (_ExactFronts if len(corner) <= 2 else SampledFronts)(samples, front, corner)


def _spread_batch(fronts: Fronts, expected: Floats, count: int) -> list[int]:
    """Candidates until nothing gains beside them; `expected` (n,) are mean gains over the front, 0 for those
    that are not to be chosen."""
    may_be_chosen = expected > 0
    chosen: list[int] = []
    while len(chosen) < count and expected.max(initial=0.0) > 0:
        best = int(expected.argmax())
        chosen.append(best)
        may_be_chosen[best] = False
        fronts.choose(best)
        rivals = np.argsort(-expected, kind="stable")[:_NUM_RIVALS]
        expected = np.zeros_like(expected)
        expected[rivals] = fronts.mean_gains(rivals)
        expected[~may_be_chosen] = 0.0
    return chosen


class _ExactFronts:
    """Of whole rows."""

    def __init__(self, samples: Floats, front: Floats, corner: Floats) -> None:
        self._samples = samples
        self._corner = corner
        self._fronts = [front] * len(samples)

    def mean_gains(self, rows: Indices) -> Floats:
        """By every front's own steps."""
        found = [
            gains(sample[rows], known, self._corner)
            for sample, known in zip(self._samples, self._fronts, strict=True)
        ]
        return np.asarray(np.mean(found, axis=0))

    def choose(self, row: int) -> None:
        """One row more in every front."""
        self._fronts = [
            np.vstack([known, sample[row]]) for known, sample in zip(self._fronts, self._samples, strict=True)
        ]


def _without(expected: Floats, chosen: list[int]) -> Floats:
    expected = expected.copy()
    expected[chosen] = 0.0
    return expected


def _gains_in_plane(losses: Floats, front: Floats, corner: Floats) -> Floats:
    """Strips between the front's steps: each row fills its part of every strip below the step's height."""
    left = np.append(-np.inf, front[:, 0])
    right = np.append(front[:, 0], corner[0])
    ceiling = np.append(corner[1], front[:, 1])
    widths = np.maximum(right - np.maximum(left, losses[:, :1]), 0.0)
    heights = np.maximum(ceiling - losses[:, 1:], 0.0)
    return np.asarray((widths * heights).sum(axis=1))
