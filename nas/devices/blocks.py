"""A lowering as the fused blocks that a runtime runs: what latency tables are keyed by.

A block is one layer that computes, with what runtimes do while its output is still at hand: batch norm and
activation, squeeze-excite, the additions that end a shortcut. So a network is a sequence of blocks, each
told by its shapes alone: wherever it stands, and in whichever space, it is the same work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from nas.costs.count import BYTES_PER_NUMBER
from nas.errors import InvalidRequestError
from nas.layers import Act, LayerKind, LayerSpec

_NO_ACT = ""


class Operation(StrEnum):
    """What the block's own layer does: the kinds that may each have a factor of their own."""

    CONV = "conv"
    POINTWISE = "pointwise"
    """A convolution with a kernel of 1."""
    DEPTHWISE = "depthwise"
    LINEAR = "linear"
    BATCH_NORM = "batch_norm"
    ACTIVATION = "activation"
    AVERAGE_POOL = "average_pool"
    MAX_POOL = "max_pool"
    GLOBAL_POOL = "global_pool"
    ADD = "add"
    """An addition of tensors none of which is at hand."""
    ZEROS = "zeros"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class FusedBlock:
    """The key of a block. Sizes are of its input, in pixels, for one image."""

    op: Operation
    cin: int
    cout: int
    h: int
    w: int
    k: int = 1
    stride: int = 1
    groups: int = 1
    act: str = _NO_ACT
    """The last activation; empty for none."""
    se: int = 0
    """Channels that squeeze-excite narrows to; 0 without it."""
    fused_add: int = 0
    """Tensors of the output's shape that are added to it."""
    out_h: int
    out_w: int

    def __str__(self) -> str:
        """For messages: `conv 16x12x12 -> 32x12x12 k3 s1 g1 relu se8 add1`."""
        parts = [f"{self.op} {self.cin}x{self.h}x{self.w} -> {self.cout}x{self.out_h}x{self.out_w}"]
        parts.append(f"k{self.k} s{self.stride} g{self.groups}")
        parts += [self.act] if self.act else []
        parts += [f"se{self.se}"] if self.se else []
        parts += [f"add{self.fused_add}"] if self.fused_add else []
        return " ".join(parts)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, squeeze-excite's included."""
        return self._weights * self.out_h * self.out_w + 2 * self.cout * self.se

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written for one image as fp32: input, weights, what is added, output."""
        output = self.cout * self.out_h * self.out_w
        numbers = self.cin * self.h * self.w + self._weights + 2 * self.cout * self.se
        return BYTES_PER_NUMBER * (numbers + (1 + self.fused_add) * output)

    @property
    def _weights(self) -> int:
        if self.op not in _WITH_WEIGHTS:
            return 0
        return self.cout * (self.cin // self.groups) * self.k**2

    def to_json(self) -> dict[str, Any]:
        """Every field by its name."""
        return dict(zip(self.__slots__, astuple(self), strict=True))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FusedBlock:
        """The block of a table's row; what other fields say is for the table to judge.

        Raises InvalidRequestError for a field that is missing or impossible.
        """
        sizes = {name: _size(content, name) for name in cls.__slots__ if name not in ("op", "act")}
        op, act = str(content.get("op")), str(content.get("act"))
        if op not in [*Operation]:
            raise InvalidRequestError(f"op {op!r} is unknown; allowed: {', '.join(Operation)}; correct it")
        if act not in (_NO_ACT, *Act):
            allowed = ", ".join(Act)
            raise InvalidRequestError(f"act {act!r} is unknown; allowed: {allowed}, or '' for none")
        return cls(op=Operation(op), act=act, **sizes)


_WITH_WEIGHTS = (Operation.CONV, Operation.POINTWISE, Operation.DEPTHWISE, Operation.LINEAR)
_MAY_BE_NONE = ("se", "fused_add")
_MAX_SIZE = 2**24


def _size(content: Mapping[str, Any], name: str) -> int:
    value, least = content.get(name), 0 if name in _MAY_BE_NONE else 1
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MAX_SIZE:
        raise InvalidRequestError(
            f"{name} {value!r} is not a whole number from {least} to {_MAX_SIZE}; a block's row has op, "
            f"act and {', '.join(n for n in FusedBlock.__slots__ if n not in ('op', 'act'))}"
        )
    return value


@dataclass(slots=True)
class _Open:
    """A block while more may still join it."""

    positions: list[int]
    """Of its layers, the one that computes first."""
    act: Act | None
    se: int = 0
    fused_add: int = 0


def fused_blocks(layers: Sequence[LayerSpec], *, drop_dead: bool = True) -> tuple[FusedBlock, ...]:
    """The network's blocks in execution order.

    `drop_dead` leaves out layers whose output reaches no one, as exporters do that write only what the
    logits need. Frameworks that run a network as it was written run them all.
    """
    return tuple(block for _, block in placed_blocks(layers, drop_dead=drop_dead))


def placed_blocks(
    layers: Sequence[LayerSpec], *, drop_dead: bool
) -> list[tuple[tuple[int, ...], FusedBlock]]:
    """The same, each with the positions of its layers, ascending."""
    live = _live(layers) if drop_dead else range(len(layers))
    num_readers: dict[int, int] = {}
    for position in live:
        for source in layers[position].inputs:
            num_readers[source] = num_readers.get(source, 0) + 1
    blocks: list[_Open] = []
    end_of: dict[int, _Open] = {}
    """By position of its last layer so far."""
    for position in live:
        layer = layers[position]
        block = _host(layers, position, end_of, num_readers)
        if block is None:
            block = _Open([position], layer.act)
            if layer.kind is LayerKind.ADD:
                block.fused_add = len(layer.inputs) - 1
            blocks.append(block)
        else:
            end_of.pop(block.positions[-1])
            _join(block, layers, position, blocks)
        end_of[position] = block
    return [(tuple(sorted(block.positions)), _closed(block, layers)) for block in blocks]


def _live(layers: Sequence[LayerSpec]) -> list[int]:
    live = {len(layers) - 1}
    for position in reversed(range(len(layers))):
        if position in live:
            live.update(layers[position].inputs)
    return [position for position in range(len(layers)) if position in live]


def _host(
    layers: Sequence[LayerSpec], position: int, end_of: Mapping[int, _Open], num_readers: Mapping[int, int]
) -> _Open | None:
    """The block whose output the layer works on in place; None where it begins one of its own."""
    layer = layers[position]
    if layer.kind is LayerKind.SCALE:
        host = end_of.get(layer.inputs[0])
        if host is None:
            raise ValueError(f"layer '{layer.name}' scales what is no block's output; say how it is fused")
        return host
    if layer.kind is LayerKind.ACTIVATION:
        host = end_of.get(layer.inputs[0])
        return host if host and host.act is None and num_readers[layer.inputs[0]] == 1 else None
    if layer.kind is LayerKind.ADD:
        # The operand computed last is the one still at hand, if no one else wants it without the sum.
        latest = max(layer.inputs)
        host = end_of.get(latest)
        is_alone = num_readers[latest] == 1 and layers[latest].kind is not LayerKind.ACTIVATION
        return host if host and host.act is None and host.fused_add == 0 and is_alone else None
    return None


def _join(host: _Open, layers: Sequence[LayerSpec], position: int, blocks: list[_Open]) -> None:
    layer = layers[position]
    if layer.kind is LayerKind.SCALE:
        squeeze = _squeeze(layers, position)
        for block in [b for b in blocks if b is not host and set(b.positions) & set(squeeze)]:
            blocks.remove(block)
        host.positions += squeeze
        host.se = layers[squeeze[-1]].in_channels
    if layer.kind is LayerKind.ADD:
        host.fused_add = len(layer.inputs) - 1
    host.positions.append(position)
    host.act = layer.act or host.act


def _squeeze(layers: Sequence[LayerSpec], scale: int) -> list[int]:
    """Positions of the layers between a tensor and the factors that it is scaled by."""
    source, factors = layers[scale].inputs
    between: list[int] = []
    position = factors
    while position != source:
        between.append(position)
        (position,) = layers[position].inputs
    kinds = [layers[p].kind for p in reversed(between)]
    if kinds != [LayerKind.GLOBAL_POOL, LayerKind.CONV, LayerKind.CONV]:
        raise ValueError(
            f"layer '{layers[scale].name}' is not the end of a squeeze-excite; say how it is fused"
        )
    return between[::-1]


def _closed(block: _Open, layers: Sequence[LayerSpec]) -> FusedBlock:
    lead = layers[block.positions[0]]
    return _block(
        _operation(lead), lead.in_channels, lead.out_channels, lead.in_height, lead.in_width, lead.kernel,
        lead.stride, lead.groups, str(block.act or _NO_ACT), block.se, block.fused_add, lead.out_height,
        lead.out_width,
    )  # fmt: skip


@cache
def _block(
    op: Operation, cin: int, cout: int, h: int, w: int, k: int, stride: int, groups: int, act: str, se: int,
    fused_add: int, out_h: int, out_w: int,
) -> FusedBlock:  # fmt: skip
    """Networks of one space share most of their blocks."""
    return FusedBlock(
        op=op, cin=cin, cout=cout, h=h, w=w, k=k, stride=stride, groups=groups, act=act, se=se,
        fused_add=fused_add,
        out_h=out_h, out_w=out_w,
    )  # fmt: skip


def _operation(layer: LayerSpec) -> Operation:
    if layer.kind is LayerKind.CONV:
        if layer.groups > 1 and layer.groups == layer.in_channels:
            return Operation.DEPTHWISE
        return Operation.POINTWISE if layer.kernel == 1 else Operation.CONV
    return Operation(layer.kind)
