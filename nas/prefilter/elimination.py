"""The networks of a space of any size under bounds, where every bounded cost has parts.

Weighted sums of costs give bounds from below, and good networks at once (Lagrangian relaxation; Handler and
Zang, Networks 1980). What lies between the bound and the best network met is then searched whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import combinations_with_replacement
from math import inf, prod

import numpy as np
from numpy.typing import NDArray

from nas.prefilter.answers import ROUNDING, Code, UndecidedError
from nas.prefilter.tree import EliminationTree, Scope, cheapest
from nas.prefilter.within import CostTables, Pruning, networks_within
from nas.search.constraints import NEXT_TO_NOTHING
from nas.search.cost_model import Codes, CostParts, PartKind
from nas.search.region import FeasibleRegion
from nas.search.sampling import descend
from nas.space import SearchSpace

_LEAST_WEIGHED = 1e-9
"""Bounds below this part of the most that a network costs have no weight: their floors say enough."""
_GRID_STEPS = {2: 16, 3: 8}
"""By the number of sums, into how many steps their weights are cut."""
_GRID_STEPS_OF_MORE = 6
_NUM_WEIGHTS = 4
"""Weighted sums that part networks are held against."""
_GROWTH = (0.02, 0.06, 0.15, 0.3, 0.6, 1.0)
"""Parts of the way from what is proved to the best network met, searched one after the other."""

_MAX_EXACT = 2**53
"""Up to here whole numbers and their sums are exact as floats."""

Floats = NDArray[np.float64]


@dataclass
class PartedNetworks:
    """Networks whose bounded costs are sums and maxima of parts; remembers the good ones it meets."""

    region: FeasibleRegion
    names: tuple[str, ...]
    """Of the bounded costs: sums first."""
    tables: CostTables
    fractional: frozenset[str]
    """The costs whose sums are rounded."""
    deadline_s: float = inf
    """By the monotonic clock; UndecidedError past it."""
    _met: list[Codes] = field(default_factory=list)

    @classmethod
    def of(
        cls, region: FeasibleRegion, parts: Mapping[str, CostParts], *, deadline_s: float = inf
    ) -> PartedNetworks:
        """The region's networks, given the parts of every bounded cost."""
        names = sorted(parts, key=lambda name: parts[name].kind is PartKind.MAX)
        tables = cost_tables(region.space, [parts[name] for name in names])
        fractional = frozenset(name for name in names if not _is_whole(parts[name]))
        return cls(region, tuple(names), tables, fractional, deadline_s)

    def rounding(self, name: str) -> float:
        """That of fractions."""
        return ROUNDING if name in self.fractional else 0.0

    def proved_ratio(self) -> float:
        """By the floor of every cost, and of weighted sums of costs."""
        floors = dict(zip(self.names, self._pruning.floors[:, None], strict=True))
        by_floors = float(self.region.bounds.worst_ratio(floors)[0])
        return max(by_floors, self._proved_by_weights)

    def nearest(self) -> Code:
        """Found between what is proved and the best network met."""
        low = max(self.proved_ratio(), 1.0)
        best, ratio = self._nearest_by_descent(low)
        if ratio <= low:
            return best
        for share in _GROWTH:
            if self._look_within(self._limits_at(low + share * (ratio - low))):
                return self._nearest_met()[0]
        return best

    def cheapest(self, name: str) -> Code | None:
        """Found upwards from the cost's floor."""
        at = self.names.index(name)
        floors = self._pruning.floors
        # Most often another bound is below what any network costs.
        if (np.delete(floors, at) > np.delete(self._limits, at) * (1 + ROUNDING)).any():
            return None
        low = float(floors[at])
        met = self._cheapest_by_descent(name, low)
        if met is None or met[1] <= low:
            return None if met is None else met[0]
        high = met[1]
        is_any_within = False
        for share in _GROWTH:
            limits = self._limits_at(1.0)
            limits[at] = low + share * (high - low)
            if self._look_within(limits):
                is_any_within = True
                met = self._cheapest_met(name)
                if met is not None:
                    return met[0]
        if is_any_within:
            raise UndecidedError(f"the bounds beside {name} are kept but for rounding")
        return None

    # Proofs

    @cached_property
    def _limits(self) -> Floats:
        limits = dict(self.region.bounds.limits)
        return np.array([limits[name] for name in self.names])

    def _limits_at(self, ratio: float) -> Floats:
        """What costs may be at a largest ratio; for bounds next to 0 as `Bounds.worst_ratio` has it."""
        # None is above what any network costs, so that no sum of them is infinite.
        limits = np.minimum(self._limits, self._most)
        return np.minimum(
            np.where(self._limits > NEXT_TO_NOTHING, limits * ratio, max(ratio - 1, 0.0)), self._most
        )

    @cached_property
    def _most(self) -> Floats:
        """No network costs more."""
        most = np.array([table.max(axis=1) for table in self.tables.tables])
        num_sums = self.tables.num_sums
        return np.concatenate([most[:, :num_sums].sum(axis=0), most[:, num_sums:].max(axis=0)])

    @cached_property
    def _weights(self) -> Floats:
        """Of sums of ratios of cost to bound, shape (k, sums); a bound next to 0 has none."""
        limits = self._limits[: self.tables.num_sums]
        weighed = np.flatnonzero(limits > _LEAST_WEIGHED * self._most[: len(limits)])
        weights = np.zeros((0, len(limits)))
        if len(weighed) > 1:
            grid = _grid(len(weighed))
            weights = np.zeros((len(grid), len(limits)))
            weights[:, weighed] = grid / limits[weighed]
        return weights

    @cached_property
    def _least_weighted(self) -> Floats:
        """By weighted sum of ratios, which no network's largest ratio is below, the least of it."""
        if not len(self._weights):
            return np.zeros(0)
        found = self.tables.floors_of(self._weights)
        self._met.append(cheapest(self.tables.tree, found))
        return found.whole

    @property
    def _proved_by_weights(self) -> float:
        return float(self._least_weighted.max(initial=0.0)) * (1 - ROUNDING)

    @cached_property
    def _pruning(self) -> Pruning:
        best = np.argsort(-self._least_weighted, kind="stable")[:_NUM_WEIGHTS]
        pruning = Pruning.of(self.tables, self._weights[best])
        self._met.append(cheapest(self.tables.tree, pruning.found))
        return pruning

    # Networks met

    def _look_within(self, limits: Floats) -> bool:
        """Whether networks are within the limits; the best of them are remembered."""
        # Where there is rounding, rather a network too many: each is judged by the cost model.
        room = limits * (1 + ROUNDING)
        labels = networks_within(self._pruning, room, deadline_s=self.deadline_s)
        self._met.append(labels.codes.astype(np.int64))
        return len(labels) > 0

    def _nearest_met(self) -> tuple[Code, float]:
        codes = self.met()
        ratios = self.region.worst_ratio(codes)
        return codes[ratios.argmin()], float(ratios.min())

    def _nearest_by_descent(self, enough: float) -> tuple[Code, float]:
        """The nearest met, once neighbours of it that are nearer are met too."""
        best, ratio = self._nearest_met()
        if ratio > enough:
            end = descend(self.region.space, best, self.region.worst_ratio, enough=enough)
            self._met.append(end[None, :])
        return self._nearest_met()

    def _cheapest_by_descent(self, name: str, enough: float) -> tuple[Code, float] | None:
        """The same for the cheapest among those that keep the other bounds."""
        met = self._cheapest_met(name) or self._meet_within_others(name)
        if met is None or met[1] <= enough:
            return met
        others = self.region.bounds.without(name)

        def score(codes: Codes) -> Floats:
            costs = self.region.costs.batch(codes, self.names)
            return np.where(others.holds(costs), costs[name], inf)

        self._met.append(descend(self.region.space, met[0], score, enough=enough)[None, :])
        return self._cheapest_met(name)

    def _cheapest_met(self, name: str) -> tuple[Code, float] | None:
        """The cheapest among those that keep the other bounds, and its cost."""
        codes = self.met()
        costs = self.region.costs.batch(codes, self.names)
        rows = np.flatnonzero(self.region.bounds.without(name).holds(costs))
        if not len(rows):
            return None
        best = rows[costs[name][rows].argmin()]
        return codes[best], float(costs[name][best])

    def _meet_within_others(self, name: str) -> tuple[Code, float] | None:
        """A network that keeps the other bounds, if any, whatever its cost of this name."""
        found = {other: self.region.costs.parts(other) for other in self.names if other != name}
        parts = {other: cost for other, cost in found.items() if isinstance(cost, CostParts)}
        region = replace(self.region, bounds=self.region.bounds.without(name))
        others = PartedNetworks.of(region, parts, deadline_s=self.deadline_s)
        if others._nearest_by_descent(1.0)[1] > 1:
            others._look_within(others._limits_at(1.0))
        self._met.extend(others._met)
        return self._cheapest_met(name)

    def met(self) -> Codes:
        """Those with the least of a cost or of a weighted sum among them."""
        assert self._pruning is not None  # Meets the first networks.
        return np.concatenate(self._met)


def cost_tables(space: SearchSpace, costs: Sequence[CostParts]) -> CostTables:
    """The costs, sums first, over one elimination tree."""
    tables = merged_tables(space, costs)
    sizes = tuple(len(decision.options) for decision in space.decisions)
    num_sums = sum(cost.kind is PartKind.SUM for cost in costs)
    return CostTables(_tree(tuple(tables), sizes), tuple(tables), tuple(tables.values()), num_sums)


def merged_tables(space: SearchSpace, costs: Sequence[CostParts]) -> dict[Scope, Floats]:
    """The costs brought to one set of parts, those of equal scope together, shape (costs, cells) each."""
    sizes = [len(decision.options) for decision in space.decisions]
    # Costs without parts still have a total.
    tables: dict[Scope, Floats] = {(): np.zeros((len(costs), 1))}
    for row, cost in enumerate(costs):
        join = np.add if cost.kind is PartKind.SUM else np.maximum
        for part in cost.parts:
            scope = tuple(sorted(part.columns))
            table = tables.setdefault(scope, np.zeros((len(costs), prod(sizes[c] for c in scope))))
            table[row] = join(table[row], part.costs.transpose(np.argsort(part.columns)).ravel())
    return tables


@lru_cache(maxsize=64)
def _tree(scopes: tuple[Scope, ...], sizes: tuple[int, ...]) -> EliminationTree:
    return EliminationTree(scopes, sizes)


def _is_whole(cost: CostParts) -> bool:
    """Whether all sums of its parts are whole numbers, and few enough digits to be exact as floats."""
    if not all(np.equal(np.rint(part.costs), part.costs).all() for part in cost.parts):
        return False
    return sum(int(part.costs.max(initial=0)) for part in cost.parts) < _MAX_EXACT


def _grid(num_sums: int) -> Floats:
    """Weights that sum to 1, evenly spread, shape (k, sums)."""
    steps = _GRID_STEPS.get(num_sums, _GRID_STEPS_OF_MORE)
    chosen = combinations_with_replacement(range(num_sums), steps)
    return np.array([np.bincount(each, minlength=num_sums) for each in chosen]) / steps
