"""Path importance: options are drawn by the norms of their gradients (PA of PA&DA)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.architecture import Architecture, Value
from nas.space import Decision, SearchSpace, is_active
from nas.subspace import SubSpace
from supernet.training.gradient import FlatGradients
from supernet.training.importance import (
    ImportanceWeights,
    WeightSums,
    learned_part,
    mixed_probabilities,
)
from supernet.training.path_norms import PathNorms
from supernet.training.paths import RandomPaths, Role, Slot, StepContext
from supernet.training.rng import Stream, generator_for
from supernet.training.shrink import Phase
from supernet.training.strategy import StrategyState

if TYPE_CHECKING:
    from supernet.network import Supernet


class ImportancePaths(RandomPaths):
    """Draws each decision by what the gradients of the epoch before say of its options.

    Source: Lu et al., "PA&DA: Jointly Sampling Path and Data for Consistent NAS", CVPR 2023, and its
    published code for NAS-Bench-201. There one vector over the five operations serves all six edges: a
    group of the space's `option_groups`. Where a space names no groups, each decision has a vector.

    After each network, the norm of an option in it is the mean of the norms (`path_norms.py`) of the
    decisions of the group that chose it. It is averaged with the accumulator of the option, which starts
    every epoch at 0; a norm of exactly 0 is passed over. At the end of epoch e of E the probabilities of the
    next become λ accumulator / sum + (1 - λ) uniform, λ = e / E up to `limit`. So the first two epochs are
    uniform, and an option that has no weights, or that no network of the epoch had, gets the uniform part
    alone, (1 - λ) / n; if that is so of every option of a group, they are equally likely.

    Networks are trained as they are drawn, operations that lead nowhere included, as the code does; other
    ways of drawing spell them canonically.

    Where random networks count in full only later than at the start (DεpS), λ counts the epochs from then:
    (e - T_w) / (E - T_w), and 0 before T_w, the epoch in which epsilon reaches 1. While it rises norms are
    observed, and sampling stays uniform.
    Gradients are a network's own: no epsilon and no importance of the network scales them.

    Deviation: norms are read before gradients are cut, for what is cut depends on the other networks of the
    step; the code reads them after (recipe field `observe_clipped`, which cuts each network's own gradient as
    the policy cuts the sum: the same where a step has one network).
    """

    wants_slot_gradients = True

    def __init__(
        self,
        space: SearchSpace,
        *,
        num_epochs: int,
        seed: int,
        limit: float,
        weights: ImportanceWeights,
        norms: PathNorms,
        clip: Callable[[Tensor], None] | None = None,
        full_epoch: int = 0,
    ) -> None:
        """`clip` cuts a gradient in place before it is looked at; from `full_epoch` on λ counts."""
        self._num_epochs = num_epochs
        self._seed = seed
        self._limit = limit
        self._weights = weights
        self._norms = norms
        self._clip = clip
        self._groups = {name: _Group(decisions) for name, decisions in space.option_groups().items()}
        self._group_of = {d.name: group for group in self._groups.values() for d in group.decisions}
        self._full_epoch = full_epoch
        self._learned_part = 0.0
        self._sums = WeightSums()
        self._effective_part: float | None = None
        self._supernet: Supernet | None = None
        """That of the last draw, whose layers have the gradients to observe."""

    # Drawing

    def draw(self, phase: Phase, context: StepContext) -> tuple[Slot, ...]:
        """Slots, each a pure function of (seed, step, its place) and of the epochs before."""
        self._supernet = context.supernet
        slots = [
            self._slot(phase.space, generator_for(self._seed, Stream.PATH, context.step, place))
            for place in range(phase.num_random)
        ]
        if not slots:
            return ()
        weights = self._weights.of(self._ratios(phase.space, slots))
        return tuple(replace(slot, importance=float(w)) for slot, w in zip(slots, weights, strict=True))

    def _slot(self, space: SubSpace, rng: np.random.Generator) -> Slot:
        values: dict[str, Value] = {}
        log_probability = 0.0
        for decision in space.space.parents_first:
            if is_active(decision, values):
                options, probabilities = self._kept(decision, space)
                place = int(rng.choice(len(options), p=probabilities))
                values[decision.name] = options[place]
                log_probability += log(probabilities[place])
        return Slot(Role.RANDOM, space.space.parse(values), log_probability)

    def _kept(self, decision: Decision, space: SubSpace) -> tuple[tuple[Value, ...], NDArray[np.float64]]:
        """The options that the phase leaves of a decision, and their probabilities."""
        options = space.options(decision)
        probabilities = self._group_of[decision.name].probabilities
        if len(options) < len(decision.options):
            left = probabilities[[decision.options.index(option) for option in options]]
            probabilities = left / left.sum()
        return options, probabilities

    def _ratios(self, space: SubSpace, slots: Sequence[Slot]) -> NDArray[np.float64]:
        return np.array([exp(space.log_probability(s.architecture) - s.log_probability) for s in slots])

    # Learning

    def observe(self, step: int, slots: Sequence[Slot], gradients: FlatGradients) -> None:
        """Takes in the gradients of the step's random networks, one after the other."""
        del step
        random = [slot for slot in slots if slot.role is Role.RANDOM]
        if not random:
            return
        for part, slot in enumerate(random, start=1):
            if self._clip:
                # Already added to the sum, and nobody else's: it may be spoilt.
                self._clip(gradients.parts[part])
            self._take_in(slot.architecture, gradients.norms(part))
        self._sums = self._sums.with_weights(np.array([slot.importance for slot in random]))

    def _take_in(self, architecture: Architecture, norms: Mapping[str, float]) -> None:
        assert self._supernet is not None
        found = self._norms.of(self._supernet.lower(architecture), norms)
        chosen = dict(architecture.choices)
        for group in self._groups.values():
            group.take_in(chosen, found)

    def end_epoch(self, epoch: int) -> None:
        """Makes the probabilities of the next epoch."""
        since = self._full_epoch
        if epoch >= since:
            self._learned_part = learned_part(epoch - since, self._num_epochs - since, self._limit)
        for group in self._groups.values():
            group.renew(self._learned_part)
        self._effective_part, self._sums = self._sums.effective_part, WeightSums()

    # What was learned

    def describe(self) -> dict[str, Any]:
        """The probabilities by group and option, λ, and how large a part of the last epoch's networks equally
        weighted ones would have been worth as much."""
        return {
            "learned_part": self._learned_part,
            "effective_part": self._effective_part,
            "probabilities": {name: group.to_json() for name, group in self._groups.items()},
        }

    def state_dict(self) -> StrategyState:
        """Accumulators and probabilities of all groups in one row each, and what is told of the epoch."""
        groups = self._groups.values()
        return {
            "accumulated": torch.from_numpy(np.concatenate([group.accumulated for group in groups])),
            "probabilities": torch.from_numpy(np.concatenate([group.probabilities for group in groups])),
            "learned_part": self._learned_part,
            "weight_sums": self._sums.to_json(),
            "effective_part": self._effective_part,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        ends = np.cumsum([len(group.options) for group in self._groups.values()])[:-1]
        rows = [np.split(state[key].numpy().copy(), ends) for key in ("accumulated", "probabilities")]
        for group, accumulated, probabilities in zip(self._groups.values(), *rows, strict=True):
            group.accumulated, group.probabilities = accumulated, probabilities
        self._learned_part = state["learned_part"]
        self._sums = WeightSums(*state["weight_sums"])
        self._effective_part = state["effective_part"]


@dataclass
class _Group:
    """Decisions that choose between the same options, and what is known of these."""

    decisions: tuple[Decision, ...]

    def __post_init__(self) -> None:
        self.options = self.decisions[0].options
        self.accumulated = np.zeros(len(self.options))
        self.probabilities = np.full(len(self.options), 1 / len(self.options))

    def take_in(self, chosen: Mapping[str, Value], norms: Mapping[str, float]) -> None:
        """Averages each chosen option's norm in one network with its accumulator."""
        for place, option in enumerate(self.options):
            holders = [d.name for d in self.decisions if chosen.get(d.name) == option]
            norm = sum(norms.get(name, 0.0) for name in holders)
            if norm > 0:
                self.accumulated[place] = (self.accumulated[place] + norm / len(holders)) / 2

    def renew(self, part: float) -> None:
        """The next epoch's probabilities; the accumulators start anew."""
        self.probabilities = mixed_probabilities(self.accumulated, part)
        self.accumulated = np.zeros(len(self.options))

    def to_json(self) -> dict[str, float]:
        """Probability by option."""
        names = map(str, self.options)
        return dict(zip(names, self.probabilities.tolist(), strict=True))
