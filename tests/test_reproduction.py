from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_task import CONFIG, TinyTask
from typer.testing import CliRunner

import pylon_zoo
from pylon_zoo.cli.weights import app
from pylon_zoo.data import LocalizationDataset, Phantom, tasks
from pylon_zoo.errors import ReproductionError
from pylon_zoo.reproduction import metrics_of, published_config, reproduce
from pylon_zoo.training import train
from pylon_zoo.training.evaluation import evaluate
from pylon_zoo.weights import manifest as module
from pylon_zoo.weights.manifest import DataRecord, Record, add_entry, load_manifest

NAME = "pylon_test_efficientnet.tiny"


class Task(TinyTask):
    def classification(self, split: str) -> LocalizationDataset:
        return Phantom(split, size=64, length=20)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest of one checkpoint, trained by a recipe and stored as float16."""
    root = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "tiny", Task)
        patch.setattr(module, "PACKAGE", root)
        (root / "weights_manifest.json").write_text('{"manifest_version": 1, "checkpoints": []}')
        run = train(replace(CONFIG, seed=3), root / "run", progress=False)
        model = pylon_zoo.load_pretrained(run.folder)
        stored = pylon_zoo.save_pretrained(model, root / "stored", dtype=torch.float16)
        report = evaluate(pylon_zoo.load_pretrained(stored), Task(), "test")
        record = Record(
            recipe="tiny",
            command="pylon-zoo train tiny --set seed=3",
            data=DataRecord(
                name="tiny", license="CC0-1.0", url="https://example.org", splits={"test": "0-19"}
            ),
            weights_license="Apache-2.0",
            metrics=metrics_of(report, "pylon-zoo evaluate"),
            thresholds=None,
            project_version="0.1.0",
        )
        add_entry(stored, NAME, record=record, bundle=True)
    return root


@pytest.fixture(autouse=True)
def published(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "tiny", Task)
    monkeypatch.setattr(module, "PACKAGE", trained)
    monkeypatch.setattr("pylon_zoo.reproduction.load_recipe", {"tiny": CONFIG}.__getitem__)


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["reproduce", *map(str, arguments)], env={"COLUMNS": "80"})
    assert result.exit_code == code, result.output
    return result.stdout


def test_the_same_recipe_gives_the_same_weights(tmp_path: Path) -> None:
    result = reproduce(NAME, tmp_path, progress=False)
    assert result.identical
    assert result.succeeded
    entry = load_manifest().find(NAME)
    assert [c.published for c in result.comparisons] == list(entry.metrics)
    # The manifest keeps four digits, and so does the comparison.
    assert [c.difference for c in result.comparisons] == [0] * len(entry.metrics)
    again = pylon_zoo.load_pretrained(result.folder).state_dict()
    for key, tensor in pylon_zoo.load_pretrained(NAME).state_dict().items():
        assert torch.equal(again[key], tensor)
    text = run(NAME, "--output", tmp_path)
    assert "bit for bit" in text
    assert "OUTSIDE" not in text


def test_another_result_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pylon_zoo.reproduction.load_recipe",
        lambda name: replace(CONFIG, learning_rate=0.05, epochs=1),
    )
    result = reproduce(NAME, tmp_path, progress=False)
    assert not result.identical
    assert not result.succeeded
    shifted = [c for c in result.comparisons if not c.inside]
    assert shifted
    for comparison in shifted:
        low, high = comparison.published.interval
        assert not low <= comparison.published.value + comparison.difference <= high
    report: dict[str, Any] = json.loads(run(NAME, "--output", tmp_path, "--json", code=1))
    assert not report["identical"]
    assert [row["inside"] for row in report["metrics"]] == [c.inside for c in result.comparisons]


def test_commands_that_cannot_be_repeated() -> None:
    entry = load_manifest().find(NAME)
    config = published_config(entry)
    assert config == replace(CONFIG, seed=3)
    by_hand = replace(entry, command="python train.py")
    with pytest.raises(ReproductionError, match=r"python train\.py"):
        published_config(by_hand)
    with_files = replace(entry, command="pylon-zoo train tiny --set root=DIR --set seed=3")
    with pytest.raises(ReproductionError, match="--root DIR"):
        published_config(with_files)
    assert published_config(with_files, "here") == replace(CONFIG, seed=3, root="here")
