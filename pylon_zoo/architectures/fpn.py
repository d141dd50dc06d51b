"""Feature pyramid network for dense prediction (Kirillov et al., CVPR 2019, "Panoptic FPN")."""

from __future__ import annotations

from itertools import zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pylon_zoo.architectures.encoder import STRIDES, Encoder
from pylon_zoo.architectures.layers import init_decoder, resize_like
from pylon_zoo.architectures.output import LocalizationModel
from pylon_zoo.errors import unknown_name

__all__ = ["FPN", "Branch", "ConvNormReLU"]

NORMS = ("batch", "group")


class ConvNormReLU(nn.Sequential):
    """3 x 3 convolution without bias, batch norm or group norm over 32 groups, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = (
            nn.BatchNorm2d(out_channels) if norm == "batch" else nn.GroupNorm(32, out_channels)
        )
        self.relu = nn.ReLU(inplace=True)


class Branch(nn.Module):
    """Brings one level of the pyramid to stride 4: a convolution before each doubling of its size.

    The level at stride 4 itself has one convolution and no doubling.
    """

    def __init__(self, doublings: int, norm: str) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            ConvNormReLU(128 if i else 256, 128, norm) for i in range(max(1, doublings))
        )

    def forward(self, level: Tensor, finer: list[Tensor]) -> Tensor:
        """(B, 256, h, w) and the levels below it, next first -> (B, 128, H, W) at stride 4."""
        for conv, target in zip_longest(self.convs, finer):
            level = conv(level)
            if target is not None:
                level = resize_like(level, target)
        return level


class FPN(LocalizationModel):
    """A top-down pyramid whose levels are brought to stride 4 and summed."""

    architecture = "fpn"
    map_stride = 4

    def __init__(
        self, encoder: Encoder, *, num_classes: int, norm: str = "batch", pooling: str = "max"
    ) -> None:
        """Build the network.

        Args:
            encoder: features at strides 4, 8, 16 and 32.
            num_classes: K.
            norm: ``"batch"`` is the PYLON paper's repair for localization (a group norm sees the
                whole image and lets scores leak to other places); ``"group"`` the original.
            pooling: what makes logits of the maps; the PYLON paper takes ``"max"``.

        Raises:
            UnknownNameError: no such norm.
        """
        super().__init__()
        if norm not in NORMS:
            raise unknown_name("norm", norm, NORMS)
        self.encoder = encoder
        self.strides = STRIDES[::-1]  # 32, 16, 8, 4
        self.laterals = nn.ModuleList(
            nn.Conv2d(encoder.channels[stride], 256, 1) for stride in self.strides
        )
        self.branches = nn.ModuleList(Branch(doublings, norm) for doublings in (3, 2, 1, 0))
        init_decoder(self.laterals)
        init_decoder(self.branches)
        self._finish(nn.Conv2d(128, num_classes, 1), pooling)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Features by stride -> (B, 128, h, w) at stride 4."""
        levels: list[Tensor] = []
        for stride, lateral in zip(self.strides, self.laterals, strict=True):
            level = lateral(features[stride])
            if levels:
                level = level + F.interpolate(levels[-1], size=level.shape[-2:], mode="nearest")
            levels.append(level)
        decoded = [branch(levels[i], levels[i + 1 :]) for i, branch in enumerate(self.branches)]
        return torch.stack(decoded).sum(dim=0)
