"""Depthwise convolution with a faster weight gradient for large kernels on CPU.

oneDNN's weight gradient of a 5 × 5 or 7 × 7 depthwise convolution is many times slower than its data
gradient. The same gradient is itself a depthwise convolution, of the images with the output's gradient
as the kernel and every (image, channel) pair a group; that one is fast.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALLEST_KERNEL = 5
"""Below it oneDNN's own weight gradient wins (`bench/depthwise.py`)."""


def depthwise_conv(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """(N, C, H, W) and (C, 1, K, K), K odd, padding K // 2: the depthwise convolution."""
    is_worth_it = (
        weight.shape[-1] >= SMALLEST_KERNEL
        and weight.device.type == "cpu"
        and x.dtype is torch.float32
        # Which would run the convolution in bfloat16, and the gradient knows nothing of it.
        and not torch.is_autocast_enabled("cpu")
    )
    if is_worth_it and torch.is_grad_enabled() and weight.requires_grad:
        return _DepthwiseConv.apply(x, weight, stride)
    return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, weight.shape[0])


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_x = _data_gradient(grad, x, weight, ctx.stride) if ctx.needs_input_grad[0] else None
        return grad_x, _weight_gradient(grad, x, weight.shape[-1], ctx.stride), None


def _data_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    padding = weight.shape[-1] // 2
    # Not torch.nn.grad.conv2d_input: it loses the images' memory format.
    gradients = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1],
        transposed=False, output_padding=[0, 0], groups=weight.shape[0], output_mask=[True, False, False],
    )  # fmt: skip
    data_gradient: Tensor = gradients[0]
    return data_gradient


def _weight_gradient(grad: Tensor, x: Tensor, kernel: int, stride: int) -> Tensor:
    """The images convolved with the output's gradient: (C, 1, K, K).

    A step of `stride` in the output is a step of `stride` in the images, so it dilates the kernel.
    """
    count, channels, height, width = x.shape
    groups = count * channels
    # All images side by side as the channels of one, in channels_last memory.
    side_by_side = x.permute(2, 3, 0, 1).reshape(1, height, width, groups).permute(0, 3, 1, 2)
    kernels = grad.reshape(groups, 1, *grad.shape[2:])
    each = F.conv2d(side_by_side, kernels, None, 1, kernel // 2, stride, groups)
    # With stride 2 and an even side the convolution reaches one position further than the kernel.
    return each[0, :, :kernel, :kernel].reshape(count, channels, 1, kernel, kernel).sum(0)
