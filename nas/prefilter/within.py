"""Every network within limits that no other undercuts: labels passed up the elimination tree.

Labels are dropped where even the least that the rest of the network can cost takes them over a limit: of
each cost, and of each of some weighted sums of costs (Lagrangian bounds), which see that costs trade off.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.prefilter.answers import UndecidedError
from nas.prefilter.labels import Labels, num_pairs, pairs, undercut_by_none
from nas.prefilter.tree import Bucket, EliminationTree, Floors, Joining, Scope, Table, beside, floors

_MAX_LABELS = 500_000
"""Before any is dropped; beyond it they take long, and much memory."""
_MARGIN = 1e-9
"""Sums of weighted costs are compared with this much room, relative, so that rounding drops no label."""


@dataclass(frozen=True)
class CostTables:
    """The costs in question as tables over an elimination tree."""

    tree: EliminationTree
    scopes: tuple[Scope, ...]
    tables: tuple[Table, ...]
    """By part, shape (costs, cells); sums first."""
    num_sums: int

    @property
    def num_costs(self) -> int:
        """Sums and maxima."""
        return len(self.tables[0])

    def floors_of(self, weights: NDArray[np.float64]) -> Floors:
        """The least of weighted sums, `weights` of shape (k, num_sums)."""
        mixed = [weights @ table[: self.num_sums] for table in self.tables]
        return floors(self.tree, self.scopes, mixed, Joining(len(weights)))


@dataclass(frozen=True)
class Pruning:
    """What the rest of a network costs at least, for each cost and for weighted sums of them."""

    costs: CostTables
    weights: NDArray[np.float64]
    """Shape (k, num_sums)."""
    join: Joining
    found: Floors
    """Rows: sums, then weighted sums, then maxima."""
    outside: tuple[Table, ...]

    @classmethod
    def of(cls, costs: CostTables, weights: NDArray[np.float64]) -> Pruning:
        """For these weighted sums."""
        join = Joining(costs.num_sums + len(weights))
        tables = [
            np.concatenate([t[: costs.num_sums], weights @ t[: costs.num_sums], t[costs.num_sums :]])
            for t in costs.tables
        ]
        found = floors(costs.tree, costs.scopes, tables, join)
        return cls(costs, weights, join, found, beside(costs.tree, found, join))

    @property
    def floors(self) -> NDArray[np.float64]:
        """The least of each cost over all networks, shape (costs,)."""
        return np.delete(self.found.whole, self._mixed)

    @property
    def _mixed(self) -> slice:
        """The rows of weighted sums."""
        return slice(self.costs.num_sums, self.costs.num_sums + len(self.weights))

    def own(self, position: int) -> NDArray[np.float64]:
        """What the bucket's own parts cost in each of its cells, shape (cells, costs)."""
        return np.ascontiguousarray(np.delete(self.found.parts[position], self._mixed, axis=0).T)

    def rests(self, position: int) -> list[Table]:
        """By child of the bucket, over its scope: the least of all that comes after that child, or beside."""
        tree, bucket = self.costs.tree, self.costs.tree.buckets[position]
        rest = [tree.spread(self.outside[position], bucket.passed_scope, bucket.scope)]
        for child in reversed(bucket.children):
            below = tree.spread(self.found.passed[child], tree.buckets[child].passed_scope, bucket.scope)
            rest.append(self.join(rest[-1], below))
        return rest[::-1]

    def limits(self, limits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Limits of all rows, from those of the costs."""
        num_sums = self.costs.num_sums
        mixed = self.weights @ limits[:num_sums] * (1 + _MARGIN)
        return np.concatenate([limits[:num_sums], mixed, limits[num_sums:]])

    def keeps(
        self, values: NDArray[np.float64], rest: NDArray[np.float64], limits: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which labels (n, costs) may end within the limits, with at least `rest` (rows, n) to come."""
        num_sums = self.costs.num_sums
        sums = values[:, :num_sums].T
        whole = self.join(np.concatenate([sums, self.weights @ sums, values[:, num_sums:].T]), rest)
        return np.asarray((whole <= limits[:, None]).all(axis=0))


def networks_within(pruning: Pruning, limits: NDArray[np.float64], *, deadline_s: float = np.inf) -> Labels:
    """Networks with every cost at most its limit, shape (costs,); every such network is matched or undercut
    in all costs by one of these.

    Raises UndecidedError past `deadline_s` of the monotonic clock, or where too many part networks compete.
    """
    tree = pruning.costs.tree
    all_limits = pruning.limits(limits)
    passed: list[Labels | None] = []
    for position, bucket in enumerate(tree.buckets):
        rests = pruning.rests(position)
        labels = _own(pruning, position)
        labels = labels.take(pruning.keeps(labels.values, rests[0][:, labels.cells], all_limits))
        for child, rest in zip(bucket.children, rests[1:], strict=True):
            _check_time(deadline_s)
            below = passed[child]
            assert below is not None
            passed[child] = None
            labels = _joined(pruning, labels, below, (bucket, child), rest, all_limits)
        passed.append(_projected(tree, labels, bucket))
    last = passed[-1]
    assert last is not None
    return last


def _check_time(deadline_s: float) -> None:
    if time.monotonic() > deadline_s:
        raise UndecidedError("the time is over")


def _own(pruning: Pruning, position: int) -> Labels:
    """A label a cell: what the bucket's own parts cost."""
    values = pruning.own(position)
    codes = np.zeros((len(values), len(pruning.costs.tree.sizes)), dtype=np.int16)
    return Labels(np.arange(len(values)), values, codes)


def _joined(
    pruning: Pruning,
    labels: Labels,
    below: Labels,
    place: tuple[Bucket, int],
    rest: Table,
    all_limits: NDArray[np.float64],
) -> Labels:
    """Each label with each of those below that its cell lies in, as far as the limits and others let it."""
    bucket, child = place
    tree = pruning.costs.tree
    child_scope = tree.buckets[child].passed_scope
    inner = tree.cells_in(bucket.scope, child_scope)[labels.cells]
    num_inner = tree.num_cells(child_scope)
    if num_pairs(inner, below.cells, num_inner) > _MAX_LABELS:
        raise UndecidedError("too many part networks compete")
    first, second = pairs(inner, below.cells, num_inner)
    values = Joining(pruning.costs.num_sums)(labels.values[first].T, below.values[second].T).T
    cells = labels.cells[first]
    kept = np.flatnonzero(pruning.keeps(values, rest[:, cells], all_limits))
    kept = kept[undercut_by_none(cells[kept], values[kept])]
    codes = labels.codes[first[kept]] + below.codes[second[kept]]
    return Labels(cells[kept], values[kept], codes)


def _projected(tree: EliminationTree, labels: Labels, bucket: Bucket) -> Labels:
    """The bucket's decision written into the codes and taken out of the cells."""
    if bucket.column is None:
        return labels
    codes = labels.codes.copy()
    codes[:, bucket.column] = tree.options_in(bucket.scope, bucket.column)[labels.cells]
    outer = tree.cells_in(bucket.scope, bucket.passed_scope)
    moved = Labels(labels.cells, labels.values, codes).moved(outer[labels.cells])
    return moved.take(undercut_by_none(moved.cells, moved.values))
