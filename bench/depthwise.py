"""The depthwise convolution's weight gradient against oneDNN's, at the shapes of `micro`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from bench.paired import time_paired
from supernet.elastic.depthwise import _weight_gradient
from supernet.training import tune_malloc

SHAPES = [
    # images, channels, side, kernel, stride
    (64, 64, 16, 3, 1),
    (64, 64, 16, 5, 1),
    (64, 64, 16, 7, 1),
    (64, 64, 16, 7, 2),
    (64, 96, 8, 7, 1),
    (64, 192, 4, 7, 1),
]


def main(arguments: Sequence[str]) -> None:
    """One thread; the ratio is how many times longer oneDNN takes."""
    parser = argparse.ArgumentParser(prog="bench depthwise")
    parser.add_argument("--pairs", type=int, default=7)
    pairs = parser.parse_args(arguments).pairs
    tune_malloc()
    torch.set_num_threads(1)
    for count, channels, side, kernel, stride in SHAPES:
        images, weight = torch.randn(count, channels, side, side), torch.randn(channels, 1, kernel, kernel)
        images = images.contiguous(memory_format=torch.channels_last)
        grad = torch.randn_like(F.conv2d(images, weight, None, stride, kernel // 2, 1, channels))

        def ours(images=images, grad=grad, kernel=kernel, stride=stride):
            return _weight_gradient(grad, images, kernel, stride)

        def reference(images=images, grad=grad, weight=weight, kernel=kernel, stride=stride):
            mask = [False, True, False]
            return torch.ops.aten.convolution_backward(
                grad, images, weight, None, [stride] * 2, [kernel // 2] * 2, [1, 1],
                transposed=False, output_padding=[0, 0], groups=weight.shape[0], output_mask=mask,
            )  # fmt: skip

        what = f"{channels} channels, {side} x {side}, kernel {kernel}, stride {stride}"
        print(time_paired(ours, reference, pairs=pairs).line(what))
