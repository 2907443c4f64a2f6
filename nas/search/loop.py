"""The search loop: synchronous rounds of networks, each proposed, measured, and told in its order.

It does no input or output: measuring, recording and being stopped are the caller's functions. With the
same seed and the same measurements it makes the same trials, so a search that was killed is resumed
by running it again with an `evaluate` that knows what was measured before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Generic, Protocol, runtime_checkable

import numpy as np

from nas.architecture import Architecture
from nas.errors import InvalidRequestError
from nas.pareto import Floats, normalise, pareto_front
from nas.search.predictor import Prediction
from nas.search.region import FeasibleRegion
from nas.search.rounds import (
    MeasurementT,
    Origin,
    Round,
    Scored,
    SearchOutcome,
    SearchTrial,
    StopReason,
)
from nas.search.sampling import is_enumerable, sample_feasible, stratified_seeds
from nas.search.settings import ACCURACY, SearchSettings

_ASKS_PER_TRIAL = 10
"""How often the proposer may repeat itself or leave the bounds before others choose for it."""
_MUTANTS_PER_TRIAL = 20
_LEAST_GAIN = 1e-3
"""Of the hypervolume: rounds that together gain less were flat."""
_ALWAYS_COUNTED = "macs"
"""Trials have this cost at any rate: it sorts forecasts into bins where no cost is sought."""

Evaluate = Callable[[Sequence[tuple[int, Architecture]]], Sequence[MeasurementT]]
"""Measures numbered networks; the measurements come back in the same order."""

LastResort = Callable[[Sequence[tuple[Architecture, float]]], Sequence[Architecture]]
"""Networks that keep the bounds, given those measured before with accuracies; what it raises goes through."""


class Proposer(Protocol):
    """Chooses networks to measure, and learns from the measurements."""

    def ask(self, count: int) -> Sequence[Architecture]:
        """Networks to measure next; at most `count`. Some may never be told."""

    def tell(self, results: Sequence[Scored]) -> None:
        """All of a round, in the order of trial numbers; networks it never proposed among them."""


@runtime_checkable
class Learner(Protocol):
    """A proposer that learns also from networks that are no trials of its search."""

    def learn(self, known: Sequence[tuple[Architecture, float]]) -> None:
        """Networks with their accuracies, within the bounds or not; called once, before the first tell."""


@runtime_checkable
class Forecaster(Protocol):
    """A proposer that also says what it expects."""

    def predict(self, networks: Sequence[Architecture]) -> Sequence[Prediction | None]:
        """One for each network, by all that was told so far; None where nothing can be said."""


@runtime_checkable
class Explorer(Protocol):
    """A proposer some of whose networks are drawn at random."""

    def explores(self, network: Architecture) -> bool:
        """Whether it last asked for the network to learn from it, and not for its merits."""


class Prefilter(Protocol):
    """Judges networks without measuring them, and is judged by the first round."""

    def seeds(self) -> Sequence[Architecture]:
        """Networks for the first round that keep the bounds: the best by its lights."""

    def narrow(
        self, measured: Sequence[tuple[Architecture, float]]
    ) -> tuple[FeasibleRegion, Proposer] | None:
        """Where the search goes on, given the first round's accuracies; None: where it is."""


class SearchLoop(Generic[MeasurementT]):
    """One search: what it extends or seeds first, then rounds from the proposer until the budget is spent."""

    def __init__(
        self,
        *,
        region: FeasibleRegion,
        settings: SearchSettings,
        proposer: Proposer,
        inherited: Sequence[Architecture] = (),
        prefilter: Prefilter | None = None,
        last_resort: LastResort = lambda known: (),
    ) -> None:
        """`inherited` are another search's networks, which count as trials but not against the budget.

        Those that keep the bounds make the first round, in place of seeds. A pre-filter's seeds are some of
        the seeds; from the second round on it may have the search confined. `last_resort` is asked for seeds
        where random draws give none, and no evaluation has been asked for by then.
        """
        _check_objectives(settings, region)
        self._inherited = dict.fromkeys(network for network in inherited if region.contains(network))
        self._num_trials = settings.num_trials + len(self._inherited)
        self._region = region
        self._settings = settings
        self._proposer = proposer
        self._prefilter = prefilter
        self._last_resort = last_resort
        self._trials: list[SearchTrial[MeasurementT]] = []
        self._rounds: list[Round[MeasurementT]] = []
        self._reference: Floats = np.empty(0)
        self._known: Sequence[tuple[Architecture, float]] = ()
        self._cost_names = tuple(
            dict.fromkeys((*settings.cost_objectives, *region.bounds.names, _ALWAYS_COUNTED))
        )

    @property
    def num_trials(self) -> int:
        """Trials there are to be at the end, inherited ones included."""
        return self._num_trials

    def run(
        self,
        evaluate: Evaluate[MeasurementT],
        *,
        known: Sequence[tuple[Architecture, float]] = (),
        on_round: Callable[[Round[MeasurementT]], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> SearchOutcome[MeasurementT]:
        """Search to the end; called once. `should_stop` is asked before each round.

        `known` are networks measured before, with their accuracies, from which a proposer may learn; they are
        trials only where the search chooses them too. What `evaluate` and `on_round` raise goes through:
        start anew with a new loop and proposer.
        """
        self._known = known
        self._teach()
        index = 0
        while len(self._trials) < self._num_trials:
            if should_stop():
                return self._outcome(StopReason.STOPPED)
            if self._is_flat():
                return self._outcome(StopReason.FLAT)
            chosen = self._choose(index)
            if not chosen:
                # The random draws miss nothing in a space that is listed whole.
                is_proved = is_enumerable(self._region.space)
                return self._outcome(StopReason.EXHAUSTED if is_proved else StopReason.NOTHING_NEW_FOUND)
            on_round(self._measure(index, chosen, evaluate))
            index += 1
        return self._outcome(StopReason.BUDGET_SPENT)

    def _teach(self) -> None:
        if self._known and isinstance(self._proposer, Learner):
            self._proposer.learn(self._known)

    def _choose(self, index: int) -> dict[Architecture, Origin]:
        """Networks of the next round, distinct, feasible and never measured before."""
        # A generator of its own for each round: what one round draws does not shift the next.
        rng = np.random.default_rng((self._settings.seed, index))
        if index == 0 and self._inherited:
            return dict.fromkeys(self._inherited, Origin.INHERITED)
        if index == 0:
            return self._seeds(rng)
        left = self._num_trials - len(self._trials)
        choice = _Choice(
            region=self._region,
            wanted=min(self._settings.round_size, left),
            measured={t.architecture for t in self._trials},
        )
        choice.take_proposals(self._proposer)
        choice.take_mutants([t.architecture for t in self._frontier()], rng)
        choice.take_random(rng)
        return choice.chosen

    def _seeds(self, rng: np.random.Generator) -> dict[Architecture, Origin]:
        chosen = self._prefilter.seeds() if self._prefilter else ()
        seeds = dict.fromkeys(chosen[: self._settings.num_seeds], Origin.PREFILTER)
        num_spread = self._settings.num_seeds - len(seeds)
        spread = stratified_seeds(self._region, num_spread, rng, cost=self._spread_cost)
        # In the order of those spread, which start from the cheapest; one of both is the pre-filter's.
        both = {**dict.fromkeys(spread, Origin.SEED), **seeds}
        if seeds:
            others = sample_feasible(self._region, self._settings.num_seeds - len(both), rng, exclude=both)
            both.update(dict.fromkeys(others, Origin.SEED))
        return both or self._found_otherwise()

    def _found_otherwise(self) -> dict[Architecture, Origin]:
        found = filter(self._region.contains, self._last_resort(self._known))
        return dict.fromkeys(islice(found, self._settings.num_seeds), Origin.SEED)

    @property
    def _spread_cost(self) -> str:
        """Over whose range seeds are spread: the first that is searched for."""
        return next(iter(self._settings.cost_objectives), _ALWAYS_COUNTED)

    def _measure(
        self, index: int, chosen: dict[Architecture, Origin], evaluate: Evaluate[MeasurementT]
    ) -> Round[MeasurementT]:
        numbered = [*enumerate(chosen, start=len(self._trials))]
        predictions = self._predict([*chosen])
        measurements = evaluate(numbered)
        if len(measurements) != len(numbered):
            raise ValueError(f"asked to measure {len(numbered)} networks, evaluate gave {len(measurements)}")
        trials = tuple(
            SearchTrial(
                number=number,
                round=index,
                origin=chosen[architecture],
                architecture=architecture,
                costs=self._region.costs_of(architecture, self._cost_names),
                measurement=measurement,
                prediction=prediction,
            )
            for (number, architecture), measurement, prediction in zip(
                numbered, measurements, predictions, strict=True
            )
        )
        rows = self._losses(trials).tolist()
        self._trials += trials
        if index == 0 and self._prefilter:
            measured = [(trial.architecture, trial.measurement.accuracy) for trial in trials]
            narrowed = self._prefilter.narrow(measured)
            if narrowed:
                self._region, self._proposer = narrowed
                self._teach()
        self._proposer.tell([Scored(t.architecture, tuple(r)) for t, r in zip(trials, rows, strict=True)])
        if index == 0:
            # Fixed from here on: volumes below a reference that moves are not to be compared.
            self._reference = self._losses(trials).max(axis=0)
        frontier = self._frontier()
        self._rounds.append(
            Round(
                index=index,
                trials=trials,
                frontier=frontier,
                frontier_losses=self._losses(frontier),
                reference=self._reference,
            )
        )
        return self._rounds[-1]

    def _predict(self, networks: Sequence[Architecture]) -> Sequence[Prediction | None]:
        if isinstance(self._proposer, Forecaster):
            return self._proposer.predict(networks)
        return [None] * len(networks)

    def _is_flat(self) -> bool:
        rounds = self._settings.flat_rounds
        if rounds is None or len(self._rounds) <= rounds:
            return False
        before, now = self._rounds[-1 - rounds], self._rounds[-1]
        if now.hypervolume == 0:
            # Such a frontier may still grow: by networks no better than round 0's worst in some objective.
            return {t.number for t in now.frontier} == {t.number for t in before.frontier}
        return now.hypervolume - before.hypervolume <= _LEAST_GAIN * before.hypervolume

    def _losses(self, trials: Sequence[SearchTrial[MeasurementT]]) -> Floats:
        rows = [[self._value(trial, o.name) for o in self._settings.objectives] for trial in trials]
        return normalise(rows, self._settings.objectives)

    def _value(self, trial: SearchTrial[MeasurementT], name: str) -> float:
        return trial.measurement.accuracy if name == ACCURACY.name else trial.costs[name]

    def _frontier(self) -> tuple[SearchTrial[MeasurementT], ...]:
        if not self._trials:
            return ()
        return tuple(self._trials[i] for i in pareto_front(self._losses(self._trials)))

    def _outcome(self, reason: StopReason) -> SearchOutcome[MeasurementT]:
        return SearchOutcome(trials=tuple(self._trials), frontier=self._frontier(), stop_reason=reason)


class _Choice:
    """A round being filled: only networks that are feasible and new are taken."""

    def __init__(self, *, region: FeasibleRegion, wanted: int, measured: set[Architecture]) -> None:
        self.chosen: dict[Architecture, Origin] = {}
        self._region = region
        self._wanted = wanted
        self._measured = measured

    @property
    def missing(self) -> int:
        """How many are still to be chosen."""
        return self._wanted - len(self.chosen)

    def take_proposals(self, proposer: Proposer) -> None:
        """Ask until the round is full, the proposer has nothing, or it has repeated itself too often."""
        num_asks = _ASKS_PER_TRIAL * self._wanted
        while self.missing and num_asks > 0:
            proposals = proposer.ask(min(self.missing, num_asks))
            if not proposals:
                return
            num_asks -= len(proposals)
            for architecture in proposals:
                is_explored = isinstance(proposer, Explorer) and proposer.explores(architecture)
                origin = Origin.EXPLORED if is_explored else Origin.PROPOSED
                self._take(self._region.space.canonical(architecture), origin)

    def take_mutants(self, parents: Sequence[Architecture], rng: np.random.Generator) -> None:
        """Neighbours of the best so far."""
        for _ in range(_MUTANTS_PER_TRIAL * self.missing):
            if not self.missing:
                return
            parent = parents[int(rng.integers(len(parents)))]
            self._take(self._region.space.mutate(parent, rng), Origin.MUTATED)

    def take_random(self, rng: np.random.Generator) -> None:
        """Any that keep the bounds."""
        if self.missing:
            seen = self._measured | self.chosen.keys()
            for architecture in sample_feasible(self._region, self.missing, rng, exclude=seen):
                self._take(architecture, Origin.RANDOM)

    def _take(self, architecture: Architecture, origin: Origin) -> None:
        is_new = architecture not in self._measured and architecture not in self.chosen
        if self.missing and is_new and self._region.contains(architecture):
            self.chosen[architecture] = origin


def _check_objectives(settings: SearchSettings, region: FeasibleRegion) -> None:
    for name in settings.cost_objectives:
        if name not in region.costs.names:
            allowed = ", ".join([ACCURACY.name, *region.costs.names])
            raise InvalidRequestError(f"objective '{name}' is unknown; allowed: {allowed}")
