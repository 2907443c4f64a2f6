"""What a sum over blocks leaves over: a factor of each network's own, from how its choices go together.

Two forms of it, both plain numbers that read back from JSON as they were written: products of pairs of
choices, here, and boosted trees (`nas.devices.tree_ensemble`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from nas.devices.parts import Codes, Floats
from nas.search.branches import AdditiveFloor, Branches
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

    def sums_read(self, num_sums: int) -> tuple[int, ...]:
        """Which of the sums it looks at, of so many."""

    def log_factor(self, inputs: ResidualInputs) -> Floats:
        """Shape (n,)."""

    def floor(self, branches: Branches, least: Floats, most: Floats) -> AdditiveFloor:
        """What no network of a branch is below, whose sums lie from `least` to `most`, each (n, k)."""

    def to_json(self) -> dict[str, Any]:
        """With the form under `kind`; `LatencyModel.from_json` reads it back."""


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

    def sums_read(self, num_sums: int) -> tuple[int, ...]:
        """None."""
        del num_sums
        return ()

    def floor(self, branches: Branches, least: Floats, most: Floats) -> AdditiveFloor:
        """Each option with what suits it best of what is left to every other decision.

        A pair's weight stands in two places, one for each of its options: each takes its own place to the
        lowest, and no network needs to reach both.
        """
        del least, most
        layout = branches.layout
        is_between = layout.owners[:, None] != layout.owners
        # Two options of one decision are never chosen together.
        between = np.where(is_between, self.weights, 0.0)
        by_option = np.tile(np.diag(self.weights), (len(branches), 1))
        for column in range(len(layout.num_options)):
            # Where it does not count it adds nothing.
            lowest = np.where(branches.may_rest[:, column, None], 0.0, np.full(by_option.shape, np.inf))
            options = layout.options_of(column)
            for option in range(options.start, options.stop):
                left = branches.allowed[:, option, None]
                np.minimum(lowest, between[option], out=lowest, where=left)
            by_option += lowest
        return AdditiveFloor(np.full(len(branches), self.offset), by_option)

    def to_json(self) -> dict[str, Any]:
        """The numbers."""
        return {"kind": "interactions", "offset": self.offset, "weights": self.weights.tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Interactions:
        """The one that `to_json` wrote."""
        return cls(content["offset"], np.array(content["weights"], dtype=np.float64))
