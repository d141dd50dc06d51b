"""U-Net (Ronneberger et al., MICCAI 2015) on a classification encoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pylon_zoo.architectures.encoder import Encoder
from pylon_zoo.architectures.layers import ConvBNReLU, init_decoder
from pylon_zoo.architectures.output import LocalizationModel

__all__ = ["UNet", "UNetBlock"]


class UNetBlock(nn.Module):
    """Upsamples to the nearest, appends the skip, convolves twice."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBNReLU(in_channels + skip_channels, out_channels, 3, bias=False)
        self.conv2 = ConvBNReLU(out_channels, out_channels, 3, bias=False)

    def forward(self, below: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        """(B, in, h, w), (B, skip, H, W) and (H, W) -> (B, out, H, W)."""
        up = F.interpolate(below, size=size, mode="nearest")
        if skip is not None:
            up = torch.cat([up, skip], dim=1)
        out: Tensor = self.conv2(self.conv1(up))
        return out


class UNet(LocalizationModel):
    """Class maps at the image's own resolution.

    Encoders without features at stride 2 (swin, convnext, pvt, ...) have no skip connection there:
    that block refines the upsampled features alone, as the last block always does.
    """

    architecture = "unet"
    map_stride = 1

    def __init__(self, encoder: Encoder, *, num_classes: int, pooling: str = "max") -> None:
        """Build the network.

        Args:
            encoder: features at strides 2 (where it has them), 4, 8, 16 and 32.
            num_classes: K.
            pooling: what makes logits of the maps; the PYLON paper takes ``"max"``.
        """
        super().__init__()
        c = encoder.channels
        self.encoder = encoder
        self.blocks = nn.ModuleList(
            [
                UNetBlock(c[32], c[16], 256),  # stride 16
                UNetBlock(256, c[8], 128),  # stride 8
                UNetBlock(128, c[4], 64),  # stride 4
                UNetBlock(64, c.get(2, 0), 64),  # stride 2
                UNetBlock(64, 0, 64),  # stride 1
            ]
        )
        init_decoder(self.blocks)
        self._finish(nn.Conv2d(64, num_classes, 3, padding=1), pooling)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Features by stride -> (B, 64, H, W)."""
        decoded = features[32]
        height, width = features[1].shape[-2:]
        for stride, block in zip((16, 8, 4, 2, 1), self.blocks, strict=True):
            skip = features.get(stride) if stride > 1 else None
            size = (-(-height // stride), -(-width // stride)) if skip is None else skip.shape[-2:]
            decoded = block(decoded, skip, size)
        return decoded
