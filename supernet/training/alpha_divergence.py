"""Alpha-divergence: distillation that punishes both what a student overlooks and what it invents."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from supernet.elastic.batch_norm import Normaliser, normalise_by_batch
from supernet.training.distillation import BatchLoss, Distillation, NoDistillation
from supernet.training.paths import Role, Slot


class AlphaDistillation(Distillation):
    """The largest network learns from the labels, the others from its predictions by a divergence.

    Source: Wang et al., "AlphaNet", ICML 2021, section 4 and its published code. With p the teacher's
    probabilities and q the student's, D_α = 1/(α(α−1)) · Σ q [(p/q)^α − 1]. Of two alphas each image takes
    the one with the larger divergence: a positive alpha, in the limit 1 the Kullback-Leibler divergence,
    is large where the student overlooks what the teacher predicts, a negative one where it predicts what
    the teacher does not. The powers of ratios are limited, except at alpha 1, where p/q only undoes the
    q that it is multiplied by. As in-place distillation otherwise: temperature 1, no hard label.
    """

    def __init__(
        self,
        *,
        label_smoothing: float,
        ratio_limit: float,
        alpha_min: float = -1.0,
        alpha_max: float = 1.0,
    ) -> None:
        if 0 in (alpha_min, alpha_max):
            raise ValueError("alpha 0 has a form of its own; choose one a little beside it, such as 0.01")
        self._by_labels = NoDistillation(label_smoothing=label_smoothing)
        self._ratio_limit = ratio_limit
        self._alphas = (alpha_min, alpha_max)

    def for_batch(
        self, images: Tensor, labels_n: Tensor, *, normalise: Normaliser = normalise_by_batch
    ) -> BatchLoss:
        """A loss whose first call must be that of the largest network."""
        del normalise
        return _AlphaLoss(self._by_labels.for_batch(images, labels_n), self._alphas, self._ratio_limit)


def alpha_divergence(
    log_q_nk: Tensor, log_p_nk: Tensor, alpha: float, ratio_limit: float
) -> tuple[Tensor, Tensor]:
    """(D_α, a scalar whose gradient by the student is D_α's), each of shape (n,), for log-probabilities.

    The second is −Σ sg[q ρ] log q with ρ = (p/q)^α / α, the power limited; a constant added to ρ would
    change no gradient, for Σ q ∇log q = 0.
    """
    log_ratio_nk = log_p_nk - log_q_nk.detach()
    p_nk, q_nk = log_p_nk.exp(), log_q_nk.detach().exp()
    if alpha == 1:
        return (p_nk * log_ratio_nk).sum(1), -(p_nk * log_q_nk).sum(1)
    # Limited before it is raised to a number: the ratio itself may be larger than any float.
    power_nk = (alpha * log_ratio_nk).clamp(max=log(ratio_limit)).exp()
    divergence_n = (q_nk * (power_nk - 1)).sum(1) / (alpha * (alpha - 1))
    return divergence_n, -(q_nk * power_nk / alpha * log_q_nk).sum(1)


class _AlphaLoss:
    def __init__(self, hard_loss: BatchLoss, alphas: tuple[float, float], ratio_limit: float) -> None:
        self._hard_loss = hard_loss
        self._alphas = alphas
        self._ratio_limit = ratio_limit
        self._log_p_nk: Tensor | None = None

    def __call__(self, slot: Slot, logits_nk: Tensor) -> Tensor:
        """The larger divergence, with the limited gradient that the paper gives it."""
        if slot.role is Role.MAX:
            # Detached: a student must not pull its teacher towards itself.
            self._log_p_nk = _log_probabilities(logits_nk.detach())
            return self._hard_loss(slot, logits_nk)
        if self._log_p_nk is None:
            raise RuntimeError(f"role '{slot.role}' came before '{Role.MAX}', whose logits are its target")
        log_q_nk = _log_probabilities(logits_nk)
        (low_n, low_surrogate_n), (high_n, high_surrogate_n) = (
            alpha_divergence(log_q_nk, self._log_p_nk, alpha, self._ratio_limit) for alpha in self._alphas
        )
        is_low_n = low_n > high_n
        surrogate_n = torch.where(is_low_n, low_surrogate_n, high_surrogate_n)
        # Told is the divergence; learned from is the surrogate, whose own value means nothing.
        return torch.where(is_low_n, low_n, high_n) + (surrogate_n - surrogate_n.detach())


def _log_probabilities(logits_nk: Tensor) -> Tensor:
    """In float32 at least: ratios of half-precision probabilities would overflow."""
    precise = torch.promote_types(logits_nk.dtype, torch.float32)
    return logits_nk.to(precise).log_softmax(1)
