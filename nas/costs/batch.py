"""Costs of many encoded architectures at once, by look-up in tables that the lowering fills.

The space says which decisions each part of a network depends on (`SearchSpace.cost_terms`). For every
combination of those decisions the part is lowered once and its cost kept; a batch is then a sum (or,
for peaks, a maximum) of look-ups. There is no second formula: the tables hold what the lowering costs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import product
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Value
from nas.costs.count import (
    ADDITIVE_COST_NAMES,
    COST_NAMES,
    layer_macs,
    layer_params,
    layer_size_bytes,
    live_bytes,
)
from nas.errors import InvalidArchitectureError, UnknownNameError
from nas.layers import LayerSpec
from nas.space import CostTerm, SearchSpace

PEAK = "peak_activation_bytes"

_CHUNK_ROWS = 8192
"""Rows worked on together: their look-ups stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class CostTable:
    """What one cost term costs for every combination of the decisions it depends on."""

    columns: tuple[int, ...]
    """Columns of the codes that index the table."""
    strides: tuple[int, ...]
    costs: dict[str, NDArray[Any]]
    """By name, one number for each combination; whole but for times."""

    def index(self, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each architecture's combination stands; `columns` has shape (num_decisions, n)."""
        index = np.zeros(columns.shape[1], dtype=np.int64)
        for column, stride in zip(self.columns, self.strides, strict=True):
            index += columns[column] * stride
        return index


EntryT = TypeVar("EntryT")

Combination = tuple[Value, ...]
"""Values of a term's decisions, in their order."""

_Entry = dict[str, int]
_Options = dict[str, tuple[Value, ...]]
_EntriesOf = Callable[[Sequence[LayerSpec], Sequence[int | None], int], list[EntryT]]
"""Of the layers of one network, the number of the term that each is of, and how many terms there are."""


def batch_costs(
    space: SearchSpace,
    codes: NDArray[np.int64] | Sequence[Sequence[int]],
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    names: Sequence[str] = COST_NAMES,
) -> dict[str, NDArray[np.int64]]:
    """Costs by name, each an array of shape (n,), of architectures encoded as (n, num_decisions).

    Equals `costs` on `space.decode` of every row; inactive columns are ignored. `names` leaves out
    costs that are not needed. Raises InvalidArchitectureError for codes outside the space.
    """
    unknown = [name for name in names if name not in COST_NAMES]
    if unknown:
        raise UnknownNameError(f"cost '{unknown[0]}' is unknown; allowed: {', '.join(COST_NAMES)}")
    rows = _checked_codes(space, codes)
    classes = space.default_classes if num_classes is None else num_classes
    channels = space.default_channels if in_channels is None else in_channels
    additive = [name for name in names if name in ADDITIVE_COST_NAMES]
    results = {name: np.zeros(len(rows), dtype=np.int64) for name in names}
    tables = additive_tables(space, classes, channels) if additive else ()
    peaks = peak_tables(space, classes, channels) if PEAK in names else ()
    for start in range(0, len(rows), _CHUNK_ROWS):
        # Columns one after the other in memory: each look-up index is built from a few whole columns.
        columns = np.ascontiguousarray(rows[start : start + _CHUNK_ROWS].T)
        chunk = {name: result[start : start + _CHUNK_ROWS] for name, result in results.items()}
        for table in tables:
            index = table.index(columns)
            for name in additive:
                chunk[name] += table.costs[name].take(index)
        for table in peaks:
            np.maximum(chunk[PEAK], table.costs[PEAK].take(table.index(columns)), out=chunk[PEAK])
    return results


def _checked_codes(
    space: SearchSpace, codes: NDArray[np.int64] | Sequence[Sequence[int]]
) -> NDArray[np.int64]:
    rows = np.asarray(codes, dtype=np.int64)
    if rows.shape == (0,):
        rows = rows.reshape(0, len(space.decisions))
    if rows.ndim != 2 or rows.shape[1] != len(space.decisions):
        raise InvalidArchitectureError(
            f"codes of space '{space.name}' have shape (n, {len(space.decisions)}), not {rows.shape}"
        )
    limits = np.array([len(d.options) for d in space.decisions])
    if rows.size and (rows.min() < 0 or (rows.max(axis=0) >= limits).any()):
        raise InvalidArchitectureError(f"codes of space '{space.name}' hold an option index out of range")
    return rows


@lru_cache(maxsize=32)
def additive_tables(space: SearchSpace, num_classes: int, in_channels: int) -> tuple[CostTable, ...]:
    """One table a cost term. A space is a value, so its tables are made once a process."""
    return _tables(space, space.cost_terms(), _additive_costs, num_classes, in_channels)


@lru_cache(maxsize=32)
def peak_tables(space: SearchSpace, num_classes: int, in_channels: int) -> tuple[CostTable, ...]:
    """The same for `peak_activation_bytes`."""
    return _tables(space.peak_equivalent(), space.peak_terms(), _peak_costs, num_classes, in_channels)


def _additive_costs(
    layers: Sequence[LayerSpec], owners: Sequence[int | None], num_terms: int
) -> list[_Entry]:
    """For each term the sum over its layers."""
    totals = [dict.fromkeys(ADDITIVE_COST_NAMES, 0) for _ in range(num_terms)]
    for layer, owner in zip(layers, owners, strict=True):
        if owner is not None:
            total = totals[owner]
            total["macs"] += layer_macs(layer)
            total["params"] += layer_params(layer)
            total["size_bytes"] += layer_size_bytes(layer)
    return totals


def _peak_costs(layers: Sequence[LayerSpec], owners: Sequence[int | None], num_terms: int) -> list[_Entry]:
    """For each term the most that is live while one of its layers runs."""
    peaks = [0] * num_terms
    for owner, live in zip(owners, live_bytes(layers), strict=True):
        if owner is not None:
            peaks[owner] = max(peaks[owner], live)
    return [{PEAK: peak} for peak in peaks]


def _owner(terms: Sequence[CostTerm], layer: str) -> int | None:
    """Which term the layer of that name is of; None for one that costs nothing wherever it stands."""
    owners = [index for index, term in enumerate(terms) if layer.startswith(term.prefix)]
    if len(owners) > 1:
        raise ValueError(f"layer '{layer}' is of {len(owners)} cost terms; terms must not overlap")
    return owners[0] if owners else None


def _tables(
    space: SearchSpace,
    terms: Sequence[CostTerm],
    costs_of: _EntriesOf[_Entry],
    num_classes: int,
    in_channels: int,
) -> tuple[CostTable, ...]:
    options = {d.name: d.options for d in space.decisions}
    filled = term_entries(space, terms, costs_of, num_classes=num_classes, in_channels=in_channels)
    return tuple(_table(space, term, entries, options) for term, entries in zip(terms, filled, strict=True))


def term_entries(
    space: SearchSpace,
    terms: Sequence[CostTerm],
    entries_of: _EntriesOf[EntryT],
    *,
    num_classes: int,
    in_channels: int,
) -> list[dict[Combination, EntryT]]:
    """For each term, what `entries_of` makes of it for every combination of the term's decisions.

    `entries_of` gets the layers of one network and answers for each term. What it says of a term must depend
    on the term's decisions alone.
    """
    options = {d.name: d.options for d in space.decisions}
    filled: list[dict[Combination, EntryT]] = [{} for _ in terms]
    owner = cache(partial(_owner, terms))
    # The terms with most combinations first: every lowering fills one entry of theirs, and of the others too.
    order = sorted(range(len(terms)), key=lambda i: -_num_combinations(terms[i], options))
    for leader in order:
        for combination in _combinations(terms[leader], options):
            if combination in filled[leader]:
                continue
            chosen = dict(zip(terms[leader].decisions, combination, strict=True))
            for follower in order:
                _choose_missing(chosen, terms[follower], filled[follower], options)
            values = {name: chosen.get(name, allowed[-1]) for name, allowed in options.items()}
            layers = space.lower_values(values, num_classes=num_classes, in_channels=in_channels)
            entry_of = entries_of(layers, [owner(layer.name) for layer in layers], len(terms))
            for term, entries, entry in zip(terms, filled, entry_of, strict=True):
                entries.setdefault(tuple(values[name] for name in term.decisions), entry)
    return filled


def _num_combinations(term: CostTerm, options: _Options) -> int:
    return prod(len(options[name]) for name in term.decisions)


def _combinations(term: CostTerm, options: _Options) -> Iterator[Combination]:
    return product(*(options[name] for name in term.decisions))


def _choose_missing(
    chosen: dict[str, Value], term: CostTerm, entries: Collection[Combination], options: _Options
) -> None:
    """Chooses what is still open of the term's decisions so that it is a combination not yet lowered."""
    if len(entries) == _num_combinations(term, options):
        return
    still_open = {name: (chosen[name],) if name in chosen else options[name] for name in term.decisions}
    for combination in _combinations(term, still_open):
        if combination not in entries:
            chosen.update(zip(term.decisions, combination, strict=True))
            return


def _table(
    space: SearchSpace, term: CostTerm, entries: dict[Combination, _Entry], options: _Options
) -> CostTable:
    position = {d.name: i for i, d in enumerate(space.decisions)}
    sizes = [len(options[name]) for name in term.decisions]
    ordered = [entries[combination] for combination in _combinations(term, options)]
    return CostTable(
        columns=tuple(position[name] for name in term.decisions),
        strides=tuple(prod(sizes[i + 1 :]) for i in range(len(sizes))),
        costs={name: np.array([entry[name] for entry in ordered], dtype=np.int64) for name in ordered[0]},
    )
