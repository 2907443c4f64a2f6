"""A cost model that ends with the time there is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from nas.prefilter.answers import UndecidedError
from nas.search.cost_model import Codes, CostModel, CostParts, Costs, Floor, ScaledParts
from nas.space import SearchSpace


@dataclass(frozen=True)
class CostsUntil:
    """A cost model no longer to be had after a moment, UndecidedError then: no search goes on without one."""

    model: CostModel
    deadline_s: float
    """By the monotonic clock."""

    @property
    def space(self) -> SearchSpace:
        """The model's."""
        return self.model.space

    @property
    def names(self) -> tuple[str, ...]:
        """The model's."""
        return self.model.names

    def batch(self, codes: Codes, names: Sequence[str]) -> Costs:
        """The model's, in time."""
        if time.monotonic() > self.deadline_s:
            raise UndecidedError("the time is over")
        return self.model.batch(codes, names)

    def parts(self, name: str) -> CostParts | ScaledParts | Floor:
        """The model's."""
        return self.model.parts(name)
