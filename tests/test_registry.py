from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

import pylon_zoo
from pylon_zoo import LocalizationModel, create_model, list_encoders, list_models
from pylon_zoo.errors import InvalidOptionError, UnknownNameError
from pylon_zoo.registry import ARCHITECTURES, build_model
from pylon_zoo.spec import ModelSpec, Preprocessing


def test_importing_and_listing_need_no_torch() -> None:
    code = (
        "import sys, pylon_zoo; assert 'pylon_resnet50' in pylon_zoo.list_models('*_resnet50');"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_resolve() -> None:
    assert set(pylon_zoo.__all__) <= set(dir(pylon_zoo))
    assert pylon_zoo.create_model is create_model
    with pytest.raises(AttributeError, match="no attribute 'create_modle'"):
        _ = pylon_zoo.create_modle


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_create_model(architecture: str) -> None:
    model = create_model(f"{architecture}_test_resnet", num_classes=5, in_chans=3)
    assert isinstance(model, LocalizationModel)
    assert model.architecture == architecture
    assert model.training
    assert model.num_classes == 5
    assert model.spec == ModelSpec(
        architecture, "test_resnet", 5, 3, preprocessing=Preprocessing.default(3)
    )
    output = model(torch.randn(2, 3, 64, 64))
    assert output.logits.shape == (2, 5)


def test_defaults_are_the_papers() -> None:
    model = create_model("pylon_test_resnet")
    assert (model.spec.num_classes, model.spec.in_chans) == (14, 1)
    assert model.spec.preprocessing == Preprocessing()


def test_class_names_count_the_classes() -> None:
    model = create_model("cam_test_resnet", class_names=["a", "b"])
    assert model.num_classes == 2
    assert model.spec.class_names == ("a", "b")
    with pytest.raises(InvalidOptionError, match="2 names, but num_classes is 3"):
        create_model("cam_test_resnet", class_names=["a", "b"], num_classes=3)


def test_spec_rebuilds_the_model() -> None:
    model = create_model("pylon_test_resnet", num_up=2, pooling="avg", num_classes=3)
    config = json.loads(json.dumps(model.spec.to_config()))
    copy = build_model(ModelSpec.from_config(config))
    assert copy.spec == model.spec
    copy.load_state_dict(model.state_dict())
    images = torch.randn(1, 1, 64, 64)
    assert torch.equal(copy.eval()(images).logits, model.eval()(images).logits)


@pytest.mark.parametrize(
    ("name", "options", "kind", "suggestion"),
    [
        ("pilon_resnet50", {}, "architecture", "pylon_resnet50"),
        ("resnet50", {}, "architecture", None),
        ("pylon", {}, "architecture", "pylon"),
        ("pylon_resnet5O", {}, "encoder", "resnet50"),
        ("pylon_test_resnet", {"num_ups": 2}, "option of architecture 'pylon',", "num_up"),
        ("cam_test_resnet", {"num_up": 2}, "option of architecture 'cam',", None),
        ("pan_test_resnet", {"output_stride": 16}, "option of architecture 'pan',", None),
        ("fpn_test_resnet", {"norm": "bach"}, "norm", "batch"),
        ("pylon_test_resnet", {"pooling": "mx"}, "pooling", "max"),
    ],
)
def test_unknown_names(
    name: str, options: dict[str, Any], kind: str, suggestion: str | None
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        create_model(name, **options)
    assert caught.value.kind == kind
    assert "Did you mean" in str(caught.value) or suggestion is None
    if suggestion is not None:
        assert caught.value.suggestions[0] == suggestion


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1; got 0"),
        ({"in_chans": 0}, "in_chans must be at least 1; got 0"),
        ({"img_size": 128}, "img_size"),
        ({"num_up": "two"}, "num_up must be 0, 1, 2 or 3; got 'two'"),
        ({"decoder_channels": "wide"}, "do not fit architecture 'pylon'"),
        ({"class_names": ["a", "a"]}, "twice"),
    ],
)
def test_bad_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        create_model("pylon_test_resnet", **options)


def test_list_encoders() -> None:
    names = list_encoders()
    assert names == sorted(names)
    assert {"resnet50", "densenet121", "swin_tiny_patch4_window7_224", "vgg16"} <= set(names)
    assert "vit_base_patch16_224" not in names
    assert list_encoders("resnet5*") == [n for n in names if n.startswith("resnet5")]


def test_list_models() -> None:
    names = list_models()
    assert names == sorted(names)
    assert len(list_models("pylon_*")) == len(list_encoders())
    assert {f"{architecture}_resnet50" for architecture in ARCHITECTURES} <= set(names)
    assert list_models("pylon_resnet50*")[0] == "pylon_resnet50"
    assert list_models("no_such_*") == []


def test_models_that_need_an_option_are_not_listed() -> None:
    """DeepLabv3+ dilates its encoder; those that cannot be dilated take output_stride=32."""
    assert list_models("*plus_densenet121") == []
    with pytest.raises(InvalidOptionError, match="Take output_stride=32"):
        create_model("deeplabv3plus_densenet121")
    with pytest.raises(InvalidOptionError, match=r"must be one of \[16, 32\]; got 8"):
        create_model("deeplabv3plus_test_resnet", output_stride=8)
    for stride in (16, 32):
        model = create_model("deeplabv3plus_test_resnet", output_stride=stride)
        assert max(model.encoder.channels) == stride
        assert build_model(model.spec).encoder.channels == model.encoder.channels


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("pylon_test_resnet", {}, (256, 256)),
        ("pylon_test_coatnet", {}, (160, 160)),
        ("pylon_test_coatnet", {"img_size": (128, 192)}, (128, 192)),
        ("pylon_test_maxvit", {}, (320, 320)),
    ],
)
def test_preprocessing_makes_a_size_that_the_encoder_takes(
    name: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    model = create_model(name, **options)
    assert model.spec.preprocessing.input_size == (1, *size)
    model.encoder.check_size(*size)
