"""Where neither proof nor chance gave a search any network: those that others know, or what is in the way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from nas.architecture import Architecture
from nas.errors import InvalidRequestError
from nas.prefilter.costs_until import CostsUntil
from nas.prefilter.relief import Relief, found_relief
from nas.search.constraints import Bounds, field_of
from nas.search.region import FeasibleRegion

_NUM_DRAWN = 256
_NUM_STARTS = 3
"""Descents begin at so many of the nearest, of those drawn and those known, and at the smallest network."""


class NoNetworkFoundError(InvalidRequestError):
    """No network that keeps the bounds was found, nor a proof that there is none."""


def last_resort(
    region: FeasibleRegion,
    known: Sequence[tuple[Architecture, float]],
    *,
    witness: Architecture | None,
    limit_s: float,
) -> list[Architecture]:
    """Networks that keep the bounds, where random draws gave none; never empty.

    Those of the `known` ones (with their accuracies) that keep them, the most accurate first; else the
    certificate's `witness`; else where descents end, which take about `limit_s` seconds at most. Else raises
    NoNetworkFoundError, which tells what was tried, the nearest network, and what to relax.
    """
    measured = [network for network, _ in sorted(known, key=lambda each: -each[1])]
    if kept := _kept(region, measured):
        return kept
    if witness is not None:
        return [witness]
    starts = _starts(region, measured)
    timed = replace(region, costs=CostsUntil(region.costs, time.monotonic() + limit_s))
    relief = found_relief(timed, starts, may_help=region.bounds.names)
    nearest = starts[0] if relief is None else relief.nearest
    if region.contains(nearest):
        return [nearest]
    tried = (
        f"{len(measured)} networks measured before, random ones, and the neighbours, one decision after the "
        f"other, of the {len(starts)} that came nearest"
    )
    raise NoNetworkFoundError(_not_found(region, tried, nearest, relief))


def _kept(region: FeasibleRegion, networks: Sequence[Architecture]) -> list[Architecture]:
    return [*region.members(region.space.encode(networks))] if networks else []


def _starts(region: FeasibleRegion, measured: Sequence[Architecture]) -> list[Architecture]:
    """The nearest of all first."""
    space, rng = region.space, np.random.default_rng(0)
    smallest = space.canonical(space.smallest())
    candidates = [smallest, *(space.sample(rng) for _ in range(_NUM_DRAWN)), *measured]
    order = region.worst_ratio(space.encode(candidates)).argsort(kind="stable")
    return [*dict.fromkeys([*(candidates[i] for i in order[:_NUM_STARTS]), smallest])]


def _not_found(region: FeasibleRegion, tried: str, nearest: Architecture, relief: Relief | None) -> str:
    asked = _spelled(dict(region.bounds.limits))
    found = region.costs_of(nearest, region.costs.names)
    costs = ", ".join(f"{name} {cost:.15g}" for name, cost in found.items())
    return (
        f"no network that keeps {asked} was found, nor a proof that there is none; tried were {tried}; the "
        f"nearest found, {nearest.key}, costs {costs}: {_remedy(region.bounds, relief)}"
    )


def _remedy(bounds: Bounds, relief: Relief | None) -> str:
    if relief is None:
        return "relax the bounds to a little more than that"
    # The others it keeps as they are.
    exceeded = {name: relief.relax[name] for name, limit in bounds.limits if relief.relax[name] > limit}
    told = f"relax the bounds to {_spelled(exceeded)}"
    alone = [
        f"{field_of(name)} to {bound:.15g}" for name, bound in relief.relax_alone.items() if bound is not None
    ]
    return f"{told}, or raise one alone: {', or '.join(alone)}" if alone else told


def _spelled(limits: Mapping[str, float]) -> str:
    """By cost, as fields of a request."""
    return " and ".join(f"{field_of(name)} {limit:.15g}" for name, limit in limits.items())
