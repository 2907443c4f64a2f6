"""Distillation from a copy of the largest network as it was when others were first trained beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nas.architecture import Architecture
from nas.errors import InvalidRequestError
from nas.space import RESOLUTION
from supernet.elastic.batch_norm import Normaliser, normalise_by_batch
from supernet.network import Supernet
from supernet.training.distillation import BatchLoss, Distillation, StudentLoss, hard_loss
from supernet.training.paths import Role, Slot
from supernet.training.shrink import ShrinkSchedule
from supernet.training.strategy import StrategyState

if TYPE_CHECKING:
    from torch.optim import Optimizer

_PREFIX = "weights/"


class FrozenTeacher(Distillation):
    """Labels alone while the largest network is trained alone; from then on its copy teaches the others.

    Source: Once-for-All (Cai et al., ICLR 2020), whose code runs the teacher in training mode, so normalised
    by the batch, without dropout and without gradients, on the very images that the students see. There every
    network is a student, the largest too where it happens to be drawn; where a step runs the largest in a
    place of its own, as DεpS does, that one goes on learning from labels.
    """

    def __init__(self, student_loss: StudentLoss, shrink: ShrinkSchedule) -> None:
        if not shrink.phase(0).trains_largest_alone:
            raise InvalidRequestError(
                "teacher 'frozen' is a copy of the largest network trained alone, and this schedule trains "
                "others from the first step; choose a longer delay or teacher 'in_place'"
            )
        self._shrink = shrink
        self._student_loss = student_loss
        self._taken_at_step: int | None = None
        self._weights: dict[str, Tensor] = {}
        self._teacher: Supernet | None = None

    def before_step(self, step: int, supernet: Supernet, optimizer: Optimizer) -> None:
        """Takes the copy when the time has come."""
        del optimizer
        if self._taken_at_step is None and not self._shrink.phase(step).trains_largest_alone:
            self._taken_at_step = step
            self._weights = supernet.state_dict()
        if self._taken_at_step is not None and self._teacher is None:
            self._teacher = _frozen_copy(supernet, self._weights)
            self._weights = self._teacher.state_dict()

    def for_batch(
        self, images: Tensor, labels_n: Tensor, *, normalise: Normaliser = normalise_by_batch
    ) -> BatchLoss:
        """A loss that runs the teacher once for each resolution of the step."""
        teacher = self._teacher
        teacher_nk_at: dict[int, Tensor] = {}

        def batch_loss(slot: Slot, logits_nk: Tensor) -> Tensor:
            if teacher is None or slot.role is Role.MAX:
                return hard_loss(logits_nk, labels_n, self._student_loss.label_smoothing)
            resolution_px = teacher.space.resolution_px(slot.architecture)
            if resolution_px not in teacher_nk_at:
                with torch.no_grad():
                    largest = _largest_at(teacher, slot.architecture)
                    teacher_nk_at[resolution_px] = teacher(images, largest, normalise=normalise)
            return self._student_loss(logits_nk, teacher_nk_at[resolution_px], labels_n)

        return batch_loss

    def describe(self) -> dict[str, Any]:
        """Since when there is a teacher, if there is."""
        return {"taken_at_step": self._taken_at_step}

    def state_dict(self) -> StrategyState:
        """The teacher's weights."""
        if self._taken_at_step is None:
            return {}
        weights = {f"{_PREFIX}{name}": weight for name, weight in self._weights.items()}
        return {"taken_at_step": self._taken_at_step, **weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave; the teacher itself is made before the next step."""
        self._taken_at_step = state.get("taken_at_step")
        self._weights = {
            key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)
        }
        self._teacher = None


def _frozen_copy(supernet: Supernet, weights: Mapping[str, Tensor]) -> Supernet:
    """A supernet of these weights that nothing trains, laid out in memory as the one that is trained."""
    teacher = Supernet(
        supernet.space,
        num_classes=supernet.num_classes,
        in_channels=supernet.in_channels,
        kernel_transform=supernet.kernel_transform,
        # Of its own: what it draws is thrown away, and must not be missing elsewhere.
        generator=torch.Generator(),
    )
    live = supernet.state_dict()
    copies = {name: torch.empty_like(live[name]).copy_(weight) for name, weight in weights.items()}
    teacher.load_state_dict(copies, assign=True)
    return teacher.requires_grad_(requires_grad=False).train()


def _largest_at(supernet: Supernet, architecture: Architecture) -> Architecture:
    """The largest network, reading images at this network's resolution."""
    space = supernet.space
    largest = dict(space.largest().choices)
    if RESOLUTION in largest:
        largest[RESOLUTION] = space.resolution_px(architecture)
    return space.parse(largest)
