"""The blocks of every network of a space, part by part, so that whole batches are read off tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from nas.costs.batch import term_entries
from nas.devices.blocks import FusedBlock, fused_blocks, placed_blocks
from nas.layers import LayerSpec
from nas.space import CostTerm, SearchSpace

Blocks = tuple[FusedBlock, ...]
Codes = NDArray[np.int64]
"""Encoded networks, shape (n, number of decisions)."""
Floats = NDArray[np.float64]
BlockValues = Callable[[Sequence[FusedBlock]], Floats]
"""Of m blocks an array (m, k): k numbers each, that add up over a network."""


@dataclass(frozen=True, slots=True)
class BlockPart:
    """One part of the networks, and its blocks for every combination of the decisions it depends on."""

    columns: tuple[int, ...]
    """Columns of the codes that say which combination it is."""
    strides: tuple[int, ...]
    blocks: tuple[Blocks, ...]
    """One entry for each combination."""

    def index(self, codes: Codes) -> NDArray[np.int64]:
        """Where the combination of each network stands, shape (n,)."""
        index = np.zeros(len(codes), dtype=np.int64)
        for column, stride in zip(self.columns, self.strides, strict=True):
            index += codes[:, column] * stride
        return index


@dataclass(frozen=True, kw_only=True)
class NetworkBlocks:
    """Reads networks of one space as blocks, for the classes and channels of the data set at hand."""

    space: SearchSpace
    num_classes: int
    in_channels: int
    drop_dead: bool = True
    """See `fused_blocks`."""

    @classmethod
    def of(
        cls,
        space: SearchSpace,
        *,
        num_classes: int | None = None,
        in_channels: int | None = None,
        drop_dead: bool = True,
    ) -> NetworkBlocks:
        """None takes the space's default."""
        return cls(
            space=space,
            num_classes=space.default_classes if num_classes is None else num_classes,
            in_channels=space.default_channels if in_channels is None else in_channels,
            drop_dead=drop_dead,
        )

    def sums(self, codes: Codes, values: BlockValues) -> Floats:
        """What `values` says of the blocks, added up over each network: shape (n, k)."""
        parts = self.parts()
        if not parts:
            return self._sums_one_by_one(codes, values)
        total = part_values(parts[0], values)[parts[0].index(codes)]
        for part in parts[1:]:
            total += part_values(part, values)[part.index(codes)]
        return total

    def parts(self) -> tuple[BlockPart, ...]:
        """Parts that together hold each block of a network once; one a cost term.

        None where blocks reach across the terms (a cell whose edges share sums): networks are lowered there.
        """
        return _parts(self)

    def distinct(self) -> Blocks:
        """Every block of any network once, in order."""
        entries = [entry for part in self.parts() for entry in part.blocks]
        if not entries:
            sizes = [len(decision.options) for decision in self.space.decisions]
            entries = [_network(self, code) for code in np.ndindex(*sizes)]
        return tuple(sorted({block for entry in entries for block in entry}))

    def _sums_one_by_one(self, codes: Codes, values: BlockValues) -> Floats:
        distinct, inverse = np.unique(codes, axis=0, return_inverse=True)
        networks = [_network(self, tuple(row)) for row in distinct.tolist()]
        return _entry_sums(networks, values)[inverse.reshape(-1)]


def part_values(part: BlockPart, values: BlockValues) -> Floats:
    """The numbers of each combination of the part, added up over its blocks: shape (combinations, k)."""
    return _entry_sums(part.blocks, values)


def _entry_sums(entries: Sequence[Blocks], values: BlockValues) -> Floats:
    distinct = list(dict.fromkeys(block for entry in entries for block in entry))
    number = {block: i for i, block in enumerate(distinct)}
    table = values(distinct)
    sums = np.zeros((len(entries), table.shape[1]))
    rows = np.repeat(np.arange(len(entries)), [len(entry) for entry in entries])
    np.add.at(sums, rows, table[[number[block] for entry in entries for block in entry]])
    return sums


@lru_cache(maxsize=2**17)
def _network(reader: NetworkBlocks, code: tuple[int, ...]) -> Blocks:
    layers = reader.space.lower(
        reader.space.decode(code), num_classes=reader.num_classes, in_channels=reader.in_channels
    )
    return fused_blocks(layers, drop_dead=reader.drop_dead)


@lru_cache(maxsize=32)
def _parts(reader: NetworkBlocks) -> tuple[BlockPart, ...]:
    space, terms = reader.space, reader.space.cost_terms()
    if not _are_separate(space, terms, drop_dead=reader.drop_dead):
        return ()
    filled = term_entries(
        space, terms, partial(_entries, drop_dead=reader.drop_dead),
        num_classes=reader.num_classes, in_channels=reader.in_channels,
    )  # fmt: skip
    options = {d.name: d.options for d in space.decisions}
    column = {d.name: i for i, d in enumerate(space.decisions)}
    return tuple(
        BlockPart(
            columns=tuple(column[name] for name in term.decisions),
            strides=_strides([len(options[name]) for name in term.decisions]),
            blocks=tuple(entries[c] for c in product(*(options[name] for name in term.decisions))),
        )
        for term, entries in zip(terms, filled, strict=True)
    )


def _strides(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(prod(sizes[i + 1 :]) for i in range(len(sizes)))


def _are_separate(space: SearchSpace, terms: Sequence[CostTerm], *, drop_dead: bool) -> bool:
    """Whether each block of the networks that between them use every weight lies within one term."""
    for architecture in space.covering():
        layers = space.lower(architecture)
        for positions, _ in placed_blocks(layers, drop_dead=drop_dead):
            owners = {_owner(terms, layers[position].name) for position in positions}
            if len(owners) > 1 or None in owners:
                return False
    return True


def _owner(terms: Sequence[CostTerm], layer: str) -> int | None:
    return next((i for i, term in enumerate(terms) if layer.startswith(term.prefix)), None)


def _entries(
    layers: Sequence[LayerSpec], owners: Sequence[int | None], num_terms: int, *, drop_dead: bool
) -> list[Blocks]:
    found: list[list[FusedBlock]] = [[] for _ in range(num_terms)]
    for positions, block in placed_blocks(layers, drop_dead=drop_dead):
        owner = owners[positions[0]]
        if owner is None:
            raise ValueError(f"block {block} is of no cost term; the space's terms must own every layer")
        found[owner].append(block)
    return [tuple(blocks) for blocks in found]
