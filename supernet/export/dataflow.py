"""Who reads which tensor of a lowering: what the generated source and the ONNX graph are both built on."""

from __future__ import annotations

from collections.abc import Sequence

from nas.layers import LayerSpec


def live_positions(layers: Sequence[LayerSpec]) -> list[int]:
    """Positions, in order, of the layers that the last one depends on.

    A NAS-Bench-201 cell may hold operations that lead nowhere. Their weights are counted and
    published, as the benchmark does, but running them would change nothing.
    """
    live = {len(layers) - 1}
    for position in reversed(range(len(layers))):
        if position in live:
            live.update(layers[position].inputs)
    return [position for position in range(len(layers)) if position in live]


def readers_of(layers: Sequence[LayerSpec], positions: Sequence[int]) -> dict[int, list[int]]:
    """For each tensor, which of `positions` read it, ascending."""
    readers: dict[int, list[int]] = {}
    for position in positions:
        for source in dict.fromkeys(layers[position].inputs):
            readers.setdefault(source, []).append(position)
    return readers
