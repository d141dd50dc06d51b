"""PYLON: a pyramid localization network (Preechakul et al., arXiv 2010.11475; iScience 2022)."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from pylon_zoo.architectures.encoder import Encoder
from pylon_zoo.architectures.layers import ConvBNReLU, PyramidAttention, init_decoder, resize_like
from pylon_zoo.architectures.output import LocalizationModel
from pylon_zoo.errors import InvalidOptionError

__all__ = ["PYLON", "UpBlock"]


class UpBlock(nn.Module):
    """Adds an encoder feature, brought to ``channels``, to the upsampled decoder feature."""

    def __init__(self, skip_channels: int, channels: int, layers: int, kernel_size: int) -> None:
        super().__init__()
        self.skip = nn.Sequential(
            *(ConvBNReLU(skip_channels, skip_channels, kernel_size) for _ in range(layers - 1)),
            ConvBNReLU(skip_channels, channels, kernel_size),
        )

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """(B, channels, h, w), (B, skip_channels, 2h, 2w) -> (B, channels, 2h, 2w)."""
        out: Tensor = resize_like(below, skip) + self.skip(skip)
        return out


class PYLON(LocalizationModel):
    """High-resolution class maps from image-level labels alone.

    Maps have stride 4 with the default ``num_up=3``: a 256-px image gives 64 x 64 cells.
    """

    architecture = "pylon"

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: int,
        decoder_channels: int = 128,
        pyramid_attention: bool = True,
        num_up: int = 3,
        up_layers: int = 2,
        up_kernel_size: int = 1,
        head_kernel_size: int = 1,
        pooling: str = "max",
    ) -> None:
        """Build the network.

        Args:
            encoder: features at strides 4, 8, 16 and 32.
            num_classes: K.
            decoder_channels: D, the width of the decoder.
            pyramid_attention: False replaces it by a plain 1 x 1 convolution (an ablation).
            num_up: 0 to 3 up blocks; the maps have stride 32, 16, 8 or 4.
            up_layers: 1 or 2 convolutions on each skip connection.
            up_kernel_size: their kernel size, odd.
            head_kernel_size: the head's kernel size, odd.
            pooling: what makes logits of the maps; the paper takes ``"max"``.

        Raises:
            InvalidOptionError: an option is out of its range.
        """
        super().__init__()
        if num_up not in range(4):
            raise InvalidOptionError(f"num_up must be 0, 1, 2 or 3; got {num_up!r}.")
        if up_layers not in (1, 2):
            raise InvalidOptionError(f"up_layers must be 1 or 2; got {up_layers!r}.")
        for option, value in (("up", up_kernel_size), ("head", head_kernel_size)):
            if value < 1 or value % 2 == 0:
                raise InvalidOptionError(f"{option}_kernel_size must be odd; got {value!r}.")
        if decoder_channels < 1:
            raise InvalidOptionError(
                f"decoder_channels must be positive; got {decoder_channels!r}."
            )

        self.encoder = encoder
        self.attention = (
            PyramidAttention(encoder.channels[32], decoder_channels)
            if pyramid_attention
            else ConvBNReLU(encoder.channels[32], decoder_channels, 1)
        )
        self.skip_strides = (16, 8, 4)[:num_up]
        self.ups = nn.ModuleList(
            UpBlock(encoder.channels[stride], decoder_channels, up_layers, up_kernel_size)
            for stride in self.skip_strides
        )
        self.map_stride = 32 >> num_up
        init_decoder(self.attention)
        init_decoder(self.ups)
        padding = head_kernel_size // 2
        self._finish(
            nn.Conv2d(decoder_channels, num_classes, head_kernel_size, padding=padding), pooling
        )

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Features by stride -> (B, D, h, w) at ``map_stride``."""
        decoded: Tensor = self.attention(features[32])
        for stride, up in zip(self.skip_strides, self.ups, strict=True):
            decoded = up(decoded, features[stride])
        return decoded

    def class_maps(self, features: dict[int, Tensor]) -> Tensor:
        """Features by stride -> (B, K, h, w).

        In eval mode each level is projected to its K classes before it is upsampled: a 1 x 1 head
        acts on channels and bilinear upsampling on places, so that the two commute, and K maps are
        cheaper to upsample than D features. The head's bias passes through, since interpolation
        weights sum to one.
        """
        head, decoder = self.head, (self.head, *self.ups)
        if (
            self.training
            or head.kernel_size != (1, 1)
            or head.out_channels >= head.in_channels
            # Somebody wants to see a decoder feature, which would not be computed.
            or any(module._forward_hooks or module._forward_pre_hooks for module in decoder)
        ):
            return super().class_maps(features)
        maps = F.conv2d(self.attention(features[32]), head.weight, head.bias)
        for stride, up in zip(self.skip_strides, self.ups, strict=True):
            skip: Tensor = cast(UpBlock, up).skip(features[stride])
            maps = resize_like(maps, skip) + F.conv2d(skip, head.weight)
        return maps
