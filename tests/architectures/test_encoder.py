from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from pylon_zoo.architectures import Encoder
from pylon_zoo.errors import InvalidInputError, InvalidOptionError, UnknownNameError


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
    assert sorted(features) == sorted(encoder.channels) == [1, *strides]
    for stride, feature in features.items():
        assert feature.shape == (1, encoder.channels[stride], 128 // stride, 192 // stride)


def test_features_are_timms_and_stride_1_is_the_image() -> None:
    encoder = Encoder("test_resnet", in_chans=1).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        first, *features = encoder(images).values()
        timms = encoder.model(images)
    assert first is images
    assert all(torch.equal(a, b) for a, b in zip(features, timms, strict=True))


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


@pytest.mark.parametrize("in_chans", [1, 3, 4])
def test_pretrained_weights_are_adapted_to_the_channels(
    in_chans: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = timm.create_model("resnet10t", in_chans=3).state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *a, **k: rgb)
    weights = Encoder("resnet10t", in_chans=in_chans, pretrained=True).model.state_dict()
    filters, stem = rgb.pop("conv1.0.weight"), weights.pop("conv1.0.weight")
    assert stem.shape[1] == in_chans
    if in_chans == 1:
        torch.testing.assert_close(stem, filters.sum(dim=1, keepdim=True))
    # Gray, copied into every channel, is seen as before.
    torch.testing.assert_close(stem.sum(dim=1), filters.sum(dim=1))
    assert weights
    assert all(torch.equal(tensor, rgb[key]) for key, tensor in weights.items())


def test_unknown_pretrained_tag() -> None:
    with pytest.raises(InvalidOptionError, match="Invalid pretrained tag"):
        Encoder("resnet10t", pretrained="no_such_tag")


def test_unknown_encoder() -> None:
    with pytest.raises(UnknownNameError, match="'resnet50'") as caught:
        Encoder("resnet5O")
    assert caught.value.kind == "encoder"
    assert caught.value.suggestions[0] == "resnet50"
    with pytest.raises(UnknownNameError):
        Encoder("resnet50.a1_in1k")  # a tag is given by `pretrained`


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("vit_base_patch16_224", "swin_base_patch4_window7_224"),
        ("xcit_tiny_24_p16_384", "gcvit_xxtiny"),
        ("levit_128", "repvit_m2"),
    ],
)
def test_encoder_without_a_pyramid_is_refused_unbuilt(name: str, similar: str) -> None:
    with pytest.raises(InvalidOptionError, match=r"need \[4, 8, 16, 32\]. Similar") as caught:
        Encoder(name)
    assert similar in str(caught.value)


def test_options_that_timm_refuses() -> None:
    with pytest.raises(InvalidOptionError, match="img_size"):
        Encoder("resnet10t", img_size=128)
    with pytest.raises(InvalidOptionError, match="output_stride"):
        Encoder("resnet10t", output_stride=5)
    with pytest.raises(InvalidOptionError, match=r"output_stride=16.*or a similar .*: resnet\w+"):
        Encoder("densenet121", output_stride=16)


@pytest.mark.parametrize("img_size", ["160", (160,), (160, 32), 32, (160, 160, 1), 160.0, -160])
def test_bad_img_size(img_size: object) -> None:
    with pytest.raises(InvalidOptionError, match=r"at least 64 px; got .*16|got 32|got -160"):
        Encoder("test_coatnet", img_size=img_size)


def test_encoder_bound_to_one_size() -> None:
    encoder = Encoder("test_coatnet")
    assert (encoder.img_size, encoder.multiple) == ((160, 160), 1)
    assert encoder.nearest_size(100, 300) == (160, 160)
    encoder.check_size(160, 160)
    with pytest.raises(
        InvalidInputError,
        match=r"exactly 160 x 160 .*got 160 x 224\. .*create_transform.*img_size=\(160, 224\)",
    ):
        encoder.check_size(160, 224)


@pytest.mark.parametrize(
    ("img_size", "expected"),
    [(192, (192, 192)), ((128, 192), (128, 192)), ([192, 128], (192, 128))],
)
def test_encoder_built_for_another_size(img_size: Any, expected: tuple[int, int]) -> None:
    encoder = Encoder("test_coatnet", img_size=img_size).eval()
    assert encoder.img_size == expected
    with torch.no_grad():
        features = encoder(torch.randn(1, 1, *expected))
    assert features[32].shape[2:] == (expected[0] // 32, expected[1] // 32)


def test_size_that_an_encoder_cannot_be_built_for() -> None:
    with pytest.raises(InvalidOptionError, match=r"'test_coatnet' does not work with img_size"):
        Encoder("test_coatnet", img_size=100)


def test_encoder_bound_to_multiples() -> None:
    encoder = Encoder("test_maxvit")
    assert (encoder.img_size, encoder.multiple) == (None, 160)
    assert encoder.nearest_size(256, 20) == (320, 160)
    encoder.check_size(320, 160)
    with pytest.raises(
        InvalidInputError, match=r"multiples of 160, e\.g\. 320 x 160 .*got 256 x 160"
    ):
        encoder.check_size(256, 160)


@pytest.mark.parametrize("name", ["test_resnet", "test_coatnet", "test_maxvit", "test_mambaout"])
def test_encoder_newer_than_the_survey(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the survey says is found again by trying, for names that it does not know."""
    known = Encoder(name)
    survey = {"encoders": {}, "refused": {}}
    monkeypatch.setattr("pylon_zoo.architectures.encoder.survey", lambda: survey)
    unknown = Encoder(name)
    assert (unknown.img_size, unknown.multiple) == (known.img_size, known.multiple)
    assert unknown.channels == known.channels


def test_newer_encoders_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    survey = {"encoders": {}, "refused": {}}
    monkeypatch.setattr("pylon_zoo.architectures.encoder.survey", lambda: survey)
    with pytest.raises(InvalidOptionError, match=r"strides \[16\]; .*Similar ones .*test_convnext"):
        Encoder("test_vit")
    with pytest.raises(InvalidOptionError, match="output_stride"):
        Encoder("test_mambaout", output_stride=16)
