"""Channel sorting: the channels that matter most come first, and the largest network computes what it did.

A smaller network uses the first channels of each layer, so what it starts from is decided by their order,
and any order will do for the largest network as long as all layers that share the channels agree on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.layers import IMAGE, LayerKind, LayerSpec
from supernet.network import Slot, Supernet, slot_key

_MIXES_CHANNELS = (LayerKind.CONV, LayerKind.LINEAR)


@torch.no_grad()
def sort_channels(
    supernet: Supernet, optimizer: Optimizer, *, exposed: Mapping[str, Collection[int]] | None = None
) -> None:
    """Sorts, in place, the channels of which some network uses only the first; momentum goes with them.

    A channel's importance is the L1 norm of the weights that read it (Once-for-All, Cai et al., ICLR 2020,
    section 3.3, and its code, which DεpS calls too): the projection's for the hidden channels of an inverted
    residual, and for the middle of its squeeze-excite the weights that lead out of it. `exposed` gives, for
    layers by name, how many output channels networks were trained with so far, several numbers where widths
    multiply: the first so many stay the first, and are sorted among themselves.

    Deviation: Once-for-All's code leaves momentum where it was, on other channels than it was gathered on;
    here every tensor that the optimizer keeps in a parameter's shape is permuted alongside.

    Deviation: widths of stages are sorted as well, by the weights of all blocks that read them. In the
    papers' spaces they are not elastic. Where stages of differing largest widths are joined by the shortcut
    of some network, as most of `attentive_nas`, they keep their order: no one order suits both.
    """
    for shared in _shared_channels(supernet):
        if shared.is_elastic:
            firsts = {number for name in shared.written_by for number in (exposed or {}).get(name, ())}
            order = _order(_importance(supernet, shared), firsts)
            for name in shared.written_by:
                for parameter in _by_output_channel(_slot(supernet, name)):
                    _permute(parameter, optimizer, order, dim=0)
            for name in shared.read_by:
                _permute(_weight(supernet, name), optimizer, order, dim=1)


def _order(importance_c: Tensor, firsts: Iterable[int]) -> Tensor:
    """Channels by falling importance, none leaving the first so many that `firsts` speak of."""
    edges = sorted({0, len(importance_c), *firsts})
    return torch.cat(
        [
            start + importance_c[start:end].argsort(descending=True, stable=True)
            for start, end in pairwise(edges)
        ]
    )


def _importance(supernet: Supernet, shared: _SharedChannels) -> Tensor:
    """L1 norm of the weights by input channel, of all readers but those that only gate the channels.

    A squeeze-excite reads the mean of each map; where a layer reads the map itself, that one counts.
    """
    readers = (shared.read_by - shared.read_pooled_by) or shared.read_by
    weights = [_weight(supernet, name) for name in sorted(readers)]
    return torch.stack([weight.abs().transpose(0, 1).flatten(1).sum(1) for weight in weights]).sum(0)


def _permute(parameter: nn.Parameter, optimizer: Optimizer, order: Tensor, *, dim: int) -> None:
    for tensor in (parameter, *optimizer.state.get(parameter, {}).values()):
        if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:
            tensor.copy_(tensor.index_select(dim, order))


def _by_output_channel(slot: Slot) -> list[nn.Parameter]:
    """What holds an entry for each output channel; kernel transforms do not."""
    found = [slot.bn.weight, slot.bn.bias] if slot.bn is not None else []
    if slot.weights is not None:
        found += [p for p in (slot.weights.weight, slot.weights.bias) if p is not None]
    return found


def _slot(supernet: Supernet, name: str) -> Slot:
    slot = supernet.slots[slot_key(name)]
    assert isinstance(slot, Slot)
    return slot


def _weight(supernet: Supernet, name: str) -> nn.Parameter:
    weights = _slot(supernet, name).weights
    assert weights is not None
    return weights.weight


# Which layers share their channels


@dataclass
class _SharedChannels:
    """Channels that keep their identity from the layers that write them to the layers that read them."""

    written_by: set[str] = field(default_factory=set)
    """Layers by name; those between, which treat every channel by itself, included."""
    read_by: set[str] = field(default_factory=set)
    """Layers that mix the channels."""
    read_pooled_by: set[str] = field(default_factory=set)
    """Those among them that read the mean of each map."""
    numbers: dict[_Side, set[int]] = field(default_factory=dict)
    """How many channels there are at each side of a layer, over all networks."""

    @property
    def is_elastic(self) -> bool:
        """Whether some network uses only the first, and the largest number is one.

        Widths that meet in some small network alone are no reason to tie the larger ones together.
        """
        largest = {max(numbers) for numbers in self.numbers.values()}
        return len(largest) == 1 and len(set[int]().union(*self.numbers.values())) > 1


class _Side(NamedTuple):
    """The channels at one side of a layer."""

    layer: str
    is_input: bool


class _Ties:
    """Disjoint sets of sides whose channels are the same."""

    def __init__(self) -> None:
        self._above: dict[_Side, _Side] = {}

    def root(self, side: _Side) -> _Side:
        while (above := self._above.get(side, side)) != side:
            side = above
        return side

    def tie(self, first: _Side, second: _Side) -> None:
        self._above[self.root(second)] = self.root(first)


def _shared_channels(supernet: Supernet) -> list[_SharedChannels]:
    """All channels of the supernet, read off the layers of networks that between them use every weight."""
    ties = _Ties()
    numbers: defaultdict[_Side, set[int]] = defaultdict(set)
    pooled: set[_Side] = set()
    for architecture in supernet.space.covering():
        _trace(supernet.lower(architecture), ties, numbers, pooled)
    found: defaultdict[_Side, _SharedChannels] = defaultdict(_SharedChannels)
    for side, seen in numbers.items():
        shared = found[ties.root(side)]
        shared.numbers[side] = seen
        (shared.read_by if side.is_input else shared.written_by).add(side.layer)
        if side in pooled:
            shared.read_pooled_by.add(side.layer)
    return list(found.values())


def _trace(
    layers: tuple[LayerSpec, ...], ties: _Ties, numbers: defaultdict[_Side, set[int]], pooled: set[_Side]
) -> None:
    """Follows the channels of one network."""
    sides = {IMAGE: _Side("", is_input=True)}
    means = set[int]()
    for position, layer in enumerate(layers):
        inputs = [sides[source] for source in layer.inputs]
        output = _Side(layer.name, is_input=False)
        if layer.kind in _MIXES_CHANNELS and not _is_depthwise(layer):
            entry = _Side(layer.name, is_input=True)
            ties.tie(entry, inputs[0])
            numbers[entry].add(layer.in_channels)
            numbers[output].add(layer.out_channels)
            if layer.inputs[0] in means:
                pooled.add(entry)
            sides[position] = output
            continue
        for other in inputs[1:]:
            ties.tie(inputs[0], other)
        sides[position] = inputs[0]
        if layer.kind in (LayerKind.CONV, LayerKind.BATCH_NORM):
            ties.tie(inputs[0], output)
            numbers[output].add(layer.out_channels)
        if layer.kind is LayerKind.GLOBAL_POOL:
            means.add(position)


def _is_depthwise(layer: LayerSpec) -> bool:
    return layer.groups == layer.in_channels > 1
