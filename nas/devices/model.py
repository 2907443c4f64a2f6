"""LatencyModel: the time of a network as a base and the sum over its blocks, times a factor of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nas.costs.batch import CostTable
from nas.devices.accuracy import Accuracy
from nas.devices.basis import Basis, block_figures
from nas.devices.blocks import FusedBlock, Operation
from nas.devices.device import LATENCY, Device
from nas.devices.parts import Codes, Floats, NetworkBlocks, part_values
from nas.devices.residual import Interactions, Residual, ResidualInputs, chosen_options
from nas.devices.table import LatencyTable
from nas.devices.tree_ensemble import TreeEnsemble
from nas.errors import InvalidRequestError
from nas.search.branches import Branches, OptionLayout

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Predicts `latency_ms` of one device for the networks of one space."""

    device: Device
    space_fingerprint: str | None
    """Of the space whose networks it was fitted to; None for a table as it stands, which serves any space."""
    basis: Basis
    drop_dead: bool
    """How networks are read as blocks; see `fused_blocks`."""
    base_ms: float
    factors: Mapping[str, float]
    """By figure of the basis, milliseconds a unit; those that are not here are 0."""
    operations: tuple[Operation, ...]
    """What the networks that it was fitted to are made of: it knows no others."""
    table: LatencyTable | None = None
    interpolated: tuple[FusedBlock, ...] = ()
    """Blocks whose time in the table is an estimate."""
    residual: Residual | None = None
    accuracy: Accuracy | None = None
    """On networks that it was not fitted to; None before it was held against any."""

    @classmethod
    def of_table(cls, table: LatencyTable, interpolated: tuple[FusedBlock, ...] = ()) -> LatencyModel:
        """The table as it stands: its base and its rows, added up."""
        return cls(
            device=table.device,
            space_fingerprint=None,
            basis=Basis.TABLE,
            drop_dead=True,
            base_ms=table.base_ms,
            factors={"p50_ms": 1.0},
            operations=tuple(Operation),
            table=table,
            interpolated=interpolated,
        )

    @property
    def is_additive(self) -> bool:
        """Whether the time is a sum over blocks, so that tables of the parts say all of it."""
        return self.residual is None

    def predict_ms(self, networks: NetworkBlocks, codes: Codes) -> Floats:
        """Milliseconds of each network, shape (n,)."""
        self._check_space(networks)
        networks = replace(networks, drop_dead=self.drop_dead)
        total = self.base_ms + networks.sums(codes, self.block_ms)[:, 0]
        if self.residual is None:
            return np.asarray(total)
        work = block_figures(Basis.WORK)
        inputs = ResidualInputs(networks.sums(codes, work.values), chosen_options(networks.space, codes))
        return np.asarray(total * np.exp(self.residual.log_factor(inputs)))

    def block_ms(self, blocks: Any) -> Floats:
        """What each of m blocks adds to the sum, shape (m, 1)."""
        figures = block_figures(self.basis, self.table, known=self.operations)
        factors = np.array([self.factors.get(name, 0.0) for name in figures.names])
        return np.asarray(figures.values(blocks) @ factors)[:, None]

    def part_tables(self, networks: NetworkBlocks) -> tuple[CostTable, ...]:
        """Tables whose entries add up to the sum over blocks, its base one of them, in milliseconds.

        They are all of the prediction where the model is additive. None where the space's blocks reach
        across its terms.
        """
        self._check_space(networks)
        parts = replace(networks, drop_dead=self.drop_dead).parts()
        if not parts:
            return ()
        base = CostTable(columns=(), strides=(), costs={LATENCY: np.array([self.base_ms])})
        tables = [
            CostTable(
                columns=part.columns,
                strides=part.strides,
                costs={LATENCY: part_values(part, self.block_ms)[:, 0]},
            )
            for part in parts
        ]
        return (base, *tables)

    def floor_ms(self, networks: NetworkBlocks) -> float:
        """No network of the space is predicted to take less: the base alone, times the factor at its lowest.

        Little is known from it: it stands where the space's blocks reach across its terms.
        """
        if self.residual is None:
            return self.base_ms
        whole = Branches.whole(OptionLayout.of(networks.space))
        unknown = np.full((1, len(block_figures(Basis.WORK).names)), np.inf)
        lowest = self.residual.floor(whole, -unknown, unknown).least(whole)[0]
        return self.base_ms * float(np.exp(lowest))

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON; `from_json` reads it back to the same predictions, bit for bit."""
        return {
            "schema": SCHEMA,
            "device": self.device.to_json(),
            "space_fingerprint": self.space_fingerprint,
            "basis": self.basis,
            "drop_dead": self.drop_dead,
            "base_ms": self.base_ms,
            "factors": dict(self.factors),
            "operations": [*self.operations],
            "table": None if self.table is None else [*self.table.lines()],
            "interpolated": [block.to_json() for block in self.interpolated],
            "residual": None if self.residual is None else self.residual.to_json(),
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LatencyModel:
        """The model that `to_json` wrote; InvalidRequestError for another schema."""
        if content.get("schema") != SCHEMA:
            raise InvalidRequestError(
                f"latency model schema is not {SCHEMA}; fit the model with this release"
            )
        table, residual, accuracy = content["table"], content["residual"], content["accuracy"]
        return cls(
            device=Device.from_json(content["device"]),
            space_fingerprint=content["space_fingerprint"],
            basis=Basis(content["basis"]),
            drop_dead=content["drop_dead"],
            base_ms=content["base_ms"],
            factors=content["factors"],
            operations=tuple(Operation(name) for name in content["operations"]),
            table=None if table is None else LatencyTable.parse(table),
            interpolated=tuple(FusedBlock.from_json(block) for block in content["interpolated"]),
            residual=None if residual is None else _residual(residual),
            accuracy=None if accuracy is None else Accuracy(**accuracy),
        )

    def _check_space(self, networks: NetworkBlocks) -> None:
        if self.space_fingerprint not in (None, networks.space.fingerprint):
            raise InvalidRequestError(
                f"the latency model of device '{self.device.name}' was fitted to networks of another space "
                f"than '{networks.space.name}'; measure networks of this space and fit it again"
            )


def _residual(content: Mapping[str, Any]) -> Residual:
    """The residual that `to_json` wrote; InvalidRequestError for another kind."""
    if content["kind"] == "interactions":
        return Interactions.from_json(content)
    if content["kind"] == "trees":
        return TreeEnsemble.from_json(content)
    raise InvalidRequestError(
        f"residual kind {content['kind']!r} is unknown; allowed: interactions, trees; fit the model again"
    )
