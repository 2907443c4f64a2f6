"""Regions to search, and accuracies that cost nothing to measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.architecture import Architecture
from nas.costs import costs
from nas.search.constraints import Bounds
from nas.search.cost_model import SpaceCosts
from nas.search.loop import SearchLoop
from nas.search.proposers import make_proposer
from nas.search.region import FeasibleRegion
from nas.search.rounds import SearchOutcome
from nas.search.settings import ProposerName, SearchSettings, parse_objectives
from nas.space import SearchSpace
from search_spaces import SPACES


@dataclass(frozen=True)
class Measured:
    accuracy: float


def region_of(space: str, **fields: Any) -> FeasibleRegion:
    model = SpaceCosts(space=SPACES[space])
    return FeasibleRegion(model, Bounds.parse(fields, model))


def all_networks(space: SearchSpace) -> set[Architecture]:
    """Every distinct network of a small space."""
    sizes = [len(d.options) for d in space.decisions]
    return {space.canonical(space.decode(code)) for code in np.ndindex(*sizes)}


def settings_of(objectives: Sequence[str] = ("accuracy", "macs"), **fields: Any) -> SearchSettings:
    given = {"num_trials": 45, "seed": 3, "proposer": ProposerName.NSGA2, **fields}
    return SearchSettings(objectives=parse_objectives(objectives), **given)


def synthetic_accuracy(architecture: Architecture) -> float:
    """Smooth in the costs, plus a noise that is the architecture's own."""
    figures = costs(SPACES[architecture.space], architecture)
    noise = int(architecture.key[:8], 16) / 16**8
    return float(0.04 * np.log(figures["macs"]) + 0.01 * np.log(figures["params"]) + 0.02 * noise)


class Evaluator:
    """Measures, and remembers what it was asked; knows some answers, and may die at a given call."""

    def __init__(self, *, dies_at_call: int | None = None, known: dict[str, float] | None = None) -> None:
        self.measured: dict[str, float] = {}
        self.numbers: list[int] = []
        self._known = known or {}
        self._calls_left = dies_at_call

    def __call__(self, numbered: Sequence[tuple[int, Architecture]]) -> list[Measured]:
        if self._calls_left == 0:
            raise ConnectionError("the pool is gone")
        self._calls_left = None if self._calls_left is None else self._calls_left - 1
        return [Measured(self._accuracy(number, architecture)) for number, architecture in numbered]

    def _accuracy(self, number: int, architecture: Architecture) -> float:
        self.numbers.append(number)
        if architecture.key in self._known:
            return self._known[architecture.key]
        assert architecture.key not in self.measured, "measured twice"
        self.measured[architecture.key] = synthetic_accuracy(architecture)
        return self.measured[architecture.key]


def search(
    region: FeasibleRegion, settings: SearchSettings, evaluate: Callable[..., Any] | None = None, **hooks: Any
) -> SearchOutcome[Measured]:
    loop: SearchLoop[Measured] = SearchLoop(
        region=region, settings=settings, proposer=make_proposer(region, settings)
    )
    return loop.run(evaluate or Evaluator(), **hooks)
