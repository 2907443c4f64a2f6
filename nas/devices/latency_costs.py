"""DeviceCosts: the exact costs of a space with `latency_ms` of one device beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas.devices.device import LATENCY
from nas.devices.model import LatencyModel
from nas.devices.parts import Codes, Floats, NetworkBlocks
from nas.devices.prediction import NetworkLatency
from nas.devices.residual import Residual
from nas.search.branches import AdditiveFloor, Branches
from nas.search.cost_model import CostParts, Costs, Floor, Part, PartKind, ScaledParts, SpaceCosts, parts_of
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

    def parts(self, name: str) -> CostParts | ScaledParts | Floor:
        """The exact costs' own; the model's tables and its factor, or a floor where it has no tables."""
        if name != LATENCY:
            return self.exact.parts(name)
        if not self.latency.tables:
            return Floor(self._floor_ms)
        sums = parts_of(self.space, PartKind.SUM, self.latency.tables, LATENCY)
        return sums if self.model.residual is None else ScaledParts(sums.parts, self._log_factor)

    @cached_property
    def latency(self) -> NetworkLatency:
        """The model put to the networks of the space."""
        return NetworkLatency(model=self.model, networks=networks_of(self.exact))

    @cached_property
    def _log_factor(self) -> ResidualFactor:
        assert self.model.residual is not None
        return ResidualFactor.of(self.model.residual, self.latency)

    @cached_property
    def _floor_ms(self) -> float:
        return self.model.floor_ms(self.latency.networks)


def networks_of(exact: SpaceCosts) -> NetworkBlocks:
    """The networks whose exact costs these are, as blocks."""
    return NetworkBlocks.of(exact.space, num_classes=exact.num_classes, in_channels=exact.in_channels)


@dataclass(frozen=True, eq=False)
class ResidualFactor:
    """The factor of a model as a search knows it: the sums that its residual looks at are figures."""

    residual: Residual
    columns: tuple[int, ...]
    """Of the figures, among all the sums."""
    num_sums: int
    figures: tuple[CostParts, ...]

    @classmethod
    def of(cls, residual: Residual, latency: NetworkLatency) -> ResidualFactor:
        """For the networks that the latency is predicted for."""
        tables = latency.work_tables if residual.reads_sums else ()
        num_sums = len(tables[0][1]) if tables else 0
        columns = residual.sums_read(num_sums)
        sizes = [len(decision.options) for decision in latency.networks.space.decisions]
        figures = [
            CostParts(
                PartKind.SUM,
                tuple(
                    Part(part.columns, work[column].reshape([sizes[c] for c in part.columns]))
                    for part, work in tables
                ),
            )
            for column in columns
        ]
        return cls(residual, columns, num_sums, tuple(figures))

    def floor(self, branches: Branches, least: Floats, most: Floats) -> AdditiveFloor:
        """The residual's own, which asks for no sum that is not among the figures."""
        lows, highs = np.zeros((2, len(branches), self.num_sums))
        lows[:, self.columns], highs[:, self.columns] = least, most
        return self.residual.floor(branches, lows, highs)
