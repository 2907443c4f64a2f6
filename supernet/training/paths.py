"""Path samplers: which networks one step trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from math import log

from nas.architecture import Architecture
from nas.space import SearchSpace
from supernet.training.rng import Stream, generator_for
from supernet.training.shrink import Phase
from supernet.training.strategy import Strategy


class Role(StrEnum):
    """Why a network is in the step."""

    MAX = "max"
    RANDOM = "random"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Slot:
    """One network of a step."""

    role: Role
    architecture: Architecture
    log_probability: float
    """Natural logarithm of the probability of drawing these choices here; 0 for a fixed network."""


class PathSampler(Strategy, ABC):
    """Fills the slots of a step."""

    @abstractmethod
    def propose(self, phase: Phase, step: int) -> tuple[Slot, ...]:
        """The step's networks in the order in which they run: the same on every rank."""


class UniformSampler(PathSampler):
    """Random networks alone, one by default (SPOS, Guo et al., ECCV 2020)."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, phase: Phase, step: int) -> tuple[Slot, ...]:
        """`num_random` networks, each decision uniform."""
        return draw_uniformly(phase, step, self._seed)


class SandwichSampler(PathSampler):
    """The largest network, random ones, the smallest (Yu and Huang, ICCV 2019; BigNAS section 3.1)."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, phase: Phase, step: int) -> tuple[Slot, ...]:
        """MAX first, for the others learn from its logits; MAX alone where epsilon is 0."""
        largest = Slot(Role.MAX, phase.space.largest(), 0.0)
        if phase.epsilon == 0:
            return (largest,)
        smallest = Slot(Role.MIN, phase.space.smallest(), 0.0)
        return (largest, *draw_uniformly(phase, step, self._seed), smallest)


def draw_uniformly(phase: Phase, step: int, seed: int) -> tuple[Slot, ...]:
    """`num_random` slots, each a pure function of (seed, step, its place)."""
    drawn = [
        phase.space.sample(generator_for(seed, Stream.PATH, step, place)) for place in range(phase.num_random)
    ]
    return tuple(Slot(Role.RANDOM, a, uniform_log_probability(phase.space, a)) for a in drawn)


def uniform_log_probability(space: SearchSpace, architecture: Architecture) -> float:
    """Log-probability that `space.sample` makes these choices: each active decision is uniform.

    Where several spellings are one network, this is the probability of the spelling.
    """
    chosen = dict(architecture.choices)
    return -sum(log(len(decision.options)) for decision in space.decisions if decision.name in chosen)
