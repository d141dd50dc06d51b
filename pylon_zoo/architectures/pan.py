"""Pyramid attention network (Li et al., BMVC 2018), PYLON's closest relative."""

from __future__ import annotations

from torch import Tensor, nn

from pylon_zoo.architectures.encoder import Encoder
from pylon_zoo.architectures.layers import (
    ConvBNReLU,
    PyramidAttention,
    init_decoder,
    resize_like,
)
from pylon_zoo.architectures.output import LocalizationModel

__all__ = ["PAN", "GlobalAttentionUpsample", "GlobalContext"]


class GlobalContext(nn.Sequential):
    """Global average, 1 x 1 convolution, batch norm, activation: (B, C, h, w) -> (B, D, 1, 1)."""

    def __init__(self, in_channels: int, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv2d(in_channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        self.activation = activation


class GlobalAttentionUpsample(nn.Module):
    """Adds an encoder feature, weighed by the global context of the decoder feature below it."""

    def __init__(self, skip_channels: int, channels: int, global_context: bool) -> None:
        super().__init__()
        self.skip = ConvBNReLU(skip_channels, channels, 3)
        self.context = GlobalContext(channels, channels, nn.Sigmoid()) if global_context else None

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """(B, channels, h, w), (B, skip_channels, 2h, 2w) -> (B, channels, 2h, 2w)."""
        out: Tensor = self.skip(skip)
        if self.context is not None:
            out = out * self.context(below)
        return resize_like(below, skip) + out


class PAN(LocalizationModel):
    """Pyramid attention on the deepest features, then attention-weighed skips up to stride 4."""

    architecture = "pan"
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
            encoder: features at strides 4, 8, 16 and 32.
            num_classes: K.
            global_context: True is the original; False leaves out the global average poolings,
                the PYLON paper's repair for localization (they let scores leak to other places).
            pooling: what makes logits of the maps; the PYLON paper takes ``"max"``.
        """
        super().__init__()
        c, channels = encoder.channels, 128
        self.encoder = encoder
        self.attention = PyramidAttention(c[32], channels)
        self.context = GlobalContext(c[32], channels, nn.ReLU()) if global_context else None
        self.ups = nn.ModuleList(
            GlobalAttentionUpsample(c[stride], channels, global_context) for stride in (16, 8, 4)
        )
        for part in (self.attention, self.context, self.ups):
            if part is not None:
                init_decoder(part)
        self._finish(nn.Conv2d(channels, num_classes, 3, padding=1), pooling)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Features by stride -> (B, 128, h, w) at stride 4."""
        decoded: Tensor = self.attention(features[32])
        if self.context is not None:
            decoded = decoded + self.context(features[32])
        for stride, up in zip((16, 8, 4), self.ups, strict=True):
            decoded = up(decoded, features[stride])
        return decoded
