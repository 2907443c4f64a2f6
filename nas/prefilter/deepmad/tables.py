"""What every part of a space's networks adds to score and costs, for every combination it depends on.

As in `nas.costs.batch` the tables hold what the lowering says: there is no second formula. Decisions fall in
two: the *context* (resolution, widths), which parts of several stages depend on and which decides what the
taps measure, and the rest, which belong to one stage each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.costs.batch import term_entries
from nas.costs.count import layer_macs, layer_params, layer_size_bytes
from nas.errors import InvalidRequestError, UnknownNameError
from nas.layers import LayerSpec
from nas.prefilter.deepmad.backbone import Backbone, Tap, trace_backbone
from nas.prefilter.deepmad.counter import DEEPMAD_FLOPS, deepmad_flops_of
from nas.space import CostTerm, SearchSpace

LayerCost = Callable[[LayerSpec], float]
"""What one layer costs: a table of latencies, say."""

Floats = NDArray[np.float64]

_LAYER_COSTS: dict[str, LayerCost] = {
    "macs": layer_macs,
    "params": layer_params,
    "size_bytes": layer_size_bytes,
}
BUDGET_NAMES = (*_LAYER_COSTS, DEEPMAD_FLOPS)
"""The additive costs that are always known; more come with a table of one's own."""

_STAGE = re.compile(r"(.*)\.block\d+\.$")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One term in one network."""

    sums: tuple[float, ...]
    """Σ ln width for each interval between taps, then convolutions for each, then every cost."""
    taps: tuple[tuple[int, Tap], ...]
    """Number and tensor of each tap that a layer of the term reads."""
    is_present: bool


@dataclass(frozen=True)
class TermTable:
    """One term of the space for every combination of its decisions: arrays with one axis a decision."""

    term: CostTerm
    stage: str
    """Of the block that the term is; the term's own prefix where it is none."""
    is_block: bool
    log_widths: Floats
    """Σ ln width, shape (options of each decision …, num_taps): the last axis is the interval, counted by
    the taps before it."""
    num_convs: Floats
    """The same of the number of convolutions."""
    costs: Floats
    """Shape (options of each decision …, num_costs)."""
    is_present: NDArray[np.bool_]
    """Whether the network has the term's layers at all, shape (options of each decision …)."""
    taps: Mapping[int, NDArray[np.object_]]
    """For taps by number, the tensor: arrays of `Tap`, shape (options of each decision …)."""

    @cached_property
    def gates(self) -> frozenset[str]:
        """The decisions that say whether the network has the term's layers."""
        there = self.is_present
        return frozenset(
            name
            for axis, name in enumerate(self.term.decisions)
            if (there != there.take([0], axis=axis)).any()
        )


@dataclass(frozen=True)
class ScoreTables:
    """All terms of a space, and how its decisions fall in context and stages."""

    space: SearchSpace
    terms: tuple[TermTable, ...]
    cost_names: tuple[str, ...]
    num_taps: int
    has_depthwise: bool
    """Whether its blocks are inverted residuals."""
    num_classes: int
    in_channels: int

    def lower(self, architecture: Architecture) -> tuple[LayerSpec, ...]:
        """The layers of one network, for the classes and channels that the tables are for."""
        return self.space.lower(architecture, num_classes=self.num_classes, in_channels=self.in_channels)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """How many options each decision has."""
        return {decision.name: len(decision.options) for decision in self.space.decisions}

    @cached_property
    def context(self) -> tuple[str, ...]:
        """Decisions that terms of several stages depend on, in the order of the space."""
        stages: dict[str, set[str]] = {}
        for table in self.terms:
            for name in table.term.decisions:
                stages.setdefault(name, set()).add(table.stage)
        return tuple(name for name in self.sizes if len(stages.get(name, ())) > 1)

    @cached_property
    def stages(self) -> dict[str, tuple[TermTable, ...]]:
        """The terms of each stage, in order."""
        names = dict.fromkeys(table.stage for table in self.terms)
        return {name: tuple(t for t in self.terms if t.stage == name) for name in names}


@lru_cache(maxsize=16)
def known_tables(
    space: SearchSpace, cost_names: tuple[str, ...], num_classes: int, in_channels: int
) -> ScoreTables:
    """The tables with costs of `BUDGET_NAMES`. A space is a value, so they are made once a process."""
    return _make_tables(space, cost_names, {}, num_classes, in_channels)


def score_tables(
    space: SearchSpace,
    cost_names: Sequence[str],
    own_costs: Mapping[str, LayerCost] | None = None,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
) -> ScoreTables:
    """The tables with the named costs, some of them one's own; None takes the space's default.

    Raises UnknownNameError for a cost that is neither, InvalidRequestError for a space that has no blocks.
    """
    own = own_costs or {}
    classes = space.default_classes if num_classes is None else num_classes
    channels = space.default_channels if in_channels is None else in_channels
    unknown = [name for name in cost_names if name not in BUDGET_NAMES and name not in own]
    if unknown:
        allowed = ", ".join((*BUDGET_NAMES, *own))
        raise UnknownNameError(
            f"cost '{unknown[0]}' is no sum over layers that is known here; allowed: {allowed}; "
            "give a table for it or leave its budget out"
        )
    if any(name in own for name in cost_names):
        return _make_tables(space, tuple(cost_names), own, classes, channels)
    return known_tables(space, tuple(cost_names), classes, channels)


def _make_tables(
    space: SearchSpace,
    cost_names: tuple[str, ...],
    own_costs: Mapping[str, LayerCost],
    num_classes: int,
    in_channels: int,
) -> ScoreTables:
    largest = trace_backbone(space.lower(space.largest()))
    num_taps = len(largest.taps)

    def entries_of(layers: Sequence[LayerSpec], owners: Sequence[int | None], num_terms: int) -> list[_Entry]:
        backbone = trace_backbone(layers)
        if len(backbone.taps) != num_taps:
            raise InvalidRequestError(
                f"networks of space '{space.name}' halve the map a different number of times; DeepMAD's "
                "weights of the taps need one number; choose another space"
            )
        sums = np.zeros((num_terms, 2 * num_taps + len(cost_names)))
        taps = _add_backbone(sums, backbone, owners, num_taps)
        for column, name in enumerate(cost_names, start=2 * num_taps):
            _add_cost(sums[:, column], owners, _costs_of(layers, name, own_costs))
        present = set(owners)
        return [
            _Entry(tuple(sums[i].tolist()), tuple(sorted(taps.get(i, {}).items())), i in present)
            for i in range(num_terms)
        ]

    terms = space.cost_terms()
    filled = term_entries(space, terms, entries_of, num_classes=num_classes, in_channels=in_channels)
    options = {decision.name: decision.options for decision in space.decisions}
    tables = []
    for term, entries in zip(terms, filled, strict=True):
        ordered = [entries[c] for c in product(*(options[name] for name in term.decisions))]
        tables.append(_table(term, ordered, tuple(len(options[d]) for d in term.decisions), num_taps))
    return ScoreTables(
        space, tuple(tables), cost_names, num_taps, largest.has_depthwise, num_classes, in_channels
    )


def _add_backbone(
    sums: Floats, backbone: Backbone, owners: Sequence[int | None], num_taps: int
) -> dict[int, dict[int, Tap]]:
    """Adds widths and convolutions of the main path; the taps by term and number."""
    taps: dict[int, dict[int, Tap]] = {}
    interval = 0
    for step in backbone.steps:
        owner = owners[step.position]
        if step.tap is not None:
            taps.setdefault(_owned(owner, step.layer.name), {})[interval] = step.tap
            interval += 1
        if step.is_conv:
            row = sums[_owned(owner, step.layer.name)]
            row[interval] += step.log_width
            row[num_taps + interval] += 1
    reader = backbone.output_reader
    if reader is None:
        raise InvalidRequestError(
            "the last map must be pooled, so that a layer reads it; choose another space"
        )
    taps.setdefault(_owned(owners[reader], "the pool of the last map"), {})[interval] = backbone.output
    return taps


def _owned(owner: int | None, layer: str) -> int:
    if owner is None:
        raise InvalidRequestError(
            f"{layer} is of no cost term; the space must own every layer that is scored"
        )
    return owner


def _costs_of(layers: Sequence[LayerSpec], name: str, own_costs: Mapping[str, LayerCost]) -> list[float]:
    if name in own_costs:
        return [float(own_costs[name](layer)) for layer in layers]
    if name == DEEPMAD_FLOPS:
        return [float(flops) for flops in deepmad_flops_of(layers)]
    return [float(_LAYER_COSTS[name](layer)) for layer in layers]


def _add_cost(totals: Floats, owners: Sequence[int | None], costs: Sequence[float]) -> None:
    for owner, cost in zip(owners, costs, strict=True):
        if owner is not None:
            totals[owner] += cost


def _table(term: CostTerm, ordered: Sequence[_Entry], shape: tuple[int, ...], num_taps: int) -> TermTable:
    sums = np.array([entry.sums for entry in ordered]).reshape(*shape, -1)
    numbers = {number for entry in ordered for number, _ in entry.taps}
    taps = {}
    for number in numbers:
        tensors = np.empty(len(ordered), dtype=object)
        tensors[:] = [dict(entry.taps).get(number) for entry in ordered]
        taps[number] = tensors.reshape(shape)
    match = _STAGE.match(term.prefix)
    return TermTable(
        term=term,
        stage=match[1] if match else term.prefix,
        is_block=match is not None,
        log_widths=sums[..., :num_taps],
        num_convs=sums[..., num_taps : 2 * num_taps],
        costs=sums[..., 2 * num_taps :],
        is_present=np.array([entry.is_present for entry in ordered]).reshape(shape),
        taps=taps,
    )
