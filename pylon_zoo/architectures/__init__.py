"""The networks, one paper to a file; torch and timm only."""

from pylon_zoo.architectures.cam import CAM
from pylon_zoo.architectures.deeplabv3plus import DeepLabV3Plus
from pylon_zoo.architectures.encoder import Encoder
from pylon_zoo.architectures.fpn import FPN
from pylon_zoo.architectures.li2018 import Li2018
from pylon_zoo.architectures.output import LocalizationModel, LocalizationOutput
from pylon_zoo.architectures.pan import PAN
from pylon_zoo.architectures.pylon import PYLON
from pylon_zoo.architectures.unet import UNet

__all__ = [
    "CAM",
    "FPN",
    "PAN",
    "PYLON",
    "DeepLabV3Plus",
    "Encoder",
    "Li2018",
    "LocalizationModel",
    "LocalizationOutput",
    "UNet",
]
