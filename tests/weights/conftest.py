"""A tiny model and a record of how it was trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from weights_helpers import make_model

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.weights.manifest import DataRecord, Metric, Record


@pytest.fixture
def model() -> LocalizationModel:
    return make_model()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def record() -> Record:
    return Record(
        recipe="phantom",
        command="pylon-zoo train phantom",
        data=DataRecord(
            name="phantom",
            license="CC0-1.0",
            url="https://example.org/phantom",
            splits={"train": "seeds 0-7", "test": "seeds 8-9"},
        ),
        weights_license="Apache-2.0",
        metrics=(
            Metric(
                name="auroc_macro",
                value=0.9,
                interval=(0.85, 0.95),
                level=0.95,
                dataset="phantom",
                split="test",
            ),
        ),
        thresholds={"disc": 0.5, "ring": 0.25},
        project_version="0.1.0",
    )


@pytest.fixture
def manifest_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty manifest that stands in for the package's own, bundled files beside it."""
    import pylon_zoo.weights.manifest as module

    path = tmp_path / "package" / "weights_manifest.json"
    path.parent.mkdir()
    path.write_text('{"manifest_version": 1, "checkpoints": []}\n')
    monkeypatch.setattr(module, "PACKAGE", path.parent)
    return path
