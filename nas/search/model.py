"""The model-based proposer: predict accuracy, look far and wide by prediction, measure what promises most.

After LINAS (Cummings et al., "A Hardware-Aware Framework for Accelerating Neural Architecture Search Across
Modalities", 2022): a predictor is fitted to all that was measured, an inner search by prediction finds
candidates, the best of them are measured, and so on. Deviations: candidates are chosen for the hypervolume
that they are expected to add, under what the predictor is unsure of; a small space is listed whole in place
of the inner search.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from nas.architecture import Architecture
from nas.pareto import Floats
from nas.search.candidates import Candidates, breed, every_feasible
from nas.search.cost_model import Codes
from nas.search.ensemble import Fit
from nas.search.features import Features
from nas.search.gain import best_batch
from nas.search.predictor import Prediction, Predictor, conformal_factor, predictions, scores
from nas.search.region import FeasibleRegion
from nas.search.rounds import Scored
from nas.search.sampling import sample_feasible
from nas.search.settings import ACCURACY, SearchSettings

_LEAST_LEARNED = 4
"""From fewer networks than this nothing is predicted."""
_EXPLORED_SHARE = 0.1
"""Of a round, drawn at random: what the predictor is wrong about shows nowhere else."""
_MAX_PREDICTIONS = 20_000
"""Of the inner search each round. Source: LINAS's figure for OFA-MobileNetV3."""
_PREDICTIONS_PER_TRIAL = 50
"""Deviation: small budgets get fewer, since a predictor that has seen little is not worth a long search. What
that costs on a large space has not been measured: both benchmarks are small enough to be listed whole."""
_MOST_KNOWN = 300
"""Of the networks measured before the search, spread evenly over the order in which they were: what a process
learns grows with the cube of their number."""
_ENOUGH_AHEAD = 9
"""From so many predictions made ahead on, they alone calibrate: they were selected as the next ones are. Of
nine the largest error is the bound of nine in ten."""
_BEYOND_WORST = 1e-4
"""The reference point lies so far beyond the worst measured, relative to it."""


class ModelProposer:
    """Learns from what is told; proposes what adds most to the hypervolume, by the predictor."""

    def __init__(self, region: FeasibleRegion, settings: SearchSettings, fit: Fit) -> None:
        """`fit` makes the members of the predictor's ensemble."""
        self._region = region
        self._settings = settings
        self._fit = fit
        self._features = Features(region.costs)
        self._accuracy_column = settings.objectives.index(ACCURACY)
        self._known: dict[Architecture, float] = {}
        """Accuracies measured before the search."""
        self._told: dict[Architecture, tuple[float, ...]] = {}
        self._asked: set[Architecture] = set()
        self._drawn: set[Architecture] = set()
        """Of those asked for, the ones drawn at random."""
        self._num_tells = 0
        self._predictor: Predictor | None = None
        self._scores_ahead: list[float] = []
        """Errors of what was predicted before it was measured, in units of the spread."""

    def learn(self, known: Sequence[tuple[Architecture, float]]) -> None:
        """Networks that other searches measured: one that is chosen all the same costs nothing to measure."""
        places = range(len(known))
        if len(known) > _MOST_KNOWN:
            places = np.linspace(0, len(known) - 1, _MOST_KNOWN).astype(int).tolist()
        self._known = dict(known[place] for place in places)

    def ask(self, count: int) -> Sequence[Architecture]:
        """Distinct feasible networks, neither told nor asked for since the last tell."""
        rng = np.random.default_rng((self._settings.seed, self._num_tells, len(self._asked)))
        num_promising = count - self._num_explored(count)
        promising = self._promising(num_promising, rng) if self._learned() else []
        known = self._told.keys() | self._asked | {*promising}
        drawn = sample_feasible(self._region, count - len(promising), rng, exclude=known)
        self._drawn.update(drawn)
        proposals = [*promising, *drawn]
        self._asked.update(proposals)
        return proposals

    def explores(self, network: Architecture) -> bool:
        """Whether it was drawn at random since the last tell."""
        return network in self._drawn

    def _num_explored(self, count: int) -> int:
        """A tenth of what is asked for; what is left of that is one network more, as likely as it is much."""
        # A generator of its own: how the rest is chosen does not depend on it.
        chance = np.random.default_rng((self._settings.seed, self._num_tells, len(self._asked), 1)).random()
        return int(_EXPLORED_SHARE * count + chance)

    def tell(self, results: Sequence[Scored]) -> None:
        """Remember, and note how well it was predicted."""
        # Of those known before nothing was said ahead.
        ahead = [result for result in results if result.architecture not in self._known]
        if self._predictor and ahead:
            measured = np.array([-result.losses[self._accuracy_column] for result in ahead])
            features = self._features.of([result.architecture for result in ahead])
            means, spreads = self._predictor.mean_and_spread(features)
            self._scores_ahead += scores(measured, means, spreads).tolist()
        self._told.update((result.architecture, result.losses) for result in results)
        self._asked.clear()
        self._drawn.clear()
        self._num_tells += 1
        # Fitted anew when next needed: after the last round it is not.
        self._predictor = None

    def predict(self, networks: Sequence[Architecture]) -> Sequence[Prediction | None]:
        """What each is expected to measure, by all that was told so far; None before enough was, and of
        networks that were measured before the search."""
        predictor = self._learned()
        if predictor is None or not networks:
            return [None] * len(networks)
        means, spreads = predictor.mean_and_spread(self._features.of(networks))
        calibration = np.array(self._scores_ahead)
        if len(calibration) < _ENOUGH_AHEAD:
            seen = np.array([*self._seen.values()])
            calibration = np.append(predictor.held_out_scores(seen), calibration)
        found = predictions(means, spreads, conformal_factor(calibration))
        return [
            None if network in self._known else prediction
            for network, prediction in zip(networks, found, strict=True)
        ]

    @property
    def _losses(self) -> Floats:
        return np.array([*self._told.values()])

    @property
    def _seen(self) -> dict[Architecture, float]:
        """Accuracies of all that is learned from, known before or told."""
        told = {network: -losses[self._accuracy_column] for network, losses in self._told.items()}
        return {**self._known, **told}

    def _learned(self) -> Predictor | None:
        """The predictor of all that was seen; None where that is too little."""
        if self._predictor is None and len(seen := self._seen) >= _LEAST_LEARNED:
            rng = np.random.default_rng((self._settings.seed, self._num_tells))
            self._predictor = Predictor.fit(
                self._features.of([*seen]),
                np.array([*seen.values()]),
                self._fit,
                rng,
                figures=self._features.figures,
            )
        return self._predictor

    @cached_property
    def _listed(self) -> Candidates | None:
        return every_feasible(self._region)

    def _promising(self, count: int, rng: np.random.Generator) -> list[Architecture]:
        """Of all candidates those that add most to the hypervolume."""
        candidates = self._listed or self._bred(rng)
        known = self._told.keys() | self._asked
        fresh = [i for i, network in enumerate(candidates.networks) if network not in known]
        samples = self._sampled_losses(candidates.codes[fresh])
        for place, i in enumerate(fresh):
            if (accuracy := self._known.get(candidates.networks[i])) is not None:
                samples[:, place, self._accuracy_column] = -accuracy
        corner = self._losses.max(axis=0)
        corner = corner + _BEYOND_WORST * np.abs(corner)
        chosen = best_batch(samples, self._losses, corner, count)
        return [candidates.networks[fresh[i]] for i in chosen]

    def _bred(self, rng: np.random.Generator) -> Candidates:
        num_evaluations = min(_MAX_PREDICTIONS, _PREDICTIONS_PER_TRIAL * self._settings.num_trials)
        return breed(
            self._region,
            [*self._told, *(network for network in self._known if self._region.contains(network))],
            lambda codes: self._sampled_losses(codes).mean(axis=0),
            rng,
            num_evaluations=num_evaluations,
        )

    def _sampled_losses(self, codes: Codes) -> Floats:
        """Outlooks on encoded networks, with their costs: shape (outlooks, n, objectives)."""
        predictor = self._learned()
        if predictor is None:
            raise RuntimeError("too little was told yet for anything to be predicted")
        outlooks = predictor.outlooks(self._features.of_codes(codes))
        costs = self._region.costs.batch(codes, self._settings.cost_objectives)
        losses = np.empty((*outlooks.shape, len(self._settings.objectives)))
        for column, objective in enumerate(self._settings.objectives):
            losses[:, :, column] = -outlooks if objective == ACCURACY else costs[objective.name]
        return losses
