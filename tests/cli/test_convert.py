from __future__ import annotations

from pathlib import Path

import pytest
import torch
import typer
from architectures.reference import CASES, case_id, state_dict
from typer.testing import CliRunner

from pylon_zoo.architectures.pooling import AvgPooling
from pylon_zoo.cli.convert import convert
from pylon_zoo.errors import CheckpointError
from pylon_zoo.weights import load_pretrained
from pylon_zoo.weights.upstream import load_upstream

app = typer.Typer()
app.command()(convert)


def _invoke(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_converted_checkpoint_holds_the_authors_weights(tmp_path: Path) -> None:
    case = next(case for case in CASES if case_id(case) == "pan_nogap-resnet18")
    torch.save(state_dict(case), tmp_path / "upstream.pt")
    names = [f"finding {i}" for i in range(14)]
    printed = _invoke(
        tmp_path / "upstream.pt", tmp_path / "ours", "--class-names", ", ".join(names)
    )
    assert "pan_resnet18 (global_context=False; 14 classes, 1 channel(s))" in printed
    assert str(tmp_path / "ours") in printed
    model = load_pretrained(tmp_path / "ours")
    assert model.spec.class_names == tuple(names)
    assert not model.training
    # Models are loaded in float32; what the tensors compute is tested where they are imported.
    expected = load_upstream(state_dict(case)).float().state_dict()
    assert model.state_dict().keys() == expected.keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


def test_pooling_is_kept(tmp_path: Path) -> None:
    case = next(case for case in CASES if case["kind"] == "cam_avg")
    torch.save(state_dict(case), tmp_path / "upstream.pt")
    assert "pooling=avg" in _invoke(tmp_path / "upstream.pt", tmp_path, "--pooling", "avg")
    assert isinstance(load_pretrained(tmp_path).pooling, AvgPooling)


def test_errors_are_the_librarys(tmp_path: Path) -> None:
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="Expected a state dict"):
        _invoke(tmp_path / "list.pt", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
