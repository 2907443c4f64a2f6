"""Running a batch in pieces that stay in the processor's cache, where its activations are large."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from nas.layers import LayerSpec
from supernet.graph import RunLayer, run_block

PIECE_BYTES = 4 * 2**20
"""The largest activation of a piece: about what a core's share of the cache holds (2 to 8 MB do alike)."""
SMALLEST_PIECE = 32
"""Images. In much smaller pieces convolutions were seen to round otherwise than in a whole batch.

Pieces are multiples of it: swish rounds otherwise what is left over beyond the last whole vectors, which hold
at most 32 numbers, so these must end in a piece where they end in the whole batch.
"""


def run_in_pieces(
    layers: Sequence[LayerSpec], blocks: Sequence[range], x: Tensor, run_layer: RunLayer
) -> Tensor:
    """The last block's output, `x` being that of the layer before the first; as in one go, only sooner.

    For layers that treat each image by itself: batch norm with given statistics. Other devices than the
    processor have use for the whole batch at once.
    """
    if x.device.type != "cpu":
        return _run_blocks(layers, blocks, x, run_layer)
    for num_pieces, group in groupby(blocks, key=lambda block: _num_pieces(layers, block, len(x))):
        together = list(group)
        sizes = _piece_sizes(len(x), num_pieces)
        pieces = [_run_blocks(layers, together, piece, run_layer) for piece in x.split(sizes)]
        x = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
    return x


def _run_blocks(
    layers: Sequence[LayerSpec], blocks: Sequence[range], x: Tensor, run_layer: RunLayer
) -> Tensor:
    for block in blocks:
        x = run_block(layers, block, x, run_layer)
    return x


def _num_pieces(layers: Sequence[LayerSpec], block: range, num_images: int) -> int:
    """A power of two, so that neighbouring blocks often agree and a piece goes through all of them."""
    image_bytes = 4 * max(_largest_activation(layers[position]) for position in block)
    num_pieces = 1
    while num_pieces * PIECE_BYTES < image_bytes * num_images and (
        2 * num_pieces * SMALLEST_PIECE <= num_images
    ):
        num_pieces *= 2
    return num_pieces


def _piece_sizes(num_images: int, num_pieces: int) -> list[int]:
    """About that many pieces, none smaller than the smallest."""
    if num_pieces == 1:
        return [num_images]
    size = max(1, round(num_images / num_pieces / SMALLEST_PIECE)) * SMALLEST_PIECE
    whole, rest = divmod(num_images, size)
    sizes = [size] * whole
    if rest >= SMALLEST_PIECE:
        return [*sizes, rest]
    return [*sizes[:-1], size + rest]


def _largest_activation(layer: LayerSpec) -> int:
    """Numbers in the larger of a layer's input and output, for one image."""
    return max(
        layer.in_channels * layer.in_height * layer.in_width,
        layer.out_channels * layer.out_height * layer.out_width,
    )
