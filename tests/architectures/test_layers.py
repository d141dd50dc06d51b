from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from pylon_zoo.architectures.layers import ConvBNReLU, init_decoder, init_head, resize_like


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
