"""Class activation maps at the encoder's own resolution (Zhou et al., CVPR 2016)."""

from __future__ import annotations

from torch import Tensor, nn

from pylon_zoo.architectures.encoder import Encoder
from pylon_zoo.architectures.output import LocalizationModel

__all__ = ["CAM"]


class CAM(LocalizationModel):
    """A linear classifier on each cell at stride 32: PYLON's baseline.

    With ``pooling="avg"`` it is the classic CAM: averaging the maps of a linear head equals
    applying the head to averaged features. ``"max"`` is the PYLON paper's backbone without decoder.
    """

    architecture = "cam"
    map_stride = 32

    def __init__(self, encoder: Encoder, *, num_classes: int, pooling: str = "max") -> None:
        """Build the network.

        Args:
            encoder: its features at stride 32 are used.
            num_classes: K.
            pooling: what makes logits of the maps; the PYLON paper takes ``"max"``.
        """
        super().__init__()
        self.encoder = encoder
        self._finish(nn.Conv2d(encoder.channels[32], num_classes, 1), pooling)

    def decode(self, features: dict[int, Tensor]) -> Tensor:
        """Features by stride -> (B, c32, h, w) at stride 32."""
        return features[32]
