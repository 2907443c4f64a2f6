"""FeasibleRegion: the networks of a space that keep the bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.search.constraints import Bounds
from nas.search.cost_model import Codes, CostModel
from nas.space import SearchSpace

_SPELLED_AT_ONCE = 32


class Cut(Protocol):
    """What a pre-filter leaves out."""

    def ratio(self, codes: Codes) -> NDArray[np.float64]:
        """For each encoded network a number above 1 where it is left out, the higher the further from it."""


@dataclass(frozen=True)
class FeasibleRegion:
    """A space under bounds, by a cost model."""

    costs: CostModel
    """Says what networks cost, and of which space they are."""
    bounds: Bounds = field(default_factory=Bounds)
    """None by default."""
    cut: Cut | None = None
    """Leaves out networks that keep every bound; None leaves out none."""

    @property
    def space(self) -> SearchSpace:
        """The space the networks are of."""
        return self.costs.space

    def worst_ratio(self, codes: Codes) -> NDArray[np.float64]:
        """For each encoded network the largest ratio of a cost to its bound; 0 without bounds.

        Above 1 too where the network is cut.
        """
        worst = np.zeros(len(codes))
        if self.bounds.limits:
            worst = self.bounds.worst_ratio(self.costs.batch(codes, self.bounds.names))
        return worst if self.cut is None else np.maximum(worst, self.cut.ratio(codes))

    def holds(self, codes: Codes) -> NDArray[np.bool_]:
        """Which encoded networks keep every bound and are not cut, as spelled."""
        return self.worst_ratio(codes) <= 1.0

    def contains(self, architecture: Architecture) -> bool:
        """Whether this network keeps every bound and is not cut."""
        return bool(self.holds(self.space.encode([architecture]))[0])

    def members(self, codes: Codes) -> Iterator[Architecture]:
        """The networks among the encoded ones that it holds, canonical, a few at a time."""
        rows = codes[self.holds(codes)]
        for start in range(0, len(rows), _SPELLED_AT_ONCE):
            spelled = [
                self.space.canonical(self.space.decode(row)) for row in rows[start : start + _SPELLED_AT_ONCE]
            ]
            # Where equal networks have several spellings, the canonical one has costs of its own.
            kept = self.holds(self.space.encode(spelled))
            yield from (network for network, is_kept in zip(spelled, kept, strict=True) if is_kept)

    def costs_of(self, architecture: Architecture, names: Sequence[str]) -> dict[str, float]:
        """The named costs of one network."""
        batch = self.costs.batch(self.space.encode([architecture]), names)
        return {name: values[0].item() for name, values in batch.items()}
