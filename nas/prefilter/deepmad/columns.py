"""The columns of a program: the modes of each stage, and how many of a group of blocks take each option."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nas.errors import InvalidRequestError
from nas.prefilter.deepmad.part import Part, reduced
from nas.prefilter.deepmad.tables import Floats, ScoreTables, TermTable


@dataclass(frozen=True)
class ModeColumn:
    """Whether a stage is in this mode."""

    stage: str
    options: tuple[tuple[str, int], ...]
    """Option index of each decision that several of its terms share."""


@dataclass(frozen=True)
class OptionColumn:
    """How many terms of a group take this option."""

    terms: tuple[TermTable, ...]
    """Equal but for their place."""
    options: tuple[int, ...]
    """Option index of each of a term's own decisions, in the order of the space."""
    own_decisions: tuple[tuple[str, ...], ...]
    """Those decisions' names, for each of the terms."""


Column = ModeColumn | OptionColumn


@dataclass
class StageColumns:
    """Columns of one stage, with what each adds and the rows that bind them."""

    columns: list[Column]
    adds: list[Floats]
    limits: list[float]
    depths: list[int]
    rows: list[tuple[dict[int, float], float]]
    """By column of this stage its coefficient, and what the sum equals."""
    modes: list[int]
    """Columns that are modes."""


def stage_columns(tables: ScoreTables, stage: str, part: Part) -> StageColumns:
    terms = tables.stages[stage]
    own = {t.term.prefix: [n for n in t.term.decisions if n not in part.left] for t in terms}
    uses = [name for names in own.values() for name in names]
    gates = frozenset[str]().union(*(t.gates for t in terms))
    shared = [name for name in tables.sizes if uses.count(name) > 1 or name in gates & set(uses)]
    modes = list(product(*(range(tables.sizes[name]) for name in shared)))
    block = StageColumns([], [], [], [], [], list(range(len(modes))))
    adds_of_modes = np.zeros((len(modes), 2 * tables.num_taps + len(tables.cost_names)))
    depths = np.zeros(len(modes), dtype=np.int64)
    groups: list[tuple[Floats, list[TermTable], Floats]] = []
    for table in terms:
        adds, is_present = _term_adds(table, part)
        adds, is_present = _by_mode(adds, is_present, own[table.term.prefix], shared, modes)
        depths += is_present.any(axis=1) * int(table.is_block)
        if adds.shape[1] == 1:
            adds_of_modes += adds[:, 0]
            continue
        options = _one_for_all_modes(table, adds, is_present)
        count = np.asarray(is_present.any(axis=1), dtype=np.float64)
        for known, members, counts in groups:
            if np.array_equal(known, options):
                members.append(table)
                np.add(counts, count, out=counts)
                break
        else:
            groups.append((options, [table], count))
    for mode, adds_of_mode, depth in zip(modes, adds_of_modes, depths.tolist(), strict=True):
        block.columns.append(ModeColumn(stage, tuple(zip(shared, mode, strict=True))))
        block.adds.append(adds_of_mode)
        block.limits.append(1.0)
        block.depths.append(depth)
    block.rows.append((dict.fromkeys(block.modes, 1.0), 1.0))
    for options, members, counts in groups:
        _add_group(tables, block, options, members, counts, shared, part)
    return block


def _add_group(
    tables: ScoreTables, block: StageColumns, options: Floats, members: list[TermTable], counts: Floats,
    shared: list[str], part: Part,
) -> None:  # fmt: skip
    private = tuple(
        tuple(n for n in table.term.decisions if n not in part.left and n not in shared) for table in members
    )
    choices = product(*(range(tables.sizes[name]) for name in private[0]))
    coefficients = {mode: -float(count) for mode, count in zip(block.modes, counts, strict=True)}
    for choice, adds in zip(choices, options, strict=True):
        coefficients[len(block.columns)] = 1.0
        block.columns.append(OptionColumn(tuple(members), choice, private))
        block.adds.append(adds)
        block.limits.append(float(counts.max()))
    block.rows.append((coefficients, 0.0))


def _by_mode(
    adds: Floats,
    is_present: NDArray[np.bool_],
    own: list[str],
    shared: list[str],
    modes: list[tuple[int, ...]],
) -> tuple[Floats, NDArray[np.bool_]]:
    """The arrays with shape (modes, options of the decisions that are the term's alone, …)."""
    first = [axis for axis, name in enumerate(own) if name in shared]
    order = [*first, *(axis for axis, name in enumerate(own) if name not in shared)]
    picked = [tuple(mode[shared.index(own[axis])] for axis in first) for mode in modes]
    moved, present = adds.transpose(*order, adds.ndim - 1), is_present.transpose(*order)
    return (
        np.stack([moved[index].reshape(-1, adds.shape[-1]) for index in picked]),
        np.stack([np.asarray(present[index]).reshape(-1) for index in picked]),
    )


def _one_for_all_modes(table: TermTable, adds: Floats, is_present: NDArray[np.bool_]) -> Floats:
    """What the options add in every mode that has the term."""
    with_term = adds[is_present.any(axis=1)]
    if (with_term != with_term[0]).any():
        raise InvalidRequestError(
            f"what the choices of '{table.term.prefix}' add depends on what its stage shares; DeepMAD's "
            "program needs blocks that the depth alone switches on and off"
        )
    options: Floats = with_term[0]
    return options


def _term_adds(table: TermTable, part: Part) -> tuple[Floats, NDArray[np.bool_]]:
    """What the term adds at best, shape (own options …, 2 · num_taps + num_costs); whether it is there."""
    log_widths = reduced(table.log_widths, table, part.left).max(axis=0)
    costs = reduced(table.costs, table, part.left).min(axis=0)
    num_convs = reduced(table.num_convs, table, part.left)
    is_present = reduced(table.is_present, table, part.left)
    if (num_convs != num_convs[0]).any() or (is_present != is_present[0]).any():
        raise InvalidRequestError(
            f"the number of convolutions in '{table.term.prefix}' depends on a width or the resolution; "
            "DeepMAD's program needs a space where it does not"
        )
    return np.concatenate([log_widths, num_convs[0], costs], axis=-1), is_present[0]
