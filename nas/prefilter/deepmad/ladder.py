"""DeepMAD's best networks at rising budgets, and the cut of networks that fall short of them.

A frontier wants networks of every cost, so one budget will not do: the best under it, and all that come near
them, are dear. Here a network is held against the best of those that cost no more than it does.

Deviation: networks are cut, and not options by their reduced costs, which `cut_options` would do: between
cheap and dear networks every option is part of a good one (decision 15).
Deviation: bounds on latency are no rows of the program. A device's blocks are several of our layers fused,
whose time the program cannot share out among them, and most devices' models are no sums. What keeps such a
bound is then decided by the search, which measures nothing that breaks one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nas.architecture import Architecture
from nas.prefilter.deepmad.batch import Codes, batch_objectives
from nas.prefilter.deepmad.exact import best_networks
from nas.prefilter.deepmad.program import Demand
from nas.prefilter.deepmad.tables import BUDGET_NAMES, Floats, ScoreTables, score_tables
from nas.search.region import FeasibleRegion
from nas.search.sampling import descend

KEPT = 0.95
"""A network stays whose objective is at least this part of the best of those that cost no more."""
NUM_RUNGS = 12
_BEYOND = 1e12
"""Above every objective with its sign changed."""
_MOST_RANKED = 5
"""Networks asked for under one budget: each costs another integer program."""
_MAX_RELAXATIONS = 200
"""For each rung, lest a space of many widths takes minutes; no clock, so that it is always the same ones."""


@dataclass(frozen=True, slots=True)
class Found:
    """A network that keeps every bound."""

    architecture: Architecture
    objective: float


@dataclass(frozen=True)
class Ladder:
    """The best networks found within rising limits of one cost; each keeps every bound of the region."""

    region: FeasibleRegion
    tables: ScoreTables
    cost: str | None
    """Whose limits these are; None for one rung, the bounds alone."""
    limits: tuple[float, ...]
    """Ascending."""
    best: tuple[Found | None, ...]
    """None where none was found."""
    on_part: Callable[[], None] = lambda: None

    @classmethod
    def climb(
        cls,
        region: FeasibleRegion,
        cost: str | None,
        *,
        num_rungs: int = NUM_RUNGS,
        num_classes: int | None = None,
        in_channels: int | None = None,
        on_part: Callable[[], None] = lambda: None,
    ) -> Ladder:
        """Rungs evenly spaced on the logarithm of the cost, up to its bound; deterministic.

        `on_part` is called often, and may raise. InvalidRequestError for a space that DeepMAD does not score.
        """
        budgets = {name: limit for name, limit in region.bounds.limits if name in BUDGET_NAMES}
        names = tuple(sorted({*budgets, *([cost] if cost else [])}))
        tables = score_tables(region.space, names, num_classes=num_classes, in_channels=in_channels)
        limits = _limits(region, cost, budgets, num_rungs) if cost else (np.inf,)
        best: list[Found | None] = []
        for limit in limits:
            demand = Demand(budgets={**budgets, cost: limit} if cost else budgets)
            found = [_best(region, tables, demand, on_part), *best[-1:]]
            # Where a rung's proof is cut short, the one below may have found a better one.
            best.append(max(filter(None, found), key=lambda each: each.objective, default=None))
        return cls(region, tables, cost, tuple(limits), tuple(best), on_part)

    def choose(self, count: int) -> list[Architecture]:
        """Up to `count` of its networks, distinct: of rungs evenly spaced, the top one always."""
        if self.cost is None and count > 1:
            return self._runners_up(min(count, _MOST_RANKED))
        networks = [*dict.fromkeys(found.architecture for found in reversed(self.best) if found)]
        places = np.linspace(0, len(networks) - 1, min(count, len(networks))).round().astype(int)
        return [networks[place] for place in places]

    def floors(self, costs: Floats) -> Floats:
        """By cost, shape (n,), the least objective that is no shortfall; −inf where nothing is known."""
        steps = np.array([-np.inf, *map(_floor, self.best)])
        rungs = np.searchsorted(self.limits, costs, side="right") if self.cost else np.ones(len(costs), int)
        return np.asarray(steps[rungs])

    def ratio(self, codes: Codes) -> Floats:
        """Above 1 exactly where a network falls short, the more the higher."""
        costs = self.region.costs.batch(codes, [self.cost])[self.cost] if self.cost else np.zeros(len(codes))
        floors = self.floors(costs.astype(np.float64))
        shortfall = floors - batch_objectives(self.tables, codes)
        scale = np.where(np.isfinite(floors), np.maximum(np.abs(floors), 1.0), 1.0)
        return np.asarray(1 + np.maximum(shortfall, -1.0) / scale)

    def _runners_up(self, count: int) -> list[Architecture]:
        demand = Demand(budgets={n: limit for n, limit in self.region.bounds.limits if n in BUDGET_NAMES})
        solution = best_networks(
            self.tables, demand, count_best=count, max_relaxations=_MAX_RELAXATIONS, on_part=self.on_part
        )
        ranked = [each.architecture for each in solution.ranked if self.region.contains(each.architecture)]
        return [*dict.fromkeys([*ranked, *(found.architecture for found in self.best if found)])][:count]


@dataclass(frozen=True)
class LadderCut:
    """Leaves out the networks that fall short by every ladder: one a cost that is searched for."""

    ladders: tuple[Ladder, ...]

    def ratio(self, codes: Codes) -> Floats:
        """For each encoded network a number above 1 where it is left out, the higher the further from it."""
        return np.asarray(np.min([ladder.ratio(codes) for ladder in self.ladders], axis=0))


def _floor(found: Found | None) -> float:
    return -np.inf if found is None else found.objective - (1 - KEPT) * abs(found.objective)


def _limits(region: FeasibleRegion, cost: str, budgets: dict[str, float], num_rungs: int) -> Sequence[float]:
    space = region.space
    ends = region.costs.batch(space.encode([space.smallest(), space.largest()]), [cost])[cost]
    low, high = ends.astype(np.float64).tolist()
    high = max(low, min(high, budgets.get(cost, high)))
    # The ends as they are: the logarithm there and back would miss the cheapest network by rounding.
    return [low, *np.geomspace(low, high, num_rungs).tolist()[1:-1], high]


def _best(
    region: FeasibleRegion, tables: ScoreTables, demand: Demand, on_part: Callable[[], None]
) -> Found | None:
    """The best network that keeps the demand and every bound; where those differ, a good one."""
    solution = best_networks(tables, demand, max_relaxations=_MAX_RELAXATIONS, on_part=on_part)
    if not solution.ranked:
        return None
    best = solution.ranked[0]
    if region.contains(best.architecture):
        return Found(best.architecture, best.score.objective)
    # Bounds on the peak of activations, say, are no budget: to the nearest that keeps them, then uphill.
    space, names = region.space, tuple(demand.budgets)

    def score(codes: Codes) -> Floats:
        costs = region.costs.batch(codes, names)
        ratios = [region.worst_ratio(codes), *(costs[name] / demand.budgets[name] for name in names)]
        worst = np.max(ratios, axis=0)
        objectives = batch_objectives(tables, codes)
        return np.where(worst > 1, _BEYOND + worst, -objectives)

    code = descend(space, space.encode([best.architecture])[0], score)
    if score(code[None])[0] >= _BEYOND:
        return None
    network = space.canonical(space.decode(code))
    return Found(network, float(batch_objectives(tables, space.encode([network]))[0]))
