"""Features: what a predictor of accuracy knows of a network."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.costs.batch import PEAK
from nas.pareto import Floats, Indices
from nas.search.cost_model import Codes, CostModel
from nas.search.paths import Operation, operations_of, path_figures
from nas.search.sampling import is_enumerable
from nas.space import Condition, SearchSpace

_LEAST_COST = 1e-9
"""What a cost of nothing is taken for, as it has no logarithm."""


class Features:
    """Numbers that describe networks of one space.

    One column for every option of every decision, 1 where chosen; a decision that counts for nothing leaves
    its columns 0. How many decisions of a group took each option, for groups of several. The logarithm of
    every cost. In a space that is listed whole: the paths through the layers and the operations on them,
    which cost too much to find where there are many networks. Source of the masked one-hot part: the accuracy
    predictor of Once-for-All (Cai et al., ICLR 2020). Deviation: the rest beside it, because trees learn sums
    badly from few networks.
    """

    def __init__(self, costs: CostModel, cost_names: Sequence[str] | None = None) -> None:
        """`cost_names` leaves out costs; None takes all but the peak of activations.

        That says little of accuracy, and in some spaces its tables take seconds to fill.
        """
        self._costs = costs
        self._cost_names = (
            [name for name in costs.names if name != PEAK] if cost_names is None else [*cost_names]
        )
        self._decisions = costs.space.decisions
        self._position = {decision.name: i for i, decision in enumerate(self._decisions)}
        # Cheaper to lower, with the same graph but for parts that repeat; None where there are too many.
        self._graphs = costs.space.peak_equivalent() if is_enumerable(costs.space) else None

    @cached_property
    def figures(self) -> Indices:
        """The columns that describe a network as a whole: costs and paths. All, where paths are not known."""
        num_options = [len(decision.options) for decision in self._decisions]
        num_columns = sum(num_options) + sum(num_options[group[0]] for group in self._groups)
        num_figures = len(self._cost_names) + (len(path_figures((), self._operations)) if self._graphs else 0)
        return np.arange(num_columns if self._graphs else 0, num_columns + num_figures)

    def of(self, architectures: Sequence[Architecture]) -> Floats:
        """Shape (n, features), the same for every spelling of a network."""
        space = self._costs.space
        return self.of_codes(space.encode([space.canonical(a) for a in architectures]))

    def of_codes(self, codes: Codes) -> Floats:
        """The same of encoded networks, spelled canonically; what inactive decisions hold changes nothing."""
        active = self._active(codes)
        codes = np.where(active, codes, 0)
        chosen = [
            (codes[:, [i]] == np.arange(len(decision.options))) & active[:, [i]]
            for i, decision in enumerate(self._decisions)
        ]
        counts = [np.sum([chosen[i] for i in group], axis=0) for group in self._groups]
        costs = self._costs.batch(codes, self._cost_names)
        logs = [np.log(np.maximum(costs[name], _LEAST_COST))[:, None] for name in self._cost_names]
        columns = [*chosen, *counts, *logs]
        if self._graphs and len(codes):
            rows = [_paths(self._graphs, self._operations, tuple(code)) for code in codes.tolist()]
            columns.append(np.array(rows))
        return np.concatenate(columns, axis=1).astype(np.float64)

    @cached_property
    def _operations(self) -> tuple[Operation, ...]:
        graphs = self._graphs
        return operations_of(map(graphs.lower, graphs.covering())) if graphs else ()

    @cached_property
    def _groups(self) -> list[list[int]]:
        """Columns of the decisions of each group of several that choose between the same options."""
        groups = self._costs.space.option_groups().values()
        return [
            [self._position[d.name] for d in group]
            for group in groups
            if len(group) > 1 and len({d.options for d in group}) == 1
        ]

    def _active(self, codes: Codes) -> NDArray[np.bool_]:
        """Which decisions count, shape (n, decisions)."""
        columns = [
            np.ones(len(codes), dtype=bool)
            if decision.active_if is None
            else self._reaches(codes, decision.active_if)
            for decision in self._decisions
        ]
        return np.stack(columns, axis=1)

    def _reaches(self, codes: Codes, condition: Condition) -> NDArray[np.bool_]:
        parent = self._position[condition.parent]
        reached = np.array([int(o) >= condition.minimum for o in self._decisions[parent].options])
        return np.asarray(reached[codes[:, parent]])


@lru_cache(maxsize=2**15)
def _paths(
    graphs: SearchSpace, operations: tuple[Operation, ...], code: tuple[int, ...]
) -> tuple[float, ...]:
    return path_figures(graphs.lower(graphs.decode(code)), operations)
