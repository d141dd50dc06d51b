from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from PIL import Image
from typer.testing import CliRunner
from weights_helpers import make_model

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.cli.weights import app
from pylon_zoo.errors import (
    CheckpointError,
    DownloadError,
    HubAccessError,
    IntegrityError,
    InvalidOptionError,
    ManifestError,
    WeightsNotFoundError,
)
from pylon_zoo.weights import download, load_manifest, load_pretrained, publish, save_pretrained
from pylon_zoo.weights.locate import local_copies
from pylon_zoo.weights.manifest import BundledSource, HubSource, Record, add_entry
from pylon_zoo.weights.publishing import prepare

# The client's own way of sending a file to storage.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    pytest.mark.usefixtures("manifest_file"),
]

NAME, REPO = "pylon_test_resnet.phantom", "org/phantom"


@pytest.fixture
def folder(model: LocalizationModel, record: Record, tmp_path: Path) -> Path:
    folder = save_pretrained(model, tmp_path / "trained", record=record)
    Image.new("L", (8, 8)).save(folder / "heatmap.png")
    return folder


def test_publish_delete_caches_load_then_offline(
    hub: HubServer,
    folder: Path,
    images: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = load_pretrained(folder)(images)
    entry = publish(folder, REPO, name=NAME)
    commit = hub.repos[REPO]["main"]
    assert entry.sources == (
        HubSource(repo_id=REPO, revision=commit, filename="model.safetensors"),
    )
    assert load_manifest().find(NAME) == entry
    assert not (tmp_path / "cache").exists()
    shutil.rmtree(folder)

    loaded = load_pretrained(NAME)
    assert torch.equal(loaded(images).maps, expected.maps)
    assert torch.equal(loaded(images).logits, expected.logits)
    assert loaded.spec.tag == "phantom"
    # The manifest has the config: the weights are the one file that was fetched.
    assert hub.downloads("model.safetensors") == 2  # one of them to compare after publishing
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert torch.equal(load_pretrained("pylon_test_resnet")(images).maps, expected.maps)
    by_repository = load_pretrained(NAME)
    assert by_repository.spec == loaded.spec
    assert hub.requests == []


def test_nothing_is_uploaded_that_could_not_be_listed(
    hub: HubServer, folder: Path, manifest_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def access(path: Path, mode: int) -> bool:
        assert (path, mode) == (manifest_file.parent, os.W_OK)
        return False

    monkeypatch.setattr("pylon_zoo.weights.publishing.os.access", access)
    with pytest.raises(InvalidOptionError, match=r"Nothing was uploaded.*push_to_hub"):
        publish(folder, REPO, name=NAME)
    assert REPO not in hub.repos


def test_one_commit_with_everything(hub: HubServer, folder: Path) -> None:
    publish(folder, REPO, name=NAME)
    commits = [path for method, path in hub.requests if "/commit/" in path]
    assert commits == [f"/api/models/{REPO}/commit/main"]
    files = hub.commits[hub.repos[REPO]["main"]]
    assert set(files) - {".gitattributes"} == {
        "README.md",
        "config.json",
        "heatmap.png",
        "model.safetensors",
    }
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert files["heatmap.png"] == (folder / "heatmap.png").read_bytes()
    assert b'"tag": "phantom"' in files["config.json"]
    assert load_pretrained(f"hf-hub:{REPO}").spec.name == NAME


def test_the_quickstart_of_the_card_works(
    hub: HubServer,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(folder, REPO, name=NAME)
    card = hub.commits[hub.repos[REPO]["main"]]["README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 90), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    names: dict[str, torch.Tensor] = {}
    exec(code, names)
    assert names["maps"].shape == (1, 2, 256, 256)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line, name, probability in zip(
        lines, ("disc", "ring"), names["probabilities"], strict=True
    ):
        assert re.fullmatch(rf"{name}: {float(probability):.2f}, highest at x=\d+, y=\d+", line)


def test_bytes_of_a_bundled_checkpoint_stay_bundled(
    hub: HubServer, manifest_file: Path, folder: Path, images: torch.Tensor
) -> None:
    add_entry(folder, NAME, bundle=True)
    entry = publish(folder, REPO, name=NAME)
    assert [type(source) for source in entry.sources] == [BundledSource, HubSource]
    expected = load_pretrained(folder)(images).maps

    hub.requests.clear()
    load_pretrained(NAME)
    assert hub.requests == []
    bundled = manifest_file.parent / "checkpoints" / f"{NAME}.safetensors"
    content = bundled.read_bytes()
    # A damaged or missing file of the package: the next source has it.
    for damage in (content[:-1] + b"x", None):
        bundled.unlink()
        if damage:
            bundled.write_bytes(damage)
        assert torch.equal(load_pretrained(NAME)(images).maps, expected)
        if not damage:
            bundled.write_bytes(content)
    assert [copy.weights == bundled for copy in local_copies(NAME)] == [True, False]


def test_all_sources_failing_are_told(hub: HubServer, manifest_file: Path, folder: Path) -> None:
    add_entry(folder, NAME, bundle=True)
    publish(folder, REPO, name=NAME)
    bundled = manifest_file.parent / "checkpoints" / f"{NAME}.safetensors"
    bundled.unlink()
    hub.close()
    with pytest.raises(DownloadError, match=rf"{bundled.name} is missing.*cannot be reached"):
        load_pretrained(NAME)
    assert list(local_copies(NAME)) == []


def test_a_mirror_is_tried_after_the_first_source(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    entry = publish(folder, REPO, name=NAME)
    (source,) = entry.sources
    assert isinstance(source, HubSource)
    gone = replace(source, repo_id="org/gone")
    add_entry(folder, NAME, hub=[gone, source])
    path = download(NAME, tmp_path / "out")
    assert path.read_bytes() == (folder / "model.safetensors").read_bytes()
    add_entry(folder, NAME, hub=[gone])
    with pytest.raises(WeightsNotFoundError, match=r"org/gone.*no such repository"):
        download(NAME)


def test_what_cannot_be_published(
    hub: HubServer, folder: Path, record: Record, tmp_path: Path
) -> None:
    for name in (None, "pylon_test_resnet", "cam_test_resnet.phantom"):
        with pytest.raises(ManifestError, match=r"must be pylon_test_resnet\.TAG"):
            publish(folder, REPO, name=name)
    with pytest.raises(InvalidOptionError, match="no repository of the Hub"):
        publish(folder, "phantom", name=NAME)
    bare = save_pretrained(make_model(), tmp_path / "bare")
    with pytest.raises(ManifestError, match="needs its record"):
        publish(bare, REPO, name=NAME)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError):
        publish(folder, REPO, name=NAME)
    assert hub.requests == []
    assert load_manifest().names == []


def test_a_checkpoint_that_does_not_load_is_not_published(
    hub: HubServer, record: Record, tmp_path: Path
) -> None:
    model = make_model()
    model.spec = replace(model.spec, options={"num_up": 1})
    save_pretrained(model, tmp_path / "odd", record=record)
    with pytest.raises(CheckpointError, match="do not fit the model"):
        publish(tmp_path / "odd", REPO, name=NAME)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("wrong-bytes", IntegrityError), ("500", DownloadError), ("401", HubAccessError)],
)
def test_what_does_not_come_back_is_not_listed(
    hub: HubServer, folder: Path, fault: str, kind: type[Exception]
) -> None:
    hub.misbehave(fault)
    with pytest.raises(kind):
        publish(folder, REPO, name=NAME)
    assert load_manifest().names == []


def test_preparing_sends_nothing(hub: HubServer, folder: Path) -> None:
    with prepare(folder, REPO, name=NAME) as publication:
        assert list(publication.files) == [
            "README.md",
            "config.json",
            "heatmap.png",
            "model.safetensors",
        ]
        assert publication.files["README.md"].read_text() == publication.card
        assert publication.name == NAME
    assert hub.requests == []


def test_the_command_publishes(hub: HubServer, folder: Path, images: torch.Tensor) -> None:
    expected = load_pretrained(folder)(images).maps
    arguments = ["publish", str(folder), "--repo-id", REPO, "--name", NAME, "--private"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    commit = hub.repos[REPO]["main"]
    assert result.stdout.strip() == f"{NAME}: published and compared, {REPO}@{commit[:7]}"
    assert REPO in hub.private
    assert torch.equal(load_pretrained(NAME)(images).maps, expected)
