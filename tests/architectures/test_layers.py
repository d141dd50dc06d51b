from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pylon_zoo.architectures.layers import (
    ConvBNReLU,
    SameConv2d,
    init_decoder,
    init_head,
    resize_like,
)


def test_conv_bn_relu() -> None:
    layer = ConvBNReLU(2, 3, 5).eval()
    assert layer.conv.bias is not None
    layer.bn.running_mean = torch.tensor([1.0, 0.0, -1.0])
    images = torch.randn(1, 2, 7, 9)
    plain = F.conv2d(images, layer.conv.weight, layer.conv.bias, padding=2)
    expected = (plain - torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1)) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(layer(images), expected.clamp(min=0))


def test_resize_like_aligns_corners() -> None:
    row = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    resized = resize_like(row, torch.zeros(1, 7, 2, 5))
    expected = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).expand(1, 1, 2, 5)
    torch.testing.assert_close(resized, expected)


def test_initialization() -> None:
    decoder = nn.Sequential(nn.Conv2d(64, 96, 3), nn.BatchNorm2d(96), nn.GroupNorm(32, 96))
    for parameter in decoder.parameters():
        nn.init.constant_(parameter, 7)
    init_decoder(decoder)
    bound = (6 / (64 * 9)) ** 0.5  # kaiming: variance 2 / fan_in, uniform
    assert bound * 0.99 < decoder[0].weight.abs().max() <= bound
    assert torch.equal(decoder[0].bias, torch.zeros(96))
    for norm in decoder[1:]:
        assert torch.equal(norm.weight, torch.ones(96))
        assert torch.equal(norm.bias, torch.zeros(96))
    head = nn.Conv2d(128, 14, 1)
    init_head(head)
    bound = (6 / (128 + 14)) ** 0.5
    assert bound * 0.95 < head.weight.abs().max() <= bound
    assert torch.equal(head.bias, torch.zeros(14))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 5), (3, 9), (7, 7)])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_small_inputs_meet_the_middle_of_the_kernel(
    kernel_size: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = SameConv2d(5, 2, kernel_size).double()
    features = torch.randn(3, 5, *size, dtype=torch.float64)
    expected = F.conv2d(features, layer.weight, layer.bias, padding=kernel_size // 2)
    torch.testing.assert_close(layer(features), expected)
    (gradient,) = torch.autograd.grad(layer(features).square().sum(), layer.weight)
    (reference,) = torch.autograd.grad(expected.square().sum(), layer.weight)
    torch.testing.assert_close(gradient, reference)
    torch.testing.assert_close(layer.eval()(features), expected)


def test_weights_beyond_a_small_input_have_no_gradient_in_bfloat16() -> None:
    """Where torch's own convolution leaves uninitialized memory."""
    torch.manual_seed(0)
    layer = SameConv2d(64, 1, 7)
    features = torch.randn(4, 64, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        layer(features).float().sum().backward()
    assert layer.weight.grad is not None
    gradient = layer.weight.grad.clone()
    assert gradient[:, :, 2:5, 2:5].abs().min() > 0
    gradient[:, :, 2:5, 2:5] = 0
    assert (gradient == 0).all()
