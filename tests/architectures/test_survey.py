from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm

from pylon_zoo import encoders
from pylon_zoo.architectures import survey
from pylon_zoo.architectures.survey import examine

TINY = ["test_resnet", "test_coatnet", "test_maxvit", "test_mambaout", "test_vit"]


@pytest.mark.parametrize("name", TINY)
def test_examination_finds_what_the_survey_says(name: str) -> None:
    content = encoders.survey()
    known = content["encoders"].get(name) or content["refused"][name]
    assert json.loads(json.dumps(examine(name))) == known


def test_encoder_off_the_grid_is_refused() -> None:
    """Inception's convolutions are not padded: it has the strides, but not the cells."""
    record = examine("inception_v3")
    assert record["strides"] == []
    assert "dilates" not in record


def test_too_small_tables_of_positions_need_values_to_be_seen() -> None:
    """MViTv2 indexes tables of relative positions; the meta device does not check the index."""
    assert "img_size" not in examine("mvitv2_tiny")
    assert examine("mvitv2_tiny", "cpu")["img_size"] == (224, 224)
    records = survey.examine_all(["mvitv2_tiny", "mvitv2_small", "test_resnet"])
    assert records["mvitv2_small"]["img_size"] == (224, 224)
    assert "img_size" not in records["test_resnet"]


def test_command_writes_the_file_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "SURVEY_PATH", tmp_path / "encoders.json")
    monkeypatch.setattr(timm, "list_models", lambda: TINY)
    survey.main()
    content = json.loads((tmp_path / "encoders.json").read_text())
    assert content["timm"] == timm.__version__
    assert set(content["encoders"]) == set(TINY) - {"test_vit"}
    assert set(content["refused"]) == {"test_vit"}
