"""Fits latency models to whole networks, and chooses between them by cross-validation within these.

Sums are fitted by non-negative least squares on relative errors: no block takes less than no time, and a
small network's error counts as much as a large one's. What the sum leaves over is fitted on a logarithm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from nas.devices.accuracy import compare, relative_error
from nas.devices.basis import Basis, block_figures
from nas.devices.blocks import Operation
from nas.devices.device import Device
from nas.devices.model import LatencyModel
from nas.devices.parts import Codes, Floats, NetworkBlocks
from nas.devices.residual import Interactions, Residual, ResidualInputs, chosen_options
from nas.devices.table import LatencyTable
from nas.errors import InvalidRequestError

MIN_NETWORKS = 20
"""Fewer whole networks tell too little of how a device adds blocks up."""
_FOLDS = 5
_STRENGTHS = (0.03, 0.3, 3.0)
_LEAST_SHARE = 1e-3
"""A sum below this part of the measured time says nothing to multiply."""

Rows = NDArray[np.int64]


class GrowTrees(Protocol):
    """Boosted trees for the logarithm of a factor, as `nas.devices.boosting` grows them."""

    def __call__(self, inputs: ResidualInputs, log_factor: Floats, *, seed: int) -> Residual:
        """The same trees for the same seed."""


class ResidualKind(StrEnum):
    """What follows the sum over blocks, from the plainest on."""

    NONE = "none"
    INTERACTIONS = "interactions"
    TREES = "trees"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One form that a model may take."""

    residual: ResidualKind
    basis: Basis
    drop_dead: bool
    strength: float = 0.0
    """Of the interactions' penalty."""


@dataclass(frozen=True, kw_only=True)
class MeasuredNetworks:
    """Whole networks of one space and their times on one device."""

    device: Device
    networks: NetworkBlocks
    codes: Codes
    """Shape (n, number of decisions)."""
    latency_ms: Floats
    """Medians of the whole batch, shape (n,)."""

    def __post_init__(self) -> None:
        """Refuse times that are none, lists that do not belong together, networks told twice."""
        shape = (len(self.latency_ms), len(self.networks.space.decisions))
        if self.codes.shape != shape:
            raise InvalidRequestError(
                f"codes of shape {self.codes.shape} do not fit {shape[0]} times and the {shape[1]} decisions "
                f"of space '{self.networks.space.name}'; give one row of codes for each time"
            )
        wrong = ~(np.isfinite(self.latency_ms) & (self.latency_ms > 0))
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise InvalidRequestError(
                f"latency_ms {self.latency_ms[first]} of network {first} is not a finite number above 0; "
                "leave the network out"
            )
        # One network on both sides of a split would judge by what it taught.
        chosen = chosen_options(self.networks.space, self.codes)
        if len(np.unique(chosen, axis=0)) < len(chosen):
            raise InvalidRequestError(
                f"{len(chosen)} measurements hold a network more than once; give each network one time"
            )

    def __len__(self) -> int:
        return len(self.latency_ms)

    def times_ms(self) -> dict[str, float]:
        """By the key of the network; of two spellings of one network the one measured last."""
        space = self.networks.space
        keys = [space.canonical(space.decode(code)).key for code in self.codes]
        return dict(zip(keys, self.latency_ms.tolist(), strict=True))

    def rows(self, rows: Rows) -> MeasuredNetworks:
        """Some of the networks."""
        return replace(self, codes=self.codes[rows], latency_ms=self.latency_ms[rows])


def fit_latency(
    measured: MeasuredNetworks,
    *,
    table: LatencyTable | None = None,
    grow_trees: GrowTrees | None = None,
    seed: int = 0,
) -> LatencyModel:
    """The model of the candidate that cross-validation chooses, fitted to all of the networks.

    Candidates are the bases, with the table's where one is given; each alone, with interactions, and with
    trees where they can be grown. `accuracy` stays None: these networks cannot tell it.
    """
    _check_count(measured, table)
    fitter = _Fitter(measured, table, grow_trees, seed)
    everything = np.arange(len(measured))
    return fitter.fit(fitter.choose(), everything)


def fit_and_judge(
    measured: MeasuredNetworks,
    *,
    table: LatencyTable | None = None,
    grow_trees: GrowTrees | None = None,
    held_out_share: float = 0.3,
    seed: int = 0,
) -> LatencyModel:
    """The model chosen and fitted on a random part of the networks, with its accuracy on all the others."""
    order = np.random.default_rng(seed).permutation(len(measured))
    num_held_out = round(held_out_share * len(measured))
    model = fit_latency(measured.rows(order[num_held_out:]), table=table, grow_trees=grow_trees, seed=seed)
    return judged(model, measured.rows(order[:num_held_out]))


def judged(model: LatencyModel, others: MeasuredNetworks) -> LatencyModel:
    """The model with its accuracy on networks that it was not fitted to."""
    return replace(
        model, accuracy=compare(model.predict_ms(others.networks, others.codes), others.latency_ms)
    )


def _check_count(measured: MeasuredNetworks, table: LatencyTable | None) -> None:
    if len(measured) < MIN_NETWORKS:
        raise InvalidRequestError(
            f"{len(measured)} networks are too few to fit a latency model to; measure {MIN_NETWORKS} or more"
        )
    if table is not None and table.device != measured.device:
        raise InvalidRequestError(
            f"the table is of {table.device} and the networks of {measured.device}; measure both alike"
        )


@dataclass(frozen=True)
class _Fitter:
    """Reads the networks once, and fits any candidate to any part of them."""

    measured: MeasuredNetworks
    table: LatencyTable | None
    grow_trees: GrowTrees | None
    seed: int

    def choose(self) -> Candidate:
        """The plainest candidate that is no worse than the best by more than chance.

        That is by one standard error of the difference over networks (Breiman et al., "Classification and
        Regression Trees", 1984, section 3.4.3, there of the error itself).
        """
        candidates = list(self._candidates())
        errors = np.array([self._validated_error(candidate) for candidate in candidates])
        excess = errors - errors[errors.mean(axis=1).argmin()]
        deviation = excess.std(axis=1, ddof=1) / np.sqrt(excess.shape[1])
        is_as_good = excess.mean(axis=1) <= deviation
        # Of candidates equally plain, the better one.
        plainness = [[*ResidualKind].index(c.residual) for c in candidates]
        ranked = sorted(np.flatnonzero(is_as_good), key=lambda i: (plainness[i], errors[i].mean()))
        return candidates[ranked[0]]

    def fit(self, candidate: Candidate, rows: Rows) -> LatencyModel:
        """The candidate fitted to some of the networks."""
        times = self.measured.latency_ms[rows]
        sums = self._sums[candidate.basis, candidate.drop_dead][rows]
        base_ms, factors = _non_negative(sums, times)
        names = block_figures(candidate.basis, self.table).names
        residual = self._fit_residual(candidate, rows, times, base_ms + sums @ factors)
        return LatencyModel(
            device=self.measured.device,
            space_fingerprint=self.measured.networks.space.fingerprint,
            basis=candidate.basis,
            drop_dead=candidate.drop_dead,
            base_ms=base_ms,
            factors={name: float(f) for name, f in zip(names, factors, strict=True) if f > 0},
            operations=self._operations(drop_dead=candidate.drop_dead),
            table=self.table if candidate.basis is not Basis.WORK else None,
            residual=residual,
        )

    def _fit_residual(
        self, candidate: Candidate, rows: Rows, times: Floats, sums_ms: Floats
    ) -> Residual | None:
        if candidate.residual is ResidualKind.NONE:
            return None
        inputs = self._inputs[candidate.drop_dead].rows(rows)
        log_factor = np.log(times / np.maximum(sums_ms, _LEAST_SHARE * times))
        if candidate.residual is ResidualKind.INTERACTIONS:
            return Interactions.fit(inputs, log_factor, strength=candidate.strength)
        assert self.grow_trees is not None, "trees are a candidate only where they can be grown"
        return self.grow_trees(inputs, log_factor, seed=self.seed)

    def _validated_error(self, candidate: Candidate) -> Floats:
        """Relative error of each network by the model fitted without its fold, shape (n,)."""
        errors = np.empty(len(self.measured))
        fold_of = np.random.default_rng(self.seed).permutation(len(errors)) % _FOLDS
        for fold in range(_FOLDS):
            within, without = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
            predicted = self._predict(self.fit(candidate, without), candidate, within)
            errors[within] = relative_error(predicted, self.measured.latency_ms[within])
        return errors

    def _predict(self, model: LatencyModel, candidate: Candidate, rows: Rows) -> Floats:
        """As the model itself would, from figures that were read already."""
        names = block_figures(candidate.basis, self.table).names
        factors = np.array([model.factors.get(name, 0.0) for name in names])
        total = model.base_ms + self._sums[candidate.basis, candidate.drop_dead][rows] @ factors
        if model.residual is None:
            return np.asarray(total)
        inputs = self._inputs[candidate.drop_dead].rows(rows)
        return np.asarray(total * np.exp(model.residual.log_factor(inputs)))

    def _candidates(self) -> Iterator[Candidate]:
        for basis, drop_dead in self._sums:
            plain = Candidate(residual=ResidualKind.NONE, basis=basis, drop_dead=drop_dead)
            yield plain
            for strength in _STRENGTHS:
                yield replace(plain, residual=ResidualKind.INTERACTIONS, strength=strength)
            if self.grow_trees is not None:
                yield replace(plain, residual=ResidualKind.TREES)

    @cached_property
    def _sums(self) -> dict[tuple[Basis, bool], Floats]:
        """By basis and reading, the figures of each network added up: shape (n, figures)."""
        bases = [Basis.WORK] if self.table is None else [*Basis]
        found: dict[tuple[Basis, bool], Floats] = {}
        for drop_dead in self._readings:
            networks = replace(self.measured.networks, drop_dead=drop_dead)
            for basis in bases:
                values = block_figures(basis, self.table).values
                found[basis, drop_dead] = networks.sums(self.measured.codes, values)
        return found

    @cached_property
    def _readings(self) -> tuple[bool, ...]:
        """Both ways to read the networks where that makes a difference, which only the times can tell."""
        work = block_figures(Basis.WORK).values
        live, all_of_them = (
            replace(self.measured.networks, drop_dead=drop_dead).sums(self.measured.codes, work)
            for drop_dead in (True, False)
        )
        return (True,) if np.array_equal(live, all_of_them) else (True, False)

    @cached_property
    def _inputs(self) -> dict[bool, ResidualInputs]:
        choices = chosen_options(self.measured.networks.space, self.measured.codes)
        work = block_figures(Basis.WORK).values
        return {
            drop_dead: ResidualInputs(
                replace(self.measured.networks, drop_dead=drop_dead).sums(self.measured.codes, work), choices
            )
            for drop_dead in self._readings
        }

    def _operations(self, *, drop_dead: bool) -> tuple[Operation, ...]:
        counts = self._inputs[drop_dead].sums.sum(axis=0)
        seen = {
            name.split(".")[0] for name, n in zip(block_figures(Basis.WORK).names, counts, strict=True) if n
        }
        return tuple(operation for operation in Operation if operation in seen)


def _non_negative(sums: Floats, times: Floats) -> tuple[float, Floats]:
    """Base and factors that minimise the squared relative error; none is negative."""
    columns = np.column_stack([np.ones(len(sums)), sums])
    scale = np.maximum(columns.max(axis=0), np.finfo(float).tiny)
    found, _ = nnls(columns / scale / times[:, None], np.ones(len(times)))
    unscaled = found / scale
    return float(unscaled[0]), unscaled[1:]
