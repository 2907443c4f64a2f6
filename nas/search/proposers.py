"""Proposers of networks, by name: ours, Optuna's, and random draws. The only file that imports Optuna.

Optuna's study only drives proposals and lives in memory. The trials a search records are the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import Trial, TrialState

from nas.architecture import Architecture
from nas.search.coarse_to_fine import CoarseToFineProposer
from nas.search.loop import Proposer
from nas.search.model import ModelProposer
from nas.search.region import FeasibleRegion
from nas.search.rounds import Scored
from nas.search.sampling import sample_feasible
from nas.search.settings import ProposerName, SearchSettings
from nas.search.trees import fit_trees
from nas.space import Decision, SearchSpace

_MIN_POPULATION = 10
_MAX_POPULATION = 50


def make_proposer(region: FeasibleRegion, settings: SearchSettings) -> Proposer:
    """The proposer that the settings name."""
    return _PROPOSERS[settings.proposer](region, settings)


class RandomProposer:
    """Uniform draws that keep the bounds and were not measured: the baseline."""

    def __init__(self, region: FeasibleRegion, *, seed: int) -> None:
        self._region = region
        self._rng = np.random.default_rng(seed)
        self._told: set[Architecture] = set()

    def ask(self, count: int) -> Sequence[Architecture]:
        """Distinct feasible networks."""
        return sample_feasible(self._region, count, self._rng, exclude=self._told)

    def tell(self, results: Sequence[Scored]) -> None:
        """Remember them, so as not to draw them again."""
        self._told.update(result.architecture for result in results)


class OptunaProposer:
    """Any of Optuna's samplers over one static space: every decision is always suggested.

    Decisions that the chosen depths leave inactive are dropped when the network is spelled canonically,
    so samplers that work on the parameters common to all trials see the whole space.

    Deviation: suggestions outside the bounds fail in the study, where Optuna would take them as trials that
    break a constraint. That was tried (micro, 20 % of the MACs, 60 trials, eight seeds, made-up
    accuracies): NSGA-II came as far, and TPE suggested fewer that keep the bounds and ended no better.
    """

    def __init__(self, space: SearchSpace, sampler: BaseSampler, *, num_objectives: int) -> None:
        self._space = space
        self._study = _create_study(sampler, num_objectives)
        self._open: dict[Architecture, Trial] = {}

    def ask(self, count: int) -> Sequence[Architecture]:
        """What the sampler suggests; it may repeat itself and leave the bounds."""
        return [self._ask_one() for _ in range(count)]

    def tell(self, results: Sequence[Scored]) -> None:
        """Each result to its own trial; networks that others chose become trials of their own."""
        for result in results:
            trial = self._open.pop(result.architecture, None) or self._adopt(result.architecture)
            self._study.tell(trial, result.losses)
        # Suggestions that were not measured have no values, and left open they would count as running.
        for trial in self._open.values():
            self._study.tell(trial, state=TrialState.FAIL)
        self._open.clear()

    def _ask_one(self) -> Architecture:
        trial = self._study.ask()
        code = [_suggest(trial, decision) for decision in self._space.decisions]
        architecture = self._space.canonical(self._space.decode(code))
        if architecture in self._open:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._open[architecture] = trial
        return architecture

    def _adopt(self, architecture: Architecture) -> Trial:
        """A trial with the given network's parameters."""
        code = self._space.encode([architecture])[0].tolist()
        names = [decision.name for decision in self._space.decisions]
        self._study.enqueue_trial(dict(zip(names, code, strict=True)))
        trial = self._study.ask()
        # NSGA-II assigns a trial to its generation when asked for relative parameters, which a trial
        # with fixed ones never does by itself: it would then never become a parent.
        _ = trial.relative_params
        for decision in self._space.decisions:
            _suggest(trial, decision)
        return trial


def _suggest(trial: Trial, decision: Decision) -> int:
    """The index of an option: ordered where options are numbers, a category where they are names."""
    num_options = len(decision.options)
    if any(isinstance(option, str) for option in decision.options):
        return int(trial.suggest_categorical(decision.name, range(num_options)))
    return trial.suggest_int(decision.name, 0, num_options - 1)


def _create_study(sampler: BaseSampler, num_objectives: int) -> Study:
    # Optuna announces every study on stderr by a handler of its own; its warnings stay.
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        return optuna.create_study(sampler=sampler, directions=["minimize"] * num_objectives)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _nsga2(region: FeasibleRegion, settings: SearchSettings) -> Proposer:
    # Deviation: the usual 50 would leave a small budget no second generation. The seeds are the first.
    population = min(max(settings.num_seeds, _MIN_POPULATION), _MAX_POPULATION)
    sampler = NSGAIISampler(population_size=population, seed=settings.seed)
    return OptunaProposer(region.space, sampler, num_objectives=len(settings.objectives))


def _tpe(region: FeasibleRegion, settings: SearchSettings) -> Proposer:
    sampler = TPESampler(seed=settings.seed)
    return OptunaProposer(region.space, sampler, num_objectives=len(settings.objectives))


def _gp(region: FeasibleRegion, settings: SearchSettings) -> Proposer:
    # Optuna imports torch for it, and not before the first suggestion.
    sampler = GPSampler(seed=settings.seed)
    return OptunaProposer(region.space, sampler, num_objectives=len(settings.objectives))


def _model(region: FeasibleRegion, settings: SearchSettings) -> Proposer:
    return ModelProposer(region, settings, fit_trees)


def _coarse_to_fine(region: FeasibleRegion, settings: SearchSettings) -> Proposer:
    return CoarseToFineProposer(region, settings)


def _random(region: FeasibleRegion, settings: SearchSettings) -> Proposer:
    return RandomProposer(region, seed=settings.seed)


_PROPOSERS: dict[ProposerName, Callable[[FeasibleRegion, SearchSettings], Proposer]] = {
    ProposerName.NSGA2: _nsga2,
    ProposerName.TPE: _tpe,
    ProposerName.GP: _gp,
    ProposerName.MODEL: _model,
    ProposerName.COARSE_TO_FINE: _coarse_to_fine,
    ProposerName.RANDOM: _random,
}
