"""Layers without weights: activations, pools, sums. The supernet and the extracted network share them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.layers import Act, LayerKind, LayerSpec

_ACTS: dict[Act, Callable[..., Tensor]] = {
    Act.RELU: F.relu,
    Act.HARD_SWISH: F.hardswish,
    Act.HARD_SIGMOID: F.hardsigmoid,
    Act.SWISH: F.silu,
}


def activate(x: Tensor, act: Act | None, *, in_place: bool = False) -> Tensor:
    """The activation, or `x` itself for None; `in_place` writes it over an `x` that nobody else reads."""
    return x if act is None else _ACTS[act](x, inplace=in_place)


def run_stateless(layer: LayerSpec, inputs: Sequence[Tensor]) -> Tensor:
    """The output of a layer that has no weights, before its activation."""
    match layer.kind:
        case LayerKind.ACTIVATION:
            return inputs[0]
        case LayerKind.AVERAGE_POOL:
            return F.avg_pool2d(
                inputs[0], layer.kernel, layer.stride, layer.padding,
                ceil_mode=layer.reaches_past_edge, count_include_pad=False,
            )  # fmt: skip
        case LayerKind.MAX_POOL:
            return F.max_pool2d(inputs[0], layer.kernel, layer.stride, layer.padding)
        case LayerKind.GLOBAL_POOL:
            return inputs[0].mean((2, 3), keepdim=True)
        case LayerKind.ADD:
            total = inputs[0] + inputs[1]
            for term in inputs[2:]:
                total = total + term
            return total
        case LayerKind.SCALE:
            return inputs[0] * inputs[1]
        case LayerKind.ZEROS:
            return torch.zeros_like(inputs[0])
    raise ValueError(f"layer '{layer.name}' of kind {layer.kind} has weights of its own")
