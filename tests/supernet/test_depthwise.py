"""The depthwise convolution's own weight gradient is torch's."""

import pytest
import torch
import torch.nn.functional as F

from supernet.elastic.depthwise import depthwise_conv


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8, 16])
def test_the_gradients_are_those_of_torch(kernel, stride, side):
    generator = torch.Generator().manual_seed(side)
    images = torch.randn(5, 12, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
    shared = torch.randn(16, 1, 7, 7, generator=generator)
    margin = (7 - kernel) // 2
    results = []
    for convolve in (depthwise_conv, lambda x, w, s: F.conv2d(x, w, None, s, kernel // 2, 1, 12)):
        x, weights = images.clone().requires_grad_(), shared.clone().requires_grad_()
        # A slice of shared weights, as a supernet uses it.
        output = convolve(x, weights[:12, :, margin : margin + kernel, margin : margin + kernel], stride)
        (output * torch.arange(output.numel()).view_as(output).sin()).sum().backward()
        results.append((output.detach(), x.grad, weights.grad))
    for own, reference in zip(*results, strict=True):
        assert torch.allclose(own, reference, atol=1e-4, rtol=1e-4)


def test_no_gradient_is_computed_where_none_is_asked_for():
    weight = torch.randn(4, 1, 7, 7, requires_grad=True)
    with torch.no_grad():
        assert not depthwise_conv(torch.randn(1, 4, 8, 8), weight, 1).requires_grad
    images = torch.randn(1, 4, 8, 8)
    depthwise_conv(images, weight, 1).sum().backward()
    assert images.grad is None
    assert weight.grad is not None
