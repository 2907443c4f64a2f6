"""Random networks that all read the step's images at one size."""

from __future__ import annotations

from dataclasses import replace

from nas.space import RESOLUTION
from nas.subspace import SubSpace
from supernet.training.paths import RandomPaths, Role, Slot, StepContext
from supernet.training.rng import Stream, generator_for
from supernet.training.shrink import Phase


class SharedResolutionPaths(RandomPaths):
    """One resolution a step, then every other decision of each network uniform over what the phase allows.

    Source: Once-for-All (Cai et al., ICLR 2020) and its published code, whose loader draws one size for a
    batch, the same on every worker.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def draw(self, phase: Phase, context: StepContext) -> tuple[Slot, ...]:
        """Slots: the resolution a pure function of (seed, step), the rest also of the slot's place."""
        space = self._at_one_resolution(phase.space, context.step)
        generators = [
            generator_for(self._seed, Stream.PATH, context.step, place) for place in range(phase.num_random)
        ]
        drawn = [space.sample(generator) for generator in generators]
        return tuple(Slot(Role.RANDOM, a, phase.space.log_probability(a)) for a in drawn)

    def _at_one_resolution(self, space: SubSpace, step: int) -> SubSpace:
        for decision in space.space.decisions:
            if decision.name == RESOLUTION:
                options = space.options(decision)
                chosen = generator_for(self._seed, Stream.RESOLUTION, step, 0).integers(len(options))
                return replace(space, kept={**space.kept, RESOLUTION: (options[int(chosen)],)})
        return space
