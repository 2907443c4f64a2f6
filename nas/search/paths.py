"""Paths through a network's layers: how deep it is, and by how many ways an image gets through."""

from __future__ import annotations

from collections.abc import Sequence
from math import log1p

from nas.layers import IMAGE, LayerKind, LayerSpec

_TRAINED = (LayerKind.CONV, LayerKind.LINEAR)


def path_figures(layers: Sequence[LayerSpec]) -> tuple[float, float, float]:
    """Convolutions and linear layers on the longest and on the shortest path from image to output, and
    log(1 + paths).

    Nothing passes through zeros: -1, -1 and 0 where no path is left.
    """
    longest: dict[int, int] = {IMAGE: 0}
    shortest: dict[int, int] = {IMAGE: 0}
    num_paths: dict[int, int] = {IMAGE: 1}
    for position, layer in enumerate(layers):
        sources = [] if layer.kind is LayerKind.ZEROS else [s for s in layer.inputs if s in num_paths]
        if not sources:
            continue
        length = int(layer.kind in _TRAINED)
        longest[position] = length + max(longest[s] for s in sources)
        shortest[position] = length + min(shortest[s] for s in sources)
        num_paths[position] = sum(num_paths[s] for s in sources)
    output = len(layers) - 1
    if output not in num_paths:
        return -1.0, -1.0, 0.0
    return float(longest[output]), float(shortest[output]), log1p(num_paths[output])
