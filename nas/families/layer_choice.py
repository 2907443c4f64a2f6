"""A chain of layers, each one of a few operations: NAS-Bench-Macro.

Source: Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from nas.architecture import Value
from nas.errors import InvalidArchitectureError
from nas.layers import IMAGE, Act, LayerSpec, LoweringBuilder
from nas.space import CostTerm, Decision, SearchSpace, Values


@dataclass(frozen=True, kw_only=True)
class LayerOption:
    """An inverted residual of this kernel and expansion; with neither, the identity."""

    name: str
    kernel: int = 0
    expansion: int = 0

    @property
    def is_identity(self) -> bool:
        """Nothing at all at stride 1; a 1 × 1 convolution with batch norm where shapes change."""
        return self.expansion == 0


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    stage: int
    out_channels: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class LayerChoiceSpace(SearchSpace):
    """Each stage halves the map and doubles the channels in its first layer; every layer picks an option."""

    name: str
    resolution: int
    stem_width: int
    stage_widths: tuple[int, ...]
    stage_layers: tuple[int, ...]
    options: tuple[LayerOption, ...]
    """The identity first."""
    head_width: int
    default_classes: int = 10
    default_channels: int = 3

    def resolutions_px(self) -> tuple[int, ...]:
        """One fixed size."""
        return (self.resolution,)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The option of each layer."""
        names: tuple[Value, ...] = tuple(option.name for option in self.options)
        return tuple(Decision(layer.name, names) for layer in self._layers)

    @cached_property
    def _layers(self) -> tuple[_Layer, ...]:
        return tuple(self._enumerate_layers())

    def _enumerate_layers(self) -> Iterator[_Layer]:
        number = 0
        for stage, (width, count) in enumerate(zip(self.stage_widths, self.stage_layers, strict=True)):
            for position in range(count):
                number += 1
                yield _Layer(f"layer{number}", stage, width, 2 if position == 0 else 1)

    @cached_property
    def _option_of(self) -> dict[Value, LayerOption]:
        return {option.name: option for option in self.options}

    def lower_values(self, values: Values, *, num_classes: int, in_channels: int) -> tuple[LayerSpec, ...]:
        """Stem, the chosen option of every layer, head."""
        net = LoweringBuilder(in_channels, self.resolution)
        tensor = net.conv("stem", IMAGE, self.stem_width, kernel=3, act=Act.RELU)
        for layer in self._layers:
            tensor = _lower_option(net, tensor, layer, self._option_of[values[layer.name]])
        tensor = net.conv("head.expand", tensor, self.head_width, act=Act.RELU)
        tensor = net.global_pool("head.pool", tensor)
        net.linear("head.classifier", tensor, num_classes)
        return net.layers()

    def cost_terms(self) -> tuple[CostTerm, ...]:
        """One term a layer: shapes do not depend on the choices."""
        layers = [CostTerm(f"{layer.name}.", (layer.name,)) for layer in self._layers]
        return (CostTerm("stem", ()), *layers, CostTerm("head.", ()))

    def option_groups(self) -> Mapping[str, tuple[Decision, ...]]:
        """All layers choose between the same operations."""
        return {"operation": self.decisions}

    def _canonical(self, values: Values) -> Values:
        """An identity after the first layer of a stage does nothing, so they all move to the stage's end."""
        canonical: dict[str, Value] = {}
        for stage in range(len(self.stage_widths)):
            first, *later = [layer.name for layer in self._layers if layer.stage == stage]
            canonical[first] = values[first]
            kept = [values[name] for name in later if not self._option_of[values[name]].is_identity]
            kept += [self.options[0].name] * (len(later) - len(kept))
            canonical.update(zip(later, kept, strict=True))
        return canonical

    def _spelling(self, values: Values) -> Values:
        return self._canonical(values)

    def size(self) -> int:
        """Distinct networks: per stage, the first layer's options times the identity-free sequences."""
        others = len(self.options) - 1
        total = 1
        for count in self.stage_layers:
            total *= len(self.options) * sum(others**length for length in range(count))
        return total

    def all(self) -> Iterator[Values]:
        """Every assignment, equivalent ones included."""
        names = [layer.name for layer in self._layers]
        for chosen in product([option.name for option in self.options], repeat=len(names)):
            yield dict(zip(names, chosen, strict=True))

    def _parse_native(self, description: Any) -> Values | None:
        """The benchmark's string: one digit a layer."""
        if not isinstance(description, str) or description.lstrip().startswith("{"):
            return None
        text = description.strip()
        digits = "".join(str(i) for i in range(len(self.options)))
        if len(text) != len(self._layers) or any(character not in digits for character in text):
            raise InvalidArchitectureError(
                f"{description!r} is no architecture of '{self.name}': it takes {len(self._layers)} digits, "
                f"each one of {', '.join(digits)}"
            )
        return {
            layer.name: self.options[int(digit)].name for layer, digit in zip(self._layers, text, strict=True)
        }


def _lower_option(net: LoweringBuilder, source: int, layer: _Layer, option: LayerOption) -> int:
    if option.is_identity:
        if layer.stride == 1:
            return source
        return net.conv(f"{layer.name}.identity.project", source, layer.out_channels, stride=layer.stride)
    slot = f"{layer.name}.{option.name}"
    hidden = net.channels(source) * option.expansion
    tensor = net.conv(f"{slot}.expand", source, hidden, act=Act.RELU)
    tensor = net.conv(
        f"{slot}.depthwise", tensor, hidden, kernel=option.kernel, stride=layer.stride,
        is_depthwise=True, act=Act.RELU,
    )  # fmt: skip
    has_shortcut = layer.stride == 1
    tensor = net.conv(f"{slot}.project", tensor, layer.out_channels, has_zero_init=has_shortcut)
    return net.add(f"{slot}.add", source, tensor) if has_shortcut else tensor
