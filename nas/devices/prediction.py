"""NetworkLatency: a latency model put to the networks of one space, for very many of them at once.

What `LatencyModel.predict_ms` says, faster: what each part of the networks adds is looked up once for every
combination of its decisions, and the networks are gone through in pieces that stay in the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas.costs.batch import CostTable
from nas.devices.basis import Basis, block_figures
from nas.devices.device import LATENCY
from nas.devices.model import LatencyModel
from nas.devices.parts import BlockPart, Codes, Floats, NetworkBlocks, part_values
from nas.devices.residual import ResidualInputs, chosen_options

_CHUNK_ROWS = 16_384


@dataclass(frozen=True, kw_only=True)
class NetworkLatency:
    """Predicts `latency_ms` of a model's device for the networks of one space."""

    model: LatencyModel
    networks: NetworkBlocks

    @cached_property
    def tables(self) -> tuple[CostTable, ...]:
        """Of each part its milliseconds, the base among them; none where networks have no parts."""
        return self.model.part_tables(self.networks)

    def predict_ms(self, codes: Codes) -> Floats:
        """Milliseconds of each network, shape (n,)."""
        if not self.tables:
            return self.model.predict_ms(self.networks, np.asarray(codes, dtype=np.int64))
        result = np.empty(len(codes))
        for start in range(0, len(codes), _CHUNK_ROWS):
            piece = slice(start, start + _CHUNK_ROWS)
            # The codes may come as bytes, which serve to keep a million of them.
            result[piece] = self._predict(np.array(codes[piece].T, dtype=np.int64, order="C"))
        return result

    def _predict(self, columns: NDArray[np.int64]) -> Floats:
        """`columns` are codes, one row a decision."""
        total = np.zeros(columns.shape[1])
        for table in self.tables:
            total += table.costs[LATENCY].take(table.index(columns))
        residual = self.model.residual
        if residual is None:
            return total
        inputs = ResidualInputs(
            self._work(columns) if residual.reads_sums else np.empty((len(total), 0)),
            chosen_options(self.networks.space, columns.T),
        )
        return np.asarray(total * np.exp(residual.log_factor(inputs)))

    def _work(self, columns: NDArray[np.int64]) -> Floats:
        """Laid out by columns, shape (n, k)."""
        sums = np.zeros((len(self.work_tables[0][1]), columns.shape[1]))
        for part, figures in self.work_tables:
            index = part.index(columns.T)
            for row, values in zip(sums, figures, strict=True):
                row += values.take(index)
        return sums.T

    @cached_property
    def work_tables(self) -> tuple[tuple[BlockPart, Floats], ...]:
        """Of each part its work by kind of operation, shape (k, combinations)."""
        values = block_figures(Basis.WORK).values
        parts = replace(self.networks, drop_dead=self.model.drop_dead).parts()
        return tuple((part, np.ascontiguousarray(part_values(part, values).T)) for part in parts)
