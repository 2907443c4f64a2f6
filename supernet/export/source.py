"""`model.py`: the network as source that a person can read, in plain torch.

Its operations are those of `PlainNetwork`, in the same order, so its logits are the same bits. Module
names are those of `PlainNetwork` too, so that one state_dict serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from nas.layers import IMAGE, Act, LayerKind, LayerSpec
from supernet.export.dataflow import live_positions, readers_of
from supernet.network import WEIGHTED, slot_key

_LINE_LENGTH = 100
_STATEMENT_LENGTH = 66
"""Shape comments follow in one column, so that they can be read down the page."""

_ACTS = {
    Act.RELU: "F.relu",
    Act.HARD_SWISH: "F.hardswish",
    Act.HARD_SIGMOID: "F.hardsigmoid",
    Act.SWISH: "F.silu",
}

_SOURCE = '''\
"""{docstring}"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

RESOLUTION_PX = {resolution_px}
CLASS_NAMES = (
{class_names}
)


def load(folder: str | Path | None = None) -> Network:
    """The network in eval mode, with the weights in `folder` (None: the folder of this file)."""
    path = Path(__file__).parent if folder is None else Path(folder)
    network = Network()
    network.load_state_dict(load_file(path / "model.safetensors"))
    return network.eval()


{helpers}


class Network(nn.Module):
    """Shapes in comments are (batch, channels, height, width)."""

    def __init__(self) -> None:
        super().__init__()
{modules}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, {num_classes}) of normalised images (N, {image_shape})."""
        if images.shape[-2:] != (RESOLUTION_PX, RESOLUTION_PX):
            size = (RESOLUTION_PX, RESOLUTION_PX)
            images = F.interpolate(images, size=size, mode="bicubic", align_corners=False)
        # The memory layout in which the accuracy was measured, and the faster one on a CPU.
        x = images.contiguous(memory_format=torch.channels_last)
{forward}
'''

_CONV_BN = '''\
def conv_bn(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Sequential:
    """Convolution, then batch norm."""
    layers = conv(in_channels, out_channels, kernel=kernel, stride=stride, groups=groups, bias=bias)
    layers.add_module("bn", nn.BatchNorm2d(out_channels))
    return layers'''

_CONV = '''\
def conv(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Sequential:
    """Convolution; odd kernels are padded so that stride 1 keeps the size."""
    padding = kernel // 2 if kernel % 2 else 0
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=bias)
    return nn.Sequential(OrderedDict(conv=layer))'''

_BATCH_NORM = '''\
def batch_norm(channels: int) -> nn.Sequential:
    """Batch norm that follows no convolution."""
    return nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(channels)))'''

_LINEAR = '''\
def linear(in_features: int, out_features: int, *, bias: bool = True) -> nn.Sequential:
    """Fully connected layer."""
    return nn.Sequential(OrderedDict(linear=nn.Linear(in_features, out_features, bias=bias)))'''


def generate_source(
    layers: Sequence[LayerSpec], *, class_names: Sequence[str], headline: Sequence[str] = ()
) -> str:
    """The text of `model.py`; `headline` are the lines that open its docstring."""
    first, last = layers[0], layers[-1]
    return _SOURCE.format(
        docstring=_docstring(headline, first, last),
        resolution_px=first.in_height,
        class_names="\n".join(_packed([repr(name) for name in class_names])),
        helpers="\n\n\n".join(_helpers(layers)),
        modules=_indented(_module_lines(layers)),
        image_shape=f"{first.in_channels}, {first.in_height}, {first.in_width}",
        num_classes=last.out_channels,
        forward=_indented(_ForwardWriter(layers).lines()),
    )


def _docstring(headline: Sequence[str], first: LayerSpec, last: LayerSpec) -> str:
    title = f"An image classifier: {first.in_height} x {first.in_width} pixels, {last.out_channels} classes."
    lines = [
        *(headline or [title]),
        "",
        "Preprocessing, accuracy and where the weights come from are in card.json. To use it:",
        "",
        "    network = load()",
        "    logits = network(images)  # normalised as card.json says",
        "",
    ]
    # A quote or a backslash in a headline must not end the docstring that it stands in.
    return "\n".join(lines).replace("\\", "\\\\").replace('"""', "'''")


def _packed(items: Sequence[str]) -> Iterator[str]:
    """Items with commas after them, as many a line as fit."""
    line = "   "
    for item in items:
        if len(line) > len("   ") and len(line) + len(item) + 2 > _LINE_LENGTH:
            yield line
            line = "   "
        line += f" {item},"
    yield line


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"        {line}" if line else "" for line in lines)


# Modules


def _helpers(layers: Sequence[LayerSpec]) -> list[str]:
    used = {_constructor(layer).partition("(")[0] for layer in layers if layer.kind in WEIGHTED}
    # conv_bn is written in terms of conv.
    used |= {"conv"} if "conv_bn" in used else set()
    helpers = {"conv": _CONV, "conv_bn": _CONV_BN, "batch_norm": _BATCH_NORM, "linear": _LINEAR}
    return [source for name, source in helpers.items() if name in used]


def _module_lines(layers: Sequence[LayerSpec]) -> list[str]:
    live = set(live_positions(layers))
    weighted = [(p, layer) for p, layer in enumerate(layers) if layer.kind in WEIGHTED]
    lines: list[str] = []
    for group, members in groupby(weighted, key=lambda pair: _group(pair[1])):
        lines += ["", f"# {group}"]
        for position, layer in members:
            remark = "" if position in live else "  # leads nowhere: counted, but never run"
            lines.append(f"self.{slot_key(layer.name)} = {_constructor(layer)}{remark}")
    return lines


def _constructor(layer: LayerSpec) -> str:
    if layer.kind is LayerKind.BATCH_NORM:
        return f"batch_norm({layer.out_channels})"
    arguments = [str(layer.in_channels), str(layer.out_channels)]
    if layer.kind is LayerKind.LINEAR:
        return f"linear({', '.join(arguments + ([] if layer.bias else ['bias=False']))})"
    for name in ("kernel", "stride", "groups"):
        value = getattr(layer, name)
        arguments += [f"{name}={value}"] if value != 1 else []
    arguments += ["bias=True"] if layer.bias else []
    return f"{'conv_bn' if layer.bn else 'conv'}({', '.join(arguments)})"


def _group(layer: LayerSpec) -> str:
    """The part of the network a layer belongs to: 'stage1.block2', 'head'."""
    parts = layer.name.split(".")
    return ".".join(parts[: min(2, max(1, len(parts) - 1))])


# The forward pass


class _ForwardWriter:
    """One statement a layer. The tensor in hand is `x`; one that is needed again later gets a name."""

    def __init__(self, layers: Sequence[LayerSpec]) -> None:
        self._layers = layers
        self._positions = live_positions(layers)
        self._readers = readers_of(layers, self._positions)
        self._names: dict[int, str] = {}
        self._in_hand = IMAGE

    def lines(self) -> list[str]:
        """The body, from `x` holding the image to the return of the logits."""
        lines: list[str] = []
        group = ""
        for position, following in zip(self._positions, self._positions[1:], strict=False):
            layer = self._layers[position]
            if _group(layer) != group:
                group = _group(layer)
                lines += ["", f"# {group}"]
            lines += self._statements(position, is_read_next=following in self._readers[position])
        return [*lines, f"return {self._value(self._positions[-1])}"]

    def _statements(self, position: int, *, is_read_next: bool) -> list[str]:
        value = self._value(position)
        if not is_read_next:
            name = self._free_name(position, self._slot_name(position), after=position)
            return [self._with_shape(f"{name} = {value}", position)]
        kept = self._keep_in_hand(position)
        self._in_hand = position
        return [*kept, self._with_shape(f"x = {value}", position)]

    def _keep_in_hand(self, position: int) -> list[str]:
        """A name for `x`, which this layer's output replaces, where it is still needed afterwards."""
        later = [reader for reader in self._readers.get(self._in_hand, []) if reader > position]
        if not later:
            return []
        name = self._free_name(self._in_hand, self._role(self._in_hand, later), after=position - 1)
        return [f"{name} = x"]

    def _value(self, position: int) -> str:
        layer = self._layers[position]
        tensors = ["x" if source == self._in_hand else self._names[source] for source in layer.inputs]
        value = _OPERATIONS[layer.kind](layer, tensors)
        return value if layer.act is None else f"{_ACTS[layer.act]}({value})"

    def _with_shape(self, statement: str, position: int) -> str:
        layer = self._layers[position]
        shape = ", ".join(map(str, (layer.out_channels, layer.out_height, layer.out_width)))
        return f"{statement.ljust(_STATEMENT_LENGTH)}  # (N, {shape})"

    def _role(self, source: int, later: Sequence[int]) -> str:
        kinds = {self._layers[reader].kind for reader in later}
        if kinds == {LayerKind.ADD}:
            return "shortcut"
        if kinds == {LayerKind.SCALE}:
            return "features"
        return self._slot_name(source)

    def _slot_name(self, position: int) -> str:
        """The layer's name within its part of the network."""
        if position == IMAGE:
            return "images"
        layer = self._layers[position]
        return slot_key(layer.name.removeprefix(f"{_group(layer)}."))

    def _free_name(self, position: int, wished: str, *, after: int) -> str:
        """`wished`, or the layer's whole name where a tensor called so is read later than `after`."""
        whole = "images" if position == IMAGE else slot_key(self._layers[position].name)
        taken = {name for source, name in self._names.items() if self._readers[source][-1] > after}
        self._names[position] = whole if wished in taken else wished
        return self._names[position]


def _module(layer: LayerSpec, tensors: Sequence[str]) -> str:
    return f"self.{slot_key(layer.name)}({tensors[0]})"


def _average_pool(layer: LayerSpec, tensors: Sequence[str]) -> str:
    sizes = f"{layer.kernel}, {layer.stride}, {layer.padding}"
    reach = "ceil_mode=True, " if layer.reaches_past_edge else ""
    return f"F.avg_pool2d({tensors[0]}, {sizes}, {reach}count_include_pad=False)"


def _max_pool(layer: LayerSpec, tensors: Sequence[str]) -> str:
    return f"F.max_pool2d({tensors[0]}, {layer.kernel}, {layer.stride}, {layer.padding})"


_OPERATIONS: dict[LayerKind, Callable[[LayerSpec, Sequence[str]], str]] = {
    LayerKind.CONV: _module,
    LayerKind.BATCH_NORM: _module,
    LayerKind.LINEAR: lambda layer, tensors: _module(layer, [f"{tensors[0]}.flatten(1)"]),
    LayerKind.ACTIVATION: lambda _, tensors: tensors[0],
    LayerKind.AVERAGE_POOL: _average_pool,
    LayerKind.MAX_POOL: _max_pool,
    LayerKind.GLOBAL_POOL: lambda _, tensors: f"{tensors[0]}.mean((2, 3), keepdim=True)",
    LayerKind.ADD: lambda _, tensors: " + ".join(tensors),
    LayerKind.SCALE: lambda _, tensors: " * ".join(tensors),
    LayerKind.ZEROS: lambda _, tensors: f"torch.zeros_like({tensors[0]})",
}
