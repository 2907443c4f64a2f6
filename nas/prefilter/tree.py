"""Elimination of decisions one by one: the order, and dense tables passed up and down the tree it makes.

Every cost is a sum or maximum of parts that depend on few decisions. To take a decision out, the parts that
depend on it are brought together and replaced by one that no longer does. In a good order the parts stay
small, and what each holds is exact. Source: Dechter, "Bucket elimination", Artificial Intelligence 1999.

Tables here have shape (costs, cells): one row a cost, one column an assignment of their scope, in C order.
The first `num_sums` rows add up, the others take the maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod

import numpy as np
from numpy.typing import NDArray

Scope = tuple[int, ...]
"""Columns of the codes, ascending."""
Table = NDArray[np.float64]
"""Shape (costs, cells of the scope)."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where one decision is taken out: what depends on it comes together here."""

    column: int | None
    """The decision; None in the last bucket, where nothing is left to decide."""
    scope: Scope
    """On what the parts that meet here depend, the decision included."""
    factors: tuple[int, ...]
    """Positions of the parts that meet here first."""
    children: tuple[int, ...]
    """Positions of the earlier buckets that pass their tables on to this one."""

    @property
    def passed_scope(self) -> Scope:
        """On what the table passed on depends."""
        return tuple(column for column in self.scope if column != self.column)


class EliminationTree:
    """Buckets in the order in which decisions are taken out; each comes after its children."""

    def __init__(self, scopes: Sequence[Scope], sizes: Sequence[int]) -> None:
        """For parts of these scopes; `sizes` are the numbers of options, by column."""
        self.sizes = tuple(sizes)
        self.buckets = tuple(_buckets(scopes, self.sizes))

    def shape(self, scope: Scope) -> tuple[int, ...]:
        """Numbers of options of the scope's decisions."""
        return tuple(self.sizes[column] for column in scope)

    def num_cells(self, scope: Scope) -> int:
        """Assignments of the scope."""
        return prod(self.shape(scope))

    def cells_in(self, outer: Scope, inner: Scope) -> NDArray[np.int64]:
        """For each cell of `outer` the cell of `inner`, a part of it, that it lies in."""
        cells = np.arange(self.num_cells(inner))
        shape = [self.sizes[column] if column in inner else 1 for column in outer]
        return np.broadcast_to(cells.reshape(shape), self.shape(outer)).ravel()

    def options_in(self, scope: Scope, column: int) -> NDArray[np.int64]:
        """For each cell of the scope the option of this decision."""
        return self.cells_in(scope, (column,))

    def spread(self, table: Table, inner: Scope, outer: Scope) -> Table:
        """The table of `inner` as one of `outer`, which depends on more."""
        return table[:, self.cells_in(outer, inner)]

    def least(self, table: Table, outer: Scope, inner: Scope) -> Table:
        """For each cell of `inner` the least over the cells of `outer` that lie in it, cost by cost."""
        axes = tuple(1 + axis for axis, column in enumerate(outer) if column not in inner)
        whole = table.reshape(len(table), *self.shape(outer))
        return np.asarray(whole.min(axis=axes)).reshape(len(table), -1)


@dataclass(frozen=True, slots=True)
class Joining:
    """How costs of two parts become that of both."""

    num_sums: int

    def __call__(self, first: Table, second: Table) -> Table:
        """Row by row the sum, from row `num_sums` on the maximum."""
        joined = np.maximum(first, second)
        np.add(first[: self.num_sums], second[: self.num_sums], out=joined[: self.num_sums])
        return joined


@dataclass(frozen=True, slots=True)
class Floors:
    """The least that each cost can be, cost by cost, below and beside every bucket."""

    passed: tuple[Table, ...]
    """By bucket, over its passed scope: the least of all that lies below it, itself included."""
    joined: tuple[Table, ...]
    """By bucket, over its whole scope: the same before its own decision is taken out."""
    parts: tuple[Table, ...]
    """By bucket, over its whole scope: what its own factors cost."""

    @property
    def whole(self) -> NDArray[np.float64]:
        """The least of every cost over all networks, shape (costs,)."""
        return self.passed[-1][:, 0]


def floors(tree: EliminationTree, scopes: Sequence[Scope], tables: Sequence[Table], join: Joining) -> Floors:
    """Up the tree: the least of every cost, exactly."""
    passed: list[Table] = []
    joined: list[Table] = []
    parts: list[Table] = []
    for bucket in tree.buckets:
        neutral = np.zeros((len(tables[0]), tree.num_cells(bucket.scope)))
        own = reduce(join, (tree.spread(tables[f], scopes[f], bucket.scope) for f in bucket.factors), neutral)
        below = (tree.spread(passed[c], tree.buckets[c].passed_scope, bucket.scope) for c in bucket.children)
        parts.append(own)
        joined.append(reduce(join, below, own))
        passed.append(tree.least(joined[-1], bucket.scope, bucket.passed_scope))
    return Floors(tuple(passed), tuple(joined), tuple(parts))


def beside(tree: EliminationTree, found: Floors, join: Joining) -> tuple[Table, ...]:
    """Down the tree: by bucket, over its passed scope, the least of all that does not lie below it."""
    outside: list[Table] = [np.zeros_like(table) for table in found.passed]
    for position in reversed(range(len(tree.buckets))):
        bucket = tree.buckets[position]
        above = tree.spread(outside[position], bucket.passed_scope, bucket.scope)
        for child in bucket.children:
            siblings = (
                tree.spread(found.passed[c], tree.buckets[c].passed_scope, bucket.scope)
                for c in bucket.children
                if c != child
            )
            around = reduce(join, siblings, join(above, found.parts[position]))
            outside[child] = tree.least(around, bucket.scope, tree.buckets[child].passed_scope)
    return tuple(outside)


def cheapest(tree: EliminationTree, found: Floors) -> NDArray[np.int64]:
    """For each cost a network with the least of it, shape (costs, decisions); first options where free."""
    num_costs = len(found.whole)
    codes = np.zeros((num_costs, len(tree.sizes)), dtype=np.int64)
    for bucket, joined in zip(reversed(tree.buckets), reversed(found.joined), strict=True):
        if bucket.column is None:
            continue
        shape = tree.shape(bucket.scope)
        for row in range(num_costs):
            at = tuple(
                slice(None) if column == bucket.column else codes[row, column] for column in bucket.scope
            )
            codes[row, bucket.column] = joined[row].reshape(shape)[at].argmin()
    return codes


def _buckets(scopes: Sequence[Scope], sizes: tuple[int, ...]) -> Iterable[Bucket]:
    factors = dict(enumerate(scopes))
    messages: dict[int, Scope] = {}
    left = {column for scope in scopes for column in scope}
    position = 0
    while left:
        column = min(left, key=_growth([*factors.values(), *messages.values()], sizes))
        bucket = _bucket(column, factors, messages)
        yield bucket
        messages[position] = bucket.passed_scope
        left.remove(column)
        position += 1
    yield _bucket(None, factors, messages)


def _growth(scopes: Sequence[Scope], sizes: tuple[int, ...]) -> Callable[[int], tuple[int, int]]:
    """By how many cells a decision's bucket would have; the first column of those that have as many."""

    def cells(column: int) -> tuple[int, int]:
        met = {c for scope in scopes if column in scope for c in scope}
        return prod(sizes[c] for c in met), column

    return cells


def _bucket(column: int | None, factors: dict[int, Scope], messages: dict[int, Scope]) -> Bucket:
    """Takes what depends on the column out of both, or all that is left where there is none."""
    own = tuple(f for f, scope in factors.items() if column is None or column in scope)
    children = tuple(m for m, scope in messages.items() if column is None or column in scope)
    met = [*(factors.pop(f) for f in own), *(messages.pop(m) for m in children)]
    return Bucket(column, tuple(sorted({c for scope in met for c in scope})), own, children)
