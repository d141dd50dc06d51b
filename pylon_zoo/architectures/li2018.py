"""Thoracic disease identification and localization with limited supervision (Li et al., CVPR 2018).

As the PYLON paper trains it: from image-level labels alone.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pylon_zoo.architectures.encoder import Encoder
from pylon_zoo.architectures.layers import ConvBNReLU, init_decoder
from pylon_zoo.architectures.output import LocalizationModel

__all__ = ["Li2018"]


class Li2018(LocalizationModel):
    """Patches of a fixed grid, each classified on its own, joined by multiple-instance pooling.

    Maps have 20 x 20 cells whatever the image's size.
    """

    architecture = "li2018"
    map_stride = 32
    #: P of the paper's P x P patches.
    grid_size = 20

    def __init__(self, encoder: Encoder, *, num_classes: int, pooling: str = "mil") -> None:
        """Build the network.

        Args:
            encoder: its features at stride 32 are used.
            num_classes: K.
            pooling: what makes logits of the maps; the paper takes ``"mil"``.
        """
        super().__init__()
        self.encoder = encoder
        self.conv = ConvBNReLU(encoder.channels[32], 512, 3)
        init_decoder(self.conv)
        self._finish(nn.Conv2d(512, num_classes, 1), pooling)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Features by stride -> (B, 512, 20, 20)."""
        grid = F.interpolate(
            features[32], size=(self.grid_size,) * 2, mode="bilinear", align_corners=True
        )
        decoded: Tensor = self.conv(grid)
        return decoded

    def map_steps(self, image_size: tuple[int, int]) -> tuple[float, float]:
        """Pixels of the input from one cell of a map to the next, (down, across)."""
        # The corner cells of the grid are those of the features at stride 32.
        down, across = (32 * (-(-side // 32) - 1) / (self.grid_size - 1) for side in image_size)
        return down, across
