"""Warm start: weights of one supernet, or of one network, as the first weights of another training.

The classifier is kept where the classes are the same, its rows are put in order where they are listed in
another one, and it begins anew (from the seed) where they are others. The first layer is carried between
grey and colour images. Everything else is copied as it is: `nas.warm_start` has refused what cannot be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from nas.architecture import Architecture
from nas.errors import ArtifactError
from nas.layers import IMAGE, LayerKind, LayerSpec
from supernet.elastic.conv import ElasticConv
from supernet.elastic.linear import ElasticLinear
from supernet.extract import PlainNetwork
from supernet.network import WEIGHTED, Slot, Supernet, slot_key


class Carried(StrEnum):
    """What became of a layer that depends on the data."""

    KEPT = "kept"
    PERMUTED = "permuted"
    """The same classes, listed in another order."""
    ADAPTED = "adapted"
    """From grey to colour images or back."""
    REINITIALISED = "reinitialised"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What of the weights could not be copied as it was."""

    classifier: Carried
    first_layer: Carried


def copy_supernet(
    target: Supernet,
    weights: Mapping[str, Tensor],
    *,
    class_names: Sequence[str],
    source_class_names: Sequence[str],
) -> Changes:
    """Give `target`, freshly made for `class_names`, the weights of a supernet of its space.

    ArtifactError where they are not such weights. Kernel transforms that the source has not stay the
    identity, with which every kernel is what it was.
    """
    order = _class_order(class_names, source_class_names)
    reads_image = _reading_image(target)
    state = target.state_dict()
    unknown = sorted(weights.keys() - state.keys())
    if unknown:
        raise ArtifactError(f"{_named(unknown)} is no weight of space '{target.space.name}'; {_REMEDY}")
    for name, value in state.items():
        slot, _, parameter = name.removeprefix("slots.").partition(".")
        if name not in weights and ".transforms." in name:
            continue
        if name not in weights:
            raise ArtifactError(f"the weights lack {name} of space '{target.space.name}'; {_REMEDY}")
        found = _checked(name, weights[name])
        if isinstance(_slot(target, slot).weights, ElasticLinear):
            if order is None:
                continue
            found = found[order]
        if slot in reads_image and parameter == "weights.weight":
            found = _for_channels(found, value.shape[1])
        if found.shape != value.shape:
            raise ArtifactError(
                f"{name} has shape {tuple(found.shape)}, in space '{target.space.name}' it is "
                f"{tuple(value.shape)}; {_REMEDY}"
            )
        value.copy_(found)
    return Changes(
        classifier=_classifier_change(class_names, source_class_names),
        first_layer=_first_layer_change(target, weights, reads_image),
    )


def write_network(target: Supernet, architecture: Architecture, weights: Mapping[str, Tensor]) -> None:
    """Put a plain network's weights into the slices of `target` that the architecture uses.

    The inverse of `extract`: extracted again, the network has the same weights. `target` is made for the
    network's classes and channels; ArtifactError where the weights are not the architecture's. What the
    network does not use stays as it is.

    Deviation: a kernel that came through kernel transforms is put into the centre of the largest, and the
    matrices on its way become the identity. The bundle holds neither the larger kernel nor the matrices,
    and any others with the same product would give the same network.
    """
    layers = target.lower(architecture)
    _check_network(layers, weights, architecture)
    with torch.no_grad():
        for layer in layers:
            if layer.kind in WEIGHTED:
                _write_slice(target.slot(layer), layer, weights)


_REMEDY = "start from a file as it was downloaded, made by this version of the space"


def _class_order(class_names: Sequence[str], source: Sequence[str]) -> list[int] | None:
    """For each class its row in the source's classifier; None where the classes are others."""
    if sorted(class_names) != sorted(source) or len(set(source)) != len(source):
        return list(range(len(source))) if tuple(class_names) == tuple(source) else None
    rows = {name: row for row, name in enumerate(source)}
    return [rows[name] for name in class_names]


def _classifier_change(class_names: Sequence[str], source: Sequence[str]) -> Carried:
    order = _class_order(class_names, source)
    if order is None:
        return Carried.REINITIALISED
    return Carried.KEPT if order == sorted(order) else Carried.PERMUTED


def _first_layer_change(
    target: Supernet, weights: Mapping[str, Tensor], reads_image: Iterable[str]
) -> Carried:
    state = target.state_dict()
    names = [f"slots.{slot}.weights.weight" for slot in reads_image]
    is_kept = all(state[name].shape == weights[name].shape for name in names)
    return Carried.KEPT if is_kept else Carried.ADAPTED


def _reading_image(supernet: Supernet) -> set[str]:
    """The slots whose weights depend on the images' channels."""
    return {
        slot_key(layer.name)
        for architecture in supernet.space.covering()
        for layer in supernet.lower(architecture)
        if layer.kind is LayerKind.CONV and IMAGE in layer.inputs
    }


def _for_channels(weight: Tensor, num_channels: int) -> Tensor:
    """(out, in, K, K) for images of `num_channels`, of 1 and 3.

    Grey pixels in all three colours and the one grey channel give the same sums either way.
    """
    if weight.ndim != 4 or {weight.shape[1], num_channels} != {1, 3}:
        return weight
    if num_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return (weight / 3).expand(-1, 3, -1, -1)


def _slot(supernet: Supernet, key: str) -> Slot:
    slot = supernet.slots[key]
    assert isinstance(slot, Slot)
    return slot


def _checked(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
        raise ArtifactError(f"{name} holds numbers that are not finite, or no fractions at all; {_REMEDY}")
    return value


def _check_network(
    layers: Sequence[LayerSpec], weights: Mapping[str, Tensor], architecture: Architecture
) -> None:
    with torch.device("meta"):
        expected = PlainNetwork(layers).state_dict()
    missing, unknown = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing or unknown:
        verb = "lack" if missing else "hold beyond it"
        raise ArtifactError(
            f"the weights {verb} {_named(sorted(missing or unknown))} of architecture {architecture.key}; "
            f"{_REMEDY}"
        )
    for name, value in expected.items():
        if weights[name].shape != value.shape:
            raise ArtifactError(
                f"{name} has shape {tuple(weights[name].shape)}, in architecture {architecture.key} it is "
                f"{tuple(value.shape)}; {_REMEDY}"
            )
        if value.is_floating_point():
            _checked(name, weights[name])


def _write_slice(slot: Slot, layer: LayerSpec, weights: Mapping[str, Tensor]) -> None:
    key = slot_key(layer.name)
    if isinstance(slot.weights, ElasticConv | ElasticLinear):
        plain = f"{key}.conv" if isinstance(slot.weights, ElasticConv) else f"{key}.linear"
        slot.weights.write_weight(layer, weights[f"{plain}.weight"])
        bias = slot.weights.bias_for(layer)
        if bias is not None:
            bias.copy_(weights[f"{plain}.bias"])
    if slot.bn is not None:
        slot.bn.weight[: layer.out_channels].copy_(weights[f"{key}.bn.weight"])
        slot.bn.bias[: layer.out_channels].copy_(weights[f"{key}.bn.bias"])


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
