"""The best networks of a space by DeepMAD's objective, under budgets, with proof: best first over parts.

Every part of the space has a bound, the optimum of its program's linear relaxation. The part with the highest
bound is halved until one option is left of every context decision; then its integer program is solved. What
is left when no bound beats the worst network asked for is proved to be the best.

Source: the objective is DeepMAD's (Shen et al., CVPR 2023); its own search is evolutionary and proves
nothing. The programs are solved by HiGHS.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np

from nas.architecture import Architecture, Value
from nas.prefilter.deepmad.columns import ModeColumn, OptionColumn
from nas.prefilter.deepmad.part import Part, whole
from nas.prefilter.deepmad.program import Demand, Program, make_program
from nas.prefilter.deepmad.score import Score, score
from nas.prefilter.deepmad.solver import relaxed, solve_program
from nas.prefilter.deepmad.tables import Floats, LayerCost, ScoreTables, TermTable, score_tables
from nas.space import SearchSpace

_TOLERANCE = 1e-7
"""Relative; HiGHS keeps rows and whole numbers to 1e-6 and better."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A network, scored by its lowering and not by the program that found it."""

    architecture: Architecture
    """One of those that differ from each other only in the order of equal blocks."""
    score: Score
    costs: dict[str, float]
    """Every budgeted cost."""


@dataclass(frozen=True, slots=True)
class Solution:
    """The best networks, best first, and what is proved about the others."""

    ranked: tuple[Ranked, ...]
    """Fewer than asked for only where no more keep the demand, or where time ran out."""
    bound: float
    """No network that is not ranked has an objective above this; −inf where there is none."""
    is_proved: bool
    """Whether none of those can beat the ranked ones; false only where time ran out."""
    num_relaxations: int
    num_programs: int
    """Integer programs solved."""


def solve(
    space: SearchSpace,
    demand: Demand,
    *,
    count_best: int = 1,
    own_costs: Mapping[str, LayerCost] | None = None,
    limit_s: float | None = None,
) -> Solution:
    """The `count_best` networks with the highest objective that keep the demand.

    Networks that differ only in the order of equal blocks count as one. `own_costs` are further budgets by
    name, each what a layer costs. Raises UnknownNameError for a budget that is neither, InvalidRequestError
    for a space that DeepMAD does not score. An infeasible demand has no networks and is proved.
    """
    tables = score_tables(space, tuple(sorted(demand.budgets)), own_costs)
    return best_networks(tables, demand, count_best=count_best, limit_s=limit_s)


def best_networks(
    tables: ScoreTables,
    demand: Demand,
    *,
    count_best: int = 1,
    limit_s: float | None = None,
    max_relaxations: int | None = None,
    on_part: Callable[[], None] = lambda: None,
) -> Solution:
    """As `solve`, from tables that have every budget.

    `max_relaxations` ends it where it would prove no more in time, at the same place each time; `on_part`
    is called before each, and may raise.
    """
    return _Search(tables, demand, count_best, limit_s, max_relaxations, on_part).run()


_Open = tuple[float, int, Part, Program]
"""A part still to be looked into: its bound with the sign changed, and a number that no other has."""


class _Search:
    def __init__(
        self,
        tables: ScoreTables,
        demand: Demand,
        count_best: int,
        limit_s: float | None,
        max_relaxations: int | None,
        on_part: Callable[[], None],
    ) -> None:
        self.tables, self.demand, self.count_best = tables, demand, count_best
        self.max_relaxations, self.on_part = max_relaxations, on_part
        self.end_s = None if limit_s is None else time.monotonic() + limit_s
        self.ranked: list[Ranked] = []
        self.num_relaxations = self.num_programs = 0

    def run(self) -> Solution:
        # A heap gives its least entry first; the number keeps parts from being compared.
        order = count()
        open_parts: list[_Open] = []
        self._open(open_parts, order, whole(self.tables))
        while open_parts and -open_parts[0][0] > self._floor:
            if self._is_over():
                break
            _, _, part, program = heapq.heappop(open_parts)
            parts = part.halves()
            if parts is None:
                self._solve_leaf(part, program)
            else:
                for half in parts:
                    self._open(open_parts, order, half)
        bound = -open_parts[0][0] if open_parts else -np.inf
        return Solution(
            ranked=tuple(self.ranked),
            bound=max(bound, self._floor),
            is_proved=bound <= self._floor,
            num_relaxations=self.num_relaxations,
            num_programs=self.num_programs,
        )

    def _is_over(self) -> bool:
        if self.max_relaxations is not None and self.num_relaxations >= self.max_relaxations:
            return True
        return self.end_s is not None and time.monotonic() > self.end_s

    @property
    def _floor(self) -> float:
        """What a network must beat to be ranked."""
        if len(self.ranked) < self.count_best:
            return -np.inf
        worst = self.ranked[-1].score.objective
        return worst + _TOLERANCE * abs(worst)

    def _open(self, open_parts: list[_Open], order: Iterator[int], part: Part) -> None:
        self.on_part()
        program = make_program(self.tables, part, self.demand)
        bound, _ = relaxed(program)
        self.num_relaxations += 1
        if bound > self._floor:
            heapq.heappush(open_parts, (-bound, next(order), part, program))

    def _solve_leaf(self, part: Part, program: Program) -> None:
        excluded: list[Floats] = []
        while True:
            self.on_part()
            found = solve_program(program, self._floor, excluded)
            self.num_programs += 1
            if found is None:
                return
            excluded.append(found[0])
            is_ranked = self._rank(decoded(self.tables, program, part, found[0]))
            if is_ranked and self.count_best == 1:
                return

    def _rank(self, architecture: Architecture) -> bool:
        """Takes the network in where it keeps the demand; whether it does."""
        scored = score(self.tables.lower(architecture), self.demand.rules)
        costs = network_costs(self.tables, architecture)
        # The program keeps rows to a tolerance; the network itself must keep them exactly.
        if any(costs[name] > limit for name, limit in self.demand.budgets.items()):
            return False
        limit = self.demand.max_effectiveness
        if limit is not None and scored.effectiveness > limit * (1 + _TOLERANCE):
            return False
        self.ranked.append(Ranked(architecture, scored, costs))
        self.ranked.sort(key=lambda ranked: -ranked.score.objective)
        del self.ranked[self.count_best :]
        return True


def network_costs(tables: ScoreTables, architecture: Architecture) -> dict[str, float]:
    """The costs of one network by name, from the tables."""
    row = tables.space.encode([architecture])[0]
    index = {name: int(row[i]) for i, name in enumerate(tables.sizes)}
    totals = sum(table.costs[tuple(index[name] for name in table.term.decisions)] for table in tables.terms)
    return dict(zip(tables.cost_names, np.asarray(totals).tolist(), strict=True))


def decoded(tables: ScoreTables, program: Program, part: Part, solution: Floats) -> Architecture:
    """The network that a solution of a part of one context stands for; dearer options come first."""
    index = {name: left[0] for name, left in part.left.items()}
    for column, number in zip(program.columns, solution, strict=True):
        if isinstance(column, ModeColumn) and number:
            index.update(column.options)
    waiting: dict[str, list[tuple[int, ...]]] = {}
    for column, number in zip(program.columns, solution, strict=True):
        if isinstance(column, OptionColumn):
            waiting.setdefault(column.terms[0].term.prefix, []).extend([column.options] * int(number))
    for column in program.columns:
        if isinstance(column, OptionColumn) and column.terms[0].term.prefix in waiting:
            options = sorted(waiting.pop(column.terms[0].term.prefix), reverse=True)
            present = [i for i, table in enumerate(column.terms) if _is_present(table, index)]
            for place, choice in zip(present, options, strict=True):
                index.update(zip(column.own_decisions[place], choice, strict=True))
    values: dict[str, Value] = {
        decision.name: decision.options[index.get(decision.name, 0)] for decision in tables.space.decisions
    }
    return tables.space.canonical(tables.space.parse(values))


def _is_present(table: TermTable, index: Mapping[str, int]) -> bool:
    return bool(table.is_present[tuple(index.get(name, 0) for name in table.term.decisions)])
