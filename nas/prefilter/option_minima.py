"""Min-marginals: for every option of every decision the least of a sum over the networks that choose it.

Passed up an elimination tree and down again (Dechter, "Bucket elimination", 1999), for many sums at once,
each with numbers of its own for the options. Where one decision is part of nearly everything (the resolution
of the images), sums are over the networks with one option of it each, and tables are kept apart by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod

import numpy as np
from numpy.typing import NDArray

from nas.prefilter.tree import Bucket, EliminationTree, Scope
from nas.search.branches import OptionLayout

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_LEFT = 0.5
"""A decision is split by where at most this part of the cells is left to each of its options."""


@dataclass(frozen=True)
class _Place:
    """A bucket, and how what meets there is laid over its scope: an axis for each decision."""

    scope: Scope
    column: int | None
    axis: int
    """Of the column among all axes, the sums' own the first; 0 without a column."""
    tables: tuple[tuple[int, tuple[int, ...]], ...]
    """Positions of tables, and their shapes over the scope."""
    numbers: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...]
    """Decisions whose options' numbers belong here, their shapes, and the axes of other decisions."""
    children: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...]
    """Positions of earlier places, the shapes of what they pass on, and the axes of other decisions."""


class OptionMinima:
    """Sums of tables over the decisions of a space, and of a number for each option that counts.

    Where a decision does not count, the first of its options stands for all of them and adds nothing.
    """

    def __init__(self, layout: OptionLayout, scopes: Sequence[Scope]) -> None:
        """For tables of these scopes; `of` makes it once a process."""
        self.layout = layout
        own = [_own_scope(layout, column) for column in range(len(layout.num_options))]
        self.split = _split(layout, [*scopes, *own])
        self._scopes = tuple(scopes)
        columns = [column for column in range(len(own)) if column != self.split]
        met = [*(_without(scope, self.split) for scope in scopes), *(own[column] for column in columns)]
        tree = EliminationTree(met, layout.num_options)
        self.places = tuple(_place(tree, bucket, met, len(scopes), columns) for bucket in tree.buckets)

    @classmethod
    def of(cls, layout: OptionLayout, scopes: tuple[Scope, ...]) -> OptionMinima:
        """The same one for the same scopes."""
        return _minima(layout, scopes)

    @property
    def num_splits(self) -> int:
        """Options of the decision that is split by; 1 where there is none."""
        return 1 if self.split is None else self.layout.num_options[self.split]

    def split_tables(self, tables: Iterable[Floats]) -> list[Floats]:
        """Tables of the scopes, (rows, cells), by option of what is split by: (splits, rows, cells left)."""
        return [self._split_table(table, scope) for table, scope in zip(tables, self._scopes, strict=True)]

    def pass_up(self, splits: Ints, tables: Sequence[Floats], added: Floats) -> Upward:
        """Of r sums their least over all networks with the option `splits` (r,) of what is split by.

        `tables` by scope, (r, cells left); `added` (r, options), infinite for options that are not allowed.
        """
        num = len(added)
        own: list[Floats] = []
        joined: list[Floats] = []
        passed: list[Floats] = []
        for place in self.places:
            total = np.zeros((num, *[1] * len(place.scope)))
            if place.column is None and self.split is not None:
                total += added[np.arange(num), self.layout.starts[self.split] + splits]
            for position, shape in place.tables:
                total = total + tables[position].reshape(-1, *shape)
            for column, shape, _ in place.numbers:
                total = total + self._numbers(column, added).reshape(-1, *shape)
            own.append(total)
            for child, shape, _ in place.children:
                total = total + passed[child].reshape(num, *shape)
            joined.append(total)
            passed.append(total if place.column is None else total.min(axis=place.axis))
        return Upward(self, splits, own, joined, passed)

    def _split_table(self, table: Floats, scope: Scope) -> Floats:
        if self.split not in scope:
            return np.repeat(table[None], self.num_splits, axis=0)
        shape = [self.layout.num_options[column] for column in scope]
        first = np.moveaxis(table.reshape(len(table), *shape), 1 + scope.index(self.split), 0)
        return np.ascontiguousarray(first).reshape(self.num_splits, len(table), -1)

    def _numbers(self, column: int, added: Floats) -> Floats:
        """The numbers of one decision's options, by it and what it hangs on, in the order of columns."""
        numbers = added[:, self.layout.options_of(column)]
        parent = self.layout.parents[column]
        if parent is None:
            return numbers
        counts_at = np.array(self.layout.counts_at[column])
        table = np.full((*numbers.shape, len(counts_at)), np.inf)
        table[:, 0, :] = 0.0
        table[:, :, counts_at] = numbers[:, :, None]
        return table if column < parent else table.swapaxes(1, 2)

    def least_where_it_counts(self, column: int, least: Floats) -> Floats:
        """From the least over a decision and what it hangs on, in the order of columns, that by option."""
        parent = self.layout.parents[column]
        if parent is None:
            return least
        by_option = least if column < parent else least.swapaxes(1, 2)
        counts_at = np.array(self.layout.counts_at[column])
        return np.asarray(by_option[:, :, counts_at].min(axis=2, initial=np.inf))


@dataclass(frozen=True)
class Upward:
    """The way up the tree, from which the least is read off, and where it is."""

    minima: OptionMinima
    splits: Ints
    own: list[Floats]
    """By place, over its scope: what its own tables and numbers say."""
    joined: list[Floats]
    """The same with all that lies below it."""
    passed: list[Floats]
    """The same once its decision is at its best."""

    @property
    def least(self) -> Floats:
        """Over all networks, shape (r,); infinite where there is none."""
        return self.passed[-1].reshape(-1)

    def take(self, rows: NDArray[np.bool_]) -> Upward:
        """Some of the sums."""
        if rows.all():
            return self
        own, joined, passed = (
            [table[rows] for table in tables] for tables in (self.own, self.joined, self.passed)
        )
        return Upward(self.minima, self.splits[rows], own, joined, passed)

    def codes(self) -> Ints:
        """A network with the least of each sum, shape (r, decisions)."""
        rows = np.arange(len(self.splits))
        codes = np.zeros((len(rows), len(self.minima.layout.num_options)), dtype=np.int64)
        if self.minima.split is not None:
            codes[:, self.minima.split] = self.splits
        for place, joined in zip(reversed(self.minima.places), reversed(self.joined), strict=True):
            if place.column is not None:
                at = [codes[:, column] for column in place.scope if column != place.column]
                codes[:, place.column] = np.moveaxis(joined, place.axis, -1)[(rows, *at)].argmin(axis=1)
        return codes

    def by_option(self) -> Floats:
        """The least over the networks that choose an option and in which it counts, shape (r, options)."""
        minima, num = self.minima, len(self.splits)
        found = np.full((num, len(minima.layout.owners)), np.inf)
        if minima.split is not None:
            found[np.arange(num), minima.layout.starts[minima.split] + self.splits] = self.least
        outside = [np.zeros(1)] * len(self.joined)
        for position in reversed(range(len(self.joined))):
            place, above = minima.places[position], outside[position]
            if place.column is not None:
                above = np.expand_dims(above, place.axis)
            if place.numbers:
                whole = self.joined[position] + above
                for column, _, others in place.numbers:
                    least = minima.least_where_it_counts(column, whole.min(axis=others))
                    found[:, minima.layout.options_of(column)] = least
            around = self._around(position, self.own[position] + above)
            for (child, _, others), rest in zip(place.children, around, strict=True):
                outside[child] = rest.min(axis=others)
        return found

    def _around(self, position: int, above: Floats) -> list[Floats]:
        """For each child of a place what comes from above and from the other children."""
        below = [
            self.passed[child].reshape(len(self.splits), *shape)
            for child, shape, _ in self.minima.places[position].children
        ]
        # Nothing is taken off a sum again: what is infinite would not come off.
        before = [*accumulate(below, initial=above)]
        nothing = np.zeros([1] * above.ndim)
        behind = [*accumulate(reversed(below), initial=nothing)][::-1]
        return [before[child] + behind[child + 1] for child in range(len(below))]


@lru_cache(maxsize=64)
def _minima(layout: OptionLayout, scopes: tuple[Scope, ...]) -> OptionMinima:
    return OptionMinima(layout, scopes)


def _place(
    tree: EliminationTree, bucket: Bucket, met: Sequence[Scope], num_tables: int, columns: Sequence[int]
) -> _Place:
    scope = bucket.scope

    def shape(inner: Scope) -> tuple[int, ...]:
        return tuple(tree.sizes[column] if column in inner else 1 for column in scope)

    def others(inner: Scope) -> tuple[int, ...]:
        return tuple(1 + axis for axis, column in enumerate(scope) if column not in inner)

    numbers = [factor for factor in bucket.factors if factor >= num_tables]
    passed = [(child, tree.buckets[child].passed_scope) for child in bucket.children]
    return _Place(
        scope=scope,
        column=bucket.column,
        axis=0 if bucket.column is None else 1 + scope.index(bucket.column),
        tables=tuple((factor, shape(met[factor])) for factor in bucket.factors if factor < num_tables),
        numbers=tuple((columns[f - num_tables], shape(met[f]), others(met[f])) for f in numbers),
        children=tuple((child, shape(inner), others(inner)) for child, inner in passed),
    )


def _own_scope(layout: OptionLayout, column: int) -> Scope:
    """What the numbers of its options depend on."""
    parent = layout.parents[column]
    return (column,) if parent is None else tuple(sorted((column, parent)))


def _without(scope: Scope, column: int | None) -> Scope:
    return tuple(c for c in scope if c != column)


def _split(layout: OptionLayout, scopes: Sequence[Scope]) -> int | None:
    """The decision whose options leave the fewest cells, if few enough; none that others hang on."""
    cells = {
        column: _num_cells(layout, scopes, column)
        for column, parent in enumerate(layout.parents)
        if parent is None and column not in layout.parents
    }
    best = min(cells, key=lambda column: cells[column], default=None)
    if best is None or cells[best] > _MOST_LEFT * _num_cells(layout, scopes, None):
        return None
    return best


def _num_cells(layout: OptionLayout, scopes: Sequence[Scope], without: int | None) -> int:
    return sum(prod(layout.num_options[c] for c in _without(scope, without)) for scope in scopes)
