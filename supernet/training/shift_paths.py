"""Shift sampling: a cost drawn from learned bins, and an architecture generated for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from nas.architecture import Architecture
from nas.costs import batch_costs
from nas.recipe import Recipe
from nas.recipe_choices import BinGradientKind
from nas.space import SearchSpace
from supernet.gate_costs import GatedMacs
from supernet.gates import Gates, gated_architecture, num_gates
from supernet.training.architecture_generator import ArchitectureGenerator
from supernet.training.cost_bins import (
    CostBins,
    CostRange,
    gradient_by_score,
    gradient_through_generator,
)
from supernet.training.learned import Learned
from supernet.training.paths import RandomPaths, Role, Slot, StepContext
from supernet.training.rng import Stream, generator_for, torch_seeded
from supernet.training.shrink import Phase
from supernet.training.strategy import StrategyState

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from supernet.network import Supernet
    from supernet.training.gradient import FlatGradients

GENERATOR_LEARNING_RATES = (1e-2, 1e-3)
"""Of Adam, falling from the first to the second by half a cosine over the bins' warm-up, so that the
generator meets costs once the bins move. ShiftNAS gives its own in an appendix that is not to be had."""
_CPU = torch.device("cpu")
_PREVIOUS = "previous/"


class ShiftPaths(RandomPaths):
    """Draws a cost C from the bins and lets the generator write an architecture of that cost.

    Source: ShiftNAS (ICCV 2023). A step trains weights and generator together by L_task + λ · (cost − C)²
    (equation 10); the bins stay as they are through a warm-up, and then learn every `bin_interval` steps from
    how the loss on held-out images has changed since their last update (section 3.2), by Adam. Both
    terms of that change are of one architecture, one batch and one noise.

    Generator and bins live on the CPU and learn from sums over ranks, so that they are the same everywhere.

    Deviation: the cost's loss is that of the relative error, for the paper does not tell its unit, and an
    absolute one would ask little of small networks.
    Deviation: in the same step the generator practises on further costs, for short runs have not the steps of
    the paper's; `generator_batch` 1 leaves that out.

    The paper's 50 epochs of warm-up are of a length that it tells in an appendix that is not to be had. With
    a sandwich, which the paper goes without, the ends of the space are trained more often than the bins say.
    """

    def __init__(self, recipe: Recipe, space: SearchSpace, *, seed: int, num_steps: int) -> None:
        self.num_gates = num_gates(space)
        self._recipe = recipe
        self._space = space
        self._seed = seed
        with torch_seeded(seed, Stream.GENERATOR_WEIGHTS, 0, 0, _CPU):
            generator = ArchitectureGenerator(space)
        self.generator = Learned("generator", generator)
        self.bins = Learned("bins", CostBins(recipe.num_bins))
        self.num_updates = 0
        """Of the bins."""
        self._warmup_steps = round(recipe.bin_warmup_fraction * num_steps)
        self._previous: dict[str, Tensor] = {}
        self._pricing: _Pricing | None = None
        self._writing: _Writing | None = None
        self._cost_error: float | None = None

    # Moments of a step

    def before_step(self, step: int, supernet: Supernet, optimizer: Optimizer) -> None:
        """Forgets what was written for the step before."""
        del step, optimizer
        self._writing = None
        self._priced(supernet)

    def draw(self, phase: Phase, context: StepContext) -> tuple[Slot, ...]:
        """Slots whose gates are leaves: the loss's gradient by them teaches the generator."""
        self._priced(context.supernet)
        self._update_bins(context)
        self._writing = self._write(context.step, phase.num_random)
        like = next(context.supernet.parameters())
        rows = self._writing.one_hots_no.detach()[: phase.num_random].to(like).unbind()
        return tuple(self._slot(row.clone().requires_grad_()) for row in rows)

    def observe(self, step: int, slots: Sequence[Slot], gradients: FlatGradients) -> None:
        """One update of the generator, by the cost's loss alone where no network of its own was trained."""
        del gradients
        writing = self._writing or self._write(step, 0)
        by_task = [slot.gates.flat.grad for slot in slots if slot.gates is not None]
        by_task_no = torch.zeros_like(writing.one_hots_no)
        if by_task:
            by_task_no[: len(by_task)] = torch.stack(by_task).to(by_task_no)
        loss = self._recipe.cost_weight * self._cost_loss(writing)
        self.generator.start()
        torch.autograd.backward([loss, writing.one_hots_no], [None, by_task_no])
        self.generator.step(self._generator_rate(step))
        self._writing = None

    # Writing

    def _write(self, step: int, num_drawn: int) -> _Writing:
        """Architectures for `num_drawn` costs from the bins, and for others, as likely each, for practice."""
        practice = max(self._recipe.generator_batch - num_drawn, 0 if num_drawn else 1)
        drawn = self.drawn_bins(step, num_drawn)
        practised = generator_for(self._seed, Stream.PRACTICE, step, 0).integers(
            self._recipe.num_bins, size=practice
        )
        bins_n = torch.cat([drawn, torch.from_numpy(practised)])
        places_n = self.bins.module.places[bins_n]
        noise_no = self._gumbel(Stream.GENERATOR_NOISE, step, 0, (len(bins_n), self.num_gates))
        return _Writing(places_n, self.write(places_n, noise_no))

    def drawn_bins(self, step: int, count: int) -> Tensor:
        """(count,) bins by their probabilities, for the networks of a step."""
        noise_nb = self._gumbel(Stream.BIN, step, 0, (count, self._recipe.num_bins))
        return self.bins.module.draw(noise_nb)

    def write(self, places_n: Tensor, noise_no: Tensor) -> Tensor:
        """One-hot vectors (n, num_gates) for costs at these places in the range."""
        told = self._known_pricing().range.told(places_n)
        return self.generator.module(told, noise_no, temperature=self._recipe.gumbel_temperature)

    def _generator_rate(self, step: int) -> float:
        first, last = GENERATOR_LEARNING_RATES
        progress = min(1.0, step / self._warmup_steps) if self._warmup_steps else 1.0
        return last + (first - last) * 0.5 * (1 + cos(pi * progress))

    def _slot(self, flat: Tensor) -> Slot:
        gates = Gates(self._space, flat)
        return Slot(Role.RANDOM, gated_architecture(self._space, gates), gates=gates)

    def _cost_loss(self, writing: _Writing) -> Tensor:
        pricing = self._known_pricing()
        asked_n = pricing.range.macs(writing.places_n)
        error_n = pricing.macs(Gates(self._space, writing.one_hots_no)) / asked_n - 1
        self._cost_error = float(error_n.detach().abs().mean())
        return error_n.square().mean().float()

    def _gumbel(self, stream: Stream, step: int, index: int, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(generator_for(self._seed, stream, step, index).gumbel(size=shape)).float()

    # Bins

    def _update_bins(self, context: StepContext) -> None:
        """Every `bin_interval` steps, once there are weights to compare with: those of one interval before.

        They are first remembered an interval before the warm-up ends, but never before networks of other
        sizes are run: a sort of the channels just before these would come between the two.
        """
        interval = self._recipe.bin_interval
        if context.step % interval:
            return
        if self._previous:
            gradient = self._bin_gradient(context).contiguous()
            context.collective.all_reduce_sum(gradient)
            self.bins.module.logits.grad = gradient
            self.bins.step(self._recipe.bin_learning_rate)
            self.num_updates += 1
        if context.step + interval >= self._warmup_steps:
            weights = context.supernet.named_parameters()
            self._previous = {name: weight.detach().clone() for name, weight in weights}

    def _bin_gradient(self, context: StepContext) -> Tensor:
        """This rank's share."""
        bins, noise = self.bins.module, Stream.BIN_UPDATE
        loss_change = self._loss_change(context, self._gumbel(noise, context.step, 1, (1, self.num_gates)))
        match self._recipe.bin_gradient:
            case BinGradientKind.GENERATOR:
                noise_b = self._gumbel(noise, context.step, 0, (self._recipe.num_bins,))
                temperature = self._recipe.gumbel_temperature
                return gradient_through_generator(bins, noise_b, loss_change, temperature=temperature)
            case BinGradientKind.SCORE:
                return gradient_by_score(bins, loss_change)

    def _loss_change(self, context: StepContext, noise_no: Tensor) -> Callable[[Tensor], Tensor]:
        """L_val(w_t) − L_val(w_prev) of the network written for a place: this rank's share of the mean.

        Of a place that has a gradient, a scalar that has the gradient of that.
        """
        supernet = context.supernet
        like = next(supernet.parameters())
        images, labels_n = context.held_out(context.step // self._recipe.bin_interval)
        now = {name: weight.detach() for name, weight in supernet.named_parameters()}
        previous = {name: weight.to(like) for name, weight in self._previous.items()}

        def loss(weights: Mapping[str, Tensor], architecture: Architecture, gates: Gates | None) -> Tensor:
            options = {"gates": gates, "normalise": context.normalise}
            with context.precision.forward(images.device):
                logits = functional_call(supernet, weights, (images, architecture), options)
            total = F.cross_entropy(logits.to(like.dtype), labels_n, reduction="sum")
            return total / (len(labels_n) * context.collective.world_size)

        def slope(weights: Mapping[str, Tensor], architecture: Architecture, flat: Tensor) -> Tensor:
            leaf = flat.detach().to(like).requires_grad_()
            (by_gates,) = torch.autograd.grad(loss(weights, architecture, Gates(self._space, leaf)), leaf)
            return by_gates.to(flat)

        def change(place: Tensor) -> Tensor:
            flat = self.write(place[None], noise_no)[0]
            architecture = gated_architecture(self._space, Gates(self._space, flat))
            if not flat.requires_grad:
                return loss(now, architecture, None) - loss(previous, architecture, None)
            # Each by itself: summed along the way, equal gradients cancel but for rounding, and Adam takes
            # whole steps after the smallest gradient.
            return (slope(now, architecture, flat) - slope(previous, architecture, flat)) @ flat

        return change

    # What is known and kept

    def _priced(self, supernet: Supernet) -> None:
        if self._pricing is None:
            self._pricing = _Pricing.of(supernet)

    def _known_pricing(self) -> _Pricing:
        if self._pricing is None:
            raise RuntimeError("costs are known once the supernet was seen; call before_step or draw first")
        return self._pricing

    def describe(self) -> dict[str, Any]:
        """The bins with their probabilities, and how well the generator last met the costs asked for."""
        if self._pricing is None:
            return {}
        bins = self.bins.module
        return {
            "bins_macs": [round(macs) for macs in self._pricing.range.macs(bins.places).tolist()],
            "bin_probabilities": bins.probabilities().tolist(),
            "bin_updates": self.num_updates,
            "cost_error": self._cost_error,
        }

    def state_dict(self) -> StrategyState:
        """Generator, bins, and the weights as they were at the bins' last update."""
        previous = {f"{_PREVIOUS}{name}": weight for name, weight in self._previous.items()}
        return {
            "num_updates": self.num_updates,
            **self.generator.state_dict(),
            **self.bins.state_dict(),
            **previous,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.num_updates = state["num_updates"]
        self.generator.load_state_dict(state)
        self.bins.load_state_dict(state)
        self._previous = {
            key.removeprefix(_PREVIOUS): weight.clone()
            for key, weight in state.items()
            if key.startswith(_PREVIOUS)
        }
        self._writing = None


@dataclass(frozen=True, eq=False)
class _Writing:
    """What the generator wrote in one step."""

    places_n: Tensor
    """Of the costs asked for, in the range of costs; those of the step's own networks first."""
    one_hots_no: Tensor


@dataclass(frozen=True, eq=False)
class _Pricing:
    """What networks of one supernet cost."""

    macs: GatedMacs
    range: CostRange

    @classmethod
    def of(cls, supernet: Supernet) -> _Pricing:
        """With the supernet's own classes and channels."""
        space = supernet.space
        shape = {"num_classes": supernet.num_classes, "in_channels": supernet.in_channels}
        ends = space.encode([space.smallest(), space.largest()])
        low, high = batch_costs(space, ends, names=("macs",), **shape)["macs"].tolist()
        return cls(GatedMacs(space, **shape), CostRange(low, high))
