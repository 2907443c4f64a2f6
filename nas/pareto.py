"""Pareto fronts, hypervolume, and the best under bounds, on plain arrays.

Everything below takes rows of objectives that are all minimised. `normalise` is the one place where
the sign of an objective is flipped.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.dominance import is_matched_by_earlier, undominated_by_samples
from nas.errors import InvalidRequestError

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class Direction(StrEnum):
    """Which way an objective is better."""

    MINIMISE = "minimise"
    MAXIMISE = "maximise"


@dataclass(frozen=True, slots=True)
class Objective:
    """A figure to optimise, by name."""

    name: str
    direction: Direction


def normalise(values: ArrayLike, objectives: Sequence[Objective]) -> Floats:
    """The values (n, m) with every objective turned so that less is better; its own inverse."""
    rows = _checked(values, num_columns=len(objectives))
    signs = np.array([-1.0 if o.direction is Direction.MAXIMISE else 1.0 for o in objectives])
    # Adding 0 turns -0.0 into 0.0, so that turning back and forth leaves the very same bits.
    return np.asarray(rows * signs + 0.0)


# Fronts


def pareto_front(values: ArrayLike) -> Indices:
    """Indices of the rows (n, m) that no other row dominates, by rising first objective.

    Of equal rows the one with the lowest index stands for all. O(n log n) in two and three objectives; in
    more the square of the front's size counts too. Raises InvalidRequestError for NaN.
    """
    columns = np.ascontiguousarray(_checked(values).T)
    candidates = undominated_by_samples(columns)
    columns = columns.take(candidates, axis=1)
    # By the first objective, then the second, …; stable, so the lowest index leads its equals. In this
    # order a row can only be dominated by an earlier one, and an earlier one no worse in the other
    # objectives dominates it or equals it.
    order = np.lexsort(columns[::-1])
    return np.asarray(candidates[order[_is_on_front(columns[1:].take(order, axis=1))]])


def _is_on_front(columns: Floats) -> NDArray[np.bool_]:
    """Which rows, sorted, are not matched by an earlier one in the objectives (m, n) after the first."""
    num_others, num_rows = columns.shape
    if num_others == 0:
        return np.asarray(np.arange(num_rows) == 0)
    if num_others == 1:
        is_kept = np.ones(num_rows, dtype=bool)
        is_kept[1:] = columns[0, 1:] < np.minimum.accumulate(columns[0])[:-1]
        return is_kept
    if num_others == 2:
        staircase = _Staircase()
        return np.array([staircase.insert(y, z) for y, z in columns.T.tolist()], dtype=bool)
    return ~is_matched_by_earlier(columns)


class _Staircase:
    """The front of points in two objectives, grown one by one: first rising, second falling."""

    def __init__(self) -> None:
        self.firsts: list[float] = []
        self.seconds: list[float] = []

    def insert(self, first: float, second: float) -> bool:
        """Add the point unless one is at least as good in both; drop those it dominates."""
        after = bisect_right(self.firsts, first)
        if after and self.seconds[after - 1] <= second:
            return False
        begin, end = self.dominated(first, second)
        self.firsts[begin:end] = [first]
        self.seconds[begin:end] = [second]
        return True

    def dominated(self, first: float, second: float) -> tuple[int, int]:
        """Where the steps stand, begin to end, that the point is at least as good as."""
        begin = end = bisect_left(self.firsts, first)
        while end < len(self.seconds) and self.seconds[end] >= second:
            end += 1
        return begin, end


# Hypervolume


def hypervolume(values: ArrayLike, reference: ArrayLike) -> float:
    """The volume that the rows (n, m) dominate below the reference point (m,), all minimised.

    Rows that are not better than the reference in every objective do not count. O(n log n) in two and
    three objectives. Beyond: exclusive volumes, each with one objective less.
    Source: While, Bradstreet and Barone, "A fast way of calculating exact hypervolumes", IEEE TEVC 16 (2012).
    """
    corner = np.asarray(reference, dtype=np.float64)
    if corner.ndim != 1 or not np.isfinite(corner).all():
        raise InvalidRequestError(f"the reference point {reference!r} must be one row of finite numbers")
    rows = _checked(values, num_columns=len(corner))
    rows = rows[(rows < corner).all(axis=1)]
    if not np.isfinite(rows).all():
        raise InvalidRequestError("a row holds -inf, so the volume it dominates is infinite; leave it out")
    return _volume(rows, corner)


def _volume(rows: Floats, corner: Floats) -> float:
    """Hypervolume of rows none of which lies beyond the corner."""
    rows = rows[pareto_front(rows)]
    if len(rows) == 0:
        return 0.0
    if len(corner) == 1:
        return float(corner[0] - rows[0, 0])
    if len(corner) == 2:
        widths = np.diff(rows[:, 0], append=corner[0])
        return float(widths @ (corner[1] - rows[:, 1]))
    if len(corner) == 3:
        return _volume_by_sweep(rows, corner)
    return _volume_by_exclusion(rows, corner)


def _volume_by_sweep(rows: Floats, corner: Floats) -> float:
    """Slices along the first objective: the front's order already; the area below only grows."""
    staircase = _Staircase()
    volume = area = 0.0
    nexts = [*rows[1:, 0].tolist(), float(corner[0])]
    for (first, second, third), until in zip(rows.tolist(), nexts, strict=True):
        area += _area_gained(staircase, second, third, corner)
        staircase.insert(second, third)
        volume += area * (until - first)
    return volume


def _area_gained(staircase: _Staircase, first: float, second: float, corner: Floats) -> float:
    """What the point, on no step yet, adds to the area between the staircase and the corner."""
    begin, end = staircase.dominated(first, second)
    ceiling = staircase.seconds[begin - 1] if begin else float(corner[2])
    gained, left = 0.0, first
    for step in range(begin, end):
        gained += (staircase.firsts[step] - left) * (ceiling - second)
        left, ceiling = staircase.firsts[step], staircase.seconds[step]
    right = staircase.firsts[end] if end < len(staircase.firsts) else float(corner[1])
    return gained + (right - left) * (ceiling - second)


def _volume_by_exclusion(rows: Floats, corner: Floats) -> float:
    """Sum over rows of the volume that no later row dominates.

    Later rows are better in the first objective, so what they share with a row is as long as the row
    itself along it: the shared volume is one of the remaining objectives, times that length.
    """
    total = 0.0
    rows = rows[::-1]
    for index, row in enumerate(rows):
        shared = np.maximum(rows[index + 1 :, 1:], row[1:])
        alone = float(np.prod(corner[1:] - row[1:])) - _volume(shared, corner[1:])
        total += float(corner[0] - row[0]) * alone
    return total


# Queries


def best_under(accuracies: ArrayLike, costs: ArrayLike, bounds: ArrayLike) -> int | None:
    """Index of the highest accuracy (n,) among rows whose costs (n, k) all keep the bounds (k,), or None.

    Ties go to the lower first cost, then to the lower index.
    """
    limits = np.asarray(bounds, dtype=np.float64)
    if limits.ndim != 1 or np.isnan(limits).any():
        raise InvalidRequestError(f"the bounds {bounds!r} must be one row of numbers, none of them NaN")
    rows = _checked(costs, num_columns=len(limits))
    scores = np.asarray(accuracies, dtype=np.float64)
    if scores.shape != (len(rows),) or np.isnan(scores).any():
        raise InvalidRequestError(f"accuracies must be {len(rows)} numbers, one a row of costs, without NaN")
    allowed = np.flatnonzero((rows <= limits).all(axis=1))
    if len(allowed) == 0:
        return None
    best = allowed[scores[allowed] == scores[allowed].max()]
    # argmin takes the first of equals: the lowest index.
    return int(best[rows[best, 0].argmin()] if len(limits) else best[0])


def _checked(values: ArrayLike, *, num_columns: int | None = None) -> Floats:
    """The values as an array (n, m) of at least one objective, without NaN."""
    rows = np.asarray(values, dtype=np.float64)
    if rows.shape == (0,):
        rows = rows.reshape(0, 1 if num_columns is None else num_columns)
    if rows.ndim != 2 or (rows.shape[1] != num_columns if num_columns is not None else rows.shape[1] == 0):
        expected = "m" if num_columns is None else num_columns
        raise InvalidRequestError(f"values must have shape (n, {expected}), not {rows.shape}")
    if np.isnan(rows).any():
        row = int(np.isnan(rows).any(axis=1).argmax())
        raise InvalidRequestError(f"row {row} holds NaN, which is neither better nor worse; leave it out")
    return rows
