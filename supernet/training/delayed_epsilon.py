"""Delayed epsilon: the largest network alone at first, the others later and gently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas.subspace import SubSpace
from supernet.training.channel_sort import sort_channels
from supernet.training.learning_rate import LearningRate
from supernet.training.shrink import Phase, ShrinkSchedule

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from supernet.network import Supernet


class DelayedEpsilonSchedule(ShrinkSchedule):
    """Half the run for the largest network, then a short ramp of the others' weight, then all in full.

    Source: DεpS (Annavajjala et al., ECCV 2024) and its code. Epsilon is a factor on the gradients of the
    others, chosen so that the rate at which they move the weights rises in a straight line, from next to
    nothing to the rate at the end of the ramp:

        epsilon(t) = (t - t0 + 1) / num_ramp_steps × rate(t1) / rate(t),   t0 ≤ t < t1,

    t0 being the first step of the ramp and t1 the first after it; 0 before, 1 from there on. It does not
    shrink the space: from t0 on every network may be drawn.

    Deviation: the code looks rate(t1) up in tables made for its own runs. Here the learning rate is asked,
    so that any run will do.
    """

    def __init__(
        self,
        space: SubSpace,
        *,
        num_random: int,
        num_delay_steps: int,
        num_ramp_steps: int,
        learning_rate: LearningRate,
        sorts_channels: bool,
    ) -> None:
        """`num_delay_steps` are those before the others count in full, the ramp included."""
        self._space = space
        self._num_random = num_random
        self._first_step = num_delay_steps - num_ramp_steps
        self.full_step = num_delay_steps
        self._num_ramp_steps = num_ramp_steps
        self._learning_rate = learning_rate
        self._sorts_channels = sorts_channels
        self._step = 0

    def phase(self, step: int) -> Phase:
        """The whole space at every step, with the step's epsilon."""
        return Phase(space=self._space, num_random=self._num_random, epsilon=self._epsilon(step))

    def _epsilon(self, step: int) -> float:
        if step < self._first_step:
            return 0.0
        if step >= self.full_step:
            return 1.0
        progress = (step - self._first_step + 1) / self._num_ramp_steps
        return progress * self._learning_rate.at(self.full_step) / self._learning_rate.at(step)

    def before_step(self, step: int, supernet: Supernet, optimizer: Optimizer) -> None:
        """Sorts channels, where asked to, just before the first step of the others."""
        self._step = step
        if self._sorts_channels and step == self._first_step:
            sort_channels(supernet, optimizer)

    def describe(self) -> dict[str, Any]:
        """The part of the run that the last step was in, and its epsilon."""
        epsilon = self._epsilon(self._step)
        if self._step < self._first_step:
            part = "largest_alone"
        else:
            part = "ramp" if self._step < self.full_step else "all"
        return {"part": part, "epsilon": epsilon}
