"""What a sum over blocks leaves over: a factor of each network's own, from how its choices go together.

Two forms of it, both plain numbers that read back from JSON as they were written: products of pairs of
choices, and boosted trees (grown by `nas.devices.boosting`; to use them takes NumPy alone).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from nas.devices.parts import Codes, Floats
from nas.errors import InvalidRequestError
from nas.space import SearchSpace

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ResidualInputs:
    """What a residual knows of n networks. Read by columns: for very many networks, better laid out so."""

    sums: Floats
    """Work by kind of operation, shape (n, k)."""
    choices: Bools
    """One column an option of a decision, whether it is chosen and counts, shape (n, all options)."""

    def rows(self, rows: NDArray[np.int64]) -> ResidualInputs:
        """Those of some of the networks."""
        return ResidualInputs(self.sums[rows], self.choices[rows])


class Residual(Protocol):
    """The logarithm of the factor between a network's time and the sum over its blocks."""

    reads_sums: ClassVar[bool]
    """Whether `log_factor` looks at the sums at all."""

    def log_factor(self, inputs: ResidualInputs) -> Floats:
        """Shape (n,)."""

    def lowest(self, num_options: Sequence[int]) -> float:
        """No network's is below it; `num_options` are those of each decision, in order."""

    def to_json(self) -> dict[str, Any]:
        """With the form under `kind`; `residual_from_json` reads it back."""


def chosen_options(space: SearchSpace, codes: Codes) -> Bools:
    """The `choices` of `ResidualInputs`; whatever stands in columns of inactive decisions counts nothing."""
    column = {d.name: i for i, d in enumerate(space.decisions)}
    chosen = np.empty((sum(len(d.options) for d in space.decisions), len(codes)), dtype=np.bool_)
    rows = iter(chosen)
    for i, decision in enumerate(space.decisions):
        is_active = None
        if decision.active_if is not None:
            parent = column[decision.active_if.parent]
            options = np.array([int(option) for option in space.decisions[parent].options])
            is_active = (options >= decision.active_if.minimum).take(codes[:, parent])
        for code in range(len(decision.options)):
            row = next(rows)
            np.equal(codes[:, i], code, out=row)
            if is_active is not None:
                row &= is_active
    return chosen.T


@dataclass(frozen=True)
class Interactions:
    """offset + Σ weights[a, b] over all pairs of chosen options a, b, an option with itself among them."""

    reads_sums: ClassVar[bool] = False

    offset: float
    weights: Floats
    """Shape (options, options), symmetric."""

    @classmethod
    def fit(cls, inputs: ResidualInputs, log_factor: Floats, *, strength: float) -> Interactions:
        """Ridge regression. `strength` is the penalty as a part of the kernel's mean diagonal.

        Solved in its dual form: for products of pairs the kernel is the squared scalar product.
        """
        choices, offset = inputs.choices.astype(np.float64), float(log_factor.mean())
        kernel = (choices @ choices.T) ** 2
        penalty = strength * float(np.trace(kernel)) / len(kernel)
        dual = np.linalg.solve(kernel + penalty * np.eye(len(kernel)), log_factor - offset)
        return cls(offset, np.asarray(choices.T @ (choices * dual[:, None])))

    def log_factor(self, inputs: ResidualInputs) -> Floats:
        """Shape (n,)."""
        choices = inputs.choices.T.astype(np.float64)
        pairs = self.weights @ choices
        pairs *= choices
        return np.asarray(self.offset + pairs.sum(axis=0))

    def lowest(self, num_options: Sequence[int]) -> float:
        """Every pair of decisions at its lowest pair of options, or at 0, for a decision may not count.

        No network needs to reach it: pairs may want different options of one decision.
        """
        starts = np.cumsum([0, *num_options[:-1]])
        # Two options of one decision are never chosen together.
        owner = np.repeat(np.arange(len(num_options)), num_options)
        is_possible = (owner[:, None] != owner) | np.eye(len(owner), dtype=bool)
        lowest = np.minimum(np.where(is_possible, self.weights, 0.0), 0.0)
        of_pairs = np.minimum.reduceat(np.minimum.reduceat(lowest, starts, axis=0), starts, axis=1)
        return float(self.offset + of_pairs.sum())

    def to_json(self) -> dict[str, Any]:
        """The numbers."""
        return {"kind": "interactions", "offset": self.offset, "weights": self.weights.tolist()}


_MOST_LEAVES = 8
_ALL_LEAVES = 2**_MOST_LEAVES - 1


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
        goes_left = _GoesLeft(inputs)
        num = len(inputs.choices)
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

    def lowest(self, num_options: Sequence[int]) -> float:
        """Every tree at its lowest leaf."""
        del num_options
        is_leaf = self.feature < 0
        ends = [*self.roots[1:].tolist(), len(self.value)]
        leaves = [self.value[a:b][is_leaf[a:b]] for a, b in zip(self.roots.tolist(), ends, strict=True)]
        return self.offset + float(sum(tree.min() for tree in leaves))

    def to_json(self) -> dict[str, Any]:
        """The numbers."""
        arrays = {name: getattr(self, name).tolist() for name in _TREE_ARRAYS}
        return {"kind": "trees", "offset": self.offset, "depth": self.depth, **arrays}


_TREE_ARRAYS: dict[str, type] = {
    "roots": np.int64,
    "feature": np.int64,
    "threshold": np.float64,
    "left": np.int64,
    "right": np.int64,
    "value": np.float64,
}


def residual_from_json(content: Mapping[str, Any]) -> Residual:
    """The residual that `to_json` wrote; InvalidRequestError for another kind."""
    if content["kind"] == "interactions":
        return Interactions(content["offset"], np.array(content["weights"], dtype=np.float64))
    if content["kind"] == "trees":
        arrays: dict[str, Any] = {
            name: np.array(content[name], dtype=dtype) for name, dtype in _TREE_ARRAYS.items()
        }
        return TreeEnsemble(offset=content["offset"], depth=content["depth"], **arrays)
    raise InvalidRequestError(
        f"residual kind {content['kind']!r} is unknown; allowed: interactions, trees; fit the model again"
    )
