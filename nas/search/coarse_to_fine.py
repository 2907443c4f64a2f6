"""Coarse-to-fine selection: a grid of network-wide settings, then mutations of the best skeleton per budget.

Source: BigNAS (Yu et al., ECCV 2020), its coarse-to-fine selection. Deviation: which grid points are tried is
drawn, because budgets here are smaller than the grid of a space with five kinds of decisions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product

import numpy as np

from nas.architecture import Architecture
from nas.search.region import FeasibleRegion
from nas.search.rounds import Scored
from nas.search.settings import ACCURACY, SearchSettings

_LEVELS = (0.0, 0.5, 1.0)
"""Where a decision may stand in the grid, from its cheapest option to its dearest."""
_COARSE_SHARE = 1 / 3
"""Of the budget, for the grid."""
_NUM_BUDGETS = 5
"""Skeletons kept, spread evenly over the logarithm of the cost."""
_TRIES_PER_NETWORK = 20


class CoarseToFineProposer:
    """The grid first, then neighbours of the most accurate network within each budget; no predictor."""

    def __init__(self, region: FeasibleRegion, settings: SearchSettings) -> None:
        """Budgets are of the first cost objective, one for all where there is none."""
        self._region = region
        self._settings = settings
        self._rng = np.random.default_rng((settings.seed, 1))
        self._told: dict[Architecture, tuple[float, ...]] = {}
        self._asked: set[Architecture] = set()

    def ask(self, count: int) -> Sequence[Architecture]:
        """What is left of the grid, then mutants of skeletons; new and feasible."""
        proposals = [network for network in self._grid if not self._is_known(network)][:count]
        self._asked.update(proposals)
        for _ in range(_TRIES_PER_NETWORK * count if self._told else 0):
            if len(proposals) >= count:
                break
            skeletons = self._skeletons()
            mutant = self._region.space.mutate(skeletons[self._rng.integers(len(skeletons))], self._rng)
            if self._region.contains(mutant) and not self._is_known(mutant):
                proposals.append(mutant)
                self._asked.add(mutant)
        return proposals

    def tell(self, results: Sequence[Scored]) -> None:
        """Skeletons come from all that was ever told."""
        self._told.update((result.architecture, result.losses) for result in results)
        self._asked.clear()

    def _is_known(self, network: Architecture) -> bool:
        return network in self._told or network in self._asked

    @cached_property
    def _grid(self) -> list[Architecture]:
        """The grid's share of the budget, drawn from its distinct feasible networks."""
        every = [*dict.fromkeys(self._coarse())]
        share = max(1, round(_COARSE_SHARE * self._settings.num_trials))
        return [every[i] for i in self._rng.permutation(len(every))[:share]]

    def _coarse(self) -> Iterator[Architecture]:
        """Every combination of levels, all decisions of a kind at the same one."""
        space = self._region.space
        group_of = {d.name: name for name, group in space.option_groups().items() for d in group}
        # By the last part of the name: depths of all stages are one kind, kernels of all blocks another.
        kinds = [group_of[decision.name].rpartition(".")[2] for decision in space.decisions]
        distinct = [*dict.fromkeys(kinds)]
        last = np.array([len(decision.options) - 1 for decision in space.decisions])
        for levels in product(_LEVELS, repeat=len(distinct)):
            level_of = dict(zip(distinct, levels, strict=True))
            code = np.round(last * np.array([level_of[kind] for kind in kinds])).astype(np.int64)
            yield from self._region.members(code[None, :])

    def _skeletons(self) -> list[Architecture]:
        """The most accurate network told within each budget."""
        networks, losses = [*self._told], np.array([*self._told.values()])
        objectives = self._settings.objectives
        accuracy_lost = losses[:, objectives.index(ACCURACY)]
        cost_columns = [i for i, objective in enumerate(objectives) if objective != ACCURACY]
        budgets = np.zeros(len(networks))
        if cost_columns:
            log_costs = np.log(np.maximum(losses[:, cost_columns[0]], np.finfo(np.float64).tiny))
            edges = np.linspace(log_costs.min(), log_costs.max(), _NUM_BUDGETS + 1)[1:-1]
            budgets = np.digitize(log_costs, edges)
        best = [rows[accuracy_lost[rows].argmin()] for rows in _rows_by(budgets)]
        return [networks[i] for i in best]


def _rows_by(budgets: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(budgets == budget) for budget in np.unique(budgets)]
