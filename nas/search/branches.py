"""Branches: sets of networks of a space, each told by the options that are left to every decision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from nas.space import SearchSpace

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64] | NDArray[np.bool_]


@dataclass(frozen=True)
class OptionLayout:
    """The options of all decisions side by side, decision after decision, and when each decision counts."""

    num_options: tuple[int, ...]
    """By decision."""
    parents: tuple[int | None, ...]
    """By decision the one that says whether it counts; None where it always does."""
    counts_at: tuple[tuple[bool, ...], ...]
    """By decision, for each option of its parent, whether it counts there; empty without a parent."""

    @classmethod
    def of(cls, space: SearchSpace) -> OptionLayout:
        """The space's; made once a process."""
        return _layout(space)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """By decision, where its options begin."""
        return np.cumsum([0, *self.num_options[:-1]])

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """By option, its decision."""
        return np.repeat(np.arange(len(self.num_options)), self.num_options)

    def options_of(self, column: int) -> slice:
        """Where the options of one decision stand."""
        start = int(self.starts[column])
        return slice(start, start + self.num_options[column])


@lru_cache(maxsize=32)
def _layout(space: SearchSpace) -> OptionLayout:
    column = {decision.name: i for i, decision in enumerate(space.decisions)}
    parents: list[int | None] = []
    counts_at: list[tuple[bool, ...]] = []
    for decision in space.decisions:
        condition = decision.active_if
        parents.append(None if condition is None else column[condition.parent])
        options = () if condition is None else space.decisions[column[condition.parent]].options
        counts_at.append(tuple(condition is not None and int(o) >= condition.minimum for o in options))
    return OptionLayout(tuple(len(d.options) for d in space.decisions), tuple(parents), tuple(counts_at))


@dataclass(frozen=True)
class Branches:
    """n branches; one without an option left for a decision that always counts holds no network."""

    layout: OptionLayout
    allowed: Bools
    """Shape (n, options): which a network of the branch may choose, where the decision counts."""

    @classmethod
    def whole(cls, layout: OptionLayout) -> Branches:
        """One branch of all networks."""
        return cls(layout, np.ones((1, len(layout.owners)), dtype=np.bool_))

    def __len__(self) -> int:
        return len(self.allowed)

    def take(self, rows: Rows) -> Branches:
        """Some of them."""
        return Branches(self.layout, self.allowed[rows])

    @cached_property
    def num_left(self) -> NDArray[np.int64]:
        """Options left, shape (n, decisions)."""
        return np.add.reduceat(self.allowed, self.layout.starts, axis=1, dtype=np.int64)

    @cached_property
    def may_rest(self) -> Bools:
        """Whether networks of the branch may leave the decision out of account, shape (n, decisions)."""
        found = np.zeros((len(self), len(self.layout.num_options)), dtype=np.bool_)
        for column, parent in enumerate(self.layout.parents):
            if parent is not None:
                rests_at = ~np.array(self.layout.counts_at[column])
                found[:, column] = (self.allowed[:, self.layout.options_of(parent)] & rests_at).any(axis=1)
        return found

    @cached_property
    def always(self) -> Bools:
        """Which options every network of the branch chooses, shape (n, options)."""
        is_only = (self.num_left == 1) & ~self.may_rest
        return np.asarray(self.allowed & is_only[:, self.layout.owners])

    @cached_property
    def is_open(self) -> Bools:
        """Which decisions always count and have several options left, shape (n, decisions)."""
        return (self.num_left > 1) & ~self.may_rest

    def only_codes(self) -> NDArray[np.int64]:
        """Of branches of one network that one, else any that its options allow, shape (n, decisions)."""
        first = np.stack(
            [
                self.allowed[:, self.layout.options_of(column)].argmax(axis=1)
                for column in range(len(self.layout.num_options))
            ],
            axis=1,
        )
        return np.where(self.may_rest, 0, first)


@dataclass(frozen=True, slots=True)
class AdditiveFloor:
    """For each of n branches a number for each of its networks that is no higher than what is asked about:
    a constant, and what each chosen option that counts adds."""

    constant: Floats
    """Shape (n,)."""
    by_option: Floats
    """Shape (n, options); of options that are not allowed it says nothing."""

    def least(self, branches: Branches) -> Floats:
        """No network of the branch is below it, shape (n,)."""
        allowed = np.where(branches.allowed, self.by_option, np.inf)
        by_decision = np.minimum.reduceat(allowed, branches.layout.starts, axis=1)
        return np.asarray(
            self.constant + np.where(branches.may_rest, np.minimum(by_decision, 0.0), by_decision).sum(axis=1)
        )
