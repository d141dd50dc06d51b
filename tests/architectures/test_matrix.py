"""Every architecture on every family of encoders; ``benchmarks/encoders.py`` keeps the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures.base import (
    ODD_SIZE,
    check_autocast,
    check_backward,
    check_output,
    check_saved_copy,
    encoder_options,
    images_for,
)

from pylon_zoo import create_model
from pylon_zoo.encoders import survey
from pylon_zoo.registry import ARCHITECTURES

#: One encoder of each family: small, but not made for tests.
ENCODERS = (
    "resnet18",
    "resnext50_32x4d",
    "densenet121",
    "efficientnet_b0",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "regnetx_002",
    "convnext_atto",
    "vgg11",
    "swin_tiny_patch4_window7_224",
    "pvt_v2_b0",
    "maxvit_rmlp_pico_rw_256",
    "mambaout_femto",
    "hiera_tiny_224",
    "coat_lite_tiny",
    "mvitv2_tiny",
)

#: Small, and of unequal sides.
SIZE = (128, 96)


@pytest.mark.full
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_matrix(
    encoder: str, architecture: str, record_property: Callable[[str, Any], None]
) -> None:
    options = encoder_options(architecture, encoder)
    record = survey()["encoders"][encoder]
    if record.get("adjustable"):
        options["img_size"] = SIZE
    record_property("options", " ".join(f"{k}={v}" for k, v in options.items()))
    torch.manual_seed(0)
    model = create_model(f"{architecture}_{encoder}", num_classes=3, **options)
    images = images_for(model, size=SIZE)
    check_output(model, images)
    check_backward(model, images)
    check_saved_copy(model, images)
    check_autocast(model, images)
    if model.encoder.nearest_size(*ODD_SIZE) == ODD_SIZE:
        check_output(model, images_for(model, batch=1, size=ODD_SIZE))
        record_property("odd", "{} x {}".format(*ODD_SIZE))
