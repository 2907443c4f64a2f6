"""Options that no network above a floor has: what may be left out of a space before anything is trained.

Every part of the space whose relaxation stays below the floor is dropped. In each part that is left, linear
duality says how much of the bound is lost at least when a network takes one more of an option: an option
survives where the rest still reaches the floor. So no network at or above the floor loses an option.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from math import log, prod

from nas.architecture import Value
from nas.prefilter.deepmad.columns import ModeColumn
from nas.prefilter.deepmad.part import Part, whole
from nas.prefilter.deepmad.program import Demand, Program, make_program
from nas.prefilter.deepmad.solver import relaxed
from nas.prefilter.deepmad.tables import LayerCost, score_tables
from nas.space import SearchSpace, is_active

_SLACK = 1e-6
"""Relative: bounds this little below the floor count as reaching it, as HiGHS is exact to less."""


@dataclass(frozen=True, slots=True)
class Survivors:
    """What is left of a space."""

    kept: dict[str, tuple[Value, ...]]
    """For every decision the options left, in order; what `SubSpace` takes. Where a decision is inactive in
    all that is left, its cheapest option stands for it."""
    log_size_before: float
    """Natural logarithm of the number of networks."""
    log_size_after: float
    """The same of the networks made of the options left; −inf where none reaches the floor."""
    num_relaxations: int


def cut_options(
    space: SearchSpace,
    demand: Demand,
    *,
    floor: float,
    own_costs: Mapping[str, LayerCost] | None = None,
    max_relaxations: int = 512,
) -> Survivors:
    """The options of networks that keep the demand and whose objective is at least `floor`, and maybe more.

    More relaxations cut more; parts that they do not reach keep what their own bound leaves them. Raises as
    `solve` does.
    """
    tables = score_tables(space, tuple(sorted(demand.budgets)), own_costs or {})
    threshold = floor - _SLACK * abs(floor)
    survivors: dict[str, set[int]] = {name: set() for name in tables.sizes}
    order = count()
    waiting: list[tuple[float, int, Part]] = [(0.0, next(order), whole(tables))]
    num_relaxations = 0
    while waiting:
        _, _, part = heapq.heappop(waiting)
        program = make_program(tables, part, demand)
        bound, losses = relaxed(program)
        num_relaxations += 1
        if bound < threshold:
            continue
        halves = part.halves()
        if halves is None or num_relaxations + len(waiting) >= max_relaxations:
            _keep(survivors, part, program, [bound - loss >= threshold for loss in losses])
            continue
        for half in halves:
            heapq.heappush(waiting, (-bound, next(order), half))
    kept = {
        decision.name: tuple(
            option for i, option in enumerate(decision.options) if i in (survivors[decision.name] or {0})
        )
        for decision in space.decisions
    }
    is_empty = not any(survivors.values())
    return Survivors(
        kept=kept,
        log_size_before=log_size(space, {d.name: d.options for d in space.decisions}),
        log_size_after=float("-inf") if is_empty else log_size(space, kept),
        num_relaxations=num_relaxations,
    )


def log_size(space: SearchSpace, kept: Mapping[str, tuple[Value, ...]]) -> float:
    """Natural logarithm of the number of assignments of active decisions to the options kept."""
    children = {
        decision.name: [
            child
            for child in space.decisions
            if child.active_if is not None and child.active_if.parent == decision.name
        ]
        for decision in space.decisions
    }
    return sum(
        log(
            sum(
                prod(
                    len(kept[c.name]) for c in children[decision.name] if is_active(c, {decision.name: value})
                )
                for value in kept[decision.name]
            )
        )
        for decision in space.decisions
        if decision.active_if is None
    )


def _keep(survivors: dict[str, set[int]], part: Part, program: Program, stays: list[bool]) -> None:
    for name, left in part.left.items():
        survivors[name].update(left)
    for column, does_stay in zip(program.columns, stays, strict=False):
        if not does_stay:
            continue
        if isinstance(column, ModeColumn):
            for name, option in column.options:
                survivors[name].add(option)
        else:
            for names in column.own_decisions:
                for name, option in zip(names, column.options, strict=True):
                    survivors[name].add(option)
