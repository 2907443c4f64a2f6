"""Shrink schedules: which networks may be trained at a step, and how much they count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from nas.space import RESOLUTION
from nas.subspace import SubSpace
from supernet.training.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What one step may train."""

    space: SubSpace
    """Where networks are drawn from; its ends are the largest and the smallest of a sandwich."""
    num_random: int
    """Random networks in the step."""
    epsilon: float = 1.0
    """Weight of every network but the largest; at 0 the others are not run at all."""

    @property
    def trains_largest_alone(self) -> bool:
        """Whether no other network is trained, whatever the resolution."""
        return self.epsilon == 0 or all(
            self.space.options(decision) == decision.options[-1:]
            for decision in self.space.space.decisions
            if decision.name != RESOLUTION
        )


class ShrinkSchedule(Strategy, ABC):
    """Says how the trained part of the space changes over a run."""

    full_step = 0
    """The first step at which every network counts in full."""

    @abstractmethod
    def phase(self, step: int) -> Phase:
        """A pure function of the step."""


class StaticSchedule(ShrinkSchedule):
    """The whole space from the first step to the last (BigNAS)."""

    def __init__(self, space: SubSpace, *, num_random: int) -> None:
        self._phase = Phase(space=space, num_random=num_random)

    def phase(self, step: int) -> Phase:
        """The same phase at every step."""
        del step
        return self._phase
