"""Whether any network keeps the bounds: yes with one that does, no with the reason, or undecided."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from nas.architecture import Architecture
from nas.search.constraints import field_of
from nas.search.cost_model import Codes, CostModel, Costs
from nas.search.region import FeasibleRegion
from nas.search.sampling import is_enumerable, sample_feasible
from nas.space import SearchSpace


class Verdict(StrEnum):
    """What is known about the bounds."""

    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Violation:
    """A bound that no network keeps, whatever the other bounds."""

    cost: str
    bound: float
    floor: float
    """No network of the space costs less."""


@dataclass(frozen=True, kw_only=True)
class Feasibility:
    """The answer, and what shows it."""

    verdict: Verdict
    architecture: Architecture | None = None
    """A network that keeps every bound, where feasible."""
    violations: tuple[Violation, ...] = ()
    """Where infeasible: the bounds that fail alone; none when they only fail together."""

    @property
    def reason(self) -> str:
        """The answer in words, with the remedy."""
        if self.verdict is Verdict.FEASIBLE:
            return "a network keeps every bound"
        if self.verdict is Verdict.UNDECIDED:
            return "no network that keeps every bound was found, nor a proof that none does; relax a bound"
        if not self.violations:
            return "each bound can be kept alone, but no network keeps all of them together; relax one"
        return "; ".join(
            f"{field_of(v.cost)} {v.bound:.15g} is out of reach: no network of the space costs less than "
            f"{v.floor:.15g}; raise it to that or more"
            for v in self.violations
        )


def check_feasible(region: FeasibleRegion, *, limit_s: float | None = None) -> Feasibility:
    """Feasible or infeasible only where that is certain; undecided after about `limit_s` seconds.

    The same answer each time, unless the limit cuts it short.
    """
    floors = region.costs.floors(region.bounds.names)
    limits = region.bounds.limits
    violations = tuple(Violation(name, limit, floors[name]) for name, limit in limits if floors[name] > limit)
    if violations:
        return Feasibility(verdict=Verdict.INFEASIBLE, violations=violations)
    try:
        witness = _witness(region if limit_s is None else _within(region, limit_s))
    except _TimeUpError:
        return Feasibility(verdict=Verdict.UNDECIDED)
    if witness is not None:
        return Feasibility(verdict=Verdict.FEASIBLE, architecture=witness)
    is_certain = is_enumerable(region.space)
    return Feasibility(verdict=Verdict.INFEASIBLE if is_certain else Verdict.UNDECIDED)


class _TimeUpError(Exception):
    """The limit has passed."""


@dataclass(frozen=True)
class _CostsUntil:
    """A cost model that is no longer to be had after a moment: no search for networks goes on without one."""

    model: CostModel
    end_s: float
    """By the monotonic clock."""

    @property
    def space(self) -> SearchSpace:
        return self.model.space

    @property
    def names(self) -> tuple[str, ...]:
        return self.model.names

    def batch(self, codes: Codes, names: Sequence[str]) -> Costs:
        if time.monotonic() > self.end_s:
            raise _TimeUpError
        return self.model.batch(codes, names)

    def floors(self, names: Sequence[str]) -> dict[str, float]:
        return self.model.floors(names)


def _within(region: FeasibleRegion, limit_s: float) -> FeasibleRegion:
    return replace(region, costs=_CostsUntil(region.costs, time.monotonic() + limit_s))


def _witness(region: FeasibleRegion) -> Architecture | None:
    space = region.space
    extremes = region.members(space.encode([space.largest(), space.smallest()]))
    return next(extremes, None) or next(iter(sample_feasible(region, 1, np.random.default_rng(0))), None)
