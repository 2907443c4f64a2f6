"""A plain supernet in the manner of the public code: what ours is measured against.

NCHW memory, convolutions on sliced weights, one subnet at a time, a deep copy of the network for its
batch-norm statistics. It shares nothing with `supernet` but the lowering.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.layers import IMAGE, Act, LayerKind, LayerSpec
from nas.space import SearchSpace

_ACTS = {
    None: lambda x: x,
    Act.RELU: F.relu,
    Act.HARD_SWISH: F.hardswish,
    Act.HARD_SIGMOID: F.hardsigmoid,
    Act.SWISH: F.silu,
}


class ReferenceSupernet(nn.Module):
    """Weights of the largest network, sliced for each call; batch norms with running statistics."""

    def __init__(self, space: SearchSpace, *, num_classes: int) -> None:
        super().__init__()
        self.space = space
        self.num_classes = num_classes
        for layer in space.lower(space.largest(), num_classes=num_classes):
            if layer.kind in (LayerKind.CONV, LayerKind.LINEAR):
                self.add_module(layer.name.replace(".", "_"), _module(layer))

    def forward(self, images: Tensor, layers: Sequence[LayerSpec]) -> Tensor:
        """Logits of the network that `layers` describe."""
        side = layers[0].in_height
        if images.shape[-1] != side:
            images = F.interpolate(images, size=(side, side), mode="bicubic")
        tensors = {IMAGE: images}
        for position, layer in enumerate(layers):
            tensors[position] = self._run(layer, [tensors[source] for source in layer.inputs])
        return tensors[len(layers) - 1]

    def _run(self, layer: LayerSpec, inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        if layer.kind is LayerKind.GLOBAL_POOL:
            return x.mean((2, 3), keepdim=True)
        if layer.kind is LayerKind.ADD:
            return inputs[0] + inputs[1]
        if layer.kind is LayerKind.SCALE:
            return inputs[0] * inputs[1]
        module = getattr(self, layer.name.replace(".", "_"))
        if layer.kind is LayerKind.LINEAR:
            return F.linear(x.flatten(1), module.layer.weight[:, : layer.in_channels], module.layer.bias)
        return _ACTS[layer.act](_conv(module, layer, x))


def statistics_by_copy(net: ReferenceSupernet, layers: Sequence[LayerSpec], batches: Sequence[Tensor]):
    """A deep copy whose batch norms hold this network's statistics."""
    own = copy.deepcopy(net).train()
    for module in own.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for count, batch in enumerate(batches):
            for module in own.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1 / (count + 1)
            own(batch, layers)
    return own.eval()


def _module(layer: LayerSpec) -> nn.Module:
    module = nn.Module()
    if layer.kind is LayerKind.LINEAR:
        module.layer = nn.Linear(layer.in_channels, layer.out_channels)
        return module
    module.layer = nn.Conv2d(
        layer.in_channels, layer.out_channels, layer.kernel, groups=layer.groups, bias=layer.bias
    )
    if layer.bn:
        module.bn = nn.BatchNorm2d(layer.out_channels)
    return module


def _conv(module: nn.Module, layer: LayerSpec, x: Tensor) -> Tensor:
    margin = (module.layer.kernel_size[0] - layer.kernel) // 2
    crop = slice(margin, margin + layer.kernel)
    out, into = layer.out_channels, layer.in_channels // layer.groups
    weight = module.layer.weight[:out, :into, crop, crop].contiguous()
    bias = module.layer.bias[:out] if layer.bias else None
    x = F.conv2d(x, weight, bias, layer.stride, layer.padding, 1, layer.groups)
    if not layer.bn:
        return x
    bn = module.bn
    momentum = 0.1 if bn.momentum is None else bn.momentum
    return F.batch_norm(
        x, bn.running_mean[:out], bn.running_var[:out], bn.weight[:out], bn.bias[:out],
        bn.training, momentum, bn.eps,
    )  # fmt: skip
