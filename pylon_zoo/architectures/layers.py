"""Layers that several decoders share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "ConvBNReLU",
    "PyramidAttention",
    "SameConv2d",
    "init_decoder",
    "init_head",
    "resize_like",
]


class SameConv2d(nn.Conv2d):
    """A convolution of stride 1 whose output has the size of its input.

    In training, a kernel that reaches beyond the padding of a small input is cut down to what can
    meet a value. The numbers are the same, and weights that met padding alone get a gradient of
    exactly zero; torch's bfloat16 convolution on the CPU (2.15, a 7 x 7 kernel on 2 x 2 cells)
    leaves whatever was in memory there, NaN among it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True
    ) -> None:
        padding = kernel_size // 2
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w)."""
        middle = self.kernel_size[0] // 2
        reach = [min(middle, side - 1) for side in features.shape[-2:]]
        if not self.training or reach == [middle, middle]:
            return super().forward(features)
        rows, columns = (slice(middle - r, middle + r + 1) for r in reach)
        return F.conv2d(features, self.weight[:, :, rows, columns], self.bias, padding=reach)


class ConvBNReLU(nn.Sequential):
    """Convolution (stride 1, padding k//2), batch norm, ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.conv = SameConv2d(in_channels, out_channels, kernel_size, bias=bias)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)


class PyramidAttention(nn.Module):
    """Weighs the deepest features by a one-channel map gathered over three coarser scales.

    The feature pyramid attention of PAN (Li et al., BMVC 2018, figure 3) without its global
    average pooling, as PYLON takes it over (arXiv 2010.11475, figure 3).
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.mid = ConvBNReLU(in_channels, channels, 1)
        self.down1 = ConvBNReLU(in_channels, 1, 7)  # stride 64
        self.down2 = ConvBNReLU(1, 1, 5)  # stride 128
        self.down3 = ConvBNReLU(1, 1, 3)  # stride 256
        self.up3 = ConvBNReLU(1, 1, 3)
        self.up2 = ConvBNReLU(1, 1, 5)
        self.up1 = ConvBNReLU(1, 1, 7)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, h, w)."""
        # ceil_mode: an odd side keeps its last row, and a side of one cell stays one cell, so
        # that any image of 64 px or more gets through; on even sides nothing changes.
        at_64 = self.down1(F.max_pool2d(features, 2, ceil_mode=True))
        at_128 = self.down2(F.max_pool2d(at_64, 2, ceil_mode=True))
        at_256 = self.down3(F.max_pool2d(at_128, 2, ceil_mode=True))
        up = resize_like(self.up3(at_256), at_128)
        up = resize_like(self.up2(at_128) + up, at_64)
        up = resize_like(self.up1(at_64) + up, features)
        out: Tensor = self.mid(features) * up
        return out


def resize_like(features: Tensor, target: Tensor) -> Tensor:
    """Resize (B, C, h, w) bilinearly to the height and width of ``target``.

    ``align_corners=True``, as inside the published networks; a map that becomes a picture or a
    metric is resized with False instead (see :mod:`pylon_zoo.heatmaps`).
    """
    return F.interpolate(features, size=target.shape[-2:], mode="bilinear", align_corners=True)


def init_decoder(decoder: nn.Module) -> None:
    """Kaiming-uniform (fan_in, relu) convolutions with zero bias; norms at 1 and 0."""
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def init_head(head: nn.Conv2d) -> None:
    """Xavier-uniform weights and zero bias."""
    nn.init.xavier_uniform_(head.weight)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
