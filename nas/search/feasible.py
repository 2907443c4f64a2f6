"""Whether any network keeps the bounds: yes with one that does, no with the reason, or undecided."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from nas.architecture import Architecture
from nas.search.constraints import field_of
from nas.search.region import FeasibleRegion
from nas.search.sampling import is_enumerable, sample_feasible


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


def check_feasible(region: FeasibleRegion) -> Feasibility:
    """Feasible or infeasible only where that is certain; the same answer each time."""
    floors = region.costs.floors(region.bounds.names)
    limits = region.bounds.limits
    violations = tuple(Violation(name, limit, floors[name]) for name, limit in limits if floors[name] > limit)
    if violations:
        return Feasibility(verdict=Verdict.INFEASIBLE, violations=violations)
    witness = _witness(region)
    if witness is not None:
        return Feasibility(verdict=Verdict.FEASIBLE, architecture=witness)
    is_certain = is_enumerable(region.space)
    return Feasibility(verdict=Verdict.INFEASIBLE if is_certain else Verdict.UNDECIDED)


def _witness(region: FeasibleRegion) -> Architecture | None:
    space = region.space
    extremes = region.members(space.encode([space.largest(), space.smallest()]))
    return next(extremes, None) or next(iter(sample_feasible(region, 1, np.random.default_rng(0))), None)
