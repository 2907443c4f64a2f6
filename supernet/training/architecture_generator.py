"""Architecture generator: a recurrent network that writes an architecture of a given cost."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nas.space import SearchSpace

HIDDEN_SIZE = 64


class ArchitectureGenerator(nn.Module):
    """An LSTM cell that is told the cost and emits one decision a step, each by a head of its own.

    Source: ShiftNAS (ICCV 2023, sections 3.3 and 4.1): hidden size 64, one fully connected head for each
    group of decisions (ten for its convolutional space: kernels block by block, channels and depth stage by
    stage), a hard Gumbel one-hot vector for each.

    Deviation: one head for each decision of the space, which the paper's groups become in a space whose
    blocks all decide for themselves. The cell also reads the choice made at the step before, so that later
    decisions can make up for earlier ones; the paper does not say what it reads beside the cost.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self._sizes = [len(decision.options) for decision in space.decisions]
        self._widest = max(self._sizes)
        self.cell = nn.LSTMCell(1 + self._widest + len(self._sizes), HIDDEN_SIZE)
        self.heads = nn.Linear(HIDDEN_SIZE, sum(self._sizes))
        """Each decision's head is its rows of this layer."""

    def forward(self, targets_n: Tensor, noise_no: Tensor, *, temperature: float) -> Tensor:
        """One-hot vectors side by side, shape (n, num_gates), for targets from -1 to 1.

        `noise_no` is Gumbel noise of that shape; without noise every choice is the likeliest. The values are
        exactly 0 and 1; gradients go through the soft choice at `temperature`.
        """
        state: tuple[Tensor, Tensor] | None = None
        chosen = targets_n.new_zeros(len(targets_n), self._widest)
        places = torch.eye(len(self._sizes)).to(targets_n)
        weights, biases = self.heads.weight.split(self._sizes), self.heads.bias.split(self._sizes)
        noises = noise_no.split(self._sizes, dim=1)
        emitted = []
        for weight, bias, noise_nk, place in zip(weights, biases, noises, places, strict=True):
            place_np = place.expand(len(targets_n), -1)
            state = self.cell(torch.cat([targets_n[:, None], chosen, place_np], dim=1), state)
            one_hot_nk = hard_choice(F.linear(state[0], weight, bias) + noise_nk, temperature=temperature)
            emitted.append(one_hot_nk)
            chosen = F.pad(one_hot_nk, (0, self._widest - one_hot_nk.shape[1]))
        return torch.cat(emitted, dim=1)


def hard_choice(scores: Tensor, *, temperature: float) -> Tensor:
    """One-hot vectors of the largest scores along the last dimension, with the gradient of their softmax.

    Of logits with Gumbel noise this is the straight-through Gumbel softmax (Jang et al., ICLR 2017).
    """
    soft = (scores / temperature).softmax(-1)
    hard = F.one_hot(scores.argmax(-1), scores.shape[-1]).to(soft)
    one_hot: Tensor = _StraightThrough.apply(soft, hard)
    return one_hot


class _StraightThrough(torch.autograd.Function):
    """Not `hard - soft.detach() + soft`, whose rounding leaves values that are nearly 0 and 1."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        del ctx, soft
        return hard

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        del ctx
        return gradient, None
