"""Costs of many encoded architectures at once, by look-up in tables that the lowering fills.

The space says which decisions each part of a network depends on (`SearchSpace.cost_terms`). For every
combination of those decisions the part is lowered once and its cost kept; a batch is then a sum (or,
for peaks, a maximum) of look-ups. There is no second formula: the tables hold what the lowering costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import TypeVar

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
    costs: dict[str, NDArray[np.int64]]
    """By name, one number for each combination."""

    def index(self, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each architecture's combination stands; `columns` has shape (num_decisions, n)."""
        index = np.zeros(columns.shape[1], dtype=np.int64)
        for column, stride in zip(self.columns, self.strides, strict=True):
            index += columns[column] * stride
        return index


EntryT = TypeVar("EntryT")

Combination = tuple[Value, ...]
"""Values of a term's decisions, in their order."""


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
    if rows.size == 0:
        rows = rows.reshape(0, len(space.decisions))
    if rows.ndim != 2 or rows.shape[1] != len(space.decisions):
        raise InvalidArchitectureError(
            f"codes of space '{space.name}' have shape (n, {len(space.decisions)}), not {rows.shape}"
        )
    limits = np.array([len(d.options) for d in space.decisions])
    if len(rows) and (rows.min() < 0 or (rows.max(axis=0) >= limits).any()):
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


def _additive_costs(terms: Sequence[CostTerm], layers: Sequence[LayerSpec]) -> list[dict[str, int]]:
    """For each term the costs of its layers: one pass, every layer counted in exactly one term."""
    totals = [dict.fromkeys(ADDITIVE_COST_NAMES, 0) for _ in terms]
    prefixes = tuple((term.prefix, total) for term, total in zip(terms, totals, strict=True))
    for layer in layers:
        owners = [total for prefix, total in prefixes if layer.name.startswith(prefix)]
        if len(owners) > 1:
            raise ValueError(f"layer '{layer.name}' is of {len(owners)} cost terms; terms must not overlap")
        for total in owners:
            total["macs"] += layer_macs(layer)
            total["params"] += layer_params(layer)
            total["size_bytes"] += layer_size_bytes(layer)
    return totals


def _peak_costs(terms: Sequence[CostTerm], layers: Sequence[LayerSpec]) -> list[dict[str, int]]:
    live = live_bytes(layers)
    return [
        {
            PEAK: max(
                (b for layer, b in zip(layers, live, strict=True) if layer.name.startswith(t.prefix)),
                default=0,
            )
        }
        for t in terms
    ]


def _tables(
    space: SearchSpace,
    terms: Sequence[CostTerm],
    costs_of: Callable[[Sequence[CostTerm], Sequence[LayerSpec]], list[dict[str, int]]],
    num_classes: int,
    in_channels: int,
) -> tuple[CostTable, ...]:
    options = {d.name: d.options for d in space.decisions}
    filled = term_entries(space, terms, costs_of, num_classes=num_classes, in_channels=in_channels)
    return tuple(_table(space, term, entries, options) for term, entries in zip(terms, filled, strict=True))


def term_entries(
    space: SearchSpace,
    terms: Sequence[CostTerm],
    entries_of: Callable[[Sequence[CostTerm], Sequence[LayerSpec]], list[EntryT]],
    *,
    num_classes: int,
    in_channels: int,
) -> list[dict[Combination, EntryT]]:
    """For each term, what `entries_of` makes of it for every combination of the term's decisions.

    `entries_of` gets all terms and the layers of one network, and answers for each term. What it says of a
    term must depend on the term's decisions alone.
    """
    options = {d.name: d.options for d in space.decisions}
    filled: list[dict[Combination, EntryT]] = [{} for _ in terms]
    # The term with most combinations first: setting like decisions alike fills the others on the way.
    for index in sorted(range(len(terms)), key=lambda i: -_num_combinations(terms[i], options)):
        for combination in product(*(options[name] for name in terms[index].decisions)):
            if combination in filled[index]:
                continue
            values = _assignment(terms[index], combination, options)
            layers = space.lower_values(values, num_classes=num_classes, in_channels=in_channels)
            for term, entries, entry in zip(terms, filled, entries_of(terms, layers), strict=True):
                entries.setdefault(tuple(values[name] for name in term.decisions), entry)
    return filled


def _num_combinations(term: CostTerm, options: dict[str, tuple[Value, ...]]) -> int:
    return prod(len(options[name]) for name in term.decisions)


def _assignment(
    term: CostTerm, combination: Combination, options: dict[str, tuple[Value, ...]]
) -> dict[str, Value]:
    """The combination, with every other decision set as the term's decision of the same kind."""
    chosen = dict(zip(term.decisions, combination, strict=True))
    by_kind = {name.rsplit(".", 1)[-1]: value for name, value in chosen.items()}
    values: dict[str, Value] = {}
    for name, allowed in options.items():
        alike = by_kind.get(name.rsplit(".", 1)[-1])
        values[name] = chosen.get(name, alike if alike is not None and alike in allowed else allowed[-1])
    return values


def _table(
    space: SearchSpace,
    term: CostTerm,
    entries: dict[Combination, dict[str, int]],
    options: dict[str, tuple[Value, ...]],
) -> CostTable:
    position = {d.name: i for i, d in enumerate(space.decisions)}
    sizes = [len(options[name]) for name in term.decisions]
    ordered = [entries[combination] for combination in product(*(options[name] for name in term.decisions))]
    return CostTable(
        columns=tuple(position[name] for name in term.decisions),
        strides=tuple(prod(sizes[i + 1 :]) for i in range(len(sizes))),
        costs={name: np.array([entry[name] for entry in ordered], dtype=np.int64) for name in ordered[0]},
    )
