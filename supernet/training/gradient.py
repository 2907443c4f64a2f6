"""Gradients: one flat buffer for all of them, how the networks of a step are weighted, and clipping."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.recipe import MAX_SLOTS
from nas.recipe_choices import ClipKind
from supernet.training.collective import Collective
from supernet.training.paths import Role
from supernet.training.strategy import Strategy

NetworkGradients = tuple[Tensor | None, ...]
"""Of one network: of each parameter that wants one, then of its gates; None where it has none."""


class FlatGradients:
    """All gradients in one buffer, of which `parameter.grad` is a view for every parameter that wants one.

    Those of all networks are added to the views, so one step needs one reduction whatever the number of
    networks, and a parameter that no network used has a gradient of exactly 0 on every rank. Momentum and
    decay go on moving it: a whole block that no network had as much as the last channels of a layer.

    The buffer has one part, or one more for each random network whose gradient is to be seen by itself.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        num_own: int = 0,
        num_scores: int = 0,
        num_gated: int = 0,
        num_gates: int = 0,
    ) -> None:
        """Room for `num_own` networks' own gradients, for the scores of `num_scores` images, and for the
        gradients by their `num_gates` gates of `num_gated` networks."""
        self._parameters = dict(model.named_parameters())
        sizes = [p.numel() for p in self._parameters.values()]
        first = next(iter(self._parameters.values()))
        num_values = sum(sizes) * (1 + num_own)
        num_others = MAX_SLOTS + num_scores + num_gated * num_gates
        self._buffer = torch.zeros(num_values + num_others, dtype=first.dtype, device=first.device)
        self.parts = self._buffer[:num_values].view(1 + num_own, sum(sizes))
        """Shape (1 + num_own, number of parameters), in the order of the parameters: what networks share,
        then the gradient of each random network by itself."""
        self.losses = self._buffer[num_values : num_values + MAX_SLOTS]
        """The loss of each slot. They ride in the same buffer to be summed over ranks for free."""
        first_score = num_values + MAX_SLOTS
        self.scores = self._buffer[first_score : first_score + num_scores]
        """Of the whole batch, likewise: each rank fills in those of its part."""
        self._gates = self._buffer[first_score + num_scores :].view(num_gated, num_gates)
        self._views = [
            {
                name: piece.view_as(p)
                for piece, (name, p) in zip(part.split(sizes), self._parameters.items(), strict=True)
            }
            for part in self.parts
        ]

    @property
    def values(self) -> Tensor:
        """Every gradient, shape (number of parameters,), once `merge` has put the parts together."""
        return self.parts[0]

    def start(self) -> None:
        """Zeroes the buffer and makes its first part the parameters' gradient, whatever that was.

        A parameter that wants no gradient has none, so that optimizers leave it alone; one of 0 they would
        take for a reason to go on by momentum and decay.
        """
        self._buffer.zero_()
        for name, parameter in self._parameters.items():
            parameter.grad = self._views[0][name] if parameter.requires_grad else None

    def of(self, loss: Tensor, gates: Tensor | None = None) -> NetworkGradients:
        """The gradient of a network's loss, by the parameters and by its gates.

        It touches nothing that another thread may be at.
        """
        wanted = [parameter for parameter in self._parameters.values() if parameter.requires_grad]
        inputs = wanted if gates is None else [*wanted, gates]
        return torch.autograd.grad(loss, inputs, allow_unused=True)

    def add(self, part: int, gradients: NetworkGradients, gates: Tensor | None = None) -> None:
        """Adds what `of` gave: to a part, and to the gradient of the gates."""
        views = [self._views[part][name] for name, p in self._parameters.items() if p.requires_grad]
        targets = views if gates is None else [*views, gates.grad]
        for target, gradient in zip(targets, gradients, strict=True):
            if gradient is not None:
                target.add_(gradient)

    def collect_gates(self, gates: Sequence[Tensor]) -> None:
        """Makes part of the buffer the gradient of these tensors, each of shape (num_gates,)."""
        for row, gate in zip(self._gates, gates, strict=False):
            gate.grad = row

    def sum_over(self, collective: Collective) -> None:
        """Adds the other ranks' gradients, losses and scores: the step's one reduction."""
        collective.all_reduce_sum(self._buffer)

    def norms(self, part: int) -> dict[str, float]:
        """The Euclidean norm of each parameter's gradient in this part, by the parameter's name."""
        views = self._views[part]
        norms = torch._foreach_norm(list(views.values()))
        return dict(zip(views, torch.stack(norms).tolist(), strict=True))

    def merge(self, weights: Sequence[float]) -> None:
        """Adds the random networks' own parts, each times its weight, to the first."""
        for part, weight in zip(self.parts[1:], weights, strict=True):
            self.values.add_(part, alpha=weight)


class GradientPolicy(Strategy, ABC):
    """Weighs the networks of a step and treats the sum."""

    @abstractmethod
    def weight(self, role: Role, epsilon: float) -> float:
        """The factor on this network's loss."""

    @abstractmethod
    def clip(self, gradients_p: Tensor) -> None:
        """Changes the summed gradients, shape (number of parameters,), in place."""


class SummedGradients(GradientPolicy):
    """Gradients of all networks added, not averaged; those other than the largest times epsilon."""

    def __init__(self, clip: ClipKind, threshold: float) -> None:
        self._clip = clip
        self._threshold = threshold

    def weight(self, role: Role, epsilon: float) -> float:
        """1 for the largest, epsilon for the others."""
        return 1.0 if role is Role.MAX else epsilon

    def clip(self, gradients_p: Tensor) -> None:
        """As `ClipKind` says."""
        match self._clip:
            case ClipKind.NORM:
                norm = torch.linalg.vector_norm(gradients_p)
                gradients_p.mul_((self._threshold / (norm + 1e-6)).clamp(max=1.0))
            case ClipKind.VALUE:
                gradients_p.clamp_(-self._threshold, self._threshold)
