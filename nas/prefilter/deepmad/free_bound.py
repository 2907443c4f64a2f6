"""An upper bound on every network of free widths that keeps a task: Lagrangian relaxation, solved exactly.

Multipliers price FLOPs, parameters and effectiveness; what is left is a sum over stages once the weight U
of a stage's entropy is known, U = Σ α_i · ln(c_i · r_i²) over the taps behind it. Stages are decided from
the last to the first; the state is the width that a stage reads and U, rounded *up* to a step. Inside a
stage the price is linear in the depth, so that only its ends matter, and concave in the inner width b,
a·ln b − A·b² − B·b, whose maximum has a closed form. Every choice of multipliers gives a valid bound; a
search lowers it.

The least Σ ln width that effectiveness allows is convex in depth; its tangent is below it at every depth.
The penalty is at least 10. Inner widths count as continuous, and widths may be grouped: a group adds the
entropy of its widest and the costs of its narrowest.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from scipy.optimize import minimize

from nas.prefilter.deepmad.free_widths import (
    LAST_TAP_WEIGHT,
    PENALTY_WEIGHT,
    STEM_LOG_WIDTH,
    Floats,
    FreeTask,
    Ints,
    tangent,
)


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Prices of what the task limits; each times its limit is in units of the objective."""

    flops: float
    params: float
    log_width: float
    """Of Σ ln width at the output, where effectiveness is bounded."""
    num_convs: float
    """Depth at which the tangent of that bound touches it."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How finely widths and weights are told apart."""

    low: Floats
    """The narrowest width of each group."""
    high: Floats
    """The widest."""
    step: float
    """Of U."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A proved upper bound on the objective of every network that keeps the task."""

    bound: float
    multipliers: Multipliers


def certify(task: FreeTask, start: Multipliers, *, evaluations: int = 120, step: float = 0.25) -> Certificate:
    """The bound at multipliers sought from `start` on a coarse grid, evaluated once on all multiples of 8.

    Valid for every `Monotone`, since none is asked of the networks that it covers. The result is the less of
    the bound at the start and the bound found.
    """
    coarse = grid(task, ratio=1.05, step=0.5)

    def bound_at(logs: Floats) -> float:
        return upper_bound(task, _from_logs(logs), coarse)

    first = np.log([start.flops, start.params, start.log_width, start.num_convs])
    # A first simplex of 20 % a side: the start is good to about that.
    simplex = np.concatenate([first[None], first + 0.2 * np.eye(4)])
    found = minimize(
        bound_at, first, method="Nelder-Mead", options={"maxfev": evaluations, "initial_simplex": simplex}
    )
    multipliers = _from_logs(found.x)
    return Certificate(upper_bound(task, multipliers, grid(task, ratio=1.0, step=step)), multipliers)


def multipliers_near(objective: float, num_convs: float) -> Multipliers:
    """Where to start from, given a network that keeps the task: shares that bounds of such tasks have."""
    return Multipliers(0.17 * objective, 0.28 * objective, 0.005 * objective, num_convs)


def _from_logs(logs: Floats) -> Multipliers:
    """The search is over logarithms, so that every point is a valid set of multipliers."""
    flops, params, log_width, num_convs = np.exp(logs).tolist()
    return Multipliers(flops, params, log_width, num_convs)


def grid(task: FreeTask, *, ratio: float, step: float) -> Grid:
    """Multiples of 8 up to the widest, in groups whose widest is at most `ratio` times their narrowest."""
    low, high = [8], [8]
    for width in range(16, task.max_width + 1, 8):
        if width <= ratio * low[-1]:
            high[-1] = width
        else:
            low.append(width)
            high.append(width)
    return Grid(np.array(low, dtype=np.float64), np.array(high, dtype=np.float64), step)


def upper_bound(task: FreeTask, multipliers: Multipliers, grid: Grid) -> float:
    """No network that keeps the task has a higher objective."""
    slope, at_zero = tangent(task, multipliers.num_convs)
    price_flops, price_params = multipliers.flops / task.max_flops, multipliers.params / task.max_params
    prices = _Prices(price_flops, price_params, multipliers.log_width, slope)
    sides, taps = task.sides_px(), task.tap_stages()
    # Widths of the output give the first weights; `levels` numbers the steps of U from 0.
    last: Floats = LAST_TAP_WEIGHT * np.log(grid.high * sides[-1] ** 2)
    most = float(last.max()) + sum(log(task.max_width * sides[i] ** 2) for i in taps[:-1])
    levels = np.arange(int(most / grid.step) + 2 + len(taps), dtype=np.float64) * float(grid.step)
    values = np.full((len(grid.low), len(levels)), -np.inf)
    values[np.arange(len(grid.low)), _level(last, grid.step)] = 0.0
    for stage in range(task.num_stages, 0, -1):
        values = _before_stage(task, stage, values, levels, prices, grid)
        if stage - 1 in taps and stage > 1:
            values = _shifted(values, np.log(grid.high * sides[stage - 1] ** 2), grid.step)
    stems = grid.low <= task.max_stem
    weights = levels[None, :] + np.log(grid.high * sides[0] ** 2)[:, None]
    area = sides[0] ** 2
    costs = grid.low * (30 * area * price_flops + 29 * price_params)
    gains = (weights / 2 + multipliers.log_width) * STEM_LOG_WIDTH - multipliers.log_width * slope
    total = (values + gains - costs[:, None])[stems].max()
    constant = multipliers.flops + multipliers.params - multipliers.log_width * at_zero - PENALTY_WEIGHT
    return float(total + constant)


@dataclass(frozen=True, slots=True)
class _Prices:
    flops: float
    params: float
    log_width: float
    slope: float
    """Of the tangent: Σ ln width that one more convolution asks for."""


def _before_stage(
    task: FreeTask, stage: int, values: Floats, levels: Floats, prices: _Prices, grid: Grid
) -> Floats:
    """For each width read and level the best that this stage and those behind it add."""
    before = np.full_like(values, -np.inf)
    outs, at = np.nonzero(np.isfinite(values))
    for read in range(len(grid.low)):
        if stage == 1 and grid.low[read] > task.max_stem:
            break
        # A narrow stage behind this width is all that the growth allows.
        near = grid.low[outs] <= task.max_growth * grid.high[read]
        out, level = outs[near], at[near]
        gain = _stage_gain(task, stage, read, out, levels[level], prices, grid)
        np.maximum.at(before[read], level, values[out, level] + gain)
    return before


def _stage_gain(
    task: FreeTask, stage: int, read: int, out: Ints, weights: Floats, prices: _Prices, grid: Grid
) -> Floats:
    """The most that the stage adds, over depth, kernel and inner width, for groups of output widths."""
    sides = task.sides_px()
    area_in, area = float(sides[stage - 1] ** 2), float(sides[stage] ** 2)
    is_pooled = task.strides[stage - 1] > 1
    width, low, high = grid.low[read], grid.low[out], grid.high[out]
    entropy = weights / 2 + prices.log_width
    flops, params = prices.flops, prices.params
    per_number = area * flops + params
    first = width * (area_in * flops + params) + low * per_number
    first += 3 * (area_in + area) * flops + 4 * params
    later = 2 * low * per_number + 6 * area * flops + 4 * params
    fixed_first = width * low * per_number + low * (6 * area * flops + 4 * params)
    fixed_first += width * area_in * flops * is_pooled
    fixed_later = low * (3 * area * flops + 2 * params)
    narrowest, log_read, log_high = (
        np.maximum(8.0, low / task.max_narrowing),
        np.log(grid.high[read]),
        np.log(high),
    )
    best = np.full(len(out), -np.inf)
    for depth in {task.min_depths[stage - 1], task.max_depths[stage - 1]}:
        linear = first + (depth - 1) * later
        fixed = fixed_first + (depth - 1) * fixed_later + 3 * depth * prices.log_width * prices.slope
        fixed = fixed - entropy * (log_read + (depth - 1) * log_high)
        for kernel in task.kernels:
            square = depth * kernel**2 * per_number
            log_factor = 2 * depth * entropy
            inner = (np.sqrt(linear**2 + 8 * square * log_factor) - linear) / (4 * square)
            inner = np.clip(inner, narrowest, high)
            gain = log_factor * np.log(inner * kernel) - inner * (square * inner + linear) - fixed
            np.maximum(best, gain, out=best)
    return best


def _level(weights: Floats, step: float) -> Ints:
    """The least level at or above each weight."""
    levels: Ints = np.ceil(weights / step).astype(np.int64)
    return levels


def _shifted(values: Floats, sizes: Floats, step: float) -> Floats:
    """Values at the level that a tap of these sizes lifts U to, rounded up."""
    moved = np.full_like(values, -np.inf)
    for row, by in enumerate(_level(sizes, step).tolist()):
        moved[row, by:] = values[row, : values.shape[1] - by]
    return moved
