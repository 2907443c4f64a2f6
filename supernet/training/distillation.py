"""Distillation: what each network of a step is trained towards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from supernet.elastic.batch_norm import Normaliser, normalise_by_batch
from supernet.training.paths import Role, Slot
from supernet.training.strategy import Strategy


class BatchLoss(Protocol):
    """The losses of one batch, network after network."""

    def __call__(self, slot: Slot, logits_nk: Tensor) -> Tensor:
        """One loss for each image, shape (n,)."""
        ...


class Distillation(Strategy, ABC):
    """Makes the loss of each batch."""

    @abstractmethod
    def for_batch(
        self, images: Tensor, labels_n: Tensor, *, normalise: Normaliser = normalise_by_batch
    ) -> BatchLoss:
        """The loss of this batch; it may remember the logits of a teacher from one call to the next.

        A teacher that is none of the step's networks may be run on the images, normalised as those are.
        """


class NoDistillation(Distillation):
    """Every network learns from the labels, smoothed."""

    def __init__(self, *, label_smoothing: float) -> None:
        self._label_smoothing = label_smoothing

    def for_batch(
        self, images: Tensor, labels_n: Tensor, *, normalise: Normaliser = normalise_by_batch
    ) -> BatchLoss:
        """Cross-entropy with the labels, whatever the role."""
        del images, normalise

        def batch_loss(slot: Slot, logits_nk: Tensor) -> Tensor:
            del slot
            return hard_loss(logits_nk, labels_n, self._label_smoothing)

        return batch_loss


class SoftDistillation(Distillation):
    """The largest network learns from the labels, the others from its predictions (BigNAS, DεpS).

    The teacher is the largest network on the same batch with the same weights. BigNAS has temperature 1 and
    drops the labels; DεpS has a temperature; Once-for-All keeps the labels.
    """

    def __init__(
        self, *, label_smoothing: float, temperature: float = 1.0, keeps_labels: bool = False
    ) -> None:
        self._student_loss = StudentLoss(
            label_smoothing=label_smoothing, temperature=temperature, keeps_labels=keeps_labels
        )

    def for_batch(
        self, images: Tensor, labels_n: Tensor, *, normalise: Normaliser = normalise_by_batch
    ) -> BatchLoss:
        """A loss whose first call must be that of the largest network."""
        del images, normalise
        teacher_nk: Tensor | None = None

        def batch_loss(slot: Slot, logits_nk: Tensor) -> Tensor:
            nonlocal teacher_nk
            if slot.role is Role.MAX:
                # Detached: a student must not pull its teacher towards itself.
                teacher_nk = logits_nk.detach()
                return hard_loss(logits_nk, labels_n, self._student_loss.label_smoothing)
            if teacher_nk is None:
                raise RuntimeError(
                    f"role '{slot.role}' came before '{Role.MAX}', whose logits are its target"
                )
            return self._student_loss(logits_nk, teacher_nk, labels_n)

        return batch_loss


@dataclass(frozen=True, kw_only=True)
class StudentLoss:
    """Cross-entropy with a teacher's predictions at a temperature, and perhaps with the labels too.

    With temperature T, T² · CE(softmax(teacher / T), student / T): its gradient has the scale that it has at
    temperature 1 (Hinton et al., 2015, section 2; DεpS).
    """

    label_smoothing: float
    temperature: float = 1.0
    keeps_labels: bool = False
    """Adds the cross-entropy with the labels, with the weight 1 (Once-for-All)."""

    def __call__(self, logits_nk: Tensor, teacher_nk: Tensor, labels_n: Tensor) -> Tensor:
        """One loss for each image, shape (n,); `teacher_nk` are logits."""
        target_nk = (teacher_nk / self.temperature).softmax(1)
        soft_n = F.cross_entropy(logits_nk / self.temperature, target_nk, reduction="none")
        losses_n = self.temperature**2 * soft_n
        if self.keeps_labels:
            losses_n = losses_n + hard_loss(logits_nk, labels_n, self.label_smoothing)
        return losses_n


def hard_loss(logits_nk: Tensor, labels_n: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy with the smoothed labels, for each image, shape (n,)."""
    return F.cross_entropy(logits_nk, labels_n, reduction="none", label_smoothing=label_smoothing)
