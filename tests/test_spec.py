from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pylon_zoo.errors import CheckpointError, InvalidOptionError, UnknownNameError
from pylon_zoo.spec import ModelSpec, Preprocessing, split_model_name

SPEC = ModelSpec(
    "pylon",
    "regnetx_002",
    2,
    3,
    options={"num_up": 2},
    class_names=("a", "b"),
    preprocessing=Preprocessing((3, 128, 96), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bilinear"),
    tag="phantom",
)


def test_config_round_trip_through_json() -> None:
    config = json.loads(json.dumps(SPEC.to_config()))
    assert ModelSpec.from_config(config) == SPEC
    sized = replace(SPEC, options={"img_size": (64, 96)})
    assert ModelSpec.from_config(json.loads(json.dumps(sized.to_config()))) == sized
    nameless = ModelSpec("cam", "resnet50", 14, 1)
    assert ModelSpec.from_config(json.loads(json.dumps(nameless.to_config()))) == nameless


def test_config_speaks_timms_language() -> None:
    config = SPEC.to_config()
    assert config["architecture"] == "pylon_regnetx_002"
    assert config["num_classes"] == 2
    assert config["label_names"] == ["a", "b"]
    cfg = config["pretrained_cfg"]
    assert cfg["input_size"] == [3, 128, 96]
    assert cfg["mean"] == [0.1, 0.2, 0.3]
    assert (cfg["interpolation"], cfg["crop_mode"], cfg["tag"]) == ("bilinear", "squash", "phantom")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("pylon_zoo"), "not a config of pylon_zoo.*'pylon_zoo'"),
        (lambda c: c["pylon_zoo"].pop("encoder"), "'encoder' is missing"),
        (lambda c: c["pylon_zoo"].update(config_version=99), "version 99.*reads up to 1"),
        (lambda c: c.update(num_classes=0), "damaged: num_classes must be at least 1"),
        (lambda c: c.update(num_classes=3), "damaged: class_names has 2 names"),
        (lambda c: c.update(label_names=7), "damaged"),
        (lambda c: c.update(pretrained_cfg=[]), "damaged"),
        (lambda c: c["pretrained_cfg"].pop("mean"), "preprocessing .* damaged: 'mean'"),
        (lambda c: c["pretrained_cfg"].update(input_size=[1, 2]), "preprocessing .* damaged"),
    ],
)
def test_damaged_configs(change: Any, message: str) -> None:
    config = json.loads(json.dumps(SPEC.to_config()))
    change(config)
    with pytest.raises(CheckpointError, match=message):
        ModelSpec.from_config(config)


def test_names() -> None:
    assert SPEC.name == "pylon_regnetx_002.phantom"
    assert replace(SPEC, tag="").name == "pylon_regnetx_002"
    assert SPEC.class_name(1) == "b"
    headless = SPEC.with_classes(4, None)
    assert (headless.num_classes, headless.tag, headless.class_name(3)) == (4, "", "class 3")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1; got 0"),
        ({"in_chans": 0}, "in_chans must be at least 1; got 0"),
        ({"class_names": ("a",)}, "1 names, but num_classes is 2"),
        ({"class_names": ("a", "a")}, r"twice: \['a'\]"),
        ({"in_chans": 1}, "in_chans is 1, but the preprocessing makes 3"),
    ],
)
def test_bad_specs(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        replace(SPEC, **fields)


def test_preprocessing_defaults_are_nih14s() -> None:
    assert Preprocessing.default(1) == Preprocessing()
    three = Preprocessing.default(3, size=64)
    assert three.input_size == (3, 64, 64)
    assert three.mean == (0.4984,) * 3
    assert three.std == (0.2483,) * 3


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"input_size": (1, 256)}, InvalidOptionError, r"input_size .* got \(1, 256\)"),
        ({"input_size": (1, 0, 256)}, InvalidOptionError, "three positive numbers"),
        ({"mean": (0.5, 0.5)}, InvalidOptionError, "mean has 2 values, but input_size says 1"),
        ({"std": ()}, InvalidOptionError, "std has 0 values"),
        ({"std": (0.0,)}, InvalidOptionError, r"std must be positive; got \(0.0,\)"),
        ({"interpolation": "bicubik"}, UnknownNameError, "Did you mean 'bicubic'"),
        ({"resize": "squish"}, UnknownNameError, "Did you mean 'squash'"),
    ],
)
def test_bad_preprocessing(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        replace(Preprocessing(), **fields)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pylon_resnet50", ("pylon", "resnet50", "")),
        ("pylon_resnet50.nih14", ("pylon", "resnet50", "nih14")),
        ("pylon_two_resnet50.a.b", ("pylon_two", "resnet50", "a.b")),
    ],
)
def test_split_model_name(name: str, parts: tuple[str, str, str]) -> None:
    assert split_model_name(name, ("pylon", "pylon_two", "cam")) == parts


def test_split_unknown_architecture() -> None:
    with pytest.raises(UnknownNameError, match=r"'pylom'.*Did you mean 'pylon'") as caught:
        split_model_name("pylom_resnet50.tag", ("pylon", "cam"))
    assert caught.value.suggestions == ("pylon_resnet50",)
