"""Hypervolume gained in three objectives and more: exact along one of them, at points spread over the others.

Deviation: not exact, as gains in one and two objectives are. Exact ones are a hypervolume each, thousands a
round; a batch needs their order alone. Along one objective the front leaves a room above
every point of the others, and what a candidate gains is what it fills of that room, in the mean over points.
The objective is the one on which opinions differ, the predicted accuracy; costs are known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from nas.pareto import Floats, Indices

_LOG_NUM_POINTS = 11
_LOG_NUM_POINTS_FOR_LIST = 8
_MAX_LISTED = 1000
"""Candidates that promise most at few points, looked at with many."""


class SampledFronts:
    """In every opinion on the candidates, the room that the front and the candidates chosen leave."""

    def __init__(
        self, samples: Floats, front: Floats, corner: Floats, *, log_num_points: int = _LOG_NUM_POINTS
    ) -> None:
        """`samples` (s, n, m) are s opinions on n candidates, `front` (k, m), all below `corner` (m,)."""
        along = int(np.ptp(samples, axis=0).max(axis=0, initial=0.0).argmax())
        others = np.delete(np.arange(len(corner)), along)
        self._losses = samples[:, :, along]
        self._others = samples[:, :, others]
        # Costs are the same in every opinion, and then so is what they cover.
        self._is_shared = bool((self._others == self._others[:1]).all())
        low = np.minimum(self._others.min(axis=(0, 1), initial=np.inf), corner[others])
        self._points = low + _spread_points(len(others), log_num_points) * (corner[others] - low)
        self._volume_per_point = float(np.prod(corner[others] - low)) / len(self._points)
        covered = _covers(front[:, others], self._points)
        room = np.where(covered, front[:, along, None], corner[along]).min(axis=0, initial=corner[along])
        self._rooms = np.repeat(room[None, :], len(samples), axis=0)
        """Up to where, for each opinion and point, no front reaches: shape (s, points)."""

    def mean_gains(self, rows: Indices) -> Floats:
        """What each fills of the rooms above the points that it covers, in the mean over opinions."""
        total = np.zeros(len(rows))
        covered = _covers(self._others[0][rows], self._points) if self._is_shared else None
        for losses, others, room in zip(self._losses, self._others, self._rooms, strict=True):
            covers = _covers(others[rows], self._points) if covered is None else covered
            filled = np.maximum(room - losses[rows, None], 0.0)
            total += np.einsum("np,np->n", filled, covers)
        return np.asarray(total * self._volume_per_point / len(self._losses))

    def choose(self, row: int) -> None:
        """Fill the rooms that the candidate reaches."""
        for losses, others, room in zip(self._losses, self._others, self._rooms, strict=True):
            covers = _covers(others[row][None, :], self._points)[0]
            room[covers] = np.minimum(room[covers], losses[row])


def shortlist(samples: Floats, front: Floats, corner: Floats) -> Indices:
    """The candidates worth a closer look, best first where there are many: all that gain, at few points."""
    everyone = np.arange(samples.shape[1])
    if len(everyone) <= _MAX_LISTED:
        return everyone
    fronts = SampledFronts(samples, front, corner, log_num_points=_LOG_NUM_POINTS_FOR_LIST)
    return np.argsort(-fronts.mean_gains(everyone), kind="stable")[:_MAX_LISTED]


def _spread_points(num_dimensions: int, log_count: int) -> Floats:
    """Points (2^log_count, d) in the unit cube, always the same: Sobol's, each in the middle of its cell."""
    points = qmc.Sobol(num_dimensions, scramble=False).random_base2(log_count)
    return np.asarray(points + 0.5 / len(points))


def _covers(rows: Floats, points: Floats) -> NDArray[np.bool_]:
    """Whether a row (n, d) is at most a point (p, d) in everything; shape (n, p)."""
    covered = np.ones((len(rows), len(points)), dtype=bool)
    for column in range(points.shape[1]):
        covered &= rows[:, None, column] <= points[None, :, column]
    return covered
