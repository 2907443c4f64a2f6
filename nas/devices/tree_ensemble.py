"""Boosted trees as the factor of a latency model: `nas.devices.boosting` grows them, NumPy uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas.devices.parts import Floats
from nas.devices.residual import ResidualInputs
from nas.errors import InvalidRequestError
from nas.search.branches import AdditiveFloor, Branches

_FEW = 128
"""Up to so many networks it is quicker to take all trees at once than all networks."""
_MOST_LEAVES = 8
_ALL_LEAVES = 2**_MOST_LEAVES - 1
_TREE_ARRAYS: dict[str, type] = {
    "roots": np.int64,
    "feature": np.int64,
    "threshold": np.float64,
    "left": np.int64,
    "right": np.int64,
    "value": np.float64,
}


@dataclass(frozen=True)
class _Node:
    column: int
    """Of sums and choices side by side."""
    threshold: np.float32
    """The largest value that goes left."""
    others: np.uint8
    """The leaves that are not on the left: those that a network that goes right may still come to."""


@dataclass(frozen=True)
class _Tree:
    """One tree as its leaves from the left to the right, a bit each."""

    nodes: tuple[_Node, ...]
    value_of: Floats
    """By the bits of the leaves that can be come to, what the lowest of them adds."""


class _GoesLeft:
    """For a node all bits where a network goes left, none where it goes right; shape (n,) of bytes."""

    def __init__(self, inputs: ResidualInputs) -> None:
        # As single precision, in which the trees were grown: a value on a threshold stays on its side.
        self._sums = np.ascontiguousarray(inputs.sums.T, dtype=np.float32)
        # A choice is 0, at most any threshold between, or 1.
        self._choices = np.ascontiguousarray(inputs.choices.T).view(np.uint8) - np.uint8(1)
        self._bits = np.empty(len(inputs.choices), dtype=np.int8)

    def at(self, node: _Node) -> NDArray[np.uint8]:
        """To be read before the next node is asked about."""
        row = node.column - len(self._sums)
        if row >= 0:
            return np.asarray(self._choices[row])
        np.less_equal(self._sums[node.column], node.threshold, out=self._bits.view(np.bool_))
        np.negative(self._bits, out=self._bits)
        return self._bits.view(np.uint8)


def _not_above(threshold: float) -> np.float32:
    """The largest number of single precision that is not above it: the same networks go left."""
    rounded = np.float32(threshold)
    return np.nextafter(rounded, np.float32(-np.inf)) if rounded > threshold else rounded


@dataclass(frozen=True, kw_only=True)
class TreeEnsemble:
    """offset + the sum of what each tree says. All trees' nodes stand in one list, each tree's root first.

    Nodes that ask about a choice have a threshold from 0 to below 1.
    """

    reads_sums: ClassVar[bool] = True

    offset: float
    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    """Column that a node asks about, of sums and choices side by side; -1 at a leaf."""
    threshold: Floats
    left: NDArray[np.int64]
    """Where those go that are at most the threshold; a leaf points to itself, as does `right`."""
    right: NDArray[np.int64]
    value: Floats
    """What a leaf adds."""
    depth: int
    """Of the deepest tree, at most 3."""

    def __post_init__(self) -> None:
        """Refuse trees with more leaves than a byte has bits."""
        if 2**self.depth > _MOST_LEAVES:
            raise InvalidRequestError(f"trees of depth {self.depth} are too deep; grow them to 3 at most")

    def log_factor(self, inputs: ResidualInputs) -> Floats:
        """Shape (n,).

        Node by node over all networks: each clears the bits of the leaves that a network cannot come to, and
        the lowest bit left is its leaf (Lucchese et al., "QuickScorer", SIGIR 2015).
        """
        num = len(inputs.choices)
        if num <= _FEW:
            return self._log_factor_of_few(inputs)
        goes_left = _GoesLeft(inputs)
        total = np.full(num, self.offset)
        reachable, kept = np.empty(num, dtype=np.uint8), np.empty(num, dtype=np.uint8)
        said = np.empty(num)
        for tree in self._trees:
            reachable.fill(_ALL_LEAVES)
            for node in tree.nodes:
                np.bitwise_or(goes_left.at(node), node.others, out=kept)
                np.bitwise_and(reachable, kept, out=reachable)
            # No byte is out of bounds; to say so spares a copy.
            tree.value_of.take(reachable, out=said, mode="clip")
            total += said
        return total

    def _log_factor_of_few(self, inputs: ResidualInputs) -> Floats:
        """The same to the last bit, all trees at once: for few networks their nodes are more than these."""
        columns = np.concatenate([inputs.sums.astype(np.float32), inputs.choices], axis=1)
        rows = np.arange(len(columns))[:, None]
        at = np.broadcast_to(self.roots, (len(columns), len(self.roots)))
        for _ in range(self.depth):
            is_left = columns[rows, np.maximum(self.feature[at], 0)] <= self._thresholds[at]
            at = np.where(is_left, self.left[at], self.right[at])
        said = np.concatenate([np.full((len(columns), 1), self.offset), self.value[at]], axis=1)
        # Added up one after the other, as above: `sum` would round otherwise.
        return np.asarray(np.add.accumulate(said, axis=1)[:, -1])

    @cached_property
    def _thresholds(self) -> NDArray[np.float32]:
        return np.array([_not_above(threshold) for threshold in self.threshold.tolist()])

    @cached_property
    def _trees(self) -> tuple[_Tree, ...]:
        return tuple(self._tree(int(root)) for root in self.roots)

    def _tree(self, root: int) -> _Tree:
        nodes: list[_Node] = []
        values: list[float] = []

        def visit(node: int) -> None:
            if self.feature[node] < 0:
                values.append(float(self.value[node]))
                return
            first = len(values)
            visit(int(self.left[node]))
            left_leaves = sum(1 << leaf for leaf in range(first, len(values)))
            threshold = _not_above(float(self.threshold[node]))
            others = np.uint8(_ALL_LEAVES - left_leaves)
            nodes.append(_Node(int(self.feature[node]), threshold, others))
            visit(int(self.right[node]))

        visit(root)
        lowest = [(mask & -mask).bit_length() - 1 for mask in range(_ALL_LEAVES + 1)]
        return _Tree(tuple(nodes), np.array([values[leaf] if leaf < len(values) else 0.0 for leaf in lowest]))

    def sums_read(self, num_sums: int) -> tuple[int, ...]:
        """Those that any node asks about."""
        asked = self.feature[(self.feature >= 0) & (self.feature < num_sums)]
        return tuple(np.unique(asked).tolist())

    def floor(self, branches: Branches, least: Floats, most: Floats) -> AdditiveFloor:
        """Every tree at the lowest leaf that any network of the branch may come to.

        To it comes what it adds at least to choose otherwise where the way there first asks about a choice.
        """
        lows = np.concatenate([least.astype(np.float32), branches.always], axis=1)
        highs = np.concatenate([most.astype(np.float32), branches.allowed], axis=1)
        sides = self._sides(lows, highs)
        num, num_trees, num_options = len(branches), len(self.roots), branches.allowed.shape[1]
        position = np.zeros((num, num_trees), dtype=np.int64)
        option = np.full((num, num_trees), -1)
        added, second = np.zeros((num, num_trees)), np.full((num, num_trees), np.inf)
        constant = np.minimum(*sides[0])[:, :, 0]
        for level, both in zip(self._levels, sides, strict=False):
            left, right = (np.take_along_axis(side, position[:, :, None], axis=2)[:, :, 0] for side in both)
            dearer = np.maximum(left, right)
            second = np.minimum(second, dearer)
            asked = self.feature[level[np.arange(num_trees), position]] - least.shape[1]
            is_first = (option < 0) & (asked >= 0) & (dearer < np.inf)
            otherwise = np.where(is_first, second, constant) - constant
            option = np.where(is_first, asked, option)
            # To the right go those that choose it.
            is_right = right < left
            added += np.where(is_right, -otherwise, otherwise)
            constant = constant + np.where(is_right, otherwise, 0.0)
            position = 2 * position + is_right
        cell = np.maximum(option, 0) + np.arange(num)[:, None] * num_options
        by_option = np.zeros(num * num_options)
        np.add.at(by_option, cell.ravel(), added.ravel())
        return AdditiveFloor(self.offset + constant.sum(axis=1), by_option.reshape(num, num_options))

    def _sides(self, lows: Floats, highs: Floats) -> list[tuple[Floats, Floats]]:
        """By depth the lowest leaf to the left and to the right of its nodes, (n, trees, 2^depth) each.

        Infinite where no network goes; columns lie between `lows` and `highs`, (n, columns).
        """
        lowest = np.broadcast_to(self.value[self._levels[-1]], (len(lows), *self._levels[-1].shape))
        sides = []
        for level in reversed(self._levels[:-1]):
            asked, threshold, is_leaf = self.feature[level], self._thresholds[level], self.feature[level] < 0
            left = np.where((lows[:, asked] <= threshold) | is_leaf, lowest[:, :, ::2], np.inf)
            right = np.where((highs[:, asked] > threshold) | is_leaf, lowest[:, :, 1::2], np.inf)
            lowest = np.minimum(left, right)
            sides.append((left, right))
        return sides[::-1]

    @cached_property
    def _levels(self) -> tuple[NDArray[np.int64], ...]:
        """Nodes by depth, shape (trees, 2^depth), children side by side; a leaf stands for all below it."""
        levels = [self.roots[:, None]]
        for _ in range(max(1, self.depth)):
            children = np.stack([self.left[levels[-1]], self.right[levels[-1]]], axis=2)
            levels.append(children.reshape(len(self.roots), -1))
        return tuple(levels)

    def to_json(self) -> dict[str, Any]:
        """The numbers."""
        arrays = {name: getattr(self, name).tolist() for name in _TREE_ARRAYS}
        return {"kind": "trees", "offset": self.offset, "depth": self.depth, **arrays}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TreeEnsemble:
        """The one that `to_json` wrote."""
        arrays: dict[str, Any] = {
            name: np.array(content[name], dtype=dtype) for name, dtype in _TREE_ARRAYS.items()
        }
        return cls(offset=content["offset"], depth=content["depth"], **arrays)
