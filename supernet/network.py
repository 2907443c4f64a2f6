"""Supernet: one set of weights that holds every network of a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.architecture import Architecture
from nas.layers import WEIGHTED, LayerKind, LayerSpec
from nas.space import SearchSpace
from supernet.batchnorm import Statistics
from supernet.elastic.batch_norm import (
    ElasticBatchNorm,
    Normaliser,
    normalise_by_batch,
    normalise_by_nothing,
)
from supernet.elastic.conv import ElasticConv, KernelMix
from supernet.elastic.linear import ElasticLinear
from supernet.elastic.stateless import activate, run_stateless
from supernet.gated import run_gated
from supernet.graph import RunLayer, run_layers
from supernet.resize import resize


class Slot(nn.Module):
    """The shared weights behind all layers of one name."""

    def __init__(
        self,
        layers: Sequence[LayerSpec],
        *,
        kernel_transform: bool,
        generator: torch.Generator | None,
    ) -> None:
        """`layers` are the forms the slot takes; the weights are as large as the largest of each."""
        super().__init__()
        self.weights = _elastic_weights(layers, kernel_transform=kernel_transform, generator=generator)
        channels = max(layer.out_channels for layer in layers)
        has_zero_init = any(layer.has_zero_init for layer in layers)
        self.bn = ElasticBatchNorm(channels, has_zero_init=has_zero_init) if layers[0].bn else None

    def forward(
        self, x: Tensor, layer: LayerSpec, normalise: Normaliser, *, kernel_mix: KernelMix | None = None
    ) -> Tensor:
        """Weights, batch norm and activation of this layer."""
        if kernel_mix is not None:
            x = self.weights(x, layer, kernel_mix=kernel_mix)
        elif self.weights is not None:
            x = self.weights(x, layer)
        if self.bn is not None:
            x = self.bn(x, layer.name, normalise)
        # The tensor is this layer's own; while training its old values may be needed for the gradient.
        return activate(x, layer.act, in_place=not torch.is_grad_enabled())


class Supernet(nn.Module):
    """All networks of a space in one set of weights.

    The architecture is an argument of the call: its lowering is run layer by layer, each layer slicing
    the shared weights of its slot. Nothing about a network is kept between calls.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        num_classes: int | None = None,
        in_channels: int | None = None,
        kernel_transform: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """None takes the space's default; `kernel_transform` is Once-for-All's (see ElasticConv)."""
        super().__init__()
        self.space = space
        self.num_classes = space.default_classes if num_classes is None else num_classes
        self.in_channels = space.default_channels if in_channels is None else in_channels
        self.kernel_transform = kernel_transform
        self._lower = lru_cache(maxsize=1024)(self._lower_uncached)
        self.slots = nn.ModuleDict(
            {
                slot_key(name): Slot(layers, kernel_transform=kernel_transform, generator=generator)
                for name, layers in self._forms_of_slots().items()
            }
        )

    def forward(
        self,
        images: Tensor,
        architecture: Architecture,
        statistics: Statistics | None = None,
        *,
        dropout: float = 0.0,
        normalise: Normaliser | None = None,
        gates: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W), resized to the architecture's resolution.

        Batch norm is up to `normalise`. By default it uses the batch's statistics in train mode, and in
        eval mode `statistics`; None means mean 0 and variance 1, which serves checks without data and
        measures nothing. `dropout` acts before the classifier.

        With `gates`, which spell the architecture as one-hot vectors by decision, the logits are the same and
        differentiable by them (see `run_gated`); statistics of the one network do not fit then.
        """
        if normalise is None:
            normalise = self._normaliser(statistics)
        if gates is not None:
            return run_gated(self, images, architecture, gates, normalise, dropout=dropout)
        return self.run(images, architecture, normalise, dropout=dropout)

    def _normaliser(self, statistics: Statistics | None) -> Normaliser:
        if self.training:
            return normalise_by_batch
        return normalise_by_nothing if statistics is None else statistics.normalise

    def run(
        self, images: Tensor, architecture: Architecture, normalise: Normaliser, *, dropout: float = 0.0
    ) -> Tensor:
        """Logits with batch-norm statistics from `normalise`, whatever the mode."""
        layers = self.lower(architecture)
        images = resize(images, layers[0].in_height).contiguous(memory_format=torch.channels_last)
        return run_layers(layers, images, self.layer_runner(normalise, dropout=dropout))

    def layer_runner(self, normalise: Normaliser, *, dropout: float = 0.0) -> RunLayer:
        """What runs one layer of any network, sliced from the shared weights."""

        def run_layer(layer: LayerSpec, inputs: Sequence[Tensor]) -> Tensor:
            if layer.kind is LayerKind.LINEAR:
                features = F.dropout(inputs[0].flatten(1), dropout, training=dropout > 0)
                return self.slot(layer)(features, layer, normalise)
            if layer.kind in WEIGHTED:
                return self.slot(layer)(inputs[0], layer, normalise)
            return activate(run_stateless(layer, inputs), layer.act)

        return run_layer

    def lower(self, architecture: Architecture) -> tuple[LayerSpec, ...]:
        """The architecture's layers for this supernet's classes and channels."""
        # Keyed by spelling: equal architectures may be spelled with different weights.
        return self._lower(_Spelled(architecture))

    def slot(self, layer: LayerSpec) -> Slot:
        """The shared weights that this layer slices."""
        slot = self.slots[slot_key(layer.name)]
        assert isinstance(slot, Slot)
        return slot

    def _lower_uncached(self, spelled: _Spelled) -> tuple[LayerSpec, ...]:
        return self.space.lower(
            spelled.architecture, num_classes=self.num_classes, in_channels=self.in_channels
        )

    def _forms_of_slots(self) -> dict[str, list[LayerSpec]]:
        forms: dict[str, list[LayerSpec]] = {}
        for architecture in self.space.covering():
            for layer in self.lower(architecture):
                if layer.kind in WEIGHTED:
                    forms.setdefault(layer.name, []).append(layer)
        return forms


def slot_key(name: str) -> str:
    """A layer's name as a module's name, which may hold no dot."""
    return name.replace(".", "_")


@dataclass(frozen=True)
class _Spelled:
    """Equal only for the same spelling."""

    architecture: Architecture

    def __hash__(self) -> int:
        return hash(self.architecture.choices)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Spelled) and (
            self.architecture.space == other.architecture.space
            and self.architecture.choices == other.architecture.choices
        )


def _elastic_weights(
    layers: Sequence[LayerSpec], *, kernel_transform: bool, generator: torch.Generator | None
) -> ElasticConv | ElasticLinear | None:
    out_channels = max(layer.out_channels for layer in layers)
    in_channels = max(layer.in_channels // layer.groups for layer in layers)
    if layers[0].kind is LayerKind.LINEAR:
        return ElasticLinear(out_channels, in_channels, generator=generator)
    if layers[0].kind is LayerKind.BATCH_NORM:
        return None
    return ElasticConv(
        out_channels,
        in_channels,
        tuple(sorted({layer.kernel for layer in layers})),
        bias=layers[0].bias,
        kernel_transform=kernel_transform,
        generator=generator,
    )
