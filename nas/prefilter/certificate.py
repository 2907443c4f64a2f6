"""The certificate: whether any network keeps the bounds, with a network or a proof, before any work."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

import numpy as np

from nas.architecture import Architecture
from nas.prefilter.answers import ROUNDING, BoundedNetworks, UndecidedError
from nas.prefilter.branch_search import BranchedNetworks
from nas.prefilter.costs_until import CostsUntil
from nas.prefilter.elimination import PartedNetworks
from nas.prefilter.listing import ListedNetworks
from nas.prefilter.relief import (
    Relief,
    branched_relief,
    found_nearest,
    found_relief,
    met_relief,
    network_of,
    proved_relief,
)
from nas.search.constraints import Bounds, field_of
from nas.search.cost_model import CostParts, Floor, ScaledParts
from nas.search.region import FeasibleRegion
from nas.search.sampling import is_enumerable, sample_feasible

_BY_ROUNDING = "the nearest network exceeds them by what rounding could make"
_FOR_RELIEF = 0.1
"""Of the time, kept from the search for a verdict."""


class Verdict(StrEnum):
    """What is known about the bounds."""

    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The answer, and what shows it."""

    verdict: Verdict
    reason: str
    """The answer in words, with the remedy."""
    architecture: Architecture | None = None
    """A network that keeps every bound, where feasible; spelled canonically."""
    relief: Relief | None = None
    """Where infeasible; None where the proof is all that there was time for. Where undecided the nearest
    network that was met, if any."""


def certify(region: FeasibleRegion, *, limit_s: float = inf) -> Certificate:
    """Feasible or infeasible only where that is certain; undecided past about `limit_s` seconds.

    Tables that are made once a process (of costs, and of the networks of small spaces) are not counted in.
    Small spaces are decided for any costs, others where the bounded costs are made of parts: sums and maxima
    by elimination, where one is a scaled sum by branch and bound. A cost of which no parts are known leaves a
    large space undecided, unless chance finds a network, or the other bounds cannot be kept. The same answer
    each time, unless the limit cuts it short.
    """
    if not region.bounds.limits:
        return _feasible(region.space.canonical(region.space.largest()))
    if is_enumerable(region.space):
        return _decided(region, ListedNetworks.of(region))
    parts = {name: region.costs.parts(name) for name in region.bounds.names}
    plain = {name: cost for name, cost in parts.items() if isinstance(cost, CostParts)}
    made_of_parts = {name: cost for name, cost in parts.items() if not isinstance(cost, Floor)}
    deadline_s = time.monotonic() + limit_s
    if len(plain) == len(parts):
        return _decided(region, PartedNetworks.of(region, plain, deadline_s=deadline_s))
    if len(made_of_parts) == len(parts):
        return _decided_by_branches(region, made_of_parts, limit_s)
    floors = {name: cost.least for name, cost in parts.items() if isinstance(cost, Floor)}
    return _decided_in_part(region, plain, floors, deadline_s)


def _feasible(architecture: Architecture) -> Certificate:
    return Certificate(
        verdict=Verdict.FEASIBLE, reason="a network keeps every bound", architecture=architecture
    )


def _undecided(region: FeasibleRegion, why: str, relief: Relief | None = None) -> Certificate:
    if relief is not None and region.contains(relief.nearest):
        return _feasible(relief.nearest)
    told = f"no network that keeps every bound was found, nor a proof that none does: {why}"
    remedy = "relax a bound" if relief is None else f"the nearest one that was met needs {_together(relief)}"
    return Certificate(verdict=Verdict.UNDECIDED, reason=f"{told}; {remedy}", relief=relief)


def _decided(region: FeasibleRegion, networks: BoundedNetworks) -> Certificate:
    try:
        nearest = network_of(region, networks.nearest())
    except UndecidedError as error:
        if _is_beyond(networks.proved_ratio(), region.bounds, networks):
            return Certificate(verdict=Verdict.INFEASIBLE, reason=_reason(region.bounds, None))
        return _undecided(region, str(error), met_relief(region, networks.met()))
    ratio = float(region.worst_ratio(region.space.encode([nearest]))[0])
    if ratio <= 1:
        return _feasible(nearest)
    if not _is_beyond(ratio, region.bounds, networks):
        return _undecided(region, _BY_ROUNDING, met_relief(region, region.space.encode([nearest])))
    relief = proved_relief(region, networks, nearest)
    return Certificate(verdict=Verdict.INFEASIBLE, reason=_reason(region.bounds, relief), relief=relief)


def _is_beyond(ratio: float, bounds: Bounds, networks: BoundedNetworks) -> bool:
    """Whether a least ratio above 1 is so whatever the rounding."""
    return ratio * (1 - max(networks.rounding(name) for name in bounds.names)) > 1


def _reason(bounds: Bounds, relief: Relief | None) -> str:
    asked = " and ".join(f"{field} {limit:.15g}" for field, limit in bounds.to_fields().items())
    told = f"no network of the space keeps {asked}"
    if relief is None:
        return f"{told}; what would help is not known: relax one after the other"
    alone = [
        f"{field_of(name)} to {bound:.15g}" for name, bound in relief.relax_alone.items() if bound is not None
    ]
    if len(bounds.limits) == 1 and alone:
        return f"{told}; raise {alone[0]} or more"
    nearest = "the nearest one" if relief.is_least else "the nearest one that was found"
    one = f", or raise one alone: {', or '.join(alone)}" if alone else ""
    return f"{told}; {nearest} needs {_together(relief)}: relax the bounds to that{one}"


def _together(relief: Relief) -> str:
    return ", ".join(f"{field_of(name)} {cost:.15g}" for name, cost in relief.relax.items())


# Scaled sums


def _decided_by_branches(
    region: FeasibleRegion, parts: Mapping[str, CostParts | ScaledParts], limit_s: float
) -> Certificate:
    """The verdict first; what is left of the time goes to what would help."""
    deadline_s = time.monotonic() + limit_s
    ends = region.space.encode([region.space.smallest(), region.space.largest()])
    networks = BranchedNetworks(region, parts, ends)
    found = networks.within(deadline_s - _FOR_RELIEF * limit_s if limit_s < inf else inf)
    if found.code is not None and found.measure <= 1:
        return _feasible(region.space.decode(found.code))
    if not found.is_proved:
        return _undecided(region, "the time is over", met_relief(region, networks.met))
    if found.measure <= 1 + ROUNDING:
        return _undecided(region, _BY_ROUNDING, met_relief(region, networks.met))
    relief = branched_relief(region, networks, deadline_s)
    return Certificate(verdict=Verdict.INFEASIBLE, reason=_reason(region.bounds, relief), relief=relief)


# Costs of which no parts are known


def _decided_in_part(
    region: FeasibleRegion, known: Mapping[str, CostParts], floors: Mapping[str, float], deadline_s: float
) -> Certificate:
    """Infeasible where a floor, or bounds on costs with parts, prove it; feasible where chance shows it."""
    limits = dict(region.bounds.limits)
    below_floors = [name for name, floor in floors.items() if floor * (1 - ROUNDING) > limits[name]]
    if below_floors:
        # Beside another bound that is below its floor none helps alone.
        may_help = below_floors if len(below_floors) == 1 else []
        return _infeasible_in_part(region, region.bounds, [], may_help, deadline_s)
    tried = [region.space.largest(), region.space.smallest()]
    if known:
        bounds = Bounds(tuple(limit for limit in region.bounds.limits if limit[0] in known))
        part = replace(region, bounds=bounds)
        answer = _decided(part, PartedNetworks.of(part, known, deadline_s=deadline_s))
        if answer.verdict is Verdict.INFEASIBLE:
            relief = answer.relief
            may_help = [*bounds.names]
            if relief is not None:
                may_help = [name for name in may_help if relief.relax_alone.get(name, 0.0) is not None]
            starts = [] if relief is None else [relief.nearest]
            return _infeasible_in_part(region, bounds, starts, may_help, deadline_s)
        tried += [answer.architecture] if answer.architecture else []
    witness = _sampled(region, tried, deadline_s)
    if witness is not None:
        return _feasible(witness)
    unknown = ", ".join(field_of(name) for name in floors)
    timed = replace(region, costs=CostsUntil(region.costs, deadline_s))
    relief = found_nearest(timed, tried)
    return _undecided(region, f"{unknown} is on a cost of which no parts are known", relief)


def _infeasible_in_part(
    region: FeasibleRegion,
    broken: Bounds,
    starts: Sequence[Architecture],
    may_help: Sequence[str],
    deadline_s: float,
) -> Certificate:
    """That no network keeps the `broken` bounds is proved; what would help is found by descents."""
    timed = replace(region, costs=CostsUntil(region.costs, deadline_s))
    relief = found_relief(timed, starts or [region.space.smallest()], may_help=may_help)
    return Certificate(verdict=Verdict.INFEASIBLE, reason=_reason(broken, relief), relief=relief)


def _sampled(region: FeasibleRegion, tried: Sequence[Architecture], deadline_s: float) -> Architecture | None:
    """One of the tried networks, or a random one, that keeps the bounds, if found in time."""
    try:
        timed = replace(region, costs=CostsUntil(region.costs, deadline_s))
        first = next(timed.members(region.space.encode(tried)), None)
        return first or next(iter(sample_feasible(timed, 1, np.random.default_rng(0))), None)
    except UndecidedError:
        return None
