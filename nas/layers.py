"""LayerSpec: what an architecture lowers to, and the builder that keeps the shapes.

A lowering is a tuple of layers in execution order. Each layer names the layers it reads by their
position, so the tuple is the whole data-flow graph: costs, the supernet's forward pass, the
extracted module, its generated source and its picture are all read off it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

IMAGE = -1
"""The position that stands for the input image."""


class LayerKind(StrEnum):
    """The closed set of layers that any space may lower to."""

    CONV = "conv"
    LINEAR = "linear"
    BATCH_NORM = "batch_norm"
    ACTIVATION = "activation"
    AVERAGE_POOL = "average_pool"
    """Of what lies within the map: neither padding counts nor what an even kernel meets past the edge."""
    MAX_POOL = "max_pool"
    """Padding never is the maximum."""
    GLOBAL_POOL = "global_pool"
    """Mean over height and width, which stay as 1 × 1."""
    ADD = "add"
    SCALE = "scale"
    """First input (C, H, W) times second input (C, 1, 1): the end of a squeeze-excite."""
    ZEROS = "zeros"
    """A tensor of zeros shaped as its input."""


WEIGHTED = (LayerKind.CONV, LayerKind.LINEAR, LayerKind.BATCH_NORM)
"""Layers that have weights of their own."""


class Act(StrEnum):
    """Activation applied after the layer and its batch norm."""

    RELU = "relu"
    HARD_SWISH = "hard_swish"
    HARD_SIGMOID = "hard_sigmoid"
    SWISH = "swish"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """One layer with every shape spelled out. Sizes are in pixels, for one image."""

    name: str
    """The slot of the supernet whose weights it slices; unique within a lowering."""
    kind: LayerKind
    inputs: tuple[int, ...]
    """Positions of the layers it reads; IMAGE (-1) is the image."""
    in_channels: int
    out_channels: int
    in_height: int
    in_width: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    bn: bool = False
    """A batch norm with affine parameters follows (or is the layer itself)."""
    act: Act | None = None
    has_zero_init: bool = False
    """Last batch norm before a shortcut's addition: its gamma starts at 0 (BigNAS)."""

    @property
    def padding(self) -> int:
        """Half the kernel for odd kernels, none for even ones."""
        return self.kernel // 2 if self.kernel % 2 else 0

    @property
    def reaches_past_edge(self) -> bool:
        """Whether a last window that lies partly outside counts: of an average over an even kernel, which
        halves a map of odd size to the size that a convolution of stride 2 gives it.
        """
        return self.kind is LayerKind.AVERAGE_POOL and self.kernel % 2 == 0

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return self._out_size(self.in_height)

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return self._out_size(self.in_width)

    def _out_size(self, size: int) -> int:
        if self.kind in (LayerKind.GLOBAL_POOL, LayerKind.LINEAR):
            return 1
        steps, rest = divmod(size + 2 * self.padding - self.kernel, self.stride)
        return steps + 1 + int(self.reaches_past_edge and rest > 0)


@dataclass(frozen=True, slots=True)
class _Shape:
    channels: int
    height: int
    width: int


class LoweringBuilder:
    """Appends layers and returns their positions, working out every input shape on the way."""

    def __init__(self, in_channels: int, resolution_px: int) -> None:
        self._layers: list[LayerSpec] = []
        self._shapes: dict[int, _Shape] = {IMAGE: _Shape(in_channels, resolution_px, resolution_px)}

    def layers(self) -> tuple[LayerSpec, ...]:
        """Everything appended so far, in execution order."""
        return tuple(self._layers)

    def channels(self, position: int) -> int:
        """Channels of the tensor at `position`."""
        return self._shapes[position].channels

    def conv(
        self,
        name: str,
        source: int,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        is_depthwise: bool = False,
        bias: bool = False,
        bn: bool = True,
        act: Act | None = None,
        has_zero_init: bool = False,
    ) -> int:
        """A convolution with padding k // 2, then batch norm and activation where asked."""
        groups = self.channels(source) if is_depthwise else 1
        return self._append(
            LayerKind.CONV, name, (source,), out_channels, kernel=kernel, stride=stride, groups=groups,
            bias=bias, bn=bn, act=act, has_zero_init=has_zero_init,
        )  # fmt: skip

    def linear(self, name: str, source: int, out_features: int) -> int:
        """The classifier: a linear layer with bias on a pooled tensor."""
        return self._append(LayerKind.LINEAR, name, (source,), out_features, bias=True)

    def batch_norm(self, name: str, source: int, *, act: Act | None = None) -> int:
        """A batch norm that follows no convolution."""
        return self._same(LayerKind.BATCH_NORM, name, (source,), bn=True, act=act)

    def activation(self, name: str, source: int, act: Act) -> int:
        """An activation that follows no other layer."""
        return self._same(LayerKind.ACTIVATION, name, (source,), act=act)

    def average_pool(self, name: str, source: int, *, kernel: int, stride: int) -> int:
        """Average pooling; padding k // 2 for odd kernels."""
        return self._same(LayerKind.AVERAGE_POOL, name, (source,), kernel=kernel, stride=stride)

    def max_pool(self, name: str, source: int, *, kernel: int, stride: int) -> int:
        """Maximum pooling; padding k // 2 for odd kernels."""
        return self._same(LayerKind.MAX_POOL, name, (source,), kernel=kernel, stride=stride)

    def global_pool(self, name: str, source: int) -> int:
        """Mean over the map."""
        return self._same(LayerKind.GLOBAL_POOL, name, (source,))

    def add(self, name: str, *sources: int, act: Act | None = None) -> int:
        """Sum of tensors of one shape."""
        return self._same(LayerKind.ADD, name, sources, act=act)

    def scale(self, name: str, source: int, factors: int) -> int:
        """Channel-wise product with a 1 × 1 tensor."""
        return self._same(LayerKind.SCALE, name, (source, factors))

    def zeros(self, name: str, like: int) -> int:
        """Zeros shaped as the tensor at `like`."""
        return self._same(LayerKind.ZEROS, name, (like,))

    def _same(
        self, kind: LayerKind, name: str, inputs: tuple[int, ...], *,
        kernel: int = 1, stride: int = 1, bn: bool = False, act: Act | None = None,
    ) -> int:  # fmt: skip
        channels = self.channels(inputs[0])
        return self._append(kind, name, inputs, channels, kernel=kernel, stride=stride, bn=bn, act=act)

    def _append(
        self, kind: LayerKind, name: str, inputs: tuple[int, ...], out_channels: int, *,
        kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = False, bn: bool = False,
        act: Act | None = None, has_zero_init: bool = False,
    ) -> int:  # fmt: skip
        shape = self._shapes[inputs[0]]
        layer = LayerSpec(
            name=name, kind=kind, inputs=inputs, in_channels=shape.channels, out_channels=out_channels,
            in_height=shape.height, in_width=shape.width, kernel=kernel, stride=stride, groups=groups,
            bias=bias, bn=bn, act=act, has_zero_init=has_zero_init,
        )  # fmt: skip
        position = len(self._layers)
        self._layers.append(layer)
        self._shapes[position] = _Shape(out_channels, layer.out_height, layer.out_width)
        return position
