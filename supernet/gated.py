"""Runs a network given by gates: the largest one, with what the chosen one lacks masked out.

Source: weight entanglement in ShiftNAS (ICCV 2023, section 3.3), whose masks p' = M pᵀ are multiplied into
the operations. `gate_plan.py` says where.

- Channels: a layer that mixes channels masks those that it would not read. What no layer reads needs no mask,
  for batch norm and depthwise convolutions keep channels apart.
- Kernels: the weight is a sum over kernel sizes, each padded to the largest.
- Depth: a block that may be left out is x + g · block(x).
- Shortcuts that depend on widths: s · x + block(x); a convolution in them: p · conv(x) + (1 − p) · x.
- Resolution is no weight: it is chosen outside the gates, and no gradient reaches its decision.

With one-hot gates the logits are those of the sliced network, and so are the gradients by its weights; the
price is that of a step of the largest network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.architecture import Architecture
from nas.layers import LayerKind, LayerSpec
from supernet.elastic.batch_norm import Normaliser
from supernet.elastic.conv import KernelMix
from supernet.elastic.stateless import activate
from supernet.gate_plan import LayerGating, gate_plan
from supernet.graph import run_layers
from supernet.resize import resize

if TYPE_CHECKING:
    from supernet.network import Supernet


def run_gated(
    supernet: Supernet,
    images: Tensor,
    architecture: Architecture,
    gates: Mapping[str, Tensor],
    normalise: Normaliser,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Logits (N, classes), differentiable by the gates, each of shape (options,).

    Of the architecture only the resolution is read; the gates say the rest.
    """
    weight = next(supernet.parameters())
    plan = gate_plan(supernet.space, supernet.num_classes, supernet.in_channels, weight.device, weight.dtype)
    images = resize(images, supernet.space.resolution_px(architecture))
    images = images.contiguous(memory_format=torch.channels_last)
    plain = supernet.layer_runner(normalise, dropout=dropout)

    def run_layer(layer: LayerSpec, inputs: Sequence[Tensor]) -> Tensor:
        gating = plan.gating.get(layer.name)
        if gating is None:
            return plain(layer, inputs)
        if layer.kind is LayerKind.ADD:
            return activate(_gated_sum(gating, gates, *inputs), layer.act)
        x = _masked(gating, gates, inputs[0])
        if gating.kernels is not None:
            mix = KernelMix(gating.kernel_forms, gating.kernels(gates))
            return supernet.slot(layer)(x, layer, normalise, kernel_mix=mix)
        result = plain(layer, [x])
        if gating.presence is None:
            return result
        presence = gating.presence(gates)
        return presence * result + (1 - presence) * _with_channels(inputs[0], layer.out_channels)

    return run_layers(plan.layers, images, run_layer)


def _masked(gating: LayerGating, gates: Mapping[str, Tensor], x: Tensor) -> Tensor:
    if gating.read_channels is None:
        return x
    return x * gating.read_channels(gates).view(-1, 1, 1)


def _gated_sum(gating: LayerGating, gates: Mapping[str, Tensor], source: Tensor, branch: Tensor) -> Tensor:
    # Each has the channels of its widest network; where those of the chosen one differ, `shortcut` is 0.
    source = _with_channels(source, branch.shape[1])
    if gating.shortcut is not None:
        source = source * gating.shortcut(gates)
    if gating.branch is not None:
        branch = branch * gating.branch(gates)
    return source + branch


def _with_channels(x: Tensor, channels: int) -> Tensor:
    """The first channels of x, then zeros."""
    missing = channels - x.shape[1]
    return F.pad(x, (0, 0, 0, 0, 0, missing)) if missing else x
