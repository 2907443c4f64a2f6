"""Distillation: what each network of a step is trained towards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

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
    def for_batch(self, images: Tensor, labels_n: Tensor) -> BatchLoss:
        """The loss of this batch; it may remember the logits of a teacher from one call to the next."""


class NoDistillation(Distillation):
    """Every network learns from the labels, smoothed."""

    def __init__(self, *, label_smoothing: float) -> None:
        self._label_smoothing = label_smoothing

    def for_batch(self, images: Tensor, labels_n: Tensor) -> BatchLoss:
        """Cross-entropy with the labels, whatever the role."""
        del images
        return _HardLoss(labels_n, self._label_smoothing)


class SoftDistillation(Distillation):
    """The largest network learns from the labels, the others from its predictions alone (BigNAS).

    The teacher is the largest network on the same batch with the same weights. Temperature 1; no hard
    label for students, which Once-for-All keeps and BigNAS drops.
    """

    def __init__(self, *, label_smoothing: float) -> None:
        self._label_smoothing = label_smoothing

    def for_batch(self, images: Tensor, labels_n: Tensor) -> BatchLoss:
        """A loss whose first call must be that of the largest network."""
        del images
        return _InPlaceLoss(_HardLoss(labels_n, self._label_smoothing))


class _HardLoss:
    def __init__(self, labels_n: Tensor, label_smoothing: float) -> None:
        self._labels_n = labels_n
        self._label_smoothing = label_smoothing

    def __call__(self, slot: Slot, logits_nk: Tensor) -> Tensor:
        del slot
        return F.cross_entropy(
            logits_nk, self._labels_n, reduction="none", label_smoothing=self._label_smoothing
        )


class _InPlaceLoss:
    def __init__(self, hard_loss: _HardLoss) -> None:
        self._hard_loss = hard_loss
        self._teacher_nk: Tensor | None = None

    def __call__(self, slot: Slot, logits_nk: Tensor) -> Tensor:
        if slot.role is Role.MAX:
            # Detached: a student must not pull its teacher towards itself.
            self._teacher_nk = logits_nk.detach().softmax(1)
            return self._hard_loss(slot, logits_nk)
        if self._teacher_nk is None:
            raise RuntimeError(f"role '{slot.role}' came before '{Role.MAX}', whose logits are its target")
        return F.cross_entropy(logits_nk, self._teacher_nk, reduction="none")
