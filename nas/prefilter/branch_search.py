"""The best network of a space by branch and bound, where a bounded cost is a sum of parts times a factor.

Branches are looked at from the lowest floor upwards, many at once (Land and Doig, Econometrica 1960). What
ends a search without a network left out is a proof; what the time ends is the best network that was met.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement, count
from math import inf
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nas.prefilter.answers import Code, UndecidedError
from nas.prefilter.branch_floors import BranchFloors, Caps, Narrowed, SplitBranches
from nas.prefilter.costs_until import CostsUntil
from nas.search.branches import Branches
from nas.search.constraints import NEXT_TO_NOTHING, Bounds
from nas.search.cost_model import Codes, CostParts, Costs, ScaledParts
from nas.search.region import FeasibleRegion
from nas.search.sampling import descend

_AT_ONCE = 64
"""Branches."""
_NEARLY = 2e-10
"""No network is looked for that is better than one that was met by no more than this part."""
_NUM_MIXES = 2
_GRID_STEPS = {2: 16, 3: 8}
_GRID_STEPS_OF_MORE = 6
_LEAST_MIXED = 1e-9
"""Bounds below this part of the most that a network costs are in no mix: their floors say enough."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Objective(Protocol):
    """What is wanted of a network, as one number, the lower the better."""

    def measure(self, costs: Costs) -> Floats:
        """Of networks with these costs; infinite where they are not admitted."""

    def floor(self, lows: Mapping[str, Floats]) -> Floats:
        """Of networks that cost at least that, as far as these tell."""

    def caps(self, most: float) -> dict[str, float]:
        """What networks cost at most of which it is no higher than `most`."""


@dataclass(frozen=True)
class Nearest:
    """The largest ratio of cost to bound."""

    bounds: Bounds

    def measure(self, costs: Costs) -> Floats:
        """The ratio."""
        return self.bounds.worst_ratio(costs)

    def floor(self, lows: Mapping[str, Floats]) -> Floats:
        """The ratio of those that are known."""
        return Bounds(tuple(limit for limit in self.bounds.limits if limit[0] in lows)).worst_ratio(lows)

    def caps(self, most: float) -> dict[str, float]:
        """For bounds next to 0 as `Bounds.worst_ratio` has it."""
        return {
            name: min(limit * most, inf) if limit > NEXT_TO_NOTHING else max(most - 1, 0.0)
            for name, limit in self.bounds.limits
        }


@dataclass(frozen=True)
class Cheapest:
    """One cost of those that keep the bounds on the others."""

    bounds: Bounds
    name: str

    def measure(self, costs: Costs) -> Floats:
        """The cost."""
        others = self.bounds.without(self.name)
        return np.where(others.holds(costs), costs[self.name], inf) if others.limits else costs[self.name]

    def floor(self, lows: Mapping[str, Floats]) -> Floats:
        """The cost, where it is known."""
        return lows[self.name] if self.name in lows else np.zeros_like(next(iter(lows.values())))

    def caps(self, most: float) -> dict[str, float]:
        """The bounds on the others."""
        return {name: most if name == self.name else limit for name, limit in self.bounds.limits}


@dataclass(frozen=True)
class Found:
    """The best network that was met, and whether it is known that none is better."""

    code: Code | None
    """None where none was met that is admitted."""
    measure: float
    is_proved: bool


@dataclass
class BranchSearch:
    """One search. A network counts with what its canonical spelling costs."""

    region: FeasibleRegion
    floors: BranchFloors
    objective: Objective
    ceiling: float
    """Networks above are not looked for."""
    enough: float
    """No better network is looked for than one of this."""
    _best: Found = field(default=Found(None, inf, is_proved=False))
    _queue: list[tuple[float, int, NDArray[np.bool_], int]] = field(default_factory=list)
    """Floor, a number of its own, options allowed, split."""
    _numbers: count[int] = field(default_factory=count)
    _mixes: Floats = field(default_factory=lambda: np.zeros((0, 0, 0)))
    """By split, (splits, mixes, sums)."""

    def run(self, met: Codes, deadline_s: float) -> Found:
        """Look from all networks on, beginning with those met; the first look is taken in any case."""
        self._look_at(met)
        if self._best.measure > self.enough:
            roots = self.floors.roots()
            grid = np.tile(self._grid(), (len(roots), 1, 1))
            self._branch(self.floors.narrow(roots, self._caps, grid), is_first=True)
            if self._queue:
                self._descend(deadline_s)
        while self._queue and self._best.measure > self.enough:
            if time.monotonic() > deadline_s:
                return self._best
            branches = self._next()
            if len(branches):
                mixes = self._mixes[branches.splits]
                self._branch(self.floors.narrow(branches, self._caps, mixes))
        return replace(self._best, is_proved=True)

    # Branches

    def _next(self) -> SplitBranches:
        """The lowest branches, as far as better networks may be in them."""
        taken = [heapq.heappop(self._queue) for _ in range(min(_AT_ONCE, len(self._queue)))]
        taken = [each for each in taken if each[0] <= self._most]
        allowed = np.array([each[2] for each in taken], dtype=np.bool_).reshape(
            len(taken), len(self.floors.layout.owners)
        )
        splits = np.array([each[3] for each in taken], dtype=np.int64)
        return SplitBranches(Branches(self.floors.layout, allowed), splits)

    def _branch(self, found: Narrowed | None, *, is_first: bool = False) -> None:
        """Look at the networks that the floors point to, and leave the branches' parts for later."""
        if found is None:
            return
        if is_first:
            self._choose_mixes(found)
        branches = found.branches.branches
        is_one = ~np.any(branches.is_open, axis=1)
        self._look_at(np.concatenate([found.codes, branches.take(is_one).only_codes()]))
        by_option = self.objective.floor(found.lows)
        by_decision = np.add.reduceat(
            np.where(branches.allowed, found.strain, 0.0), branches.layout.starts, axis=1
        )
        columns = np.where(branches.is_open, by_decision, -1.0).argmax(axis=1)
        for row in np.flatnonzero(~is_one):
            self._queue_parts(
                branches.allowed[row], by_option[row], int(found.branches.splits[row]), columns[row]
            )

    def _queue_parts(self, allowed: NDArray[np.bool_], floors: Floats, split: int, column: int) -> None:
        """A branch for each option that is left to the decision."""
        options = self.floors.layout.options_of(column)
        for option in options.start + np.flatnonzero(allowed[options]):
            if floors[option] <= self._most:
                part = allowed.copy()
                part[options] = False
                part[option] = True
                heapq.heappush(self._queue, (float(floors[option]), next(self._numbers), part, split))

    # Networks

    def _look_at(self, codes: Codes) -> None:
        """Keep the best network, with what it costs when it is asked about alone: many at once may be rounded
        otherwise."""
        measures = self._measure(codes)
        for row in np.argsort(measures, kind="stable"):
            if measures[row] >= self._best.measure:
                return
            space = self.region.space
            code = space.encode([space.canonical(space.decode(codes[row]))])[0]
            measure = self._measure(code[None, :])[0]
            if measure < self._best.measure:
                self._best = Found(code, float(measure), is_proved=False)

    def _descend(self, deadline_s: float) -> None:
        """From the best network to one that no neighbour is better than: the less is left to look at."""
        code = self._best.code
        if code is None or self._best.measure <= self.enough:
            return
        timed = CostsUntil(self.region.costs, deadline_s)

        def score(codes: Codes) -> Floats:
            return self.objective.measure(timed.batch(codes, self.region.bounds.names))

        try:
            end = descend(self.region.space, code, score, enough=self.enough)
        except UndecidedError:
            return
        self._look_at(end[None, :])

    def _measure(self, codes: Codes) -> Floats:
        return self.objective.measure(self.region.costs.batch(codes, self.region.bounds.names))

    # Caps

    @property
    def _most(self) -> float:
        """Networks above are not looked for any more."""
        is_met = self._best.measure <= self.ceiling
        return self._best.measure * (1 - _NEARLY) if is_met else self.ceiling

    @property
    def _caps(self) -> Caps:
        caps = self.objective.caps(self._most)
        kinds = {"scaled": self.floors.scaled, "sums": self.floors.sums, "maxima": self.floors.maxima}
        return Caps(**{kind: np.array([caps[name] for name in names]) for kind, names in kinds.items()})

    # Mixes

    def _grid(self) -> Floats:
        """Weights that sum to 1, evenly spread over the sums that may be mixed, shape (k, sums)."""
        caps = self._caps
        most = np.concatenate([caps.scaled, caps.sums])
        mixed = np.flatnonzero((most < inf) & (most > _LEAST_MIXED * self.floors.most))
        grid = np.zeros((0, len(most)))
        if len(mixed) > 1:
            steps = _GRID_STEPS.get(len(mixed), _GRID_STEPS_OF_MORE)
            chosen = [np.bincount(each, minlength=len(mixed)) for each in
                      combinations_with_replacement(range(len(mixed)), steps)]  # fmt: skip
            inner = [each / steps for each in chosen if each.max() < steps]
            grid = np.zeros((len(inner), len(most)))
            grid[:, mixed] = inner
        return grid

    def _choose_mixes(self, found: Narrowed) -> None:
        """Those that are nearest to a proof, by split."""
        grid = self._grid()
        self._mixes = np.zeros((self.floors.minima.num_splits, min(_NUM_MIXES, len(grid)), grid.shape[1]))
        best = np.argsort(-found.of_mixes, axis=1, kind="stable")[:, :_NUM_MIXES]
        self._mixes[found.branches.splits] = grid[best]


class BranchedNetworks:
    """The networks of a space under bounds on costs that are sums, maxima or scaled sums of parts."""

    def __init__(
        self, region: FeasibleRegion, parts: Mapping[str, CostParts | ScaledParts], met: Codes
    ) -> None:
        """`met` are networks to begin with, shape (n, decisions)."""
        self.region = region
        self._floors = BranchFloors(region.space, parts)
        self.met = met
        """Networks that came up, the best of every search among them."""

    def within(self, deadline_s: float) -> Found:
        """A network that keeps all bounds; proved where there is one, or where there is none."""
        return self._found(Nearest(self.region.bounds), ceiling=1.0, enough=1.0, deadline_s=deadline_s)

    def nearest(self, deadline_s: float) -> Found:
        """The network whose largest ratio of cost to bound is least."""
        return self._found(Nearest(self.region.bounds), ceiling=inf, enough=0.0, deadline_s=deadline_s)

    def cheapest(self, name: str, deadline_s: float) -> Found:
        """The network with the least of a bounded cost among those that keep the other bounds."""
        return self._found(Cheapest(self.region.bounds, name), ceiling=inf, enough=0.0, deadline_s=deadline_s)

    def _found(self, objective: Objective, *, ceiling: float, enough: float, deadline_s: float) -> Found:
        search = BranchSearch(self.region, self._floors, objective, ceiling, enough)
        found = search.run(self.met, deadline_s)
        if found.code is not None:
            self.met = np.unique(np.concatenate([self.met, found.code[None, :]]), axis=0)
        return found
