"""Runs a lowering: the one interpreter behind the supernet and the extracted network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from nas.layers import IMAGE, LayerSpec

RunLayer = Callable[[LayerSpec, Sequence[Tensor]], Tensor]


def run_layers(layers: Sequence[LayerSpec], images: Tensor, run_layer: RunLayer) -> Tensor:
    """The last layer's output; each tensor is let go once its last reader has run."""
    last_reader = {source: position for position, layer in enumerate(layers) for source in layer.inputs}
    tensors = {IMAGE: images}
    for position, layer in enumerate(layers):
        tensors[position] = run_layer(layer, [tensors[source] for source in layer.inputs])
        for source in set(layer.inputs):
            if last_reader[source] == position:
                del tensors[source]
    return tensors[len(layers) - 1]
