"""Path samplers: which networks one step trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from nas.architecture import Architecture
from supernet.elastic.batch_norm import Normaliser, normalise_by_batch
from supernet.gates import Gates
from supernet.training.collective import Collective
from supernet.training.precision import FullPrecision, Precision
from supernet.training.rng import Stream, generator_for
from supernet.training.shrink import Phase
from supernet.training.strategy import Strategy, StrategyState

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from supernet.network import Supernet
    from supernet.training.gradient import FlatGradients


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
    log_probability: float = 0.0
    """Natural logarithm of the probability of drawing these choices here; 0 for a fixed network, or where the
    sampler does not know it."""
    importance: float = 1.0
    """Factor on the network's loss that makes up for not having been drawn uniformly."""
    gates: Gates | None = field(default=None, compare=False, repr=False)
    """The architecture as one-hot vectors, a leaf; where set, the loss's gradient by them is made."""


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What a sampler may look at before it says which networks the step trains."""

    step: int
    supernet: Supernet
    images: Tensor
    """This rank's part of the batch, (n, c, h, w)."""
    labels_n: Tensor
    collective: Collective
    held_out: HeldOut
    """Gives this rank's part of the k-th batch of images that the weights never learn from."""
    normalise: Normaliser = normalise_by_batch
    """Batch norm as the networks of the step have it."""
    precision: Precision = field(default_factory=FullPrecision)
    """In which numbers they are run."""

    def forward(
        self, architecture: Architecture, *, dropout: float = 0.0, gates: Gates | None = None
    ) -> Tensor:
        """The logits (n, k) of a network on this rank's images, run as the networks of the step are."""
        # Only where they are set: every other network is sliced, which is cheaper.
        gated = {} if gates is None else {"gates": gates}
        with self.precision.forward(self.images.device):
            logits_nk: Tensor = self.supernet(
                self.images, architecture, dropout=dropout, normalise=self.normalise, **gated
            )
        return logits_nk


class HeldOut(Protocol):
    """Batches of images kept from training."""

    def __call__(self, number: int) -> tuple[Tensor, Tensor]:
        """(images, labels) of the batch of this number; they repeat once all were seen."""
        ...


class PathSampler(Strategy, ABC):
    """Fills the slots of a step."""

    wants_slot_gradients = False
    """Whether `observe` looks at the gradient of each random network by itself."""
    num_gates = 0
    """Length of the gates of each random network; 0 where slots have none."""

    @abstractmethod
    def propose(self, phase: Phase, context: StepContext) -> tuple[Slot, ...]:
        """The step's networks in the order in which they run: the same on every rank."""


class RandomPaths(Strategy, ABC):
    """Draws the random networks of a step, whatever else is in it."""

    wants_slot_gradients = False
    """As `PathSampler` has it."""
    num_gates = 0
    """As `PathSampler` has it."""

    @abstractmethod
    def draw(self, phase: Phase, context: StepContext) -> tuple[Slot, ...]:
        """`phase.num_random` slots, the same on every rank."""


class SlotSampler(PathSampler):
    """Random networks, drawn by `paths`, alone or between the ends of the space."""

    def __init__(self, paths: RandomPaths) -> None:
        self.paths = paths
        self.wants_slot_gradients = paths.wants_slot_gradients
        self.num_gates = paths.num_gates

    def before_step(self, step: int, supernet: Supernet, optimizer: Optimizer) -> None:
        """Passed on."""
        self.paths.before_step(step, supernet, optimizer)

    def observe(self, step: int, slots: Sequence[Slot], gradients: FlatGradients) -> None:
        """Passed on."""
        self.paths.observe(step, slots, gradients)

    def end_epoch(self, epoch: int) -> None:
        """Passed on."""
        self.paths.end_epoch(epoch)

    def describe(self) -> dict[str, Any]:
        """That of the paths."""
        return self.paths.describe()

    def state_dict(self) -> StrategyState:
        """That of the paths."""
        return self.paths.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Passed on."""
        self.paths.load_state_dict(state)


class UniformSampler(SlotSampler):
    """Random networks alone, one by default (SPOS, Guo et al., ECCV 2020)."""

    def propose(self, phase: Phase, context: StepContext) -> tuple[Slot, ...]:
        """`num_random` networks."""
        return self.paths.draw(phase, context)


class SandwichSampler(SlotSampler):
    """The largest network, random ones, the smallest (Yu and Huang, ICCV 2019; BigNAS section 3.1)."""

    def propose(self, phase: Phase, context: StepContext) -> tuple[Slot, ...]:
        """MAX first, for the others learn from its logits; MAX alone where epsilon is 0."""
        largest = Slot(Role.MAX, phase.space.largest())
        if phase.epsilon == 0:
            return (largest,)
        return (largest, *self.paths.draw(phase, context), Slot(Role.MIN, phase.space.smallest()))


class UniformPaths(RandomPaths):
    """Every decision uniform over what the phase allows."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def draw(self, phase: Phase, context: StepContext) -> tuple[Slot, ...]:
        """Slots, each a pure function of (seed, step, its place)."""
        generators = [
            generator_for(self._seed, Stream.PATH, context.step, place) for place in range(phase.num_random)
        ]
        drawn = [phase.space.sample(generator) for generator in generators]
        return tuple(Slot(Role.RANDOM, a, phase.space.log_probability(a)) for a in drawn)
