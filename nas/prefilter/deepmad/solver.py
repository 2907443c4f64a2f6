"""A program handed to HiGHS: its linear relaxation, and its best whole solution but for some excluded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array

from nas.prefilter.deepmad.program import Program
from nas.prefilter.deepmad.tables import Floats


def relaxed(program: Program) -> tuple[float, Floats]:
    """An upper bound on the program, and for each column how much of it one more from 0 takes.

    −inf where even the relaxation has no solution.
    """
    found = linprog(
        -program.gains,
        A_ub=program.most_rows,
        b_ub=program.at_most,
        A_eq=program.equal_rows,
        b_eq=program.equal_to,
        bounds=np.stack([np.zeros_like(program.limits), program.limits], axis=1),
        method="highs",
    )
    if found.status == 2:
        return -np.inf, np.zeros_like(program.gains)
    if found.status != 0:
        raise RuntimeError(f"HiGHS could not relax a DeepMAD program: {found.message}")
    return -float(found.fun), np.maximum(found.lower.marginals, 0.0)


def solve_program(program: Program, floor: float, excluded: list[Floats]) -> tuple[Floats, float] | None:
    """The whole x with the highest gain above the floor, and a bound on it; None where there is no other."""
    num_columns = len(program.columns)
    gains, rows, low, high, limits = _matrix(program, excluded)
    if np.isfinite(floor):
        scale = max(1.0, abs(floor))
        rows.append(np.concatenate([gains, np.zeros(rows[0].size - gains.size)]) / scale)
        low.append(floor / scale)
        high.append(np.inf)
    found = milp(
        -np.concatenate([gains, np.zeros(limits.size - gains.size)]),
        integrality=np.ones(limits.size),
        bounds=Bounds(np.zeros(limits.size), limits),
        constraints=LinearConstraint(csr_array(np.array(rows)), np.array(low), np.array(high)),
        options={"mip_rel_gap": 0.0},
    )
    if found.status == 2:
        return None
    if found.status != 0:
        raise RuntimeError(f"HiGHS could not solve a DeepMAD program: {found.message}")
    return np.round(found.x[:num_columns]), -float(found.mip_dual_bound)


def _matrix(
    program: Program, excluded: list[Floats]
) -> tuple[Floats, list[Floats], list[float], list[float], Floats]:
    """All rows with their ends, and with further columns that count in ones where solutions are excluded."""
    num_given, num_columns = program.gains.size, len(program.columns)
    ones = [column for column in range(num_columns) for _ in range(int(program.limits[column]))]
    width = num_given + (len(ones) if excluded else 0)
    given = np.concatenate([program.equal_rows, program.most_rows])
    rows = list(np.pad(given, ((0, 0), (0, width - num_given))))
    low = [*program.equal_to.tolist(), *[-np.inf] * len(program.at_most)]
    high = [*program.equal_to.tolist(), *program.at_most.tolist()]
    if excluded:
        for row, least, most in _count_in_ones(ones, num_given, width):
            rows.append(row)
            low.append(least)
            high.append(most)
        for solution in excluded:
            row, least = _cut(solution, ones, num_given, width)
            rows.append(row)
            low.append(least)
            high.append(np.inf)
    limits = np.concatenate([program.limits, np.ones(width - num_given)])
    return program.gains, rows, low, high, limits


def _count_in_ones(ones: list[int], start: int, width: int) -> Iterator[tuple[Floats, float, float]]:
    """Column = sum of its ones, and the ones come first: so each count has one spelling, which can be cut."""
    for column in dict.fromkeys(ones):
        places = [start + i for i, of in enumerate(ones) if of == column]
        row = np.zeros(width)
        row[column] = -1.0
        row[places] = 1.0
        yield row, 0.0, 0.0
        for first, second in pairwise(places):
            order = np.zeros(width)
            order[first], order[second] = 1.0, -1.0
            yield order, 0.0, np.inf


def _cut(solution: Floats, ones: list[int], start: int, width: int) -> tuple[Floats, float]:
    """At least one of the ones differs from the solution's."""
    row, num_set, seen = np.zeros(width), 0, dict.fromkeys(ones, 0)
    for place, column in enumerate(ones, start=start):
        is_set = seen[column] < solution[column]
        seen[column] += 1
        row[place] = -1.0 if is_set else 1.0
        num_set += int(is_set)
    return row, 1.0 - num_set
