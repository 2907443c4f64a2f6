"""Stages of inverted-residual blocks: OFA-MobileNetV3, AttentiveNAS, micro, and their small-image variants.

Source: MobileNetV3 (Howard et al., ICCV 2019) as made elastic by Once-for-All (Cai et al., ICLR 2020) and
BigNAS (Yu et al., ECCV 2020). How the papers' code writes an architecture is in `mbconv_notations`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from nas.architecture import Value
from nas.families.mbconv_notations import attentive_nas_values, once_for_all_values
from nas.families.rounding import make_divisible
from nas.layers import IMAGE, Act, LayerSpec, LoweringBuilder
from nas.space import RESOLUTION, Condition, CostTerm, Decision, SearchSpace, Values

SQUEEZE_DIVISOR = 4


class Shortcut(StrEnum):
    """What is added to the output of a block."""

    IDENTITY = "identity"
    """Its input, where the shapes agree; elsewhere nothing."""
    PROJECTION = "projection"
    """Its input, brought to the output's shape: average pooling where the block has a stride, a 1 × 1
    convolution without batch norm where the channels differ (AttentiveNAS)."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run of blocks of one width. A tuple with one value is fixed, not a decision."""

    name: str
    widths: tuple[int, ...]
    stride: int
    """Of the first block; the others have stride 1."""
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    is_uniform: bool = False
    """One kernel and one expansion for all blocks of the stage, not one for each."""
    has_squeeze_excite: bool
    act: Act

    def block(self, number: int) -> str:
        """The name of a block, counted from 1: the prefix of its layers."""
        return f"{self.name}.block{number}"

    def owner(self, number: int) -> str:
        """Whose kernel and expansion the block has: its own or the stage's."""
        return self.name if self.is_uniform else self.block(number)


@dataclass(frozen=True, kw_only=True)
class MBConvSpace(SearchSpace):
    """Stem, stages of inverted-residual blocks, head; what has several values in the data is elastic."""

    name: str
    resolutions: tuple[int, ...]
    stem_widths: tuple[int, ...]
    stem_stride: int
    stem_act: Act = Act.HARD_SWISH
    stages: tuple[Stage, ...]
    shortcut: Shortcut = Shortcut.IDENTITY
    head_width: int | None
    """Width of the 1 × 1 convolution before the pool; None: `head_expansion` times the last stage's."""
    head_expansion: int = 6
    head_hidden_widths: tuple[int, ...] = ()
    """Of a further 1 × 1 convolution after the pool, without batch norm; empty leaves it out."""
    head_act: Act = Act.HARD_SWISH
    default_classes: int = 10
    default_channels: int = 3

    def resolutions_px(self) -> tuple[int, ...]:
        """Sides of the images, ascending."""
        return self.resolutions

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Resolution and stem; for each stage width, depth, kernels and expansions; head."""
        return tuple(d for d in self._candidates() if len(d.options) > 1)

    def _candidates(self) -> Iterator[Decision]:
        yield Decision(RESOLUTION, self.resolutions)
        yield Decision("stem.width", self.stem_widths)
        for stage in self.stages:
            yield Decision(f"{stage.name}.width", stage.widths)
            yield Decision(f"{stage.name}.depth", stage.depths)
            if stage.is_uniform:
                yield Decision(f"{stage.name}.kernel", stage.kernels)
                yield Decision(f"{stage.name}.expansion", stage.expansions)
                continue
            for block in range(1, max(stage.depths) + 1):
                is_optional = block > min(stage.depths)
                condition = Condition(f"{stage.name}.depth", block) if is_optional else None
                yield Decision(f"{stage.block(block)}.kernel", stage.kernels, condition)
                yield Decision(f"{stage.block(block)}.expansion", stage.expansions, condition)
        if self.head_hidden_widths:
            yield Decision("head.width", self.head_hidden_widths)

    @cached_property
    def fixed(self) -> dict[str, Value]:
        """The values that are no decision, by the name that a decision would have."""
        return {d.name: d.options[0] for d in self._candidates() if len(d.options) == 1}

    # Lowering

    def lower_values(self, values: Values, *, num_classes: int, in_channels: int) -> tuple[LayerSpec, ...]:
        """Stem, the first `depth` blocks of every stage, head."""
        chosen = {**self.fixed, **values}
        net = LoweringBuilder(in_channels, int(chosen[RESOLUTION]))
        stem_width = int(chosen["stem.width"])
        tensor = net.conv("stem", IMAGE, stem_width, kernel=3, stride=self.stem_stride, act=self.stem_act)
        for stage in self.stages:
            for block in range(1, int(chosen[f"{stage.name}.depth"]) + 1):
                tensor = self._lower_block(net, tensor, stage, block, chosen)
        head_width = self.head_width or self.head_expansion * net.channels(tensor)
        tensor = net.conv("head.expand", tensor, head_width, act=self.head_act)
        tensor = net.global_pool("head.pool", tensor)
        if self.head_hidden_widths:
            hidden = int(chosen["head.width"])
            tensor = net.conv("head.hidden", tensor, hidden, bn=False, act=self.head_act)
        net.linear("head.classifier", tensor, num_classes)
        return net.layers()

    def _lower_block(
        self, net: LoweringBuilder, source: int, stage: Stage, block: int, chosen: Values
    ) -> int:
        name, owner = stage.block(block), stage.owner(block)
        width, expansion = int(chosen[f"{stage.name}.width"]), int(chosen[f"{owner}.expansion"])
        stride = stage.stride if block == 1 else 1
        hidden = make_divisible(round(net.channels(source) * expansion))
        shortcut = self._lower_shortcut(net, name, source, width, stride)
        tensor = source
        if expansion != 1:
            tensor = net.conv(f"{name}.expand", tensor, hidden, act=stage.act)
        tensor = net.conv(
            f"{name}.depthwise", tensor, net.channels(tensor), kernel=int(chosen[f"{owner}.kernel"]),
            stride=stride, is_depthwise=True, act=stage.act,
        )  # fmt: skip
        if stage.has_squeeze_excite:
            tensor = _lower_squeeze_excite(net, name, tensor)
        has_zero_init = shortcut is not None and self._always_has_shortcut(stage, block)
        tensor = net.conv(f"{name}.project", tensor, width, has_zero_init=has_zero_init)
        return tensor if shortcut is None else net.add(f"{name}.add", shortcut, tensor)

    def _lower_shortcut(
        self, net: LoweringBuilder, block: str, source: int, width: int, stride: int
    ) -> int | None:
        if self.shortcut is Shortcut.IDENTITY:
            return source if stride == 1 and net.channels(source) == width else None
        tensor = source
        if stride > 1:
            tensor = net.average_pool(f"{block}.shortcut.pool", tensor, kernel=stride, stride=stride)
        if net.channels(source) != width:
            tensor = net.conv(f"{block}.shortcut.conv", tensor, width, bn=False)
        return tensor

    def _always_has_shortcut(self, stage: Stage, block: int) -> bool:
        """Whether the block has a shortcut in every network that has the block.

        Where a width decides it, a gamma of 0 would make the block's output constant in the networks
        without the shortcut, and batch norm of a constant multiplies gradients by 1 / sqrt(eps) a layer.
        """
        if block > 1 or self.shortcut is Shortcut.PROJECTION:
            return True
        widths_in = set(self.stem_widths)
        for earlier in self.stages:
            if earlier is stage:
                return stage.stride == 1 and widths_in == set(stage.widths) and len(widths_in) == 1
            widths_in = set(earlier.widths)
        raise ValueError(f"stage '{stage.name}' is not of space '{self.name}'")

    # Costs

    def cost_terms(self) -> tuple[CostTerm, ...]:
        """One term a block: its cost depends on its own choices, the widths around it, the resolution."""
        known = {d.name for d in self.decisions}
        terms = [CostTerm("stem", _known(known, "resolution", "stem.width"))]
        width_in = "stem.width"
        for stage in self.stages:
            for block in range(1, max(stage.depths) + 1):
                owner = stage.owner(block)
                depends = ["resolution", f"{stage.name}.width", f"{owner}.kernel", f"{owner}.expansion"]
                if block == 1:
                    depends.append(width_in)
                if block > min(stage.depths):
                    depends.append(f"{stage.name}.depth")
                terms.append(CostTerm(f"{stage.block(block)}.", _known(known, *depends)))
            width_in = f"{stage.name}.width"
        return (*terms, CostTerm("head.", _known(known, "resolution", width_in, "head.width")))

    def _parse_native(self, description: Any) -> Values | None:
        """AttentiveNAS's notation has one value a stage, Once-for-All's one a block."""
        is_uniform = all(stage.is_uniform for stage in self.stages)
        return (attentive_nas_values if is_uniform else once_for_all_values)(self, description)


def _lower_squeeze_excite(net: LoweringBuilder, block: str, source: int) -> int:
    channels = net.channels(source)
    squeezed = net.global_pool(f"{block}.squeeze_excite.pool", source)
    squeezed = net.conv(
        f"{block}.squeeze_excite.reduce", squeezed, make_divisible(channels // SQUEEZE_DIVISOR),
        bias=True, bn=False, act=Act.RELU,
    )  # fmt: skip
    factors = net.conv(
        f"{block}.squeeze_excite.expand", squeezed, channels, bias=True, bn=False, act=Act.HARD_SIGMOID
    )
    return net.scale(f"{block}.squeeze_excite.scale", source, factors)


def _known(known: set[str], *names: str) -> tuple[str, ...]:
    return tuple(name for name in names if name in known)
