from __future__ import annotations

import pytest
import torch

from pylon_zoo.architectures import Encoder
from pylon_zoo.errors import InvalidOptionError, UnknownNameError


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("test_resnet", [2, 4, 8, 16, 32]),
        ("regnetx_002", [2, 4, 8, 16, 32]),
        ("convnext_atto", [4, 8, 16, 32]),
        ("mambaout_femto", [4, 8, 16, 32]),  # computes in (B, H, W, C)
        ("mobilenetv4_conv_small_050", [2, 4, 8, 16, 32]),
    ],
)
def test_levels_are_chosen_by_stride(name: str, strides: list[int]) -> None:
    encoder = Encoder(name, in_chans=2).eval()
    with torch.no_grad():
        features = encoder(torch.randn(1, 2, 128, 192))
    assert sorted(features) == sorted(encoder.channels) == strides
    for stride, feature in features.items():
        assert feature.shape == (1, encoder.channels[stride], 128 // stride, 192 // stride)


def test_features_are_timms() -> None:
    encoder = Encoder("test_resnet", in_chans=1).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        features, timms = encoder(images), encoder.model(images)
    assert all(torch.equal(a, b) for a, b in zip(features.values(), timms, strict=True))


def test_channels_last_is_undone() -> None:
    encoder = Encoder("mambaout_femto", in_chans=1).eval()
    images = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(encoder(images)[8], encoder.model(images)[1].movedim(-1, 1))


def test_output_stride_dilates_the_last_stage() -> None:
    encoder = Encoder("resnet10t", output_stride=16).eval()
    with torch.no_grad():
        features = encoder(torch.randn(1, 1, 64, 64))
    assert features[16].shape == (1, 512, 4, 4)
    assert encoder.channels[16] == 512
    assert 32 not in features


def test_unknown_encoder() -> None:
    with pytest.raises(UnknownNameError, match="'resnet50'") as caught:
        Encoder("resnet5O")
    assert caught.value.kind == "encoder"
    assert caught.value.suggestions[0] == "resnet50"
    with pytest.raises(UnknownNameError):
        Encoder("resnet50.a1_in1k")  # a tag is given by `pretrained`


def test_encoder_without_a_pyramid() -> None:
    with pytest.raises(InvalidOptionError, match=r"strides \[16\].*need \[4, 8, 16, 32\]"):
        Encoder("vit_tiny_patch16_224")


def test_options_that_timm_refuses() -> None:
    with pytest.raises(InvalidOptionError, match="img_size"):
        Encoder("resnet10t", img_size=128)
    with pytest.raises(InvalidOptionError, match="output_stride"):
        Encoder("resnet10t", output_stride=5)
