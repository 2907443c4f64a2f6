"""What a search asks of costs: a whole batch of encoded networks at once, and a floor under all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nas.costs import COST_NAMES, batch_costs
from nas.costs.batch import PEAK, additive_tables, peak_tables
from nas.space import SearchSpace

Codes = NDArray[np.int64]
"""Encoded networks, shape (n, number of decisions)."""
Costs = dict[str, NDArray[Any]]
"""By name one number a network, shape (n,)."""


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

    def floors(self, names: Sequence[str]) -> dict[str, float]:
        """For each named cost a number that no network of the space goes below."""


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
        costs = batch_costs(
            self.space, codes, num_classes=self.num_classes, in_channels=self.in_channels, names=names
        )
        return {**costs}

    def floors(self, names: Sequence[str]) -> dict[str, float]:
        """Every part of a network at its cheapest, whatever the others need.

        Never above the true minimum, and equal to it where the cheapest options of all parts agree.
        """
        return {name: float(self._floor(name)) for name in names}

    def _floor(self, name: str) -> int:
        classes = self.space.default_classes if self.num_classes is None else self.num_classes
        channels = self.space.default_channels if self.in_channels is None else self.in_channels
        if name == PEAK:
            return max(int(t.costs[name].min()) for t in peak_tables(self.space, classes, channels))
        return sum(int(t.costs[name].min()) for t in additive_tables(self.space, classes, channels))
