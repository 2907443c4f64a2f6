"""What the bounded costs of branches are at least, and which of their options no network within has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from nas.prefilter.answers import ROUNDING
from nas.prefilter.branch_rows import ROOM, Chord, Rows, log_of, strain
from nas.prefilter.elimination import merged_tables
from nas.prefilter.option_minima import OptionMinima, Upward
from nas.search.branches import AdditiveFloor, Branches, OptionLayout
from nas.search.cost_model import CostParts, PartKind, ScaledParts
from nas.space import SearchSpace

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SplitBranches:
    """Branches, each of one option of the decision that tables are split by."""

    branches: Branches
    splits: Ints
    """That option, shape (n,); 0 where nothing is split."""

    def __len__(self) -> int:
        return len(self.splits)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> SplitBranches:
        """Some of them."""
        return SplitBranches(self.branches.take(rows), self.splits[rows])


@dataclass(frozen=True, kw_only=True)
class Caps:
    """What networks that are looked for cost at most; infinite where there is no bound."""

    scaled: Floats
    """In the order of `BranchFloors.scaled`."""
    sums: Floats
    maxima: Floats


@dataclass(frozen=True, kw_only=True)
class Narrowed:
    """Branches without the options, and without the branches, that no network within the caps has."""

    branches: SplitBranches
    lows: dict[str, Floats]
    """By cost that is a sum, scaled or not, what networks with an option cost at least, (n, options)."""
    strain: Floats
    """How much of the way to its cap an option takes a cost, at most, shape (n, options)."""
    of_mixes: Floats
    """By mix how far it is above what is allowed, shape (n, mixes)."""
    codes: Ints
    """Networks at which sums are at their least: worth a look, shape (m, decisions)."""


class BranchFloors:
    """Of the networks of a space with bounded costs that are all sums, maxima, or scaled sums of parts."""

    def __init__(self, space: SearchSpace, parts: Mapping[str, CostParts | ScaledParts]) -> None:
        """`parts` by name, of every bounded cost."""
        self.scaled = {name: cost for name, cost in parts.items() if isinstance(cost, ScaledParts)}
        plain = {name: cost for name, cost in parts.items() if isinstance(cost, CostParts)}
        self.sums = [name for name, cost in plain.items() if cost.kind is PartKind.SUM]
        self.maxima = [name for name, cost in plain.items() if cost.kind is PartKind.MAX]
        under = [CostParts(PartKind.SUM, cost.parts) for cost in self.scaled.values()]
        figures = [figure for cost in self.scaled.values() for figure in cost.log_factor.figures]
        costs = [*under, *(plain[name] for name in self.sums), *figures, *(plain[n] for n in self.maxima)]
        merged = merged_tables(space, costs)
        self.layout = OptionLayout.of(space)
        self.minima = OptionMinima.of(self.layout, tuple(merged))
        tables = self.minima.split_tables(merged.values())
        ends = np.cumsum([len(under) + len(self.sums), len(figures)])
        self._sums = [table[:, : ends[0]] for table in tables]
        self._figures = [table[:, ends[0] : ends[1]] for table in tables]
        self._maxima = [table[:, ends[1] :] for table in tables]
        self.most = np.sum([table.max(axis=(0, 2)) for table in self._sums], axis=0)
        """No network costs more, by sum: the scaled ones, before they are scaled, first."""

    def roots(self) -> SplitBranches:
        """All networks: a branch for each option of the decision that is split by."""
        branches = Branches.whole(self.layout)
        if self.minima.split is None:
            return SplitBranches(branches, np.zeros(1, dtype=np.int64))
        splits = np.arange(self.minima.num_splits)
        allowed = np.repeat(branches.allowed, len(splits), axis=0)
        allowed[:, self.layout.options_of(self.minima.split)] = np.eye(len(splits), dtype=np.bool_)
        return SplitBranches(Branches(self.layout, allowed), splits)

    def narrow(self, branches: SplitBranches, caps: Caps, mixes: Floats) -> Narrowed | None:
        """The branches as far as networks within the caps may be in them; None where there are none.

        `mixes` (n, mixes, sums) are weights of the sums, the scaled ones first, as parts of their caps: they
        see that costs trade off.
        """
        barred = self._barred(caps)
        rows, is_within = self._rows(branches, caps, mixes, barred)
        branches, rows = branches.take(is_within), rows.take(is_within)
        if not len(branches):
            return None
        upward = self._pass_up(branches, rows.weights, rows.added, barred)
        least = upward.least.reshape(rows.offset.shape) + rows.offset
        is_within = np.all((least <= rows.most) & (least < inf), axis=1)
        if not is_within.any():
            return None
        branches, rows, least = branches.take(is_within), rows.take(is_within), least[is_within]
        upward = upward.take(np.repeat(is_within, rows.offset.shape[1]))
        by_option = upward.by_option().reshape(rows.added.shape) + rows.offset[:, :, None]
        is_kept = ((by_option <= rows.most[:, :, None]) & (by_option < inf)).all(axis=1)
        left = Branches(self.layout, branches.branches.allowed & is_kept)
        return Narrowed(
            branches=SplitBranches(left, branches.splits),
            lows=self._lows(by_option),
            strain=strain(by_option, least, rows.most),
            of_mixes=(least - rows.most)[:, len(self.scaled) + len(self.sums) :],
            codes=self._codes(upward, len(branches)),
        )

    # Rows

    def _rows(
        self, branches: SplitBranches, caps: Caps, mixes: Floats, barred: list[Floats]
    ) -> tuple[Rows, NDArray[np.bool_]]:
        """The scaled sums by their chords, the sums, and the mixes of them; and in which branches networks
        may be by the scaled sums alone."""
        num, num_scaled, num_sums = len(branches), len(self.scaled), len(self.sums)
        excluded = np.where(branches.branches.allowed, 0.0, inf)
        floors = self._factor_floors(branches, excluded, barred)
        chords, is_within = self._chords(branches, excluded, caps, floors, barred)
        weights = np.zeros((num, num_scaled + num_sums, num_scaled + num_sums))
        added = np.zeros((num, num_scaled + num_sums, excluded.shape[1]))
        offset = np.zeros((num, num_scaled + num_sums))
        most = np.tile(np.concatenate([log_of(caps.scaled) + ROOM, caps.sums * (1 + ROUNDING)]), (num, 1))
        for row, (chord, floor) in enumerate(zip(chords, floors, strict=True)):
            weights[:, row, row] = chord.slope
            added[:, row] = floor.by_option
            offset[:, row] = chord.start + floor.constant
        for row in range(num_scaled, num_scaled + num_sums):
            weights[:, row, row] = 1.0
        rows = Rows(weights=weights, added=added, offset=offset, most=most).with_mixes(mixes, num_scaled)
        return replace(rows, added=rows.added + excluded[:, None, :]), is_within

    def _factor_floors(
        self, branches: SplitBranches, excluded: Floats, barred: list[Floats]
    ) -> list[AdditiveFloor]:
        lows, highs = self._figures_between(branches, excluded, barred)
        floors, start = [], 0
        for cost in self.scaled.values():
            own = slice(start, start + len(cost.log_factor.figures))
            floor = cost.log_factor.floor(branches.branches, lows[:, own], highs[:, own])
            # Of options that are not allowed it says nothing, and of branches without networks all there is.
            is_said = branches.branches.allowed & (floor.by_option < inf)
            by_option = np.where(is_said, floor.by_option, 0.0)
            floors.append(AdditiveFloor(floor.constant, by_option))
            start = own.stop
        return floors

    def _figures_between(
        self, branches: SplitBranches, excluded: Floats, barred: list[Floats]
    ) -> tuple[Floats, Floats]:
        """The least and the most of every figure, each (n, figures)."""
        num_figures = self._figures[0].shape[1]
        if not num_figures:
            nothing = np.zeros((len(branches), 0))
            return nothing, nothing
        signs = np.concatenate([np.eye(num_figures), -np.eye(num_figures)])
        weights = np.tile(signs, (len(branches), 1, 1))
        added = np.repeat(excluded[:, None, :], len(signs), axis=1)
        ends = self._pass_up(branches, weights, added, barred, self._figures).least
        # Of branches without any network nothing is asked.
        ends = np.where(ends < inf, ends, 0.0)
        low, high = np.split(ends.reshape(len(branches), -1), 2, axis=1)
        return low * (1 - ROUNDING), -high * (1 + ROUNDING)

    def _chords(
        self,
        branches: SplitBranches,
        excluded: Floats,
        caps: Caps,
        floors: list[AdditiveFloor],
        barred: list[Floats],
    ) -> tuple[list[Chord], NDArray[np.bool_]]:
        """By scaled sum the chord between its least and the most that it can be within the cap."""
        num = len(floors)
        is_within = np.ones(len(branches), dtype=np.bool_)
        if not num:
            return [], is_within
        weights = np.zeros((len(branches), 2 * num, self._sums[0].shape[1]))
        weights[:, np.arange(num), np.arange(num)] = 1.0
        factors = [floor.by_option + excluded for floor in floors]
        added = np.stack([*[excluded] * num, *factors], axis=1)
        least = self._pass_up(branches, weights, added, barred).least.reshape(len(branches), -1)
        chords = []
        for row, floor in enumerate(floors):
            low, log_factor = least[:, row], floor.constant + least[:, num + row]
            log_most = log_of(caps.scaled[row]) - log_factor
            is_within &= log_of(low) <= log_most + ROOM
            high = np.exp(np.minimum(log_most + ROOM, log_of(self.most[row])))
            chords.append(Chord.between(low, high))
        return chords, is_within

    def _barred(self, caps: Caps) -> list[Floats]:
        """By scope, infinite where a maximum's part is above its cap, else 0: shape (splits, 1, cells)."""
        most = (caps.maxima * (1 + ROUNDING))[:, None]
        return [
            np.where((table > most).any(axis=1, keepdims=True), inf, 0.0) if table.size else np.zeros(1)
            for table in self._maxima
        ]

    def _pass_up(
        self,
        branches: SplitBranches,
        weights: Floats,
        added: Floats,
        barred: list[Floats],
        tables: list[Floats] | None = None,
    ) -> Upward:
        """Weighted sums of the tables, shape (n, k, tables): n times k of them."""
        num, num_rows = weights.shape[:2]
        mixed = []
        for table, bar in zip(self._sums if tables is None else tables, barred, strict=True):
            whole = weights @ (table[branches.splits] if len(table) > 1 else table)
            if bar.ndim > 1:
                whole += bar[branches.splits]
            mixed.append(whole.reshape(num * num_rows, -1))
        splits = np.repeat(branches.splits, num_rows)
        return self.minima.pass_up(splits, mixed, added.reshape(num * num_rows, -1))

    # Read-outs

    def _lows(self, by_option: Floats) -> dict[str, Floats]:
        lows = {name: np.exp(by_option[:, row] - ROOM) for row, name in enumerate(self.scaled)}
        start = len(self.scaled)
        sums = {name: by_option[:, start + row] * (1 - ROUNDING) for row, name in enumerate(self.sums)}
        return lows | sums

    def _codes(self, upward: Upward, num: int) -> Ints:
        """Of all rows but those of the sums, which are at their least where other costs are not looked at;
        of those too where there is nothing else."""
        num_rows = len(upward.splits) // num
        is_worth = np.ones(num_rows, dtype=np.bool_)
        if len(self.scaled) + len(self.sums) < num_rows or self.scaled:
            is_worth[len(self.scaled) : len(self.scaled) + len(self.sums)] = False
        return np.unique(upward.take(np.tile(is_worth, num)).codes(), axis=0)
