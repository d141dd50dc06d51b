from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from pylon_zoo import create_model
from pylon_zoo.cli.export import export
from pylon_zoo.errors import UnknownNameError
from pylon_zoo.weights import save_pretrained

app = typer.Typer()
app.command()(export)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_pretrained(create_model("cam_test_resnet", num_classes=2), tmp_path / "checkpoint")


def _invoke(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_export_of_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    arguments = ["--format", "torch_export", "--image-size", "96", "128", "--fixed-size"]
    printed = _invoke(checkpoint, path, *arguments)
    assert "96 x 128 px only, any batch" in printed
    report = json.loads((tmp_path / "model.pt2.json").read_text())
    assert f"maps {report['max_relative_difference']['maps']:.1e}" in printed
    logits, maps = torch.export.load(path).module()(torch.zeros(3, 1, 96, 128))
    assert torch.equal(logits, maps.amax((-2, -1)))


def test_unknown_format(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'onnx'"):
        _invoke(checkpoint, tmp_path / "x", "--format", "onx")
