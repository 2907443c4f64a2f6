"""Structure: a network as DeepMAD writes it, stages of free widths, with the lowering that every other reads.

Source: DeepMAD (Shen et al., CVPR 2023) and its public code, whose counter these lowerings reproduce.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nas.errors import InvalidArchitectureError
from nas.layers import IMAGE, Act, LayerSpec, LoweringBuilder

SQUEEZE_RATIO = 0.25
"""Width inside a squeeze-excite as a part of the block's inner width, rounded down to a multiple of 8."""


class BlockKind(StrEnum):
    """What a stage is made of, with the name that the public code gives it."""

    CONV = "ConvKXBNRELU"
    """One convolution: a stem or a head."""
    BOTTLENECK = "SuperResK1KXK1"
    """1 × 1, k × k, 1 × 1; its first shortcut is always a projection."""
    INVERTED_RESIDUAL = "SuperResK1DWK1"
    """1 × 1, depthwise k × k, 1 × 1; a shortcut only where the shapes agree."""
    INVERTED_RESIDUAL_SE = "SuperResK1DWSEK1"
    """The same with a squeeze-excite behind the depthwise convolution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`depth` blocks of one kind; the first has the stride, all have the same widths."""

    kind: BlockKind
    out_channels: int
    kernel: int
    stride: int
    inner_channels: int | None = None
    """Width inside each block; None for a convolution, which has no inside."""
    depth: int = 1

    def __post_init__(self) -> None:
        sizes = (self.out_channels, self.kernel, self.stride, self.depth)
        if min(sizes) < 1 or self.kernel % 2 == 0:
            raise InvalidArchitectureError(
                f"a stage of width {self.out_channels}, kernel {self.kernel}, stride {self.stride} and depth "
                f"{self.depth} cannot be built; all must be at least 1 and the kernel odd"
            )
        has_inside = self.inner_channels is not None and self.inner_channels >= 1
        if has_inside == (self.kind is BlockKind.CONV) or (self.kind is BlockKind.CONV and self.depth != 1):
            raise InvalidArchitectureError(
                f"a stage of {self.kind.value} cannot have inner width {self.inner_channels} and depth "
                f"{self.depth}; a convolution has none and depth 1, a residual block has one of at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A backbone: stages in order, on square images. It has no classifier."""

    stages: tuple[Stage, ...]
    resolution_px: int
    in_channels: int = 3

    def lower(self) -> tuple[LayerSpec, ...]:
        """The backbone's layers in execution order; blocks are named `stageN.blockM`."""
        net = LoweringBuilder(self.in_channels, self.resolution_px)
        tensor = IMAGE
        for number, stage in enumerate(self.stages, start=1):
            if stage.kind is BlockKind.CONV:
                tensor = net.conv(
                    f"conv{number}", tensor, stage.out_channels,
                    kernel=stage.kernel, stride=stage.stride, act=Act.RELU,
                )  # fmt: skip
                continue
            lower_block = _lower_bottleneck if stage.kind is BlockKind.BOTTLENECK else _lower_inverted
            for block in range(1, stage.depth + 1):
                tensor = lower_block(net, f"stage{number}.block{block}", tensor, stage, is_first=block == 1)
        return net.layers()


def _lower_bottleneck(net: LoweringBuilder, name: str, source: int, stage: Stage, *, is_first: bool) -> int:
    inner, stride = stage.inner_channels or 0, stage.stride if is_first else 1
    shortcut = source
    if is_first:
        if stride > 1:
            shortcut = net.average_pool(f"{name}.downsample.pool", shortcut, kernel=stride, stride=stride)
        shortcut = net.conv(f"{name}.downsample.conv", shortcut, stage.out_channels)
    tensor = net.conv(f"{name}.conv1", source, inner, act=Act.RELU)
    tensor = net.conv(f"{name}.conv2", tensor, inner, kernel=stage.kernel, stride=stride, act=Act.RELU)
    tensor = net.conv(f"{name}.conv3", tensor, stage.out_channels, has_zero_init=True)
    return net.add(f"{name}.add", shortcut, tensor, act=Act.RELU)


def _lower_inverted(net: LoweringBuilder, name: str, source: int, stage: Stage, *, is_first: bool) -> int:
    inner, stride = stage.inner_channels or 0, stage.stride if is_first else 1
    tensor = net.conv(f"{name}.expand", source, inner, act=Act.SWISH)
    tensor = net.conv(
        f"{name}.depthwise", tensor, inner, kernel=stage.kernel, stride=stride, is_depthwise=True,
        act=Act.SWISH,
    )  # fmt: skip
    if stage.kind is BlockKind.INVERTED_RESIDUAL_SE:
        tensor = _lower_squeeze_excite(net, f"{name}.squeeze_excite", tensor, inner)
    if stride > 1 or net.channels(source) != stage.out_channels:
        return net.conv(f"{name}.project", tensor, stage.out_channels, act=Act.SWISH)
    tensor = net.conv(f"{name}.project", tensor, stage.out_channels, has_zero_init=True)
    return net.add(f"{name}.add", source, tensor, act=Act.SWISH)


def _lower_squeeze_excite(net: LoweringBuilder, name: str, source: int, inner: int) -> int:
    squeezed = max(8, int(inner * SQUEEZE_RATIO) // 8 * 8)
    factors = net.global_pool(f"{name}.pool", source)
    factors = net.conv(f"{name}.reduce", factors, squeezed, act=Act.RELU)
    factors = net.conv(f"{name}.expand", factors, inner, act=Act.HARD_SIGMOID)
    return net.scale(f"{name}.scale", source, factors)
