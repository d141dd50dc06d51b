from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from weights_helpers import CLASSES, make_model

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.errors import CheckpointError, InvalidOptionError
from pylon_zoo.weights import load_pretrained, save_pretrained
from pylon_zoo.weights.config import read_config
from pylon_zoo.weights.files import hash_file
from pylon_zoo.weights.manifest import Record


def test_what_is_written(model: LocalizationModel, tmp_path: Path, record: Record) -> None:
    folder = save_pretrained(model, tmp_path / "new" / "folder", record=record)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    tensors = load_file(folder / "model.safetensors")
    assert tensors.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype

    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "pylon_test_resnet"
    assert config["label_names"] == list(CLASSES)
    sha256, size = hash_file(folder / "model.safetensors")
    assert config["pylon_zoo"]["weights"] == {"sha256": sha256, "bytes": size}
    checkpoint = read_config(folder)
    assert checkpoint.spec == model.spec
    assert checkpoint.record == record
    assert (checkpoint.sha256, checkpoint.bytes) == (sha256, size)


def test_half_precision_halves_the_file_and_rounds_once(
    model: LocalizationModel, tmp_path: Path
) -> None:
    full = save_pretrained(model, tmp_path / "full")
    half = save_pretrained(model, tmp_path / "half", dtype=torch.float16)
    sizes = [read_config(folder).bytes for folder in (full, half)]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = load_pretrained(half).state_dict()
    for name, tensor in model.state_dict().items():
        assert loaded[name].dtype == tensor.dtype
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(loaded[name], expected)


def test_timm_reads_what_it_can(model: LocalizationModel, tmp_path: Path) -> None:
    from timm.data import resolve_data_config
    from timm.models._hub import load_model_config_from_path

    folder = save_pretrained(model, tmp_path)
    cfg, architecture, _ = load_model_config_from_path(folder)
    assert architecture == "pylon_test_resnet"
    assert cfg["label_names"] == list(CLASSES)
    data = resolve_data_config(pretrained_cfg=cfg)
    look = model.spec.preprocessing
    assert tuple(data["input_size"]) == look.input_size
    assert tuple(data["mean"]) == look.mean
    assert tuple(data["std"]) == look.std
    assert data["interpolation"] == "bicubic"
    assert data["crop_mode"] == "squash"
    assert data["crop_pct"] == 1.0


def test_a_crash_leaves_the_old_files(
    model: LocalizationModel,
    images: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_pretrained(model, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full_disk(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_pretrained(make_model(1), tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert torch.equal(load_pretrained(tmp_path)(images).maps, model(images).maps)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_weights_are_not_saved(
    model: LocalizationModel, tmp_path: Path, value: float
) -> None:
    with torch.no_grad():
        model.head.bias[0] = value
    with pytest.raises(CheckpointError, match=r"head\.bias"):
        save_pretrained(model, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_values_beyond_half_precision_are_refused(model: LocalizationModel, tmp_path: Path) -> None:
    with torch.no_grad():
        model.head.bias[0] = 1e6
    with pytest.raises(CheckpointError, match=r"head\.bias.*float16"):
        save_pretrained(model, tmp_path, dtype=torch.float16)
    save_pretrained(model, tmp_path)


def test_a_model_that_its_spec_does_not_describe_is_refused(
    model: LocalizationModel, tmp_path: Path
) -> None:
    model.head = torch.nn.Conv2d(128, 3, 1)
    with pytest.raises(InvalidOptionError, match=r"num_classes is 3.*says 2.*reset_classifier"):
        save_pretrained(model, tmp_path)
    del model.spec
    with pytest.raises(InvalidOptionError, match="create_model"):
        save_pretrained(model, tmp_path)
    with pytest.raises(InvalidOptionError, match=r"floating-point type; got torch\.int8"):
        save_pretrained(make_model(), tmp_path, dtype=torch.int8)
    assert list(tmp_path.iterdir()) == []
