from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from typer.testing import CliRunner

from pylon_zoo.cli import terminal
from pylon_zoo.cli.weights import app
from pylon_zoo.errors import IntegrityError, UnknownNameError, WeightsNotFoundError
from pylon_zoo.registry import create_model
from pylon_zoo.weights import load_pretrained, save_pretrained
from pylon_zoo.weights import manifest as module
from pylon_zoo.weights.manifest import DataRecord, HubSource, Metric, Record, add_entry

NAME = "pylon_test_resnet.phantom"


def run(*arguments: object, code: int = 0) -> str:
    # The console takes COLUMNS when it is made, and a worker of pytest-xdist has it.
    with mock.patch.object(terminal.out, "_width", 200):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def run_json(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A trained model with its record."""
    record = Record(
        recipe="phantom",
        command="pylon-zoo train phantom",
        data=DataRecord(
            name="phantoms", license="CC0-1.0", url="https://example.org", splits={"test": "8-9"}
        ),
        weights_license="Apache-2.0",
        metrics=(
            Metric(
                name="auroc_macro", value=0.9, interval=(0.85, 0.95), level=0.95, chance=0.5,
                support=40, dataset="phantom", split="test",
                command="pylon-zoo evaluate pylon_dla46_c.phantom --data phantom",
            ),
        ),
        thresholds={"disc": 0.5},
        project_version="0.1.0",
    )  # fmt: skip
    model = create_model("pylon_test_resnet", class_names=("disc", "ring"))
    return save_pretrained(model, tmp_path / "trained", record=record)


@pytest.fixture
def listed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights file of the one checkpoint of a manifest, bundled with it."""
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "weights_manifest.json").write_text('{"manifest_version": 1, "checkpoints": []}')
    hub = HubSource(repo_id="org/x", revision="0" * 40, filename="model.safetensors")
    add_entry(folder, NAME, hub=[hub], bundle=True)
    return tmp_path / "checkpoints" / f"{NAME}.safetensors"


def test_list_and_info(listed: Path) -> None:
    (entry,) = run_json("list")
    assert entry["name"] == NAME
    assert entry == run_json("info", "pylon_test_resnet")
    assert entry["bytes"] == listed.stat().st_size
    table = run("list")
    for words in (NAME, "1.9", "bundled, org/x@0000000", "phantoms", "Apache-2.0"):
        assert words in table
    table = run("info", NAME)
    for words in ("disc, ring", "0.900 [0.850, 0.950]", entry["sha256"], "CC0-1.0", "8-9"):
        assert words in table
    with pytest.raises(UnknownNameError, match=f"It has {NAME}"):
        run("info", "pylon_test_resnet.phanton")


def test_verify(listed: Path, folder: Path, tmp_path: Path) -> None:
    assert run_json("verify", "--all") == [{"name": NAME, "state": "intact", "detail": str(listed)}]
    assert f"{NAME}: intact" in run("verify", NAME)
    assert "intact" in run("verify", folder)
    assert "intact" in run("verify", "--file", folder / "model.safetensors")
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes(listed.read_bytes())
    assert "intact" in run("verify", "--file", bare)

    content = bytearray(listed.read_bytes())
    right = hashlib.sha256(content).hexdigest()
    content[len(content) // 2] ^= 1
    wrong = hashlib.sha256(content).hexdigest()
    for path in (listed, bare, folder / "model.safetensors"):
        path.write_bytes(content)
    for arguments in ((NAME,), ("--all",), (folder,), ("--file", folder / "model.safetensors")):
        (row,) = run_json("verify", *arguments, code=1)
        assert row["state"] == "damaged"
        assert right in row["detail"]
        assert wrong in row["detail"]
    with pytest.raises(IntegrityError, match=wrong):
        run("verify", "--file", bare)

    listed.unlink()
    assert run_json("verify", "--all")[0]["state"] == "not on this machine"
    with pytest.raises(WeightsNotFoundError, match=f"weights download {NAME}"):
        run("verify", NAME)
    assert "give one of" in CliRunner().invoke(app, ["verify"]).output
    assert "give one of" in CliRunner().invoke(app, ["verify", NAME, "--all"]).output


def test_download(listed: Path, tmp_path: Path) -> None:
    assert run_json("download", "pylon_test_resnet") == {"pylon_test_resnet": str(listed)}
    assert run("download", NAME).strip() == f"{NAME}: {listed}"
    out = tmp_path / "out"
    paths = run_json("download", "pylon_test_resnet", "--to", out)
    assert paths == {"pylon_test_resnet": str(out / NAME / "model.safetensors")}
    assert load_pretrained(out / NAME).spec.name == NAME
    assert (out / NAME / "model.safetensors").read_bytes() == listed.read_bytes()


def test_dry_run_shows_files_and_card(folder: Path) -> None:
    text = run("publish", folder, "--repo-id", "org/x", "--name", NAME, "--dry-run")
    size = (folder / "model.safetensors").stat().st_size
    for words in (
        f"model.safetensors ({size:,} bytes)",
        "config.json",
        f"# {NAME}",
        "Not for clin",
    ):
        assert words in text
    data = run_json("publish", folder, "--repo-id", "org/x", "--name", NAME, "--dry-run")
    assert data["files"]["model.safetensors"] == size
    assert data["card"] in text


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from pylon_zoo.cli.weights import app; "
        "result = CliRunner().invoke(app, ['list']); "
        "sys.exit(result.exit_code or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
