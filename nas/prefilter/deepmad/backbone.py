"""The main path of a lowering, cut into blocks, and the points at which DeepMAD reads a network's entropy.

The entropy of a block is half the logarithm of the product of its convolutions' widths, where the width of a
convolution is in_channels · kernel² / groups; squeeze-excite and the shortcut add nothing. So everything the
score needs is read off the convolutions of the main path, whatever the family.

Source: DeepMAD (Shen et al., CVPR 2023) as its public code runs it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from nas.errors import InvalidRequestError
from nas.layers import IMAGE, LayerKind, LayerSpec

_BLOCK = re.compile(r"((.*)\.block\d+)\.")


@dataclass(frozen=True, slots=True)
class Tap:
    """A tensor at which the entropy is read: what enters a block that halves the map, or the output."""

    channels: int
    side_px: int
    is_behind_squeeze_excite: bool

    @property
    def log_size(self) -> float:
        """ln(channels · side²)."""
        return log(self.channels * self.side_px**2)


@dataclass(frozen=True, slots=True)
class Step:
    """A layer of the main path."""

    position: int
    """Among the layers of the lowering."""
    layer: LayerSpec
    block: str
    """Name of the block it is of; its own where it is of none."""
    stage: str | None
    """Name of the stage that the block is of."""
    tap: Tap | None
    """Read before this layer, where it opens a block that halves the map."""

    @property
    def is_conv(self) -> bool:
        """Only convolutions add entropy and depth."""
        return self.layer.kind is LayerKind.CONV

    @property
    def log_width(self) -> float:
        """ln(in_channels · kernel² / groups) of a convolution, 0 of other layers."""
        return log_width(self.layer) if self.is_conv else 0.0


@dataclass(frozen=True, slots=True)
class Backbone:
    """The main path from the image to the last map."""

    steps: tuple[Step, ...]
    output: Tap
    output_reader: int | None
    """Position of the layer that pools the last map; None where it is not pooled."""

    @property
    def taps(self) -> tuple[Tap, ...]:
        """All of them in order, the output last."""
        return (*(step.tap for step in self.steps if step.tap is not None), self.output)

    @property
    def depths(self) -> dict[str, int]:
        """Blocks of each stage."""
        stages = {step.block: step.stage for step in self.steps if step.stage is not None}
        names = list(stages.values())
        return {stage: names.count(stage) for stage in names}

    @property
    def has_depthwise(self) -> bool:
        """Whether a convolution of a block is grouped: inverted residuals, not bottlenecks."""
        return any(step.layer.groups > 1 for step in self.steps if step.stage is not None)


def log_width(layer: LayerSpec) -> float:
    """ln(in_channels · kernel² / groups)."""
    return log(layer.in_channels * layer.kernel**2 / layer.groups)


def trace_backbone(layers: Sequence[LayerSpec]) -> Backbone:
    """The main path of a network of residual blocks, up to its last map.

    Where two tensors are added the path takes the one with more convolutions behind it. Raises
    InvalidRequestError for a network whose layers are not in blocks, or that adds more than two tensors.
    """
    path = main_path(layers)
    if not any(_BLOCK.match(layers[position].name) for position in path):
        raise InvalidRequestError(
            "DeepMAD scores stages of residual blocks, whose layers are named 'STAGE.blockN.…'; this network "
            "has none; choose another space"
        )
    opens_halving = _halving_blocks([layers[position] for position in path])
    steps: list[Step] = []
    has_squeeze_excite = False
    previous: LayerSpec | None = None
    for position in path:
        layer = layers[position]
        block, stage = _names(layer)
        is_new = previous is None or _names(previous)[0] != block
        tap = None
        # The first layer reads the image, which is no tap.
        if previous is not None and is_new and block in opens_halving:
            tap = Tap(layer.in_channels, layer.in_height, has_squeeze_excite)
        steps.append(Step(position, layer, block, stage, tap))
        has_squeeze_excite |= layer.kind is LayerKind.SCALE
        previous = layer
    last = layers[path[-1]]
    output = Tap(last.out_channels, last.out_height, has_squeeze_excite)
    reader = next((p for p in range(path[-1] + 1, len(layers)) if layers[p].inputs == (path[-1],)), None)
    return Backbone(tuple(steps), output, reader)


def _names(layer: LayerSpec) -> tuple[str, str | None]:
    match = _BLOCK.match(layer.name)
    return (match[1], match[2]) if match else (layer.name, None)


def _halving_blocks(path: Sequence[LayerSpec]) -> set[str]:
    return {_names(layer)[0] for layer in path if layer.stride > 1}


def main_path(layers: Sequence[LayerSpec]) -> list[int]:
    """Positions of the layers from the image to the last map; of two branches the one with more convolutions.

    Raises InvalidRequestError where more than two tensors are added.
    """
    num_convs: dict[int, int] = {IMAGE: 0}
    source: dict[int, int] = {}
    for position, layer in enumerate(layers):
        if layer.kind is LayerKind.ADD:
            if len(layer.inputs) > 2:
                raise InvalidRequestError(
                    f"layer '{layer.name}' adds {len(layer.inputs)} tensors; DeepMAD scores residual blocks, "
                    "which add two; choose another space"
                )
            source[position] = max(layer.inputs, key=lambda read: num_convs[read])
        else:
            source[position] = layer.inputs[0]
        num_convs[position] = num_convs[source[position]] + int(layer.kind is LayerKind.CONV)
    path = []
    position = len(layers) - 1
    while position != IMAGE:
        path.append(position)
        if layers[position].kind is LayerKind.GLOBAL_POOL:
            path.clear()
        position = source[position]
    return path[::-1]
