"""Progressive shrinking: the largest network alone, then smaller kernels, depths and widths beside it."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from nas.progressive_phases import RunPhase, kind_of
from nas.subspace import SubSpace
from supernet.elastic.conv import ElasticConv
from supernet.training.channel_sort import sort_channels
from supernet.training.shrink import Phase, ShrinkSchedule

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from supernet.network import Supernet


class ProgressiveSchedule(ShrinkSchedule):
    """Phase after phase allows more options, and goes on drawing the larger ones.

    Source: Once-for-All (Cai et al., ICLR 2020), section 3.3, and its published code. Channels are sorted
    whenever smaller widths are about to be trained; those that smaller networks have had so far they keep.

    Deviation: momentum lives on from phase to phase, sorted with its channels, since here a run is one. The
    published code runs its phases one by one, each with a new optimizer, as `restarts_momentum` does.
    """

    def __init__(
        self,
        phases: Sequence[RunPhase],
        *,
        num_random: int,
        sorts_channels: bool,
        freezes_transforms: bool = False,
        restarts_momentum: bool = False,
    ) -> None:
        """`num_random` networks make a step of the last phase, fewer one of those before."""
        self._phases = tuple(phases)
        self._steps = [
            Phase(space=phase.space, num_random=ceil(num_random * phase.published.part_of_networks))
            for phase in phases
        ]
        # More of the largest network would be the same one again.
        self._steps[0] = Phase(space=phases[0].space, num_random=1)
        self._sorts_channels = sorts_channels
        self._freezes_transforms = freezes_transforms
        self._restarts_momentum = restarts_momentum
        self._current = 0

    def phase(self, step: int) -> Phase:
        """The last phase goes on past the end."""
        return self._steps[self._place(step)]

    def before_step(self, step: int, supernet: Supernet, optimizer: Optimizer) -> None:
        """What belongs to the beginning of a phase."""
        self._current = self._place(step)
        self._choose_trained_transforms(supernet)
        if step == self._phases[self._current].first_step and step > 0:
            self._begin_phase(supernet, optimizer)

    def describe(self) -> dict[str, Any]:
        """The phase of the last step."""
        phase = self._phases[self._current]
        return {
            "phase": phase.published.name,
            "first_step": phase.first_step,
            "end_step": phase.end_step,
        }

    def _place(self, step: int) -> int:
        return bisect_right([phase.first_step for phase in self._phases], step) - 1

    def _begin_phase(self, supernet: Supernet, optimizer: Optimizer) -> None:
        before, now = self._phases[self._current - 1], self._phases[self._current]
        if self._sorts_channels and now.published.num_widths > before.published.num_widths:
            sort_channels(supernet, optimizer, exposed=exposed_channels(supernet, before.space))
        if self._restarts_momentum:
            optimizer.state.clear()

    def _choose_trained_transforms(self, supernet: Supernet) -> None:
        """By the step alone, so that a run that goes back to an earlier phase trains what that trains.

        Before kernels are elastic no network reads a transform, and decay would only wear the identity down.
        """
        phase = self._phases[self._current].published
        is_kernel_phase_over = phase.num_depths > 1
        are_trained = phase.num_kernels > 1 and not (self._freezes_transforms and is_kernel_phase_over)
        for module in supernet.modules():
            if isinstance(module, ElasticConv):
                for transform in module.transforms.values():
                    transform.requires_grad_(are_trained)


def exposed_channels(supernet: Supernet, space: SubSpace) -> dict[str, tuple[int, ...]]:
    """For each layer by name, the numbers of output channels that it has in networks of this part.

    A layer's channels depend on one expansion and one width at most, so all expansions may go together, and
    all widths. A layer that only networks of differing widths have, such as a shortcut with weights, is left
    out: it shares its channels with one that is here.
    """
    exposed: defaultdict[str, set[int]] = defaultdict(set)
    for expansion in range(_most_options(space, "expansion")):
        for width in range(_most_options(space, "width")):
            chosen = {"expansion": expansion, "width": width}
            values = {}
            for decision in space.space.decisions:
                options = space.options(decision)
                values[decision.name] = options[max(-1 - chosen.get(kind_of(decision), 0), -len(options))]
            for layer in supernet.lower(space.spelled(values)):
                exposed[layer.name].add(layer.out_channels)
    return {name: tuple(sorted(numbers)) for name, numbers in exposed.items()}


def _most_options(space: SubSpace, kind: str) -> int:
    kept = [len(space.options(d)) for d in space.space.decisions if kind_of(d) == kind]
    return max(kept, default=1)
