"""Stages of inverted-residual blocks: OFA-MobileNetV3, micro, and their small-image variants.

Source: MobileNetV3 (Howard et al., ICCV 2019) as made elastic by Once-for-All (Cai et al., ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nas.architecture import Value
from nas.errors import InvalidArchitectureError
from nas.layers import IMAGE, Act, LayerSpec, LoweringBuilder
from nas.space import Condition, CostTerm, Decision, SearchSpace, Values

SQUEEZE_DIVISOR = 4


def make_divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, half up, never below it nor below 0.9 × value."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


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
    has_squeeze_excite: bool
    act: Act


@dataclass(frozen=True, kw_only=True)
class MBConvSpace(SearchSpace):
    """Stem, stages of inverted-residual blocks, head; what has several values in the data is elastic."""

    name: str
    resolutions: tuple[int, ...]
    stem_width: int
    stem_stride: int
    stages: tuple[Stage, ...]
    head_width: int
    head_hidden_width: int | None = None
    """Width of a further 1 × 1 convolution after the pool, without batch norm; None leaves it out."""
    head_act: Act = Act.HARD_SWISH
    default_classes: int = 10
    default_channels: int = 3

    def resolutions_px(self) -> tuple[int, ...]:
        """Sides of the images, ascending."""
        return self.resolutions

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Resolution, then for each stage its width, its depth, and kernel and expansion of each block."""
        return tuple(d for d in self._candidates() if len(d.options) > 1)

    def _candidates(self) -> Iterator[Decision]:
        yield Decision("resolution", self.resolutions)
        for stage in self.stages:
            yield Decision(f"{stage.name}.width", stage.widths)
            yield Decision(f"{stage.name}.depth", stage.depths)
            for block in range(1, max(stage.depths) + 1):
                is_optional = block > min(stage.depths)
                condition = Condition(f"{stage.name}.depth", block) if is_optional else None
                yield Decision(f"{stage.name}.block{block}.kernel", stage.kernels, condition)
                yield Decision(f"{stage.name}.block{block}.expansion", stage.expansions, condition)

    @cached_property
    def _fixed(self) -> dict[str, Value]:
        return {d.name: d.options[0] for d in self._candidates() if len(d.options) == 1}

    # Lowering

    def lower_values(self, values: Values, *, num_classes: int, in_channels: int) -> tuple[LayerSpec, ...]:
        """Stem, the first `depth` blocks of every stage, head."""
        chosen = {**self._fixed, **values}
        net = LoweringBuilder(in_channels, int(chosen["resolution"]))
        tensor = net.conv(
            "stem", IMAGE, self.stem_width, kernel=3, stride=self.stem_stride, act=Act.HARD_SWISH
        )
        for stage in self.stages:
            width = int(chosen[f"{stage.name}.width"])
            for block in range(1, int(chosen[f"{stage.name}.depth"]) + 1):
                tensor = self._lower_block(net, tensor, stage, block, width, chosen)
        tensor = net.conv("head.expand", tensor, self.head_width, act=self.head_act)
        tensor = net.global_pool("head.pool", tensor)
        if self.head_hidden_width is not None:
            tensor = net.conv("head.hidden", tensor, self.head_hidden_width, bn=False, act=self.head_act)
        net.linear("head.classifier", tensor, num_classes)
        return net.layers()

    def _lower_block(
        self, net: LoweringBuilder, source: int, stage: Stage, block: int, width: int, chosen: Values
    ) -> int:
        name = f"{stage.name}.block{block}"
        expansion = int(chosen[f"{name}.expansion"])
        stride = stage.stride if block == 1 else 1
        hidden = make_divisible(round(net.channels(source) * expansion))
        tensor = source
        if expansion != 1:
            tensor = net.conv(f"{name}.expand", tensor, hidden, act=stage.act)
        tensor = net.conv(
            f"{name}.depthwise", tensor, net.channels(tensor), kernel=int(chosen[f"{name}.kernel"]),
            stride=stride, is_depthwise=True, act=stage.act,
        )  # fmt: skip
        if stage.has_squeeze_excite:
            tensor = _lower_squeeze_excite(net, name, tensor)
        has_shortcut = stride == 1 and net.channels(source) == width
        tensor = net.conv(
            f"{name}.project",
            tensor,
            width,
            has_zero_init=has_shortcut and self._always_has_shortcut(stage, block),
        )
        return net.add(f"{name}.add", source, tensor) if has_shortcut else tensor

    def _always_has_shortcut(self, stage: Stage, block: int) -> bool:
        """Whether the block has a shortcut in every network that has the block.

        Where a width decides it, a gamma of 0 would make the block's output constant in the networks
        without the shortcut, and batch norm of a constant multiplies gradients by 1 / sqrt(eps) a layer.
        """
        if block > 1:
            return True
        widths_in = {self.stem_width}
        for earlier in self.stages:
            if earlier is stage:
                return stage.stride == 1 and widths_in == set(stage.widths) and len(widths_in) == 1
            widths_in = set(earlier.widths)
        raise ValueError(f"stage '{stage.name}' is not of space '{self.name}'")

    # Costs

    def cost_terms(self) -> tuple[CostTerm, ...]:
        """One term a block: its cost depends on its own choices, the widths around it, the resolution."""
        known = {d.name for d in self.decisions}
        terms = [CostTerm("stem", _known(known, "resolution"))]
        width_in: str | None = None
        for stage in self.stages:
            for block in range(1, max(stage.depths) + 1):
                name = f"{stage.name}.block{block}"
                depends = ["resolution", f"{stage.name}.width", f"{name}.kernel", f"{name}.expansion"]
                if block == 1 and width_in:
                    depends.append(width_in)
                if block > min(stage.depths):
                    depends.append(f"{stage.name}.depth")
                terms.append(CostTerm(f"{name}.", _known(known, *depends)))
            width_in = f"{stage.name}.width"
        terms.append(CostTerm("head.", _known(known, "resolution", *([width_in] if width_in else []))))
        return tuple(terms)

    # OFA's notation

    def _parse_native(self, description: Any) -> Values | None:
        """Once-for-All's {"ks", "e", "d", "r"}; spaces with elastic width add "w", one a stage."""
        if not isinstance(description, Mapping) or "ks" not in description:
            return None
        stages = [s for s in self.stages if max(s.depths) > 1]
        slots = sum(max(s.depths) for s in stages)
        kernels = self._list_of(description, "ks", slots)
        expansions = self._list_of(description, "e", slots)
        depths = self._list_of(description, "d", len(stages))
        values: dict[str, Any] = {"resolution": description.get("r", self.resolutions[-1])}
        if any(len(s.widths) > 1 for s in stages):
            for stage, width in zip(stages, self._list_of(description, "w", len(stages)), strict=True):
                values[f"{stage.name}.width"] = width
        first = 0
        for stage, depth in zip(stages, depths, strict=True):
            values[f"{stage.name}.depth"] = depth
            for block in range(1, max(stage.depths) + 1):
                values[f"{stage.name}.block{block}.kernel"] = kernels[first + block - 1]
                values[f"{stage.name}.block{block}.expansion"] = expansions[first + block - 1]
            first += max(stage.depths)
        unknown = set(description) - {"ks", "e", "d", "r", "w"}
        if unknown:
            raise InvalidArchitectureError(f"'{min(unknown)}' is unknown beside ks, e, d, r and w")
        return self._drop_inactive_and_fixed(values)

    def _list_of(self, description: Mapping[str, Any], field: str, length: int) -> Sequence[Any]:
        value: Any = description.get(field)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != length:
            raise InvalidArchitectureError(
                f"'{field}' must be a list of {length} values in space '{self.name}', not {value!r}; "
                f"give one for each, or the choices by the names in SPACES['{self.name}'].decisions"
            )
        return value

    def _drop_inactive_and_fixed(self, values: Mapping[str, Any]) -> Values:
        """OFA writes placeholders (0, say) for blocks past the depth: only active slots are checked."""
        kept: dict[str, Any] = {}
        for name, value in values.items():
            if name in self._fixed:
                if value != self._fixed[name]:
                    raise InvalidArchitectureError(
                        f"{name} {value!r} is not {self._fixed[name]!r}, its only value in '{self.name}'"
                    )
                continue
            kept[name] = value
        for decision in self.decisions:
            condition = decision.active_if
            if condition is None:
                continue
            depth = kept.get(condition.parent)
            if isinstance(depth, int) and depth < condition.minimum:
                kept.pop(decision.name, None)
        return kept


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
