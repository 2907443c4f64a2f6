"""deepmad_flops: what DeepMAD's public code counts, which differs from `macs` in everything but convolutions.

The counter sees the backbone alone, with neither the final pool nor the classifier. For each layer it adds
the multiply-accumulates of a convolution, 2 for each number that a batch norm puts out, 1 for each number
that an activation puts out, and 1 for each number that an average pool reads. The convolution of a shortcut
counts as activated. Squeeze-excite counts nothing here, but its weights are parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas.costs.count import layer_macs, layer_params
from nas.layers import LayerKind, LayerSpec
from nas.prefilter.deepmad.backbone import main_path

DEEPMAD_FLOPS = "deepmad_flops"


def backbone_layers(layers: Sequence[LayerSpec]) -> tuple[LayerSpec, ...]:
    """The layers before the last map is pooled; all where it is not."""
    return tuple(layers[: _end(layers)])


def deepmad_flops_of(layers: Sequence[LayerSpec]) -> list[int]:
    """For each layer of a lowering what the counter adds for it; 0 beyond the backbone."""
    end, off_map, path = _end(layers), _off_map(layers), set(main_path(layers))
    return [
        0 if position >= end or position in off_map else _layer_flops(layer, is_on_path=position in path)
        for position, layer in enumerate(layers)
    ]


def deepmad_flops(layers: Sequence[LayerSpec]) -> int:
    """The counter's figure for one image."""
    return sum(deepmad_flops_of(layers))


def backbone_params(layers: Sequence[LayerSpec]) -> int:
    """Trainable numbers before the last map is pooled, squeeze-excite's among them."""
    return sum(map(layer_params, backbone_layers(layers)))


def _layer_flops(layer: LayerSpec, *, is_on_path: bool) -> int:
    num_out = layer.out_channels * layer.out_height * layer.out_width
    if layer.kind is LayerKind.AVERAGE_POOL:
        return layer.in_channels * layer.in_height * layer.in_width
    is_shortcut = layer.kind is LayerKind.CONV and not is_on_path
    per_number = 2 * int(layer.bn) + int(layer.act is not None or is_shortcut)
    return layer_macs(layer) + per_number * num_out


def _end(layers: Sequence[LayerSpec]) -> int:
    """Position of the pool behind the last map: the one that no squeeze-excite reads."""
    off_map = _off_map(layers)
    pools = (p for p, layer in enumerate(layers) if layer.kind is LayerKind.GLOBAL_POOL and p not in off_map)
    return next(pools, len(layers))


def _off_map(layers: Sequence[LayerSpec]) -> set[int]:
    """The layers inside squeeze-excites, from the pool to the last convolution."""
    inside: set[int] = set()
    for layer in layers:
        if layer.kind is LayerKind.SCALE:
            position = layer.inputs[1]
            while layers[position].kind is not LayerKind.GLOBAL_POOL:
                inside.add(position)
                position = layers[position].inputs[0]
            inside.add(position)
    return inside
