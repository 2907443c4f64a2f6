"""The integer program of one part of a space: best entropy less penalty under budgets and effectiveness.

A part keeps some options of every context decision (`nas.prefilter.deepmad.tables`). Where one is left of
each, the program is exact: its integer optimum is that of the part. Where several are, every block adds the
most entropy and the least cost that any of them allows, so that its optimum is a bound on all of them.

Columns: for each stage one of its modes (depth, and what else several of its blocks share), and for each
group of blocks that are the same but for their place, how many of them take each option. The order of equal
blocks does not matter, so none is decided. Rows: one mode a stage; as many options as the mode has blocks;
budgets; effectiveness at every tap; the depths' sum and sum of squares, whose pairs carry the penalty.

Effectiveness ρ ≤ ρ0 is Σ ln width ≥ l · ln(l / ρ0), convex in the number l of convolutions, which is whole:
the secants between neighbouring whole numbers say exactly that, as linear rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from nas.errors import InvalidRequestError
from nas.prefilter.deepmad.backbone import Tap
from nas.prefilter.deepmad.columns import Column, StageColumns, stage_columns
from nas.prefilter.deepmad.part import Part, reduced
from nas.prefilter.deepmad.score import DepthSpread, ScoreRules, needed_log_width
from nas.prefilter.deepmad.tables import Floats, ScoreTables


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What the networks must keep, and how they are scored."""

    budgets: Mapping[str, float] = field(default_factory=dict)
    """Upper limits of additive costs by name; none by default."""
    max_effectiveness: float | None = None
    """Upper limit of DeepMAD's ρ; None for no limit."""
    rules: ScoreRules = field(default_factory=ScoreRules)

    def __post_init__(self) -> None:
        limits = dict(self.budgets)
        if self.max_effectiveness is not None:
            limits["effectiveness"] = self.max_effectiveness
        for name, limit in limits.items():
            if not 0 < limit < float("inf"):
                raise InvalidRequestError(
                    f"max_{name} {limit!r} is not a finite number above 0; correct it or leave it out"
                )


@dataclass(frozen=True)
class Program:
    """Maximise `gains` · x over whole x between 0 and `limits`, with linear rows.

    The columns beyond `columns` choose the pair of depth sums.
    """

    columns: tuple[Column, ...]
    gains: Floats
    limits: Floats
    """The most that each column can be."""
    equal_rows: Floats
    equal_to: Floats
    most_rows: Floats
    """Rows that are at most `at_most`."""
    at_most: Floats


def make_program(tables: ScoreTables, part: Part, demand: Demand) -> Program:
    """The program of a part of the space."""
    stages = [stage_columns(tables, stage, part) for stage in tables.stages]
    columns = tuple(column for stage in stages for column in stage.columns)
    adds = np.array([add for stage in stages for add in stage.adds])
    num_taps, num_columns = tables.num_taps, len(columns)
    starts = np.cumsum([0, *(len(stage.columns) for stage in stages)])
    pairs = _depth_pairs(tables, stages, starts.tolist(), demand.rules)

    equal_rows, equal_to = [], []
    for stage, start in zip(stages, starts, strict=False):
        for coefficients, right in stage.rows:
            row = np.zeros(num_columns + len(pairs.penalties))
            row[start + np.array(list(coefficients), dtype=np.int64)] = list(coefficients.values())
            equal_rows.append(row)
            equal_to.append(right)
    for row, right in pairs.rows(num_columns):
        equal_rows.append(row)
        equal_to.append(right)

    log_widths = np.cumsum(adds[:, :num_taps], axis=1)
    num_convs = np.cumsum(adds[:, num_taps : 2 * num_taps], axis=1)
    limits = np.array([limit for stage in stages for limit in stage.limits])
    most_rows, at_most = [], []
    for index, name in enumerate(tables.cost_names):
        limit = demand.budgets.get(name)
        if limit is not None:
            most_rows.append(adds[:, 2 * num_taps + index] / limit)
            at_most.append(1.0)
    if demand.max_effectiveness is not None:
        for tap in range(num_taps):
            reach = _reach(stages, starts.tolist(), num_convs[:, tap])
            for row, right in _secants(
                log_widths[:, tap], num_convs[:, tap], demand.max_effectiveness, reach
            ):
                most_rows.append(row)
                at_most.append(right)

    all_depths = np.concatenate(
        [[*stage.depths, *[0] * (len(stage.limits) - len(stage.depths))] for stage in stages]
    )
    least, most = part.num_blocks
    most_rows += [all_depths, -all_depths]
    at_most += [float(most), -float(least)]

    sizes = _tap_sizes(tables, part, demand.rules) * demand.rules.tap_weights(num_taps)
    gains = log_widths @ sizes / 2
    wide = np.zeros((len(most_rows), num_columns + len(pairs.penalties)))
    wide[:, :num_columns] = most_rows
    return Program(
        columns=columns,
        gains=np.concatenate([gains, -np.array(pairs.penalties)]),
        limits=np.concatenate([limits, np.ones(len(pairs.penalties))]),
        equal_rows=np.array(equal_rows),
        equal_to=np.array(equal_to),
        most_rows=wide,
        at_most=np.array(at_most),
    )


def _tap_sizes(tables: ScoreTables, part: Part, rules: ScoreRules) -> Floats:
    """For each tap the largest ln(channels · side²) in the part."""
    sizes = np.full(tables.num_taps, -np.inf)
    for table in tables.terms:
        for number, tensors in table.taps.items():
            left = {tap for tap in reduced(tensors, table, part.left).ravel() if isinstance(tap, Tap)}
            sizes[number] = max([sizes[number], *map(rules.log_size, left)])
    return sizes


# Rows


def _reach(stages: list[StageColumns], starts: list[int], amounts: Floats) -> tuple[int, int]:
    """The least and the most that Σ amounts · x can be, all amounts whole."""
    least, most = 0.0, 0.0
    for stage, start in zip(stages, starts, strict=False):
        in_modes = [_reach_of_mode(stage, mode, amounts[start:]) for mode in stage.modes]
        least += min(low for low, _ in in_modes)
        most += max(high for _, high in in_modes)
    return round(least), round(most)


def _reach_of_mode(stage: StageColumns, mode: int, amounts: Floats) -> tuple[float, float]:
    low = high = float(amounts[mode])
    for coefficients, _ in stage.rows[1:]:
        options = [float(amounts[column]) for column, factor in coefficients.items() if factor > 0]
        low -= coefficients[mode] * min(options)
        high -= coefficients[mode] * max(options)
    return low, high


def _secants(
    log_widths: Floats, num_convs: Floats, max_effectiveness: float, reach: tuple[int, int]
) -> Iterator[tuple[Floats, float]]:
    """Rows that say Σ ln width ≥ l · ln(l / ρ0) for every whole l within reach."""
    least, most = reach
    for number in range(max(1, least), max(1, least, most - 1) + 1):
        needed = needed_log_width(number, max_effectiveness)
        slope = needed_log_width(number + 1, max_effectiveness) - needed
        yield slope * num_convs - log_widths, slope * number - needed


@dataclass(frozen=True)
class _DepthPairs:
    """The pairs (Σ depth, Σ depth²) that the penalised stages can have, and what each costs."""

    sums: tuple[tuple[int, int], ...]
    penalties: tuple[float, ...]
    depths: Floats
    """Depth of each column that is a mode of a penalised stage, 0 of others."""

    def rows(self, num_columns: int) -> Iterator[tuple[Floats, float]]:
        """One pair is chosen, and it is that of the chosen modes."""
        if not self.sums:
            return
        pairs = np.array(self.sums, dtype=np.float64)
        yield np.concatenate([np.zeros(num_columns), np.ones(len(pairs))]), 1.0
        yield np.concatenate([self.depths, -pairs[:, 0]]), 0.0
        yield np.concatenate([self.depths**2, -pairs[:, 1]]), 0.0


def _depth_pairs(
    tables: ScoreTables, stages: list[StageColumns], starts: list[int], rules: ScoreRules
) -> _DepthPairs:
    names = [name for name, terms in tables.stages.items() if any(t.is_block for t in terms)]
    penalised = names[len(names) - rules.num_penalised(len(names), has_depthwise=tables.has_depthwise) :]
    depths = np.zeros(sum(len(stage.columns) for stage in stages))
    reachable: dict[tuple[int, int], tuple[int, ...]] = {(0, 0): ()}
    for name, stage, start in zip(tables.stages, stages, starts, strict=False):
        if name in penalised:
            depths[start : start + len(stage.depths)] = stage.depths
            reachable = {
                (total + depth, squares + depth**2): (*chosen, depth)
                for (total, squares), chosen in reachable.items()
                for depth in sorted(set(stage.depths))
            }
    if rules.spread is DepthSpread.NONE or not penalised:
        return _DepthPairs((), (), depths)
    penalties = {pair: rules.penalty(chosen) for pair, chosen in reachable.items()}
    # The paper's penalty overflows for depths that no network of interest has.
    kept = {pair: penalty for pair, penalty in penalties.items() if np.isfinite(penalty)}
    return _DepthPairs(tuple(kept), tuple(kept.values()), depths)
