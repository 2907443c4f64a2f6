"""Budget tables: how often each option occurs among random networks of about one cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture, Value
from nas.costs import batch_costs
from nas.space import Decision, SearchSpace, is_active
from nas.subspace import SubSpace

NUM_OBSERVED = 8192
"""Random networks behind the tables: about a second of work, once a run."""
MAX_RETRIES = 100
"""After so many the last draw is taken, whatever it costs (AttentiveNAS, published code)."""


@dataclass(frozen=True)
class Budgets:
    """The range of MACs of a part of a space, cut into bins of one width."""

    space: SearchSpace
    edges_macs: NDArray[np.float64]
    """Ascending, shape (num_bins + 1,)."""
    num_classes: int
    in_channels: int

    @classmethod
    def of(cls, part: SubSpace, num_bins: int, *, num_classes: int, in_channels: int) -> Budgets:
        """From the cheapest to the dearest network of `part`."""
        ends = part.space.encode([part.smallest(), part.largest()])
        macs = batch_costs(
            part.space, ends, num_classes=num_classes, in_channels=in_channels, names=("macs",)
        )["macs"]
        return cls(part.space, np.linspace(*macs, num_bins + 1), num_classes, in_channels)

    @property
    def num_bins(self) -> int:
        """One less than there are edges."""
        return len(self.edges_macs) - 1

    def bins_of(self, codes_nd: NDArray[np.int64]) -> NDArray[np.int64]:
        """The bin, from 0, of each encoded network, shape (n,)."""
        macs_n = batch_costs(
            self.space, codes_nd, num_classes=self.num_classes, in_channels=self.in_channels, names=("macs",)
        )["macs"]
        bins_n = np.searchsorted(self.edges_macs, macs_n, side="right") - 1
        # The dearest network lies on the last edge.
        return bins_n.clip(0, self.num_bins - 1)


class BudgetTables:
    """Draws networks of a budget: a bin of MACs first, then each decision by what is usual in that bin.

    Source: Wang et al., "AttentiveNAS", CVPR 2021, section 3.2 and its published sampler: P(bin), and for
    each decision P(option | bin), both counted among random networks.
    """

    def __init__(self, part: SubSpace, budgets: Budgets, rng: np.random.Generator) -> None:
        """Counts the options of `NUM_OBSERVED` random networks of `part`."""
        self.budgets = budgets
        self._part = part
        space = part.space
        observed = [part.sample(rng) for _ in range(NUM_OBSERVED)]
        codes_nd = space.encode(observed)
        bins_n = budgets.bins_of(codes_nd)
        self.prior_b = np.bincount(bins_n, minlength=budgets.num_bins) / len(bins_n)
        """P(bin), shape (num_bins,)."""
        self._conditionals: dict[str, NDArray[np.float64]] = {}
        names_of = [{name for name, _ in architecture.choices} for architecture in observed]
        for column, decision in enumerate(space.decisions):
            is_counted = np.array([decision.name in names for names in names_of])
            counts_bo = np.zeros((budgets.num_bins, len(decision.options)))
            np.add.at(counts_bo, (bins_n[is_counted], codes_nd[is_counted, column]), 1)
            totals_b1 = counts_bo.sum(axis=1, keepdims=True)
            self._conditionals[decision.name] = counts_bo / np.maximum(totals_b1, 1)

    def conditional(self, decision: Decision) -> NDArray[np.float64]:
        """P(option | bin) where it is active, shape (num_bins, options); zeros where it never is."""
        return self._conditionals[decision.name]

    def draw_bin(self, rng: np.random.Generator) -> int:
        """A bin by its part of all random networks."""
        return int(rng.choice(len(self.prior_b), p=self.prior_b))

    def draw_within(self, budget: int, rng: np.random.Generator) -> Architecture:
        """A network of this bin; after `MAX_RETRIES` any network drawn for it.

        Decisions are drawn independently given the bin, so that the network may miss it.
        """
        for _ in range(MAX_RETRIES + 1):
            architecture = self._draw_for(budget, rng)
            if self.bin_of(architecture) == budget:
                break
        return architecture

    def bin_of(self, architecture: Architecture) -> int:
        """The bin, from 0, of this network's MACs."""
        return int(self.budgets.bins_of(self._part.space.encode([architecture]))[0])

    def _draw_for(self, budget: int, rng: np.random.Generator) -> Architecture:
        values: dict[str, Value] = {}
        for decision in self._part.space.parents_first:
            if is_active(decision, values):
                upper_o = self.conditional(decision)[budget].cumsum()
                # Sums of parts may end a rounding below 1, and an option of no probability is never drawn.
                place = int(np.searchsorted(upper_o, rng.random() * upper_o[-1], side="right"))
                values[decision.name] = decision.options[place]
        return self._part.spelled(values)
