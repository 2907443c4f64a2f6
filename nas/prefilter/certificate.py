"""The certificate: whether any network keeps the bounds, with a network or a proof, before any work."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

import numpy as np

from nas.architecture import Architecture
from nas.prefilter.answers import ROUNDING, BoundedNetworks, Code, UndecidedError
from nas.prefilter.costs_until import CostsUntil
from nas.prefilter.elimination import PartedNetworks
from nas.prefilter.listing import ListedNetworks
from nas.search.constraints import Bounds, field_of
from nas.search.cost_model import CostParts, Floor
from nas.search.region import FeasibleRegion
from nas.search.sampling import is_enumerable, sample_feasible


class Verdict(StrEnum):
    """What is known about the bounds."""

    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Relief:
    """What would help where no network keeps the bounds."""

    nearest: Architecture
    """Of all networks, its largest ratio of cost to bound is least."""
    relax: Mapping[str, float]
    """By bounded cost, that network's: taken together as bounds, they are kept."""
    relax_alone: Mapping[str, float | None]
    """By bounded cost, the least bound that is kept beside the others as they are; None: there is none.
    Missing where that was not found in time."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The answer, and what shows it."""

    verdict: Verdict
    reason: str
    """The answer in words, with the remedy."""
    architecture: Architecture | None = None
    """A network that keeps every bound, where feasible; spelled canonically."""
    relief: Relief | None = None
    """Where infeasible; None where the proof is all there is: for want of time, or of a cost's parts."""


def certify(region: FeasibleRegion, *, limit_s: float = inf) -> Certificate:
    """Feasible or infeasible only where that is certain; undecided past about `limit_s` seconds.

    Tables that are made once a process (of costs, and of the networks of small spaces) are not counted in.
    Small spaces are decided for any costs, others where the bounded costs are sums or maxima of parts. A
    cost without parts leaves a large space undecided, unless chance finds a network, or the other bounds
    cannot be kept. The same answer each time, unless the limit cuts it short.
    """
    if not region.bounds.limits:
        return _feasible(region.space.canonical(region.space.largest()))
    if is_enumerable(region.space):
        return _decided(region, ListedNetworks.of(region))
    parts = {name: region.costs.parts(name) for name in region.bounds.names}
    known = {name: cost for name, cost in parts.items() if isinstance(cost, CostParts)}
    deadline_s = time.monotonic() + limit_s
    if len(known) < len(parts):
        floors = {name: cost.least for name, cost in parts.items() if isinstance(cost, Floor)}
        return _decided_in_part(region, known, floors, deadline_s)
    return _decided(region, PartedNetworks.of(region, known, deadline_s=deadline_s))


def _feasible(architecture: Architecture) -> Certificate:
    return Certificate(
        verdict=Verdict.FEASIBLE, reason="a network keeps every bound", architecture=architecture
    )


def _undecided(why: str) -> Certificate:
    reason = f"no network that keeps every bound was found, nor a proof that none does: {why}; relax a bound"
    return Certificate(verdict=Verdict.UNDECIDED, reason=reason)


def _decided(region: FeasibleRegion, networks: BoundedNetworks) -> Certificate:
    try:
        nearest = _network(region, networks.nearest())
    except UndecidedError as error:
        if _is_beyond(networks.proved_ratio(), region.bounds, networks):
            return Certificate(verdict=Verdict.INFEASIBLE, reason=_reason(region.bounds, None))
        return _undecided(str(error))
    ratio = float(region.worst_ratio(region.space.encode([nearest]))[0])
    if ratio <= 1:
        return _feasible(nearest)
    if not _is_beyond(ratio, region.bounds, networks):
        return _undecided("the nearest network exceeds them by what rounding could make")
    relief = _relief(region, networks, nearest)
    return Certificate(verdict=Verdict.INFEASIBLE, reason=_reason(region.bounds, relief), relief=relief)


def _is_beyond(ratio: float, bounds: Bounds, networks: BoundedNetworks) -> bool:
    """Whether a least ratio above 1 is so whatever the rounding."""
    return ratio * (1 - max(networks.rounding(name) for name in bounds.names)) > 1


def _network(region: FeasibleRegion, code: Code) -> Architecture:
    """The network of the codes, canonical; UndecidedError where that costs something else."""
    network = region.space.canonical(region.space.decode(code))
    spelled = region.costs.batch(np.stack([code, region.space.encode([network])[0]]), region.bounds.names)
    if any(costs[0] != costs[1] for costs in spelled.values()):
        raise UndecidedError(f"networks of space '{region.space.name}' have spellings of different costs")
    return network


def _relief(region: FeasibleRegion, networks: BoundedNetworks, nearest: Architecture) -> Relief:
    names = region.bounds.names

    def as_bound(name: str, network: Architecture) -> float:
        # Sums of fractions may come out higher when the bound is put to the proof.
        cost, rounding = region.costs_of(network, [name])[name], networks.rounding(name)
        return cost * (1 + 2 * rounding) if rounding else cost

    alone: dict[str, float | None] = {}
    for name in names:
        try:
            code = networks.cheapest(name)
            alone[name] = None if code is None else as_bound(name, _network(region, code))
        except UndecidedError:
            continue
    return Relief(nearest=nearest, relax={name: as_bound(name, nearest) for name in names}, relax_alone=alone)


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
    together = ", ".join(f"{field_of(name)} {cost:.15g}" for name, cost in relief.relax.items())
    one = f", or raise one alone: {', or '.join(alone)}" if alone else ""
    return f"{told}; the nearest one needs {together}: relax the bounds to that{one}"


# Costs without parts


def _decided_in_part(
    region: FeasibleRegion, known: Mapping[str, CostParts], floors: Mapping[str, float], deadline_s: float
) -> Certificate:
    """Infeasible where a floor, or bounds on costs with parts, prove it; feasible where chance shows it."""
    limits = dict(region.bounds.limits)
    if any(floor * (1 - ROUNDING) > limits[name] for name, floor in floors.items()):
        return Certificate(verdict=Verdict.INFEASIBLE, reason=_reason(region.bounds, None))
    tried = [region.space.largest(), region.space.smallest()]
    if known:
        bounds = Bounds(tuple(limit for limit in region.bounds.limits if limit[0] in known))
        part = replace(region, bounds=bounds)
        answer = _decided(part, PartedNetworks.of(part, known, deadline_s=deadline_s))
        if answer.verdict is Verdict.INFEASIBLE:
            # The costs without parts would have a say in what helps.
            return replace(answer, reason=_reason(bounds, None), relief=None)
        tried += [answer.architecture] if answer.architecture else []
    witness = _sampled(region, tried, deadline_s)
    if witness is not None:
        return _feasible(witness)
    unknown = ", ".join(field_of(name) for name in floors)
    return _undecided(f"{unknown} is on a cost that is no sum or maximum over parts")


def _sampled(region: FeasibleRegion, tried: Sequence[Architecture], deadline_s: float) -> Architecture | None:
    """One of the tried networks, or a random one, that keeps the bounds, if found in time."""
    try:
        timed = replace(region, costs=CostsUntil(region.costs, deadline_s))
        first = next(timed.members(region.space.encode(tried)), None)
        return first or next(iter(sample_feasible(timed, 1, np.random.default_rng(0))), None)
    except UndecidedError:
        return None
