"""The networks, one paper to a file; torch and timm only."""

from pylon_zoo.architectures.cam import CAM
from pylon_zoo.architectures.encoder import Encoder
from pylon_zoo.architectures.output import LocalizationModel, LocalizationOutput
from pylon_zoo.architectures.pylon import PYLON

__all__ = [
    "CAM",
    "PYLON",
    "Encoder",
    "LocalizationModel",
    "LocalizationOutput",
]
