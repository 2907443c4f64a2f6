"""Linear classifier whose input width is chosen per call."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.layers import LayerSpec


class ElasticLinear(nn.Module):
    """Shared weight of shape (out, in); a call uses its first columns and rows."""

    def __init__(
        self, out_features: int, in_features: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.normal_(self.weight, std=0.01, generator=generator)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def weight_for(self, layer: LayerSpec) -> Tensor:
        """The weight this layer uses, shape (out_channels, in_channels)."""
        return self.weight[: layer.out_channels, : layer.in_channels]

    @torch.no_grad()
    def write_weight(self, layer: LayerSpec, weight: Tensor) -> None:
        """Make `weight` the one this layer uses."""
        self.weight_for(layer).copy_(weight)

    def bias_for(self, layer: LayerSpec) -> Tensor:
        """The bias this layer uses, shape (out_channels,)."""
        return self.bias[: layer.out_channels]

    def forward(self, x: Tensor, layer: LayerSpec) -> Tensor:
        """(N, in) → (N, out)."""
        return F.linear(x, self.weight_for(layer), self.bias_for(layer))
