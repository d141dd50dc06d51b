from __future__ import annotations

import json
from pathlib import Path

import pytest

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.errors import CheckpointError, IntegrityError
from pylon_zoo.weights import save_pretrained
from pylon_zoo.weights.config import read_config


def test_an_edited_config_says_how_to_edit(model: LocalizationModel, tmp_path: Path) -> None:
    path = save_pretrained(model, tmp_path) / "config.json"
    path.write_text(path.read_text().replace("disc", "disk"))
    with pytest.raises(IntegrityError, match=r"changed after it was written.*save_pretrained"):
        read_config(tmp_path)


def test_a_config_without_hashes_is_refused(model: LocalizationModel, tmp_path: Path) -> None:
    path = save_pretrained(model, tmp_path) / "config.json"
    config = json.loads(path.read_text())
    for field in ("config_sha256", "weights"):
        ours = {k: v for k, v in config["pylon_zoo"].items() if k != field}
        path.write_text(json.dumps({**config, "pylon_zoo": ours}))
        with pytest.raises(CheckpointError):
            read_config(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"pylon_zoo": 3}', '{"pylon_zoo": null}'])
def test_what_is_no_config(model: LocalizationModel, tmp_path: Path, text: str) -> None:
    path = save_pretrained(model, tmp_path) / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match="no config of pylon_zoo"):
        read_config(tmp_path)


def test_a_config_of_timm_alone(model: LocalizationModel, tmp_path: Path) -> None:
    path = save_pretrained(model, tmp_path) / "config.json"
    path.write_text(json.dumps({"architecture": "resnet50", "num_classes": 1000}))
    with pytest.raises(CheckpointError, match="'pylon_zoo'"):
        read_config(tmp_path)


def test_a_config_that_is_a_newer_version(model: LocalizationModel, tmp_path: Path) -> None:
    from pylon_zoo import spec

    version, spec.CONFIG_VERSION = spec.CONFIG_VERSION, 99
    try:
        save_pretrained(model, tmp_path)
    finally:
        spec.CONFIG_VERSION = version
    with pytest.raises(CheckpointError, match=r"version 99.*Upgrade"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00", b"{", b"\xff{}"])
def test_what_is_no_json(model: LocalizationModel, tmp_path: Path, content: bytes) -> None:
    path = save_pretrained(model, tmp_path) / "config.json"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"config\.json is damaged.*copy it again"):
        read_config(tmp_path)
