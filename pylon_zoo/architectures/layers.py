"""Layers that several decoders share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvBNReLU", "init_decoder", "init_head", "resize_like"]


class ConvBNReLU(nn.Sequential):
    """Convolution (stride 1, padding k//2, with bias), batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)


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
