"""Paths through a network's layers: how deep it is, by which operations, and by how many ways an image gets
through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log1p

import numpy as np

from nas.layers import IMAGE, LayerKind, LayerSpec
from nas.pareto import Floats

_TRAINED = (LayerKind.CONV, LayerKind.LINEAR)
_POOLS = (LayerKind.AVERAGE_POOL, LayerKind.MAX_POOL)

Operation = tuple[LayerKind, int, bool]
"""Kind, kernel, and whether it works channel by channel: what of a layer its place on a path is told by."""


@dataclass(frozen=True, slots=True)
class _Passed:
    """Of all paths from the image to a layer."""

    num_paths: int
    mean: Floats
    """Of how often each operation was passed, over all paths, each as likely; shape (operations,)."""
    signal: Floats
    """The same as the mean, each path as heavy as the variance it brings to the layer at the start."""
    variance: float
    """Of the layer's output then: one after a batch norm, that of all terms in a sum."""
    longest: int
    """Trained layers on the longest path."""
    shortest: int

    @classmethod
    def joined(cls, ways: Sequence[_Passed]) -> _Passed:
        """All paths of several layers together."""
        if len(ways) == 1:
            return ways[0]
        num_paths = sum(way.num_paths for way in ways)
        variance = sum(way.variance for way in ways)
        return cls(
            num_paths=num_paths,
            mean=np.sum([way.mean * (way.num_paths / num_paths) for way in ways], axis=0),
            signal=np.sum([way.signal * (way.variance / variance) for way in ways], axis=0),
            variance=variance,
            longest=max(way.longest for way in ways),
            shortest=min(way.shortest for way in ways),
        )

    def through(self, layer: LayerSpec, step: Floats | None) -> _Passed:
        """The same paths, longer by this layer, which counts as `step` (operations,) where it counts."""
        length = int(layer.kind in _TRAINED)
        if step is None:
            step = np.zeros_like(self.mean)
            if length == 0 and not layer.bn:
                return self
        return _Passed(
            num_paths=self.num_paths,
            mean=self.mean + step,
            signal=self.signal + step,
            variance=1.0 if layer.bn else self.variance,
            longest=self.longest + length,
            shortest=self.shortest + length,
        )


def operations_of(lowerings: Iterable[Sequence[LayerSpec]]) -> tuple[Operation, ...]:
    """Every convolution and pooling of these networks, sorted."""
    found = {_operation(layer) for layers in lowerings for layer in layers}
    return tuple(sorted(operation for operation in found if operation is not None))


def path_figures(layers: Sequence[LayerSpec], operations: Sequence[Operation] = ()) -> tuple[float, ...]:
    """Convolutions and linear layers on the longest and on the shortest path from image to output, and
    log(1 + paths); then how often each operation is passed: by a path on the mean, and by the signal, of
    which paths that bring more variance carry more.

    Nothing passes through zeros: -1, -1, 0 and -1 for each operation where no path is left. The same, but for
    rounding, in whatever order branches are written. After the path encoding of BANANAS (White et al., AAAI
    2021). Deviation: how often in place of which paths there are, whose number grows too fast to learn from
    few networks. Variances as in He et al. (ICCV 2015), where what is summed is taken for independent.
    """
    step_of: dict[Operation | None, Floats] = dict(zip(operations, np.eye(len(operations)), strict=True))
    none = np.zeros(len(operations))
    reached = {IMAGE: _Passed(1, none, none, 1.0, 0, 0)}
    for position, layer in enumerate(layers):
        ways = [] if layer.kind is LayerKind.ZEROS else [reached[s] for s in layer.inputs if s in reached]
        if ways:
            reached[position] = _Passed.joined(ways).through(layer, step_of.get(_operation(layer)))
    end = reached.get(len(layers) - 1)
    if end is None:
        return (-1.0, -1.0, 0.0, *[-1.0] * (2 * len(operations)))
    passed = np.concatenate([end.mean, end.signal]).tolist()
    return (float(end.longest), float(end.shortest), log1p(end.num_paths), *passed)


def _operation(layer: LayerSpec) -> Operation | None:
    """None of layers that shape nothing by themselves."""
    if layer.kind is LayerKind.CONV or layer.kind in _POOLS:
        return layer.kind, layer.kernel, layer.groups > 1
    return None
