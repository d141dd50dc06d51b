"""Small classifiers whose maps are not all alike."""

from __future__ import annotations

import timm
from torch import nn

from pylon_zoo import create_model

CLASSES = 4


def lively(model: nn.Module) -> nn.Module:
    """Norms as after training; timm begins with residual branches that pass nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def zoo_model() -> nn.Module:
    model = lively(create_model("pylon_test_resnet", num_classes=CLASSES, in_chans=1))
    nn.init.normal_(model.head.weight)
    return model


def plain_resnet() -> nn.Module:
    model = lively(timm.create_model("test_resnet", num_classes=CLASSES, in_chans=1))
    nn.init.normal_(model.fc.weight)
    return model
