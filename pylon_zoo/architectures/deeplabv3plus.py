"""DeepLabv3+ (Chen et al., ECCV 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pylon_zoo.architectures.encoder import Encoder
from pylon_zoo.architectures.layers import ConvBNReLU, init_decoder, resize_like
from pylon_zoo.architectures.output import LocalizationModel

__all__ = ["ASPP", "DeepLabV3Plus", "SeparableConvBNReLU"]


class SeparableConvBNReLU(nn.Sequential):
    """3 x 3 convolution of each channel, 1 x 1 convolution, batch norm, ReLU; no biases."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels,
            in_channels,
            3,
            padding=dilation,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the same features seen at several dilations."""

    def __init__(self, in_channels: int, channels: int, global_context: bool) -> None:
        super().__init__()
        self.local = ConvBNReLU(in_channels, channels, 1, bias=False)
        self.dilated = nn.ModuleList(
            SeparableConvBNReLU(in_channels, channels, dilation) for dilation in (12, 24, 36)
        )
        self.context = (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvBNReLU(in_channels, channels, 1, bias=False))
            if global_context
            else None
        )
        self.project = ConvBNReLU((4 + global_context) * channels, channels, 1, bias=False)
        self.dropout = nn.Dropout(0.5)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, channels, h, w)."""
        branches = [self.local(features), *(branch(features) for branch in self.dilated)]
        if self.context is not None:
            branches.append(self.context(features).expand_as(branches[0]))
        out: Tensor = self.dropout(self.project(torch.cat(branches, dim=1)))
        return out


class DeepLabV3Plus(LocalizationModel):
    """Dilated convolutions on features at stride 16, refined by one skip at stride 4.

    The encoder's last stage is dilated instead of strided, as timm does it: its first block keeps
    dilation 1, where the PYLON authors dilate the whole stage. Encoders that cannot be dilated
    (densenet, swin, vgg, ...) take ``output_stride=32``.
    """

    architecture = "deeplabv3plus"
    output_strides = (16, 32)
    map_stride = 4

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: int,
        global_context: bool = True,
        pooling: str = "max",
    ) -> None:
        """Build the network.

        Args:
            encoder: its deepest features and those at stride 4 are used.
            num_classes: K.
            global_context: True is the original; False leaves out the pooled branch of the pyramid,
                the PYLON paper's repair for localization (it lets scores leak to other places).
            pooling: what makes logits of the maps; the PYLON paper takes ``"max"``.
        """
        super().__init__()
        channels = 256
        self.encoder = encoder
        self.deepest = max(encoder.channels)
        self.aspp = ASPP(encoder.channels[self.deepest], channels, global_context)
        self.refine = SeparableConvBNReLU(channels, channels)
        self.skip = ConvBNReLU(encoder.channels[4], 48, 1, bias=False)  # stride 4
        self.fuse = SeparableConvBNReLU(channels + 48, channels)
        for part in (self.aspp, self.refine, self.skip, self.fuse):
            init_decoder(part)
        self._finish(nn.Conv2d(channels, num_classes, 1), pooling)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Features by stride -> (B, 256, h, w) at stride 4."""
        skip = self.skip(features[4])
        deep = resize_like(self.refine(self.aspp(features[self.deepest])), skip)
        decoded: Tensor = self.fuse(torch.cat([deep, skip], dim=1))
        return decoded
