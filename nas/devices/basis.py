"""What a block's time may be made of: its work by kind of operation, or what a table says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from nas.devices.blocks import FusedBlock, Operation
from nas.devices.parts import BlockValues, Floats
from nas.devices.table import LatencyTable, refuse_missing
from nas.errors import InvalidRequestError, UnknownNameError


class Basis(StrEnum):
    """Figures of a block that are scaled and added up, from the plainest on."""

    TABLE = "table"
    """The table's milliseconds, all scaled alike."""
    TABLE_BY_OPERATION = "table_by_operation"
    """The table's milliseconds, with a scale for each kind of operation."""
    WORK = "work"
    """For each kind of operation the number of blocks, their multiply-accumulates, the bytes they move."""


@dataclass(frozen=True, kw_only=True)
class BlockFigures:
    """The figures of a basis by name, and how to read them off blocks."""

    names: tuple[str, ...]
    values: BlockValues


def block_figures(
    basis: Basis, table: LatencyTable | None = None, *, known: Collection[Operation] = tuple(Operation)
) -> BlockFigures:
    """The figures of the basis. Reading them off a block raises UnknownNameError for an operation that is
    not `known`, and MissingBlockError for a block that the table lacks: neither is free.
    """
    if basis is not Basis.WORK and table is None:
        raise InvalidRequestError(f"basis '{basis}' needs a latency table; give one, or take 'work'")

    def values(blocks: Sequence[FusedBlock]) -> Floats:
        _refuse_unknown(blocks, known)
        if basis is Basis.WORK or table is None:
            return _work(blocks)
        return _looked_up(blocks, table, by_operation=basis is Basis.TABLE_BY_OPERATION)

    return BlockFigures(names=_NAMES[basis], values=values)


_OPERATIONS = tuple(Operation)
_NUMBER = {operation: i for i, operation in enumerate(_OPERATIONS)}
_WORK = ("count", "macs", "moved_bytes")
_NAMES: dict[Basis, tuple[str, ...]] = {
    Basis.TABLE: ("p50_ms",),
    Basis.TABLE_BY_OPERATION: tuple(f"{op}.p50_ms" for op in _OPERATIONS),
    Basis.WORK: tuple(f"{op}.{figure}" for op in _OPERATIONS for figure in _WORK),
}


def _work(blocks: Sequence[FusedBlock]) -> Floats:
    values = np.zeros((len(blocks), len(_OPERATIONS), len(_WORK)))
    for row, block in zip(values, blocks, strict=True):
        row[_NUMBER[block.op]] = (1, block.macs, block.moved_bytes)
    return values.reshape(len(blocks), -1)


def _looked_up(blocks: Sequence[FusedBlock], table: LatencyTable, *, by_operation: bool) -> Floats:
    refuse_missing(table.missing(blocks), f"the table of device '{table.device.name}'")
    values = np.zeros((len(blocks), len(_OPERATIONS) if by_operation else 1))
    for row, block in zip(values, blocks, strict=True):
        row[_NUMBER[block.op] if by_operation else 0] = table.rows[block]
    return values


def _refuse_unknown(blocks: Sequence[FusedBlock], known: Collection[Operation]) -> None:
    for block in blocks:
        if block.op not in known:
            raise UnknownNameError(
                f"operation '{block.op}' was in no network that the latency model was fitted to; "
                f"it knows {', '.join(known)}; measure networks that have it and fit again"
            )
