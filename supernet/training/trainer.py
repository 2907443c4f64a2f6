"""Trainer: the order of a training step. What happens in each part is the strategies' affair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import isfinite
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.errors import InvalidRequestError
from supernet.network import Supernet
from supernet.training.collective import Collective, SingleProcess
from supernet.training.data_sampler import DataDraw
from supernet.training.distillation import BatchLoss
from supernet.training.formats import CheckpointError
from supernet.training.gradient import FlatGradients, NetworkGradients
from supernet.training.guard import TrainingDivergedError
from supernet.training.lanes import Lanes
from supernet.training.optimizer import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)
from supernet.training.paths import Role, Slot, StepContext
from supernet.training.rng import Stream, torch_seeded
from supernet.training.shrink import Phase
from supernet.training.stack import Stack, completed_record
from supernet.training.state import TrainingState, differences, environment_of, repeats_bits


class Batches(Protocol):
    """Training images as a pure function of the step."""

    @property
    def batch_size(self) -> int:
        """Images in one step, over all ranks."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every image is seen once."""
        ...

    @property
    def num_images(self) -> int:
        """Images that the weights may learn from."""
        ...

    def batch(
        self,
        step: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        positions: NDArray[np.int64] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """This rank's (normalised images (n, c, h, w), labels (n,)) of the step.

        Those at `positions`, of the whole batch, among the images; None: of an order of its own.
        """
        ...

    def held_out(self, number: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, Tensor]:
        """This rank's part of the batch of this number from the images that the weights never learn from."""
        ...


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one step did."""

    step: int
    learning_rate: float
    slots: tuple[Slot, ...]
    slot_losses: tuple[float, ...]
    """Of each slot: the mean over the whole batch, all ranks included."""

    def loss(self, role: Role) -> float | None:
        """Mean loss of the networks in this role, or None where there was none."""
        pairs = zip(self.slots, self.slot_losses, strict=True)
        losses = [loss for slot, loss in pairs if slot.role == role]
        return sum(losses) / len(losses) if losses else None


@dataclass(frozen=True, kw_only=True)
class _StepWork:
    """What all networks of a step are computed from."""

    slots: Sequence[Slot]
    weights: Sequence[float]
    parts: Sequence[int]
    """Of the gradients, which each network adds to."""
    context: StepContext
    draw: DataDraw
    batch_loss: BatchLoss


_IN_ORDER = Lanes(1)


class Trainer:
    """Trains a supernet in place, step by step."""

    def __init__(
        self,
        supernet: Supernet,
        batches: Batches,
        stack: Stack,
        *,
        collective: Collective | None = None,
        data_id: str = "",
        rank_kinds: Sequence[str] = (),
        warm_start: str | None = None,
        num_lanes: int = 1,
    ) -> None:
        """`data_id` names the images, `warm_start` the weights that the supernet was given, None where it was
        given none; a checkpoint made from others is refused.

        `rank_kinds` is what `kinds_of_ranks` gave, to be recorded with the run. `num_lanes` networks of a
        step are computed side by side, where they can be; a run that goes on keeps the number it began with.
        All ranks start from the weights of rank 0.
        """
        self.supernet = supernet
        self.stack = stack
        self.step = 0
        """Steps done, and the number of the next."""
        self.departures: tuple[str, ...] = ()
        """What differed in the environment whenever the run went on; empty: it is still exact."""
        self._rank_kinds = tuple(rank_kinds)
        self._batches = batches
        self._collective = collective or SingleProcess()
        self._data_id = data_id
        self._warm_start = warm_start
        self._device = next(supernet.parameters()).device
        _check_match(supernet, batches, stack)
        for parameter in supernet.parameters():
            self._collective.broadcast(parameter.data)
        self._gradients = FlatGradients(
            supernet,
            num_own=stack.recipe.num_random if stack.sampler.wants_slot_gradients else 0,
            num_scores=batches.batch_size if stack.data.wants_scores else 0,
            num_gated=stack.recipe.num_random if stack.sampler.num_gates else 0,
            num_gates=stack.sampler.num_gates,
        )
        self._optimizer = build_optimizer(stack.recipe, supernet)
        self._lanes = self._lanes_here(num_lanes)

    # Stepping

    def run(
        self,
        num_steps: int | None = None,
        *,
        on_step: Callable[[StepStats], None] | None = None,
        on_epoch: Callable[[int, StepStats], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Does up to `num_steps` more steps (None: all that are left), never past the end of the run.

        `on_epoch` gets the epoch, counted from 0, and its last step. `should_stop` is asked before every
        step and must answer alike on all ranks, for one that stops alone leaves the others waiting.
        """
        end = self.stack.num_steps
        if num_steps is not None:
            end = min(end, self.step + num_steps)
        while self.step < end and not (should_stop and should_stop()):
            stats = self.train_step(self.step)
            if on_step:
                on_step(stats)
            epoch, place = divmod(self.step, self._batches.steps_per_epoch)
            if on_epoch and place == 0:
                on_epoch(epoch - 1, stats)

    def train_step(self, step: int) -> StepStats:
        """One step: every network forward and backward, then one update of the weights."""
        for strategy in self.stack.strategies.values():
            strategy.before_step(step, self.supernet, self._optimizer)
        phase = self.stack.shrink.phase(step)
        draw = self.stack.data.draw(step)
        self.supernet.train()
        context = self._context(step, draw)
        slots = self.stack.sampler.propose(phase, context)
        weights = [self._weight(slot, phase) for slot in slots]
        self._gradients.start()
        self._gradients.collect_gates([slot.gates.flat for slot in slots if slot.gates is not None])
        self._accumulate(slots, weights, context, draw)
        self._gradients.sum_over(self._collective)
        self._merge(slots, weights)
        losses = self._finite_losses(slots, step)
        if self.stack.data.wants_scores:
            self.stack.data.observe_scores(step, draw, self._gradients.scores)
        rate = self._update(slots, step)
        self._finish(step)
        return StepStats(step, rate, slots, losses)

    def _context(self, step: int, draw: DataDraw) -> StepContext:
        place = self._collective
        images, labels = self._batches.batch(step, place.rank, place.world_size, positions=draw.positions_n)

        def held_out(number: int) -> tuple[Tensor, Tensor]:
            kept, their_labels = self._batches.held_out(number, place.rank, place.world_size)
            return kept.to(self._device), their_labels.to(self._device)

        return StepContext(
            step=step,
            supernet=self.supernet,
            images=images.to(self._device),
            labels_n=labels.to(self._device),
            collective=place,
            held_out=held_out,
            normalise=self.stack.batch_norm.normaliser(place),
            precision=self.stack.precision,
        )

    def _weight(self, slot: Slot, phase: Phase) -> float:
        return self.stack.gradient.weight(slot.role, phase.epsilon) * slot.importance

    def _accumulate(
        self, slots: Sequence[Slot], weights: Sequence[float], context: StepContext, draw: DataDraw
    ) -> None:
        """Adds up the gradients of all networks on one batch, and notes their losses."""
        work = _StepWork(
            slots=slots,
            weights=weights,
            parts=self._parts(slots),
            context=context,
            draw=draw,
            batch_loss=self.stack.distillation.for_batch(
                context.images, context.labels_n, normalise=context.normalise
            ),
        )
        # Before all others, which may learn from its logits.
        first = self._loss(0, work)
        pieces = [partial(self._gradients.of, first, _gates_of(slots[0]))]
        pieces += [partial(self._gradient, index, work) for index in range(1, len(slots))]
        lanes = self._lanes if self._is_divisible(slots) else _IN_ORDER
        for slot, part, gradients in zip(slots, work.parts, lanes.run(pieces), strict=True):
            self._gradients.add(part, gradients, _gates_of(slot))

    def _is_divisible(self, slots: Sequence[Slot]) -> bool:
        """Whether the networks after the first may run in any order."""
        draws = any(self.stack.regularisation.dropout(slot.role) > 0 for slot in slots[1:])
        # Torch has one generator for all threads, and ranks exchange in one order.
        return not draws and not self.stack.batch_norm.exchanges(self._collective)

    def _gradient(self, index: int, work: _StepWork) -> NetworkGradients:
        return self._gradients.of(self._loss(index, work), _gates_of(work.slots[index]))

    def _loss(self, index: int, work: _StepWork) -> Tensor:
        """What the network is differentiated by: its mean loss, and its weight where it shares a part."""
        slot, context = work.slots[index], work.context
        logits = self._logits(slot, index, context)
        # A teacher that is none of the step's networks runs here, as they do.
        with self.stack.precision.forward(self._device):
            losses_n = work.batch_loss(slot, logits)
        part = self._part_of_batch(len(context.labels_n))
        self._gradients.losses[index] = losses_n.detach().sum() / self._batches.batch_size
        if index == 0 and self.stack.data.wants_scores:
            (by_logits,) = torch.autograd.grad(losses_n.sum(), logits, retain_graph=True)
            self._gradients.scores[part] = by_logits.norm(dim=1)
        loss = self._mean(losses_n, work.draw, part)
        # A part of its own is weighed when it is merged: what is observed is the gradient as it is.
        return loss if work.parts[index] else work.weights[index] * loss

    def _parts(self, slots: Sequence[Slot]) -> list[int]:
        """Of the gradients, for each network: 0 is what they share."""
        own = count(1)
        return [next(own) if self._has_own_part(slot) else 0 for slot in slots]

    def _has_own_part(self, slot: Slot) -> bool:
        return self.stack.sampler.wants_slot_gradients and slot.role is Role.RANDOM

    def _part_of_batch(self, num_images: int) -> slice:
        start = self._collective.rank * num_images
        return slice(start, start + num_images)

    def _logits(self, slot: Slot, index: int, context: StepContext) -> Tensor:
        dropout = self.stack.regularisation.dropout(slot.role)
        if dropout == 0:
            return self._forward(slot, context, dropout)
        # Each network drops features of its own, on each rank.
        draw = index * self._collective.world_size + self._collective.rank
        with torch_seeded(self.stack.seed, Stream.DROPOUT, context.step, draw, self._device):
            return self._forward(slot, context, dropout)

    def _forward(self, slot: Slot, context: StepContext, dropout: float) -> Tensor:
        logits_nk = context.forward(slot.architecture, dropout=dropout, gates=slot.gates)
        # Losses are too small and too many to be added up in fewer digits.
        return logits_nk.to(self._gradients.values.dtype)

    def _mean(self, losses_n: Tensor, draw: DataDraw, part: slice) -> Tensor:
        """This rank's share of the mean loss over the whole batch."""
        if draw.weights_n is not None:
            losses_n = losses_n * torch.from_numpy(draw.weights_n[part]).to(losses_n)
        return losses_n.sum() / self._batches.batch_size

    def _merge(self, slots: Sequence[Slot], weights: Sequence[float]) -> None:
        own = [w for slot, w in zip(slots, weights, strict=True) if self._has_own_part(slot)]
        # A phase may have fewer random networks than the recipe; their parts hold zeros.
        self._gradients.merge(own + [0.0] * (len(self._gradients.parts) - 1 - len(own)))

    def _finite_losses(self, slots: Sequence[Slot], step: int) -> tuple[float, ...]:
        losses = tuple(self._gradients.losses[: len(slots)].tolist())
        for slot, loss in zip(slots, losses, strict=True):
            if not isfinite(loss):
                reason = f"the loss of a '{slot.role}' network is {loss} at step {step}"
                raise TrainingDivergedError(reason, step=step)
        # A finite loss may have a gradient that is not, and it would spoil the weights for good.
        if not isfinite(self._gradients.values.sum().item()):
            raise TrainingDivergedError(f"the gradient is not finite at step {step}", step=step)
        return losses

    def _update(self, slots: Sequence[Slot], step: int) -> float:
        """Observe, clip, step; returns the learning rate."""
        for strategy in self.stack.strategies.values():
            strategy.observe(step, slots, self._gradients)
        self.stack.gradient.clip(self._gradients.values)
        rate = self.stack.guard.rate_factor * self.stack.learning_rate.at(step)
        set_learning_rate(self._optimizer, rate)
        self._optimizer.step()
        return rate

    def _finish(self, step: int) -> None:
        self.step = step + 1
        epoch, place = divmod(self.step, self._batches.steps_per_epoch)
        if place == 0:
            for strategy in self.stack.strategies.values():
                strategy.end_epoch(epoch - 1)

    # Stopping and going on

    def state(self) -> TrainingState:
        """The run as it stands; its tensors are the live ones, so write or copy them before the next step."""
        return TrainingState(
            step=self.step,
            identity=self._identity(),
            environment=self._environment(),
            weights=self.supernet.state_dict(),
            optimizer=optimizer_tensors(self._optimizer, self.supernet),
            strategies={name: s.state_dict() for name, s in self.stack.strategies.items()},
            departures=self.departures,
        )

    def restore(self, state: TrainingState) -> tuple[str, ...]:
        """Makes this run the one that `state` describes.

        Returns what differs in the environment: where nothing does, the run goes on to the very same
        bits. It is added to `departures`, for what was inexact once stays so. Raises CheckpointError for
        a state of another run.
        """
        before = {**state.identity, "stack": completed_record(state.identity["stack"])}
        foreign = differences(before, self._identity())
        if foreign:
            raise CheckpointError(
                f"the checkpoint belongs to another run ({'; '.join(foreign)}); "
                "start anew, or resume with what it was made with"
            )
        self.supernet.load_state_dict(state.weights)
        load_optimizer_tensors(self._optimizer, self.supernet, state.optimizer)
        for name, strategy in self.stack.strategies.items():
            # Those of an older release had no state to keep.
            strategy.load_state_dict(state.strategies.get(name, {}))
        self.step = state.step
        # Those of an older release had one.
        environment = {"lanes": 1, **state.environment}
        self._lanes = self._lanes_here(environment["lanes"])
        found = differences(environment, self._environment())
        if not repeats_bits(self._device):
            found = (*found, f"device: {self._device.type} does not repeat its sums bit for bit")
        self.departures = (*state.departures, *(f"step {state.step}: {line}" for line in found))
        return found

    def _identity(self) -> dict[str, Any]:
        return {
            "space": self.supernet.space.name,
            "space_fingerprint": self.supernet.space.fingerprint,
            "num_classes": self.supernet.num_classes,
            "in_channels": self.supernet.in_channels,
            "steps_per_epoch": self._batches.steps_per_epoch,
            "data": self._data_id,
            "warm_start": self._warm_start,
            "stack": self.stack.to_json(),
        }

    def _environment(self) -> dict[str, Any]:
        return environment_of(
            self._device,
            world_size=self._collective.world_size,
            num_lanes=self._lanes.count,
            rank_kinds=self._rank_kinds,
        )

    def _lanes_here(self, count: int) -> Lanes:
        """On a GPU all networks wait in one queue anyway."""
        return Lanes(count if self._device.type == "cpu" else 1)


def _gates_of(slot: Slot) -> Tensor | None:
    return None if slot.gates is None else slot.gates.flat


def _check_match(supernet: Supernet, batches: Batches, stack: Stack) -> None:
    """What the recipe says must be what the objects do, or the record of the run would lie."""
    recipe = stack.recipe
    if batches.batch_size != recipe.batch_size:
        raise InvalidRequestError(
            f"batches of {batches.batch_size} images are not the recipe's batch_size {recipe.batch_size}; "
            "make them with the recipe's"
        )
    if supernet.kernel_transform != recipe.kernel_transform:
        raise InvalidRequestError(
            f"the supernet's kernel_transform is {supernet.kernel_transform}, the recipe's "
            f"{recipe.kernel_transform}; build the supernet with the recipe's"
        )
