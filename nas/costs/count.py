"""Costs of one layer, and of a lowering as their sum or maximum.

Conventions, one name each: `macs` are multiply-accumulates of convolutions and linear layers for one
image (batch norm folded; biases, activations, additions and pooling not counted). `params` are all
trainable numbers: weights, biases, batch-norm scale and shift. `size_bytes` is what the weights take
in a file as fp32: `params` and the batch-norm mean and variance. `peak_activation_bytes` is the most
that is live at once when the layers run in order, one image, fp32.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas.layers import IMAGE, LayerKind, LayerSpec

COST_NAMES = ("macs", "params", "size_bytes", "peak_activation_bytes")
ADDITIVE_COST_NAMES = ("macs", "params", "size_bytes")
BYTES_PER_NUMBER = 4

_WEIGHTED = (LayerKind.CONV, LayerKind.LINEAR)


def layer_weights(layer: LayerSpec) -> int:
    """Numbers in the layer's weight tensor."""
    if layer.kind not in _WEIGHTED:
        return 0
    return layer.out_channels * (layer.in_channels // layer.groups) * layer.kernel**2


def layer_macs(layer: LayerSpec) -> int:
    """Multiply-accumulates for one image."""
    return layer_weights(layer) * layer.out_height * layer.out_width


def layer_params(layer: LayerSpec) -> int:
    """Trainable numbers."""
    return layer_weights(layer) + layer.out_channels * (int(layer.bias) + 2 * int(layer.bn))


def layer_size_bytes(layer: LayerSpec) -> int:
    """Bytes of the layer's tensors in a weights file, fp32."""
    statistics = 2 * layer.out_channels if layer.bn else 0
    return BYTES_PER_NUMBER * (layer_params(layer) + statistics)


def live_bytes(layers: Sequence[LayerSpec]) -> list[int]:
    """For each layer, the bytes of all activations that must exist while it runs.

    These are its output and every earlier output, the image included, that it or a later layer reads.
    Batch norm and activation work in place on the layer's output.
    """
    last_reader = {IMAGE: 0}
    for position, layer in enumerate(layers):
        last_reader[position] = position
        for source in layer.inputs:
            last_reader[source] = position
    first = layers[0]
    sizes = {IMAGE: BYTES_PER_NUMBER * first.in_channels * first.in_height * first.in_width}
    live: dict[int, int] = {IMAGE: sizes[IMAGE]}
    totals = []
    for position, layer in enumerate(layers):
        live[position] = BYTES_PER_NUMBER * layer.out_channels * layer.out_height * layer.out_width
        totals.append(sum(live.values()))
        live = {source: size for source, size in live.items() if last_reader[source] > position}
    return totals


def lowering_costs(layers: Sequence[LayerSpec]) -> dict[str, int]:
    """The costs of a network by name; a network of no layers costs nothing."""
    return {
        "macs": sum(map(layer_macs, layers)),
        "params": sum(map(layer_params, layers)),
        "size_bytes": sum(map(layer_size_bytes, layers)),
        "peak_activation_bytes": max(live_bytes(layers)) if layers else 0,
    }
