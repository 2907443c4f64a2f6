"""Blocks that a table lacks, estimated from those it has: always told as estimates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas.devices.blocks import FusedBlock, Operation
from nas.devices.table import LatencyTable, refuse_missing

_NUM_NEIGHBOURS = 12
_MIN_NEIGHBOURS = 2


@dataclass(frozen=True, kw_only=True)
class FilledTable:
    """A table and estimates for the blocks that were asked of it in vain."""

    table: LatencyTable
    """Measured and estimated rows together."""
    interpolated: tuple[FusedBlock, ...]
    """The rows that were not measured."""


def interpolate(table: LatencyTable, blocks: Iterable[FusedBlock]) -> FilledTable:
    """The table with every one of the blocks in it.

    What is missing is read off measured blocks that differ in channels and map size only, by a plane through
    the nearest of them: log time over log input channels, output channels and pixels. MissingBlockError for
    what lies outside the range of those blocks, or where there are none.
    """
    missing = table.missing(blocks)
    neighbours = _Neighbours(table)
    estimates = {block: neighbours.estimate_ms(block) for block in missing}
    hopeless = [block for block, estimate in estimates.items() if estimate is None]
    refuse_missing(hopeless, f"the table of device '{table.device.name}' nor between blocks that are")
    found = {block: estimate for block, estimate in estimates.items() if estimate is not None}
    return FilledTable(table=replace(table, rows={**table.rows, **found}), interpolated=missing)


@dataclass(frozen=True)
class _Neighbours:
    table: LatencyTable

    @cached_property
    def _alike(self) -> dict[tuple[object, ...], tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """By what must agree: sizes (n, 3) and log milliseconds (n,)."""
        groups: dict[tuple[object, ...], list[FusedBlock]] = {}
        for block in self.table.rows:
            groups.setdefault(_what_must_agree(block), []).append(block)
        return {
            shared: (np.array([_sizes(b) for b in blocks]), np.log([self.table.rows[b] for b in blocks]))
            for shared, blocks in groups.items()
        }

    def estimate_ms(self, block: FusedBlock) -> float | None:
        """None where no measured blocks surround it."""
        sizes, log_ms = self._alike.get(_what_must_agree(block), (np.zeros((0, 3)), np.zeros(0)))
        wanted = np.array(_sizes(block))
        if len(sizes) < _MIN_NEIGHBOURS:
            return None
        if (wanted < sizes.min(axis=0)).any() or (wanted > sizes.max(axis=0)).any():
            return None
        distances = np.linalg.norm(sizes - wanted, axis=1)
        nearest = np.argsort(distances, kind="stable")[:_NUM_NEIGHBOURS]
        # Nearer blocks count more, yet none so much that its own noise is all there is.
        weights = 1 / (0.1 + distances[nearest])
        plane = np.column_stack([np.ones(len(nearest)), sizes[nearest] - wanted])
        fitted, *_ = np.linalg.lstsq(plane * weights[:, None], log_ms[nearest] * weights, rcond=1e-9)
        return float(np.exp(fitted[0]))


def _sizes(block: FusedBlock) -> tuple[float, float, float]:
    return (np.log(block.cin), np.log(block.cout), np.log(block.h * block.w))


def _what_must_agree(block: FusedBlock) -> tuple[object, ...]:
    groups = "all" if block.op is Operation.DEPTHWISE else block.groups
    return (block.op, block.k, block.stride, groups, block.act, block.se > 0, block.fused_add)
