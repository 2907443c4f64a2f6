"""DeviceCosts: the exact costs of a space with `latency_ms` of one device beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas.costs.batch import CostTable
from nas.devices.model import LATENCY, LatencyModel
from nas.devices.parts import Codes, Floats, NetworkBlocks
from nas.search.cost_model import CostParts, Costs, Floor, PartKind, SpaceCosts, parts_of
from nas.space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class DeviceCosts:
    """A cost model of a search. `latency_ms` is predicted, by `model`; all others are exact."""

    exact: SpaceCosts
    model: LatencyModel

    @property
    def space(self) -> SearchSpace:
        """The space whose networks it costs."""
        return self.exact.space

    @property
    def names(self) -> tuple[str, ...]:
        """The exact costs and `latency_ms`."""
        return (*self.exact.names, LATENCY)

    def batch(self, codes: Codes, names: Sequence[str]) -> Costs:
        """The named costs of encoded networks."""
        costs = self.exact.batch(codes, [name for name in names if name != LATENCY])
        if LATENCY in names:
            costs[LATENCY] = self._latency_ms(np.asarray(codes, dtype=np.int64))
        return {name: costs[name] for name in names}

    def parts(self, name: str) -> CostParts | Floor:
        """The exact costs' own; of an additive model its tables, of another a floor."""
        if name != LATENCY:
            return self.exact.parts(name)
        if self.model.is_additive and self._tables:
            return parts_of(self.space, PartKind.SUM, self._tables, LATENCY)
        return Floor(self.model.floor_ms(self._networks))

    def _latency_ms(self, codes: Codes) -> Floats:
        if not self.model.is_additive or not self._tables:
            return self.model.predict_ms(self._networks, codes)
        columns = np.ascontiguousarray(codes.T)
        total = np.zeros(len(codes))
        for table in self._tables:
            total += table.costs[LATENCY].take(table.index(columns))
        return total

    @cached_property
    def _networks(self) -> NetworkBlocks:
        exact = self.exact
        return NetworkBlocks.of(exact.space, num_classes=exact.num_classes, in_channels=exact.in_channels)

    @cached_property
    def _tables(self) -> tuple[CostTable, ...]:
        return self.model.part_tables(self._networks)
