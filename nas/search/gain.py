"""Hypervolume gained: what each candidate would add to a front, and a batch that adds most together."""

from __future__ import annotations

import numpy as np

from nas.pareto import Floats, hypervolume, pareto_front

_NUM_RIVALS = 400
"""Candidates looked at again after each choice of a batch: those that promised most before it."""


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
    """
    chosen: list[int] = []
    for start in (front, front[:0]):
        alone = np.mean([gains(losses, start, corner) for losses in samples], axis=0)
        while len(chosen) < count and _without(alone, chosen).max(initial=0.0) > 0:
            chosen += _spread_batch(samples, start, corner, _without(alone, chosen), count - len(chosen))
    return chosen


def _spread_batch(samples: Floats, front: Floats, corner: Floats, expected: Floats, count: int) -> list[int]:
    """Candidates until nothing gains beside them; `expected` (n,) are mean gains over the front, 0 for those
    that are not to be chosen."""
    may_be_chosen = expected > 0
    fronts = [front] * len(samples)
    chosen: list[int] = []
    while len(chosen) < count and expected.max(initial=0.0) > 0:
        best = int(expected.argmax())
        chosen.append(best)
        may_be_chosen[best] = False
        fronts = [np.vstack([known, sample[best]]) for known, sample in zip(fronts, samples, strict=True)]
        rivals = np.argsort(-expected, kind="stable")[:_NUM_RIVALS]
        expected = np.zeros_like(expected)
        expected[rivals] = np.mean(
            [gains(sample[rivals], known, corner) for sample, known in zip(samples, fronts, strict=True)],
            axis=0,
        )
        expected[~may_be_chosen] = 0.0
    return chosen


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
