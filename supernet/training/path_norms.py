"""Path norms: how large a network's gradient is in the layers behind each of its decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import sqrt

from nas.costs.count import layer_weights
from nas.layers import LayerKind, LayerSpec
from nas.space import SearchSpace
from supernet.network import slot_key

_WEIGHTED = (LayerKind.CONV, LayerKind.LINEAR)


class PathNorms:
    """The norm of each decision: that of the layers whose form the decision has a say in.

    Which layers these are, the space's cost terms say. On a cell's edge it is the convolution of every
    repetition of the cell; where sizes are elastic it is every layer that the size touches, and of its
    weights the slice in use, since all others have a gradient of exactly 0.

    As in PA&DA's published code the norms of a layer's weight and bias are added, and so are layers;
    batch norm, which has no parameters there, does not count.

    Deviation: `normalise` takes the root mean square over all these weights instead, for sums of norms grow
    with the number of weights and layers whatever they learn (recipe field `normalise_path_norms`).
    """

    def __init__(self, space: SearchSpace, *, normalise: bool) -> None:
        self._normalise = normalise
        self._terms = space.cost_terms()
        self._decisions_of = cache(self._find_decisions)

    def of(self, layers: Sequence[LayerSpec], norms: Mapping[str, float]) -> dict[str, float]:
        """By decision, of a network's layers and the norm of its gradient by each parameter; those of
        decisions without a layer that has weights are left out."""
        found: dict[str, list[tuple[float, int]]] = {}
        for layer in layers:
            if layer.kind in _WEIGHTED:
                for decision in self._decisions_of(layer.name):
                    found.setdefault(decision, []).extend(_tensors(layer, norms))
        return {decision: self._joined(tensors) for decision, tensors in found.items()}

    def _joined(self, tensors: Sequence[tuple[float, int]]) -> float:
        if self._normalise:
            return sqrt(sum(norm**2 for norm, _ in tensors) / sum(count for _, count in tensors))
        return sum(norm for norm, _ in tensors)

    def _find_decisions(self, layer_name: str) -> tuple[str, ...]:
        return next(term.decisions for term in self._terms if layer_name.startswith(term.prefix))


def _tensors(layer: LayerSpec, norms: Mapping[str, float]) -> list[tuple[float, int]]:
    """(norm of the gradient, number of weights in use) of the layer's weight and of its bias, if any."""
    weights = f"slots.{slot_key(layer.name)}.weights"
    tensors = [(norms[f"{weights}.weight"], layer_weights(layer))]
    if layer.bias:
        tensors.append((norms[f"{weights}.bias"], layer.out_channels))
    return tensors
