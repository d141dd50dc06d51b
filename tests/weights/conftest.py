"""A tiny model and a record of how it was trained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, HubServer
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
                chance=0.5,
                support=40,
                dataset="phantom",
                split="test",
                command="pylon-zoo evaluate pylon_dla46_c.phantom --data phantom --split test",
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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A local Hub that the client talks to, logged in, with a cache of its own."""
    from huggingface_hub import constants

    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        # The client has read these when it was imported. Xet is a protocol of its own.
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        for home in ("constants", "file_download"):
            name = f"huggingface_hub.{home}.HUGGINGFACE_CO_URL_TEMPLATE"
            monkeypatch.setattr(name, template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        # It waits between its attempts; there is nothing to wait for.
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        yield server
