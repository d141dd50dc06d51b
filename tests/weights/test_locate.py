"""Weights that lie in the repository: found in a clone, and told of where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hub_server import HubServer
from typer.testing import CliRunner
from weights_helpers import make_model

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.cli.weights import app
from pylon_zoo.errors import (
    IntegrityError,
    InvalidOptionError,
    ManifestError,
    WeightsNotFoundError,
)
from pylon_zoo.weights import download, load_manifest, load_pretrained, publish, save_pretrained
from pylon_zoo.weights import manifest as module
from pylon_zoo.weights.config import parse_config
from pylon_zoo.weights.locate import local_copies, verify_copy
from pylon_zoo.weights.manifest import (
    BundledSource,
    HubSource,
    Record,
    RepositorySource,
    add_entry,
)
from pylon_zoo.weights.schema import decode

NAME = "pylon_test_resnet.phantom"
PATH = f"checkpoints/{NAME}/model.safetensors"


@pytest.fixture
def clone(
    model: LocalizationModel, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A repository with the package, a manifest at its top and one checkpoint in its folder."""
    top = tmp_path / "clone"
    (top / "pylon_zoo").mkdir(parents=True)
    (top / "weights_manifest.json").write_text('{"manifest_version": 1, "checkpoints": []}')
    monkeypatch.setattr(module, "PACKAGE", top / "pylon_zoo")
    save_pretrained(model, top / "checkpoints" / NAME, record=record)
    add_entry(top / "checkpoints" / NAME, NAME, repository=True)
    return top


@pytest.fixture
def wheel(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same package as it is installed from a wheel, the clone being gone."""
    package = tmp_path / "site-packages" / "pylon_zoo"
    package.mkdir(parents=True)
    shutil.move(clone / "weights_manifest.json", package)
    shutil.rmtree(clone)
    monkeypatch.setattr(module, "PACKAGE", package)
    return package


def test_it_is_found_in_a_clone(
    clone: Path, model: LocalizationModel, images: torch.Tensor, tmp_path: Path
) -> None:
    (entry,) = load_manifest().checkpoints
    assert entry.sources == (RepositorySource(path=PATH),)
    for name in (NAME, "pylon_test_resnet"):
        loaded = load_pretrained(name)
        assert loaded.spec.name == NAME
        assert torch.equal(loaded(images).maps, model(images).maps)
    (copy,) = local_copies(NAME)
    assert copy.weights == clone / PATH
    assert copy.sha256 == entry.sha256
    path = download(NAME, tmp_path / "out")
    assert path.read_bytes() == (clone / PATH).read_bytes()
    config = path.with_name("config.json")
    assert parse_config(config.read_bytes(), config).record == entry.to_record()


def test_damage_in_a_clone_is_told(clone: Path) -> None:
    content = bytearray((clone / PATH).read_bytes())
    content[-1] ^= 1
    (clone / PATH).write_bytes(content)
    with pytest.raises(IntegrityError, match="not the file that was published"):
        load_pretrained(NAME)
    (copy,) = local_copies(NAME)
    with pytest.raises(IntegrityError):
        verify_copy(copy)
    (clone / PATH).unlink()
    assert list(local_copies(NAME)) == []
    with pytest.raises(WeightsNotFoundError, match=f"is missing; `git restore {PATH}`"):
        load_pretrained(NAME)


@pytest.mark.usefixtures("wheel")
def test_an_installed_package_says_where_it_is(tmp_path: Path) -> None:
    says = rf"repository and are not published.*Clone.*load_pretrained\('checkpoints/{NAME}'\)"
    with pytest.raises(WeightsNotFoundError, match=says):
        load_pretrained(NAME)
    with pytest.raises(WeightsNotFoundError, match=says):
        download(NAME, tmp_path / "out")
    assert list(local_copies(NAME)) == []
    result = CliRunner().invoke(app, ["verify", "--all", "--json"])
    assert [row["state"] for row in json.loads(result.stdout)] == ["not on this machine"]


def test_the_commands_know_the_source(clone: Path) -> None:
    runner = CliRunner()
    (entry,) = json.loads(runner.invoke(app, ["list", "--json"]).stdout)
    assert entry["sources"] == [{"type": "repository", "path": PATH}]
    assert json.loads(runner.invoke(app, ["info", NAME, "--json"]).stdout) == entry
    assert "repository" in runner.invoke(app, ["list"]).stdout
    (row,) = json.loads(runner.invoke(app, ["verify", NAME, "--json"]).stdout)
    assert row == {"name": NAME, "state": "intact", "detail": str(clone / PATH)}
    found = runner.invoke(app, ["download", NAME, "--json"])
    assert json.loads(found.stdout) == {NAME: str(clone / PATH)}


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_publishing_puts_the_hub_in_its_place(
    clone: Path, hub: HubServer, model: LocalizationModel, images: torch.Tensor
) -> None:
    entry = publish(clone / "checkpoints" / NAME, "org/phantom", name=NAME)
    commit = hub.repos["org/phantom"]["main"]
    source = HubSource(repo_id="org/phantom", revision=commit, filename="model.safetensors")
    assert entry.sources == load_manifest().find(NAME).sources == (source,)
    shutil.rmtree(clone / "checkpoints")
    assert torch.equal(load_pretrained(NAME)(images).maps, model(images).maps)


def test_adding_copies_the_file_to_its_place(clone: Path, record: Record, tmp_path: Path) -> None:
    folder = save_pretrained(make_model(1), tmp_path / "trained", record=record)
    entry = add_entry(folder, NAME, repository=True, bundle=True)
    assert [type(source) for source in entry.sources] == [BundledSource, RepositorySource]
    new = (folder / "model.safetensors").read_bytes()
    assert (clone / PATH).read_bytes() == new
    assert (clone / "pylon_zoo/checkpoints" / f"{NAME}.safetensors").read_bytes() == new


@pytest.mark.usefixtures("wheel")
def test_an_installed_package_has_no_folder_to_add_to(
    model: LocalizationModel, record: Record, tmp_path: Path
) -> None:
    folder = save_pretrained(model, tmp_path / "trained", record=record)
    with pytest.raises(InvalidOptionError, match="clone the repository"):
        add_entry(folder, NAME, repository=True)


@pytest.mark.parametrize(
    "path", ["../x.safetensors", "/x.safetensors", "a/../x.safetensors", "a/.x.safetensors", "x"]
)
def test_a_path_stays_in_the_repository(path: str) -> None:
    with pytest.raises(ManifestError, match=r"source\.path"):
        decode(RepositorySource, {"type": "repository", "path": path}, "source")


def test_the_second_source_is_tried(clone: Path, images: torch.Tensor) -> None:
    add_entry(clone / "checkpoints" / NAME, NAME, repository=True, bundle=True)
    bundled = clone / "pylon_zoo/checkpoints" / f"{NAME}.safetensors"
    expected = load_pretrained(NAME)(images).maps
    bundled.unlink()
    assert torch.equal(load_pretrained(NAME)(images).maps, expected)
    (clone / PATH).unlink()
    with pytest.raises(WeightsNotFoundError, match=r"reinstall pylon-zoo.*git restore"):
        load_pretrained(NAME)
