"""Extraction: one network of the supernet as a plain module of its own weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.architecture import Architecture
from nas.layers import LayerKind, LayerSpec
from supernet.batchnorm import Statistics
from supernet.elastic.batch_norm import EPS
from supernet.elastic.conv import ElasticConv
from supernet.elastic.linear import ElasticLinear
from supernet.elastic.stateless import activate, run_stateless
from supernet.graph import run_layers
from supernet.network import WEIGHTED, Slot, Supernet, slot_key
from supernet.resize import resize


class PlainNetwork(nn.Module):
    """The network a lowering describes, in ordinary layers: `<slot>.conv`, `<slot>.linear`, `<slot>.bn`."""

    def __init__(self, layers: Sequence[LayerSpec]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        for layer in self.layers:
            if layer.kind in WEIGHTED:
                self.add_module(slot_key(layer.name), _plain_layer(layer))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, H, W); other sizes are resized as in training."""
        images = resize(images, self.layers[0].in_height)
        return run_layers(self.layers, images.contiguous(memory_format=torch.channels_last), self._run_layer)

    def _run_layer(self, layer: LayerSpec, inputs: Sequence[Tensor]) -> Tensor:
        if layer.kind in WEIGHTED:
            x = inputs[0].flatten(1) if layer.kind is LayerKind.LINEAR else inputs[0]
            x = self.get_submodule(slot_key(layer.name))(x)
        else:
            x = run_stateless(layer, inputs)
        return activate(x, layer.act)


def extract(
    supernet: Supernet, architecture: Architecture, statistics: Statistics | None = None
) -> PlainNetwork:
    """The architecture as a plain module in eval mode, with its own copy of the weights it slices.

    None leaves mean 0 and variance 1 in the batch norms, as the supernet's eval mode does.
    """
    layers = supernet.lower(architecture)
    network = PlainNetwork(layers).to(next(supernet.parameters()).device)
    with torch.no_grad():
        for layer in layers:
            if layer.kind in WEIGHTED:
                _copy_slice(supernet.slot(layer), layer, network.get_submodule(slot_key(layer.name)))
                if statistics is not None and layer.bn:
                    _copy_statistics(statistics, layer, network.get_submodule(slot_key(layer.name)))
    return network.eval()


def _plain_layer(layer: LayerSpec) -> nn.Sequential:
    plain = nn.Sequential()
    if layer.kind is LayerKind.CONV:
        conv = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.padding,
            groups=layer.groups, bias=layer.bias,
        )  # fmt: skip
        plain.add_module("conv", conv)
    if layer.kind is LayerKind.LINEAR:
        plain.add_module("linear", nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias))
    if layer.bn:
        plain.add_module("bn", nn.BatchNorm2d(layer.out_channels, eps=EPS))
    return plain


def _copy_slice(slot: Slot, layer: LayerSpec, plain: nn.Module) -> None:
    if isinstance(slot.weights, ElasticConv | ElasticLinear):
        target = plain.get_submodule("conv" if layer.kind is LayerKind.CONV else "linear")
        target.get_parameter("weight").copy_(slot.weights.weight_for(layer))
        bias = slot.weights.bias_for(layer)
        if bias is not None:
            target.get_parameter("bias").copy_(bias)
    if slot.bn is not None:
        norm = plain.get_submodule("bn")
        norm.get_parameter("weight").copy_(slot.bn.weight[: layer.out_channels])
        norm.get_parameter("bias").copy_(slot.bn.bias[: layer.out_channels])


def _copy_statistics(statistics: Statistics, layer: LayerSpec, plain: nn.Module) -> None:
    norm = plain.get_submodule("bn")
    norm.get_buffer("running_mean").copy_(statistics.means[layer.name])
    norm.get_buffer("running_var").copy_(statistics.variances[layer.name])
