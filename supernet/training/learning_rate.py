"""Learning rates: pure functions of the step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping
from math import cos, pi

from supernet.training.strategy import Strategy


class LearningRate(Strategy, ABC):
    """The rate of every step of a run, steps counted from 0."""

    @abstractmethod
    def at(self, step: int) -> float:
        """A pure function of the step, defined past the end too."""


class ExponentialWithFloor(LearningRate):
    """`initial` shrinking by a constant factor a step to its part `floor`, constant from then on (BigNAS)."""

    def __init__(self, initial: float, *, floor: float, floor_step: int) -> None:
        """The floor, as a part of `initial`, is reached at `floor_step`."""
        self._initial = initial
        self._floor = floor
        self._floor_step = max(1, floor_step)

    def at(self, step: int) -> float:
        """floor ** progress, so that no rounding decides where the floor begins."""
        return self._initial * self._floor ** min(1.0, step / self._floor_step)


class CosineWithFloor(LearningRate):
    """Half a cosine from `initial` to 0 over the run, but never below the part `floor` of `initial`."""

    def __init__(self, initial: float, *, floor: float, num_steps: int) -> None:
        self._initial = initial
        self._floor = floor
        self._num_steps = max(1, num_steps)

    def at(self, step: int) -> float:
        """The cosine, cut off at the floor."""
        progress = min(1.0, step / self._num_steps)
        return self._initial * max(self._floor, 0.5 * (1 + cos(pi * progress)))


class Warmup(LearningRate):
    """A straight rise over `num_steps`, and then `after` from its beginning."""

    def __init__(self, after: LearningRate, *, num_steps: int) -> None:
        self._after = after
        self._num_steps = num_steps

    def at(self, step: int) -> float:
        """The rise starts above 0, so no step is wasted, and stops one share short of the first rate."""
        if step < self._num_steps:
            return self._after.at(0) * (step + 1) / (self._num_steps + 1)
        return self._after.at(step - self._num_steps)


class Phased(LearningRate):
    """Rates one after another, each from its own beginning (Once-for-All)."""

    def __init__(self, rates: Mapping[int, LearningRate]) -> None:
        """Each by the step from which it holds; the first by 0."""
        self._starts = sorted(rates)
        self._rates = [rates[start] for start in self._starts]

    def at(self, step: int) -> float:
        """That of the phase, at the step counted from its beginning."""
        place = bisect_right(self._starts, step) - 1
        return self._rates[place].at(step - self._starts[place])
