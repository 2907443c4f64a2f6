"""Labels: the cost vectors of part networks, those kept that no other of the same cell undercuts.

A label is an assignment of some decisions with what it costs, every cost in a column. Labels of one cell
leave the rest of the network the same choices, so one that is no better in any cost can be dropped.
Source: label setting for constrained shortest paths (Dumitrescu and Boland, Networks 2003).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.pareto import pareto_front

_NUM_PIVOTS = 8
"""Rounds in which the lowest label of every cell strikes out what it undercuts."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels sorted by cell."""

    cells: NDArray[np.int64]
    """Shape (n,), ascending."""
    values: NDArray[np.float64]
    """Shape (n, costs)."""
    codes: NDArray[np.int16]
    """Shape (n, decisions): the options of decisions already taken out, 0 for the others."""

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Labels:
        """Those of the rows, which must be ascending."""
        return Labels(self.cells[rows], self.values[rows], self.codes[rows])

    def moved(self, cells: NDArray[np.int64]) -> Labels:
        """The same labels in other cells."""
        order = np.argsort(cells, kind="stable")
        return Labels(cells[order], self.values[order], self.codes[order])


def pairs(
    cells: NDArray[np.int64], others: NDArray[np.int64], num_cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every pair of rows with equal cells: positions in `cells`, and in `others`, which is ascending."""
    starts = np.searchsorted(others, np.arange(num_cells + 1))
    counts = np.diff(starts)[cells]
    first = np.repeat(np.arange(len(cells)), counts)
    within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first, starts[cells][first] + within


def num_pairs(cells: NDArray[np.int64], others: NDArray[np.int64], num_cells: int) -> int:
    """How many there would be."""
    return int(np.bincount(others, minlength=num_cells)[cells].sum())


def undercut_by_none(cells: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Ascending rows of the labels that no other of their cell matches or undercuts in every cost.

    `cells` (n,) ascending, `values` (n, costs). Of equal labels one stays.
    """
    if not len(cells):
        return np.zeros(0, dtype=np.int64)
    span = np.maximum(values.max(axis=0), 1e-300)
    # A label comes behind all that undercut it, but for rounding, which at worst keeps one too many.
    rows = np.lexsort(((values / span).sum(axis=1), cells))
    kept = []
    for _ in range(_NUM_PIVOTS):
        if not len(rows):
            break
        is_first = np.ones(len(rows), dtype=bool)
        is_first[1:] = cells[rows[1:]] != cells[rows[:-1]]
        pivots = rows[is_first]
        kept.append(pivots)
        pivot_of = pivots[np.cumsum(is_first) - 1]
        rows = rows[(values[rows] < values[pivot_of]).any(axis=1)]
    kept.extend(rows[on] for on in _fronts(cells[rows], values[rows]))
    return np.sort(np.concatenate(kept))


def _fronts(cells: NDArray[np.int64], values: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """For each cell the positions of its front."""
    bounds = np.flatnonzero(np.diff(cells, prepend=-1, append=-1)) if len(cells) else np.zeros(0, np.int64)
    return [
        start + pareto_front(values[start:end])
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    ]
