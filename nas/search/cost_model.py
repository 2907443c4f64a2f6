"""What a search asks of costs: a whole batch of encoded networks at once, and the parts they add up from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nas.costs import COST_NAMES, batch_costs, costs
from nas.costs.batch import PEAK, CostTable, additive_tables, peak_tables
from nas.errors import UnknownNameError
from nas.search.branches import AdditiveFloor, Branches
from nas.space import SearchSpace

Codes = NDArray[np.int64]
"""Encoded networks, shape (n, number of decisions)."""
Costs = dict[str, NDArray[Any]]
"""By name one number a network, shape (n,)."""
Floats = NDArray[np.float64]


class PartKind(StrEnum):
    """How the parts of a cost make the whole."""

    SUM = "sum"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of every network costs, by the decisions it depends on."""

    columns: tuple[int, ...]
    """Those decisions, as columns of the codes, each once."""
    costs: NDArray[Any]
    """One axis a column, in their order; whole or fractional numbers of at least 0."""


@dataclass(frozen=True, slots=True)
class CostParts:
    """A cost as the sum or the maximum of its parts; every network's cost is exactly that.

    Of whole numbers, that is: where parts are fractions, `batch` may differ by the rounding of their sum.
    """

    kind: PartKind
    parts: tuple[Part, ...]


class LogFactor(Protocol):
    """The logarithm of a factor of each network's own, as far as it is known of many networks at once."""

    @property
    def figures(self) -> tuple[CostParts, ...]:
        """Sums over parts that it depends on, beside the choices."""

    def floor(self, branches: Branches, least: Floats, most: Floats) -> AdditiveFloor:
        """What no network of a branch is below; figures lie between `least` and `most`, each (n, figures).

        The narrower the branch, the nearer.
        """


@dataclass(frozen=True, slots=True)
class ScaledParts:
    """A cost that is a sum of parts times a factor, such as that of a fitted model."""

    parts: tuple[Part, ...]
    log_factor: LogFactor


@dataclass(frozen=True, slots=True)
class Floor:
    """What is known of a cost of which no parts are known."""

    least: float = 0.0
    """No network costs less."""


class CostModel(Protocol):
    """Exact or fitted costs of the networks of one space: what bounds and objectives are made of."""

    @property
    def space(self) -> SearchSpace:
        """The space whose networks it costs."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every cost it knows."""

    def batch(self, codes: Codes, names: Sequence[str]) -> Costs:
        """The named costs of encoded networks."""

    def parts(self, name: str) -> CostParts | ScaledParts | Floor:
        """What the named cost is made of, or a floor under it where that is not known."""


@dataclass(frozen=True, kw_only=True)
class SpaceCosts:
    """The costs read off the lowering, for the classes and channels of the data set at hand."""

    space: SearchSpace
    num_classes: int | None = None
    in_channels: int | None = None
    """None takes the space's default."""

    @property
    def names(self) -> tuple[str, ...]:
        """macs, params, size_bytes, peak_activation_bytes."""
        return COST_NAMES

    def batch(self, codes: Codes, names: Sequence[str]) -> Costs:
        """The named costs of encoded networks."""
        found = batch_costs(
            self.space, codes, num_classes=self.num_classes, in_channels=self.in_channels, names=names
        )
        return {**found}

    def parts(self, name: str) -> CostParts:
        """The cost terms' tables: sums of them, for the peak their maximum. UnknownNameError for others."""
        if name not in self.names:
            raise UnknownNameError(f"cost '{name}' is unknown; allowed: {', '.join(self.names)}")
        classes = self.space.default_classes if self.num_classes is None else self.num_classes
        channels = self.space.default_channels if self.in_channels is None else self.in_channels
        kind, tables_of = (PartKind.MAX, peak_tables) if name == PEAK else (PartKind.SUM, additive_tables)
        return parts_of(self.space, kind, tables_of(self.space, classes, channels), name)


@dataclass(frozen=True)
class LoweredCosts:
    """The same costs of few networks, each read off its own lowering: for whom the space's tables, which take
    seconds to make, are too dear."""

    counted: SpaceCosts

    @property
    def space(self) -> SearchSpace:
        """That of the costs."""
        return self.counted.space

    @property
    def names(self) -> tuple[str, ...]:
        """As counted."""
        return self.counted.names

    def batch(self, codes: Codes, names: Sequence[str]) -> Costs:
        """The named costs of encoded networks, one by one."""
        rows = [
            costs(
                self.space,
                self.space.decode(code),
                num_classes=self.counted.num_classes,
                in_channels=self.counted.in_channels,
            )
            for code in codes
        ]
        return {name: np.array([row[name] for row in rows], dtype=np.int64) for name in names}

    def parts(self, name: str) -> CostParts:
        """As counted."""
        return self.counted.parts(name)


def parts_of(space: SearchSpace, kind: PartKind, tables: Sequence[CostTable], name: str) -> CostParts:
    """The named cost as its tables have it."""
    sizes = [len(decision.options) for decision in space.decisions]
    parts = [Part(t.columns, t.costs[name].reshape([sizes[c] for c in t.columns])) for t in tables]
    return CostParts(kind, tuple(parts))
