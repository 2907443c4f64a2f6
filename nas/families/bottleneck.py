"""Stages of bottleneck blocks on a deep stem: the ResNet-50D of Once-for-All.

Source: "Bag of Tricks for Image Classification" (He et al., CVPR 2019) for the stem of three convolutions
and the shortcuts that pool before they project (ResNet-D); Once-for-All (Cai et al., ICLR 2020) and its
public code for what is elastic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nas.architecture import Value
from nas.errors import InvalidArchitectureError
from nas.families.notation import active_values, is_written_with, list_of, refuse_unknown
from nas.families.rounding import make_divisible
from nas.layers import IMAGE, Act, LayerSpec, LoweringBuilder
from nas.space import Condition, CostTerm, Decision, SearchSpace, Values

_NOTATION = ("d", "e", "w", "r")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run of blocks of one width."""

    name: str
    width: int
    """At multiplier 1."""
    base_depth: int
    """Blocks that are always there."""
    stride: int
    """Of the first block; the others have stride 1."""

    def block(self, number: int) -> str:
        """The name of a block, counted from 1: the prefix of its layers."""
        return f"{self.name}.block{number}"


@dataclass(frozen=True, kw_only=True)
class BottleneckSpace(SearchSpace):
    """Stem with a residual convolution that may be left out, stages of bottleneck blocks, classifier."""

    name: str
    resolutions: tuple[int, ...]
    width_multipliers: tuple[float, ...]
    """One is chosen for each stage, one for the stem's end and one for its inside, which is half as wide."""
    extra_depths: tuple[int, ...]
    """Blocks beyond a stage's base depth."""
    expansions: tuple[float, ...]
    """Width inside a block as a part of the width of its output; one is chosen for each block."""
    stem_width: int
    """At multiplier 1."""
    stages: tuple[Stage, ...]
    default_classes: int = 1000
    default_channels: int = 3

    def resolutions_px(self) -> tuple[int, ...]:
        """Sides of the images, ascending."""
        return self.resolutions

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Resolution and stem; for each stage its width, its depth, and the expansion of each block."""
        return tuple(self._enumerate_decisions())

    def _enumerate_decisions(self) -> Iterator[Decision]:
        yield Decision("resolution", self.resolutions)
        yield Decision("stem.depth", (0, 1))
        # Two multipliers that round to one width are one network.
        yield Decision("stem.inner.width", tuple(dict.fromkeys(self._inner_widths)))
        yield Decision("stem.width", self._widths(self.stem_width))
        for stage in self.stages:
            yield Decision(f"{stage.name}.width", self._widths(stage.width))
            yield Decision(f"{stage.name}.depth", tuple(stage.base_depth + d for d in self.extra_depths))
            for block in range(1, self._max_depth(stage) + 1):
                is_optional = block > stage.base_depth + self.extra_depths[0]
                condition = Condition(f"{stage.name}.depth", block) if is_optional else None
                yield Decision(f"{stage.block(block)}.expansion", self.expansions, condition)

    def _widths(self, width: int) -> tuple[int, ...]:
        return tuple(make_divisible(width * multiplier) for multiplier in self.width_multipliers)

    @cached_property
    def _inner_widths(self) -> tuple[int, ...]:
        return tuple(make_divisible(width // 2) for width in self._widths(self.stem_width))

    def _max_depth(self, stage: Stage) -> int:
        return stage.base_depth + self.extra_depths[-1]

    # Lowering

    def lower_values(self, values: Values, *, num_classes: int, in_channels: int) -> tuple[LayerSpec, ...]:
        """Stem, the first `depth` blocks of every stage, classifier."""
        net = LoweringBuilder(in_channels, int(values["resolution"]))
        tensor = _lower_stem(net, values)
        for stage in self.stages:
            width = int(values[f"{stage.name}.width"])
            for block in range(1, int(values[f"{stage.name}.depth"]) + 1):
                name = stage.block(block)
                inside = make_divisible(round(width * float(values[f"{name}.expansion"])))
                if block == 1:
                    shortcut = _lower_projection(net, f"{name}.downsample", tensor, width, stage.stride)
                    tensor = _lower_branch(net, name, tensor, shortcut, inside, stage.stride)
                else:
                    tensor = _lower_branch(net, name, tensor, tensor, inside, stride=1)
        net.linear("head.classifier", net.global_pool("head.pool", tensor), num_classes)
        return net.layers()

    # Costs

    def cost_terms(self) -> tuple[CostTerm, ...]:
        """One term a block: its cost depends on its expansion, the widths around it, the resolution."""
        terms = [CostTerm("stem.", ("resolution", "stem.depth", "stem.inner.width", "stem.width"))]
        width_in = "stem.width"
        for stage in self.stages:
            width = f"{stage.name}.width"
            for block in range(1, self._max_depth(stage) + 1):
                depends = ["resolution", width, f"{stage.block(block)}.expansion"]
                if block == 1:
                    depends.append(width_in)
                if block > stage.base_depth + self.extra_depths[0]:
                    depends.append(f"{stage.name}.depth")
                terms.append(CostTerm(f"{stage.block(block)}.", tuple(depends)))
            width_in = width
        return (*terms, CostTerm("head.", ("resolution", width_in)))

    # Once-for-All's notation

    def _parse_native(self, description: Any) -> Values | None:
        """Once-for-All's {"d", "e", "w"}, and "r" as for its other space; the largest where it is missing.

        "d" are extra depths, the stem's first: at its largest value the residual convolution is there. "w"
        are positions among the multipliers: of the stem's inside, of its end, of each stage.
        """
        if not is_written_with(description, *_NOTATION[:3]):
            return None
        refuse_unknown(description, _NOTATION)
        stem_depth, *extra = list_of(self, description, "d", 1 + len(self.stages))
        inner, end, *widths = list_of(self, description, "w", 2 + len(self.stages))
        expansions = iter(list_of(self, description, "e", sum(map(self._max_depth, self.stages))))
        ends = {self.extra_depths[0]: 0, self.extra_depths[-1]: 1}
        values: dict[str, Any] = {
            "resolution": description.get("r", self.resolutions[-1]),
            "stem.depth": self._looked_up("d", stem_depth, ends),
            "stem.inner.width": self._looked_up("w", inner, dict(enumerate(self._inner_widths))),
            "stem.width": self._looked_up("w", end, dict(enumerate(self._widths(self.stem_width)))),
        }
        for stage, depth, width in zip(self.stages, extra, widths, strict=True):
            depths = {d: stage.base_depth + d for d in self.extra_depths}
            values[f"{stage.name}.depth"] = self._looked_up("d", depth, depths)
            values[f"{stage.name}.width"] = self._looked_up(
                "w", width, dict(enumerate(self._widths(stage.width)))
            )
            for block in range(1, self._max_depth(stage) + 1):
                values[f"{stage.block(block)}.expansion"] = next(expansions)
        return active_values(self, values, {})

    def _looked_up(self, field: str, value: Any, meanings: Mapping[int, int]) -> Value:
        # Neither True, which is 1 to Python, nor a list, which no mapping can look up.
        if not isinstance(value, int) or isinstance(value, bool) or value not in meanings:
            raise InvalidArchitectureError(
                f"{field} {value!r} is not in {tuple(meanings)} of space '{self.name}'; "
                "widen the space or change the request"
            )
        return meanings[value]


def _lower_stem(net: LoweringBuilder, values: Values) -> int:
    inner, width = int(values["stem.inner.width"]), int(values["stem.width"])
    tensor = net.conv("stem.conv1", IMAGE, inner, kernel=3, stride=2, act=Act.RELU)
    if values["stem.depth"]:
        # Its gamma starts at 1: the rectifier behind it would let no gradient through to one that is 0.
        residual = net.conv("stem.residual.conv", tensor, inner, kernel=3, act=Act.RELU)
        tensor = net.add("stem.residual.add", tensor, residual)
    tensor = net.conv("stem.conv2", tensor, width, kernel=3, act=Act.RELU)
    return net.max_pool("stem.pool", tensor, kernel=3, stride=2)


def _lower_projection(net: LoweringBuilder, name: str, source: int, width: int, stride: int) -> int:
    if stride > 1:
        source = net.average_pool(f"{name}.pool", source, kernel=stride, stride=stride)
    return net.conv(f"{name}.conv", source, width)


def _lower_branch(
    net: LoweringBuilder, name: str, source: int, shortcut: int, inside: int, stride: int
) -> int:
    """The block's three convolutions, added to its shortcut.

    Deviation: the last gamma starts at 0 also where the shortcut is a projection, as BigNAS has it for every
    block with a shortcut; Once-for-All's code does so where it is the identity (decision 3).
    """
    tensor = net.conv(f"{name}.conv1", source, inside, act=Act.RELU)
    tensor = net.conv(f"{name}.conv2", tensor, inside, kernel=3, stride=stride, act=Act.RELU)
    tensor = net.conv(f"{name}.conv3", tensor, net.channels(shortcut), has_zero_init=True)
    return net.add(f"{name}.add", shortcut, tensor, act=Act.RELU)
