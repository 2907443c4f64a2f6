"""What a search yields: trials in rounds, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Generic, Protocol, TypeVar

from nas.architecture import Architecture
from nas.pareto import Floats, hypervolume
from nas.search.predictor import Prediction


class Measurement(Protocol):
    """What the loop needs to know of a measurement; `nas.trial.Evaluation` is one."""

    @property
    def accuracy(self) -> float:
        """Fraction of images classified rightly, 0 to 1."""


MeasurementT = TypeVar("MeasurementT", bound=Measurement)


class Origin(StrEnum):
    """Why a network was tried."""

    INHERITED = "inherited"
    """A trial of the search that this one extends."""
    SEED = "seed"
    """Of the first round: spread over the range of costs, or what was known where chance found none."""
    PREFILTER = "prefilter"
    """Of the first round too: among the best by what a pre-filter judges without measuring."""
    PROPOSED = "proposed"
    """By the proposer, for its merits."""
    EXPLORED = "explored"
    """By the proposer too, but at random: what it is wrong about shows nowhere else."""
    MUTATED = "mutated"
    """A neighbour of a frontier member, after the proposer only repeated itself."""
    RANDOM = "random"
    """Drawn at random, after neighbours only repeated themselves."""


class StopReason(StrEnum):
    """Why a search ended."""

    BUDGET_SPENT = "budget_spent"
    """Every trial asked for was measured."""
    EXHAUSTED = "exhausted"
    """Every network that keeps the bounds was measured: proved by listing them."""
    NOTHING_NEW_FOUND = "nothing_new_found"
    """A capped search for a further network that keeps the bounds found none; there may be some. Without any
    trial it is no answer: whoever runs the loop says so."""
    FLAT = "flat"
    """The rounds of late gained next to no hypervolume, and the settings say to end then."""
    STOPPED = "stopped"
    """The caller asked for it."""


@dataclass(frozen=True, kw_only=True)
class SearchTrial(Generic[MeasurementT]):
    """One network measured by a search."""

    number: int
    """From 0, in the order the search chose them."""
    round: int
    origin: Origin
    architecture: Architecture
    costs: dict[str, float]
    """Those bounded, those searched for, and MACs."""
    measurement: MeasurementT
    prediction: Prediction | None = None
    """What was expected before it was measured, where the proposer expects anything."""


@dataclass(frozen=True, kw_only=True)
class Round(Generic[MeasurementT]):
    """The trials measured together, and where the search stands after them."""

    index: int
    trials: tuple[SearchTrial[MeasurementT], ...]
    frontier: tuple[SearchTrial[MeasurementT], ...]
    """Of all trials so far, by rising first objective as minimised."""
    frontier_losses: Floats = field(compare=False, repr=False)
    """Its objectives, all minimised, shape (n, objectives)."""
    reference: Floats = field(compare=False, repr=False)
    """The worst that round 0 measured in each objective, for all rounds."""

    @cached_property
    def hypervolume(self) -> float:
        """Of the frontier, below the reference. Found when asked for: with many objectives it takes long."""
        return hypervolume(self.frontier_losses, self.reference)


@dataclass(frozen=True, kw_only=True)
class ForecastReport:
    """What became of the predictions made for networks before they were measured."""

    num_selected: int
    """Networks that the proposer chose and whose accuracy it had predicted."""
    coverage: float | None
    """Fraction of those whose interval held what was measured: nine in ten, if the intervals are right.
    None of fewer than ten."""
    num_ranked: int
    """Of those, what `within_bin_tau` compares: others were alone in their bin, or measured all equal."""
    within_bin_tau: float | None
    """Kendall's tau of predicted with measured accuracy among networks of like cost; None as `coverage`."""


@dataclass(frozen=True, kw_only=True)
class SearchOutcome(Generic[MeasurementT]):
    """Everything a search measured."""

    trials: tuple[SearchTrial[MeasurementT], ...]
    frontier: tuple[SearchTrial[MeasurementT], ...]
    stop_reason: StopReason


@dataclass(frozen=True, slots=True)
class Scored:
    """A measured network as proposers see it."""

    architecture: Architecture
    losses: tuple[float, ...]
    """The objectives in their order, all minimised."""
