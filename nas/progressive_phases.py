"""The phases of progressive shrinking: what each makes elastic, for how long, at which rate.

Source: Once-for-All (Cai et al., ICLR 2020), section 3.3, and the published `train_ofa_net.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType

from nas.architecture import Value
from nas.errors import InvalidRequestError
from nas.space import RESOLUTION, Decision, SearchSpace
from nas.subspace import SubSpace

_ALL = sys.maxsize
_NUM_GPUS = 32
"""As many as, with the code's 64 images each, make the batch of 2048 that the full network's rate is for."""


@dataclass(frozen=True, kw_only=True)
class PublishedPhase:
    """A phase as the paper has it, in a run of 605 epochs at batch 2048."""

    name: str
    num_epochs: int
    """Those of the warm-up included."""
    has_warmup: bool
    learning_rate: float
    """After the warm-up."""
    num_networks: int
    """In one step."""
    num_kernels: int
    """How many options each kernel has, from the dearest down."""
    num_depths: int
    num_widths: int
    """Of expansions and of widths."""

    @property
    def relative_rate(self) -> float:
        """The rate as a part of that of the first phase."""
        return self.learning_rate / PUBLISHED_PHASES[0].learning_rate

    @property
    def part_of_networks(self) -> float:
        """Networks in one step, as a part of the most there are."""
        return self.num_networks / PUBLISHED_PHASES[-1].num_networks

    def options(self, decision: Decision) -> tuple[Value, ...]:
        """Those that the decision has in this phase, the dearest among them; resolutions all."""
        if decision.name == RESOLUTION:
            return decision.options
        limit: int = getattr(self, _LIMITS[kind_of(decision)])
        return decision.options[-min(limit, len(decision.options)) :]


PUBLISHED_PHASES = (
    PublishedPhase(
        name="full", num_epochs=180, has_warmup=True, learning_rate=2.6,
        num_networks=1, num_kernels=1, num_depths=1, num_widths=1,
    ),
    PublishedPhase(
        name="kernel", num_epochs=125, has_warmup=True, learning_rate=_NUM_GPUS * 3e-2,
        num_networks=1, num_kernels=_ALL, num_depths=1, num_widths=1,
    ),
    PublishedPhase(
        name="depth 1", num_epochs=25, has_warmup=False, learning_rate=_NUM_GPUS * 2.5e-3,
        num_networks=2, num_kernels=_ALL, num_depths=2, num_widths=1,
    ),
    PublishedPhase(
        name="depth 2", num_epochs=125, has_warmup=True, learning_rate=_NUM_GPUS * 7.5e-3,
        num_networks=2, num_kernels=_ALL, num_depths=_ALL, num_widths=1,
    ),
    PublishedPhase(
        name="width 1", num_epochs=25, has_warmup=False, learning_rate=_NUM_GPUS * 2.5e-3,
        num_networks=4, num_kernels=_ALL, num_depths=_ALL, num_widths=2,
    ),
    PublishedPhase(
        name="width 2", num_epochs=125, has_warmup=True, learning_rate=_NUM_GPUS * 7.5e-3,
        num_networks=4, num_kernels=_ALL, num_depths=_ALL, num_widths=_ALL,
    ),
)  # fmt: skip
"""In the paper's order. The published code gives a rate for one GPU and multiplies it by their number. It
does not train the full network: that rate is the one with which DεpS's command trains it at batch 2048
(0.1625 × 16), and its warm-up is as long as the others' for want of a source."""

_LIMITS: Mapping[str, str] = MappingProxyType(
    {"kernel": "num_kernels", "depth": "num_depths", "expansion": "num_widths", "width": "num_widths"}
)
"""The limit that goes for each kind of decision."""


def kind_of(decision: Decision) -> str:
    """The last part of the name, such as 'kernel'."""
    return decision.name.rpartition(".")[2]


@dataclass(frozen=True, kw_only=True)
class RunPhase:
    """A phase of one run."""

    published: PublishedPhase
    space: SubSpace
    """What it draws networks from."""
    first_step: int
    end_step: int
    """The first step that is no longer of it."""

    @property
    def num_steps(self) -> int:
        """One at least."""
        return self.end_step - self.first_step


def phases_of_run(space: SearchSpace, num_steps: int) -> tuple[RunPhase, ...]:
    """The phases that mean something in this space, each with its part of the run, in order.

    A phase that adds no option is left out, such as that of kernels where none is elastic; the others share
    its time. InvalidRequestError for a space that chooses between other things, and for a run with fewer
    steps than would give the shortest phase one.
    """
    least = least_num_steps(space)
    published = tuple(_with_new_options(space))
    epochs = [phase.num_epochs for phase in published]
    if num_steps < least:
        raise InvalidRequestError(
            f"schedule 'progressive' takes {least} steps or more, for its shortest phase to have one, and "
            f"this run has {num_steps}; choose more epochs or a smaller batch_size"
        )
    ends = [_rounded(num_steps * total, sum(epochs)) for total in accumulate(epochs)]
    return tuple(
        RunPhase(published=phase, space=_allowed(space, phase), first_step=first, end_step=end)
        for phase, first, end in zip(published, [0, *ends], ends, strict=False)
    )


def least_num_steps(space: SearchSpace) -> int:
    """With fewer the shortest phase would have none. InvalidRequestError as `phases_of_run` raises it."""
    _check_kinds(space)
    epochs = [phase.num_epochs for phase in _with_new_options(space)]
    return -(-sum(epochs) // min(epochs))


def _check_kinds(space: SearchSpace) -> None:
    """In a space of operations the largest network does not hold the weights of the others."""
    shrinking = [decision for decision in space.decisions if decision.name != RESOLUTION]
    others = [decision.name for decision in shrinking if kind_of(decision) not in _LIMITS]
    if others or not shrinking:
        found = f"'{others[0]}' is none of them" if others else "none of them is to be chosen"
        raise InvalidRequestError(
            f"schedule 'progressive' shrinks the largest network by {', '.join(_LIMITS)}, and in space "
            f"'{space.name}' {found}; choose another schedule or another space"
        )


def _with_new_options(space: SearchSpace) -> Iterator[PublishedPhase]:
    before: Mapping[str, tuple[Value, ...]] | None = None
    for phase in PUBLISHED_PHASES:
        kept = _allowed(space, phase).kept
        if kept != before:
            yield phase
        before = kept


def _allowed(space: SearchSpace, phase: PublishedPhase) -> SubSpace:
    return SubSpace(space, {d.name: phase.options(d) for d in space.decisions})


def _rounded(numerator: int, denominator: int) -> int:
    """To the nearest, half up: rounding half to even would leave a phase of one step none."""
    return (2 * numerator + denominator) // (2 * denominator)
