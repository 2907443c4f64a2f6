"""Convolution whose channels and kernel are chosen per call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.layers import LayerSpec
from supernet.elastic.depthwise import depthwise_conv

_VECTOR = 8
"""Numbers that AVX2 computes at once."""


@dataclass(frozen=True)
class KernelMix:
    """A weight that is a sum over kernel sizes."""

    forms: tuple[LayerSpec, ...]
    """The layer with each of its kernels, the largest last."""
    shares_k: Tensor
    """How much each counts; one of them 1 and the others 0 is the layer with that kernel."""


class ElasticConv(nn.Module):
    """Shared weight of shape (out, in / groups, K, K); a call uses its first channels and its centre.

    With `kernel_transform`, a smaller kernel is not the bare centre of the larger one but its centre
    times a learned square matrix, one a layer, shared by all channels, chained 7 → 5 → 3 and
    initialised to the identity (Once-for-All, Cai et al., ICLR 2020, section 3.3).
    """

    def __init__(
        self,
        out_channels: int,
        in_channels_per_group: int,
        kernels: tuple[int, ...],
        *,
        bias: bool,
        kernel_transform: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """`kernels` are all sizes that calls may ask for, ascending."""
        super().__init__()
        self.kernels = kernels
        largest = kernels[-1]
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels_per_group, largest, largest))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        smaller = kernels[:-1] if kernel_transform else ()
        self.transforms = nn.ParameterDict({str(k): nn.Parameter(torch.eye(k * k)) for k in smaller})

    def weight_for(self, layer: LayerSpec) -> Tensor:
        """The weight this layer uses, shape (out_channels, in_channels / groups, kernel, kernel)."""
        weight = self.weight[: layer.out_channels, : layer.in_channels // layer.groups]
        if not self.transforms:
            return _centre(weight, layer.kernel)
        for kernel in reversed(self.kernels):
            if kernel < layer.kernel:
                break
            weight = _centre(weight, kernel)
            if str(kernel) in self.transforms:
                weight = (weight.flatten(2) @ self.transforms[str(kernel)].T).view_as(weight)
        return weight

    def mixed_weight(self, mix: KernelMix) -> Tensor:
        """The sum over kernels, each padded with zeros to the largest: rings of a kernel, masked."""
        largest = mix.forms[-1].kernel
        padded = [
            F.pad(self.weight_for(form), [(largest - form.kernel) // 2] * 4) * share
            for form, share in zip(mix.forms, mix.shares_k, strict=True)
        ]
        return torch.stack(padded).sum(0)

    @torch.no_grad()
    def write_weight(self, layer: LayerSpec, weight: Tensor) -> None:
        """Make `weight` the one this layer uses: at the centre, with no transform on its way there."""
        shared = self.weight[: layer.out_channels, : layer.in_channels // layer.groups]
        _centre(shared, layer.kernel).copy_(weight)
        for kernel, transform in self.transforms.items():
            if int(kernel) >= layer.kernel:
                transform.copy_(torch.eye(len(transform)))

    def bias_for(self, layer: LayerSpec) -> Tensor | None:
        """The bias this layer uses, shape (out_channels,)."""
        return None if self.bias is None else self.bias[: layer.out_channels]

    def forward(self, x: Tensor, layer: LayerSpec, *, kernel_mix: KernelMix | None = None) -> Tensor:
        """(N, in, H, W) → (N, out, H', W') with the slice that `layer` describes, or a mix of its kernels."""
        weight = self.weight_for(layer) if kernel_mix is None else self.mixed_weight(kernel_mix)
        bias = self.bias_for(layer)
        if layer.groups == layer.in_channels > 1 and bias is None:
            return depthwise_conv(x, weight, layer.stride)
        if layer.kernel == 1 and layer.stride > 1 and layer.in_channels < _VECTOR:
            # The same, of every other pixel: oneDNN's weight gradient of the strided one (AVX2, torch 2.13)
            # writes whole vectors of channels past the end of a buffer that is as narrow as the images.
            return F.conv2d(x[..., :: layer.stride, :: layer.stride], weight, bias, 1, 0, 1, layer.groups)
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, 1, layer.groups)


def _centre(weight: Tensor, kernel: int) -> Tensor:
    margin = (weight.shape[-1] - kernel) // 2
    return weight[..., margin : margin + kernel, margin : margin + kernel]
