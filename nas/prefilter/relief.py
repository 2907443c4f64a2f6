"""What would help where no network keeps the bounds: proved, or as far as it is found."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.prefilter.answers import ROUNDING, BoundedNetworks, Code, UndecidedError
from nas.prefilter.branch_search import BranchedNetworks
from nas.search.constraints import Bounds
from nas.search.cost_model import Codes
from nas.search.region import FeasibleRegion
from nas.search.sampling import Score, descend

_BEYOND = 1e30
"""More than any cost: a network that exceeds a bound comes after all that keep them."""


@dataclass(frozen=True, kw_only=True)
class Relief:
    """What would help where no network keeps the bounds."""

    nearest: Architecture
    """Of all networks, its largest ratio of cost to bound is least."""
    relax: Mapping[str, float]
    """By bounded cost, that network's: taken together as bounds, they are kept."""
    relax_alone: Mapping[str, float | None]
    """By bounded cost, the least bound that is kept beside the others as they are; None: there is none.
    Missing where that was not found."""
    is_least: bool = True
    """Whether nearest and least are proved to be; else they are the nearest and the least that were found."""


def network_of(region: FeasibleRegion, code: Code) -> Architecture:
    """The network of the codes, canonical; UndecidedError where that costs something else."""
    network = region.space.canonical(region.space.decode(code))
    spelled = region.costs.batch(np.stack([code, region.space.encode([network])[0]]), region.bounds.names)
    if any(costs[0] != costs[1] for costs in spelled.values()):
        raise UndecidedError(f"networks of space '{region.space.name}' have spellings of different costs")
    return network


def proved_relief(region: FeasibleRegion, networks: BoundedNetworks, nearest: Architecture) -> Relief:
    """Of bounds that are all decided by `networks`."""
    alone: dict[str, float | None] = {}
    for name in region.bounds.names:
        try:
            code = networks.cheapest(name)
            if code is None:
                alone[name] = None
            else:
                alone[name] = _as_bound(region, name, network_of(region, code), networks.rounding(name))
        except UndecidedError:
            continue
    relax = {name: _as_bound(region, name, nearest, networks.rounding(name)) for name in region.bounds.names}
    return Relief(nearest=nearest, relax=relax, relax_alone=alone)


def met_relief(region: FeasibleRegion, codes: Codes) -> Relief:
    """Of bounds that are not decided: the nearest of some networks."""
    nearest = region.space.canonical(region.space.decode(codes[region.worst_ratio(codes).argmin()]))
    relax = {name: _found_bound(region, name, nearest) for name in region.bounds.names}
    return Relief(nearest=nearest, relax=relax, relax_alone={}, is_least=False)


def branched_relief(region: FeasibleRegion, networks: BranchedNetworks, deadline_s: float) -> Relief:
    """Of bounds that are proved not to be kept, as far as that is found in time.

    Half of the time goes to the nearest network, the rest in equal parts to what suffices alone.
    """
    names = region.bounds.names
    now = time.monotonic()
    found = networks.nearest(deadline_s if len(names) == 1 else (now + deadline_s) / 2)
    relief = met_relief(region, networks.met)
    alone: dict[str, float | None] = {}
    is_least = found.is_proved
    for number, name in enumerate(names):
        if len(names) == 1:
            alone[name] = relief.relax[name]
            continue
        now = time.monotonic()
        cheapest = networks.cheapest(name, now + (deadline_s - now) / (len(names) - number))
        is_least = is_least and cheapest.is_proved
        if cheapest.code is not None:
            alone[name] = _found_bound(region, name, region.space.decode(cheapest.code))
        elif cheapest.is_proved:
            alone[name] = None
    return replace(relief, relax_alone=alone, is_least=is_least)


def found_nearest(region: FeasibleRegion, starts: Sequence[Architecture]) -> Relief | None:
    """Of bounds some of which are on costs of which no parts are known; None where the time is over.

    Descents begin at `starts`, from which all of the bounds may be far.
    """
    try:
        nearest = network_of(region, _least(region, region.space.encode(starts), region.worst_ratio))
        relax = {name: _found_bound(region, name, nearest) for name in region.bounds.names}
    except UndecidedError:
        return None
    return Relief(nearest=nearest, relax=relax, relax_alone={}, is_least=False)


def found_relief(
    region: FeasibleRegion, starts: Sequence[Architecture], *, may_help: Collection[str]
) -> Relief | None:
    """The same, with what suffices alone. Other costs than `may_help` are proved to be of no help."""
    relief = found_nearest(region, starts)
    if relief is None:
        return None
    codes = region.space.encode([relief.nearest, *starts])
    alone: dict[str, float | None] = {}
    for name in region.bounds.names:
        if name not in may_help:
            alone[name] = None
            continue
        within = _CostWithin(region, name)
        try:
            network = network_of(region, _least(region, codes, within))
            if within.others.contains(network):
                alone[name] = _found_bound(region, name, network)
        except UndecidedError:
            continue
    return replace(relief, relax_alone=alone)


class _CostWithin:
    """One bounded cost of networks that keep the other bounds; of others, by how far they do not."""

    def __init__(self, region: FeasibleRegion, name: str) -> None:
        limits = tuple(limit for limit in region.bounds.limits if limit[0] != name)
        self.others = replace(region, bounds=Bounds(limits))
        self._name = name

    def __call__(self, codes: Codes) -> NDArray[np.float64]:
        """Shape (n,)."""
        ratio = self.others.worst_ratio(codes)
        cost = self.others.costs.batch(codes, [self._name])[self._name]
        return np.where(ratio <= 1, cost, _BEYOND * ratio)


def _least(region: FeasibleRegion, starts: Codes, score: Score) -> Code:
    ends = np.stack([descend(region.space, start, score) for start in starts])
    return np.asarray(ends[score(ends).argmin()])


def _as_bound(region: FeasibleRegion, name: str, network: Architecture, rounding: float) -> float:
    """What the network costs, or a little more: sums of fractions may come out higher put to the proof."""
    cost = region.costs_of(network, [name])[name]
    return cost * (1 + 2 * rounding) if rounding else cost


def _found_bound(region: FeasibleRegion, name: str, network: Architecture) -> float:
    is_counted = float(region.costs_of(network, [name])[name]).is_integer()
    return _as_bound(region, name, network, 0.0 if is_counted else ROUNDING)
