"""The networks of a small space, all of them, under bounds: for whatever costs, by looking at each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nas.prefilter.answers import Code
from nas.search.constraints import Bounds
from nas.search.cost_model import Codes, Costs
from nas.search.region import FeasibleRegion
from nas.space import SearchSpace


@dataclass(frozen=True)
class ListedNetworks:
    """Every network of a space with its costs."""

    codes: Codes
    costs: Costs
    bounds: Bounds

    @classmethod
    def of(cls, region: FeasibleRegion) -> ListedNetworks:
        """Costs them all."""
        codes = canonical_codes(region.space)
        return cls(codes, region.costs.batch(codes, region.bounds.names), region.bounds)

    def rounding(self, name: str) -> float:
        """Costs are compared as the cost model gives them."""
        del name
        return 0.0

    def proved_ratio(self) -> float:
        """The least largest ratio that there is."""
        return float(self.bounds.worst_ratio(self.costs).min())

    def met(self) -> Codes:
        """All of them."""
        return self.codes

    def nearest(self) -> Code:
        """The first of those with the least largest ratio of cost to bound."""
        return np.asarray(self.codes[self.bounds.worst_ratio(self.costs).argmin()])

    def cheapest(self, name: str) -> Code | None:
        """The first of those with the least of the cost among those that keep all other bounds."""
        rows = np.flatnonzero(self.bounds.without(name).holds(self.costs))
        if not len(rows):
            return None
        return np.asarray(self.codes[rows[self.costs[name][rows].argmin()]])


@lru_cache(maxsize=8)
def canonical_codes(space: SearchSpace) -> Codes:
    """Every network of the space once, spelled canonically. A space is a value: made once a process."""
    sizes = [len(decision.options) for decision in space.decisions]
    codes = (
        np.indices(sizes, dtype=np.int64).reshape(len(sizes), -1).T if sizes else np.zeros((1, 0), np.int64)
    )
    networks = dict.fromkeys(space.canonical(space.decode(row)) for row in codes)
    return space.encode(networks)
