"""DeviceCosts: the exact costs of a space with `latency_ms` of one device beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nas.devices.device import LATENCY
from nas.devices.model import LatencyModel
from nas.devices.parts import Codes, NetworkBlocks
from nas.devices.prediction import NetworkLatency
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
            costs[LATENCY] = self.latency.predict_ms(codes)
        return {name: costs[name] for name in names}

    def parts(self, name: str) -> CostParts | Floor:
        """The exact costs' own; of an additive model its tables, of another a floor."""
        if name != LATENCY:
            return self.exact.parts(name)
        if self.model.is_additive and self.latency.tables:
            return parts_of(self.space, PartKind.SUM, self.latency.tables, LATENCY)
        return Floor(self._floor_ms)

    @cached_property
    def latency(self) -> NetworkLatency:
        """The model put to the networks of the space."""
        return NetworkLatency(model=self.model, networks=networks_of(self.exact))

    @cached_property
    def _floor_ms(self) -> float:
        return self.model.floor_ms(self.latency.networks)


def networks_of(exact: SpaceCosts) -> NetworkBlocks:
    """The networks whose exact costs these are, as blocks."""
    return NetworkBlocks.of(exact.space, num_classes=exact.num_classes, in_channels=exact.in_channels)
