from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch

from pylon_zoo import create_model
from pylon_zoo.errors import (
    ExportError,
    InvalidInputError,
    MissingExtraError,
    UnknownNameError,
)
from pylon_zoo.export import FORMATS, export
from pylon_zoo.registry import ARCHITECTURES
from pylon_zoo.spec import ModelSpec


def _run(path: Path, images: torch.Tensor) -> list[torch.Tensor]:
    """What a file computes, without this package."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        outputs = session.run(["logits", "maps"], {"images": images.numpy()})
        return [torch.from_numpy(output) for output in outputs]
    return list(torch.export.load(path).module()(images))


def _check(path: Path, model: torch.nn.Module, *shape: int) -> None:
    images = torch.randn(*shape)
    with torch.no_grad():
        expected = model(images)
        for output, wanted in zip(_run(path, images), expected, strict=True):
            assert output.shape == wanted.shape
            assert (output - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_onnx_equals_eager(architecture: str, tmp_path: Path) -> None:
    model = create_model(f"{architecture}_test_resnet", num_classes=3).eval()
    path = tmp_path / "model.onnx"
    report = export(model, path)
    assert report.dynamic_size
    assert max(report.max_relative_difference.values()) <= 1e-4
    for shape in [(1, 1, 256, 256), (2, 1, 64, 64), (3, 1, 225, 310)]:
        _check(path, model, *shape)
    proto = onnx.load(path)
    dims = [
        axis.dim_param or axis.dim_value for axis in proto.graph.input[0].type.tensor_type.shape.dim
    ]
    assert dims == ["batch", 1, "height", "width"]
    config = {prop.key: prop.value for prop in proto.metadata_props}["pylon_zoo.config"]
    assert ModelSpec.from_config(json.loads(config)) == model.spec


@pytest.mark.parametrize("architecture", ["unet", "pylon"])
def test_torch_export_equals_eager(architecture: str, tmp_path: Path) -> None:
    model = create_model(f"{architecture}_test_resnet", num_classes=3).eval()
    path = tmp_path / "model.pt2"
    report = export(model, path, "torch_export")
    assert report.dynamic_size
    for shape in report.compared:
        _check(path, model, *shape)
    # PYLON's attention has a level of one cell below 257 px, which tracing takes for a constant.
    assert bool(report.refused) == (architecture == "pylon")


def test_report_lies_beside_the_file(tmp_path: Path) -> None:
    model = create_model("cam_test_resnet", class_names=["a", "b"], in_chans=3)
    model.train()
    report = export(
        model, tmp_path / "new" / "model.onnx", image_size=(96, 128), dynamic_size=False
    )
    assert model.training
    stored = json.loads((tmp_path / "new" / "model.onnx.json").read_text())
    assert stored["format"] == "onnx"
    assert stored["model"]["label_names"] == ["a", "b"]
    assert stored["dynamic_size"] is False
    assert stored["compared"] == [[1, 3, 96, 128], [3, 3, 96, 128]]
    assert stored["refused"] == []
    assert stored["max_relative_difference"] == report.max_relative_difference
    assert 0 <= stored["max_relative_difference"]["maps"] < 1e-5
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["model.onnx", "model.onnx.json"]


@pytest.mark.parametrize("kind", FORMATS)
def test_encoder_of_one_size(kind: str, tmp_path: Path) -> None:
    model = create_model("cam_test_coatnet").double()
    report = export(model, tmp_path / "model.onnx", kind)
    assert not report.dynamic_size
    assert report.compared == [[1, 1, 160, 160], [3, 1, 160, 160]]
    assert next(model.parameters()).dtype == torch.float64
    with pytest.raises(ExportError, match="bound to a size"):
        export(model, tmp_path / "model.onnx", kind, dynamic_size=True)
    with pytest.raises(InvalidInputError, match="exactly 160 x 160"):
        export(model, tmp_path / "model.onnx", kind, image_size=(96, 96))


def test_wrong_file_never_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"an older export")
    model = create_model("cam_test_resnet")
    with pytest.raises(ExportError, match=r"logits differ .* tolerated is -1"):
        export(model, path, "torch_export", tolerance=-1)

    def fails(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("cannot trace this")

    monkeypatch.setattr(torch.export, "export", fails)
    with pytest.raises(ExportError, match=r"cannot be traced .* one size .* cannot trace this"):
        export(model, path, "torch_export")
    with pytest.raises(ExportError, match="any size"):
        export(model, path, "torch_export", dynamic_size=True)
    assert path.read_bytes() == b"an older export"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt2"]


def test_size_that_cannot_be_traced_freely_is_fixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = torch.export.export

    def fails_on_free_sizes(model: Any, args: Any, dynamic_shapes: Any) -> Any:
        if 2 in dynamic_shapes[0]:
            raise RuntimeError("sizes must be constant")
        return real(model, args, dynamic_shapes=dynamic_shapes)

    monkeypatch.setattr(torch.export, "export", fails_on_free_sizes)
    with caplog.at_level("INFO"):
        report = export(create_model("cam_test_resnet"), tmp_path / "m.pt2", "torch_export")
    assert not report.dynamic_size
    assert "sizes must be constant Writing a file for images of 256 x 256 only" in caplog.text


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("cam_test_resnet")
    with pytest.raises(UnknownNameError, match="'onnx'"):
        export(model, tmp_path / "x", "onx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pylon-zoo\[export\]"):
        export(model, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
