"""Convolutions of few channels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nas.layers import LayerKind, LayerSpec
from supernet.elastic.conv import ElasticConv

HEAP_CHECKER = Path("/lib/x86_64-linux-gnu/libc_malloc_debug.so.0")
"""glibc's: told to, it ends a process that has written past the end of what it was given."""


def pointwise(in_channels, stride):
    return LayerSpec(
        name="conv", kind=LayerKind.CONV, inputs=(-1,), in_channels=in_channels, out_channels=12,
        in_height=9, in_width=9, stride=stride,
    )  # fmt: skip


@pytest.mark.parametrize("in_channels", [1, 3, 4, 7, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_pointwise_convolution_is_torchs_whatever_its_stride(in_channels, stride):
    layer = pointwise(in_channels, stride)
    conv = ElasticConv(12, in_channels, (1,), bias=False).double()
    images = torch.randn(2, in_channels, 9, 9, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(images, conv.weight, None, stride)
    found = conv(images, layer)
    torch.testing.assert_close(found, expected)
    by = [images, conv.weight]
    seed = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, by, seed), torch.autograd.grad(expected, by, seed), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def train_few_channels():
    """Enough of it for a heap that is written past to show."""
    torch.set_num_threads(1)
    for in_channels in (3, 4):
        conv, layer = ElasticConv(12, in_channels, (1,), bias=False), pointwise(in_channels, 2)
        for _ in range(25):
            images = torch.randn(20, in_channels, 8, 8).contiguous(memory_format=torch.channels_last)
            conv(images.requires_grad_(), layer).sum().backward()


@pytest.mark.skipif(not HEAP_CHECKER.exists(), reason="needs glibc's libc_malloc_debug")
def test_training_on_few_channels_writes_nowhere_else():
    """As oneDNN does with AVX2, in the weight gradient of a strided pointwise convolution."""
    environment = os.environ | {
        "LD_PRELOAD": str(HEAP_CHECKER),
        "GLIBC_TUNABLES": "glibc.malloc.check=3",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    call = f"from {__name__} import train_few_channels; train_few_channels()"
    ended = subprocess.run(
        [sys.executable, "-c", call], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
