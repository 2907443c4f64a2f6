"""Runs a lowering: the one interpreter behind the supernet and the extracted network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from nas.layers import LayerSpec

RunLayer = Callable[[LayerSpec, Sequence[Tensor]], Tensor]


def run_layers(layers: Sequence[LayerSpec], images: Tensor, run_layer: RunLayer) -> Tensor:
    """The last layer's output; each tensor is let go once its last reader has run."""
    return run_block(layers, range(len(layers)), images, run_layer)


def run_block(layers: Sequence[LayerSpec], block: range, x: Tensor, run_layer: RunLayer) -> Tensor:
    """The output of the block's last layer; `x` is that of the layer before it, the images at first."""
    last_reader = {source: position for position in block for source in layers[position].inputs}
    tensors = {block.start - 1: x}
    for position in block:
        layer = layers[position]
        tensors[position] = run_layer(layer, [tensors[source] for source in layer.inputs])
        for source in set(layer.inputs):
            if last_reader[source] == position:
                del tensors[source]
    return tensors[block.stop - 1]


def split_into_blocks(layers: Sequence[LayerSpec]) -> tuple[range, ...]:
    """The finest cut into runs of layers that read, of what lies before them, the last output only.

    Networks that agree up to the end of a block agree on the blocks up to there.
    """
    last_reader = {source: position for position, layer in enumerate(layers) for source in layer.inputs}
    blocks: list[range] = []
    start = 0
    needed_until = last_reader[-1]
    for position in range(len(layers)):
        if needed_until <= position:
            blocks.append(range(start, position + 1))
            start = position + 1
        needed_until = max(needed_until, last_reader.get(position, position))
    return tuple(blocks)
