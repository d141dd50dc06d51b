"""The real client against a Hub on this machine: nothing is mocked in between."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hub_server import FAULTS, HubServer
from weights_helpers import make_model

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.errors import (
    DownloadError,
    HubAccessError,
    IntegrityError,
    InvalidOptionError,
    PylonZooError,
    WeightsNotFoundError,
)
from pylon_zoo.weights import download, from_pretrained, load_pretrained, push_to_hub
from pylon_zoo.weights.hub import explain, split_reference

# The client's own way of sending a file to storage.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "me/my-model"

#: What each fault must become, and words that its message must have.
EXPECTED: dict[str, tuple[type[PylonZooError], str]] = {
    "401": (HubAccessError, "hf auth login"),
    "403": (HubAccessError, "HF_TOKEN"),
    "404-repo": (WeightsNotFoundError, "no such repository"),
    "404-revision": (WeightsNotFoundError, "not this revision"),
    "429": (DownloadError, "429.*Wait"),
    "500": (DownloadError, "500.*Try again later"),
    "timeout": (DownloadError, "HF_HUB_DOWNLOAD_TIMEOUT"),
    "loop": (DownloadError, "redirects in a circle"),
    "short": (DownloadError, "broke off.*try again"),
    "wrong-bytes": (IntegrityError, "came like this twice"),
    "refused": (DownloadError, "cannot be reached.*HF_ENDPOINT"),
}


@pytest.fixture
def pushed(hub: HubServer, model: LocalizationModel) -> str:
    """The reference, with its commit, of a model on the Hub; caches are empty."""
    reference = push_to_hub(model, REPO)
    hub.requests.clear()
    return reference


def cache() -> Path:
    return Path(os.environ["HF_HUB_CACHE"])


def cached_files() -> dict[str, bytes]:
    """Content of every file in the cache that is not a lock or a note of the client's."""
    files = [*cache().rglob("blobs/*"), *cache().rglob("snapshots/*/*")]
    if huggingface_hub.__version__.startswith("0."):
        # These clients keep a part that they can resume from, where nobody reads it.
        files = [path for path in files if path.suffix != ".incomplete"]
    return {str(path.relative_to(cache())): path.read_bytes() for path in files}


@pytest.fixture(params=EXPECTED)
def fault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a fault, after making the client impatient where that matters."""
    name: str = request.param
    if name == "timeout":
        for constant in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
            monkeypatch.setattr(f"huggingface_hub.constants.{constant}", 0.2)
        retry = "huggingface_hub.file_download._ETAG_RETRY_TIMEOUT"
        monkeypatch.setattr(retry, 0.2, raising=False)
    return name


def misbehave(hub: HubServer, fault: str) -> None:
    if fault == "refused":
        hub.close()
    else:
        hub.misbehave(fault)


def test_every_fault_is_expected() -> None:
    assert set(EXPECTED) == {*FAULTS, "refused"}


def test_push_pull_warm_and_offline(
    hub: HubServer,
    pushed: str,
    model: LocalizationModel,
    images: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not cache().exists()
    expected = model(images)
    for name in (pushed, f"hf-hub:{REPO}", f"hf-hub:{REPO}@main"):
        loaded = load_pretrained(name)
        assert torch.equal(loaded(images).maps, expected.maps)
        assert torch.equal(loaded(images).logits, expected.logits)
        assert loaded.spec == model.spec
    assert hub.downloads("model.safetensors") == 1

    hub.requests.clear()
    for name in (pushed, f"hf-hub:{REPO}", f"hf-hub:{REPO}@main"):
        load_pretrained(name)
    assert hub.requests == []

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert torch.equal(load_pretrained(pushed)(images).maps, expected.maps)
    assert torch.equal(from_pretrained(REPO, refresh=True)(images).maps, expected.maps)
    assert hub.requests == []


def test_one_commit_has_weights_config_and_card(
    hub: HubServer, pushed: str, model: LocalizationModel
) -> None:
    commit = pushed.partition("@")[2]
    assert hub.repos[REPO] == {"main": commit}
    files = hub.commits[commit]
    assert set(files) == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    config = json.loads(files["config.json"])
    sha256 = hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert config["pylon_zoo"]["weights"]["sha256"] == sha256
    assert f"hf-hub:{REPO}" in files["README.md"].decode()


def test_offline_with_a_cold_cache_says_what_is_missing(
    hub: HubServer, pushed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsNotFoundError) as caught:
        load_pretrained(pushed)
    for words in ("config.json of me/my-model@", str(cache()), "Unset it", "weights download"):
        assert words in str(caught.value)
    assert hub.requests == []

    monkeypatch.delenv("HF_HUB_OFFLINE")
    load_pretrained(pushed)
    next(cache().rglob("model.safetensors")).unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsNotFoundError, match=r"model\.safetensors of me/my-model@"):
        load_pretrained(pushed)


def test_revisions(
    hub: HubServer, pushed: str, model: LocalizationModel, images: torch.Tensor
) -> None:
    first = pushed.partition("@")[2]
    assert torch.equal(from_pretrained(REPO)(images).maps, model(images).maps)
    newer = make_model(1)
    second = push_to_hub(newer, REPO).partition("@")[2]
    assert first != second
    hub.repos[REPO]["refs/pr/1"] = second

    # What is in the cache stays, until it is refreshed.
    assert torch.equal(from_pretrained(REPO)(images).maps, model(images).maps)
    assert torch.equal(from_pretrained(REPO, refresh=True)(images).maps, newer(images).maps)
    assert torch.equal(from_pretrained(REPO)(images).maps, newer(images).maps)
    assert torch.equal(from_pretrained(REPO, revision=first)(images).maps, model(images).maps)
    third = from_pretrained(REPO, revision="refs/pr/1")
    assert torch.equal(third(images).maps, newer(images).maps)


def test_each_fault_is_a_typed_error_and_leaves_nothing(
    hub: HubServer, pushed: str, fault: str, images: torch.Tensor
) -> None:
    kind, words = EXPECTED[fault]
    misbehave(hub, fault)
    with pytest.raises(kind, match=f"(?s){words}") as caught:
        load_pretrained(pushed)
    assert type(caught.value) is kind
    assert cached_files() == {}
    if fault not in ("refused", "timeout"):
        hub.misbehave(None)
        load_pretrained(pushed)


@pytest.mark.parametrize("fault", ["short", "wrong-bytes", "500"], indirect=True)
def test_faults_in_the_weights_alone(hub: HubServer, pushed: str, fault: str) -> None:
    load_pretrained(pushed)
    for path in cache().rglob("model.safetensors"):
        path.resolve().unlink()
        path.unlink()
    config = cached_files()
    hub.requests.clear()
    hub.misbehave(fault)
    with pytest.raises(EXPECTED[fault][0], match=r"model\.safetensors"):
        load_pretrained(pushed)
    assert cached_files() == config
    if fault == "wrong-bytes":
        assert hub.downloads("model.safetensors") == 2


def test_each_fault_falls_back_to_the_cache(
    hub: HubServer,
    pushed: str,
    images: torch.Tensor,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reference = f"hf-hub:{REPO}"
    model = load_pretrained(reference)
    before = cached_files()
    misbehave(hub, fault)
    with caplog.at_level(logging.WARNING, "pylon_zoo"):
        loaded = load_pretrained(reference, refresh=True)
    assert torch.equal(loaded(images).maps, model(images).maps)
    assert cached_files() == before
    # The bodies of files in the cache are not asked for again, so that these two do not show.
    if fault not in ("short", "wrong-bytes"):
        assert "Using the copy in the cache" in caplog.text


def test_wrong_bytes_once_are_downloaded_again(
    hub: HubServer,
    pushed: str,
    model: LocalizationModel,
    images: torch.Tensor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub.misbehave("wrong-bytes", times=1)  # the config
    load_pretrained(pushed)
    assert hub.downloads("config.json") == 2
    shutil.rmtree(cache())
    download_count = hub.downloads("model.safetensors")
    hub.misbehave(None)
    config = load_pretrained(pushed).spec
    assert config == model.spec
    for path in cache().rglob("model.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.resolve().write_bytes(content)
    loaded = load_pretrained(pushed)
    assert torch.equal(loaded(images).maps, model(images).maps)
    assert hub.downloads("model.safetensors") == download_count + 2
    assert "downloaded once more" in caplog.text


def test_a_damaged_cache_without_network(
    hub: HubServer, pushed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_pretrained(pushed)
    path = next(cache().rglob("model.safetensors"))
    content = path.read_bytes()
    path.resolve().write_bytes(content[:-1])
    hub.close()
    with pytest.raises(IntegrityError, match=r"could not be downloaded again.*cannot be reached"):
        load_pretrained(pushed)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        load_pretrained(pushed)


def test_missing_files_and_foreign_repositories(hub: HubServer, model: LocalizationModel) -> None:
    push_to_hub(model, REPO)
    hub.commit(REPO, "main", {"config.json": b'{"architecture": "resnet50", "num_classes": 3}'})
    with pytest.raises(PylonZooError, match=r"no config of pylon_zoo"):
        load_pretrained(f"hf-hub:{REPO}")
    hub.repos["me/empty"] = {}
    hub.commit("me/empty", "main", {"README.md": b"nothing"})
    with pytest.raises(WeightsNotFoundError, match="no such file"):
        load_pretrained("hf-hub:me/empty")
    for name in ("me", "me/../x", "me/x@", "/me/x", "me/x@a b", "me/a--b"):
        with pytest.raises(InvalidOptionError, match="org/repo@revision"):
            load_pretrained(f"hf-hub:{name}")
    assert split_reference("a/b@refs/pr/1") == ("a/b", "refs/pr/1")


def test_private_repositories_need_the_token(
    hub: HubServer, model: LocalizationModel, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(model, REPO, private=True)
    assert REPO in hub.private
    assert torch.equal(from_pretrained(REPO)(images).maps, model(images).maps)
    shutil.rmtree(cache())
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubAccessError, match="private or gated"):
        from_pretrained(REPO)
    with pytest.raises(HubAccessError, match="HF_TOKEN"):
        push_to_hub(model, "me/other")
    assert "me/other" not in hub.repos


def test_an_upload_that_comes_back_changed_is_told(
    hub: HubServer, model: LocalizationModel
) -> None:
    hub.misbehave("wrong-bytes")
    with pytest.raises(IntegrityError, match=r"gives back another .* than was uploaded"):
        push_to_hub(model, REPO)


def test_a_cache_that_cannot_be_written(hub: HubServer, pushed: str) -> None:
    cache().write_bytes(b"a file where the cache should be")
    with pytest.raises(DownloadError, match=r"config\.json of me/my-model@"):
        load_pretrained(pushed)
    full = OSError(errno.ENOSPC, "No space left on device")
    assert "No space left on device. Make room there, or set HF_HOME" in str(explain(full, "x"))


def test_download_to_a_folder(
    hub: HubServer, pushed: str, model: LocalizationModel, images: torch.Tensor, tmp_path: Path
) -> None:
    path = download(pushed, tmp_path / "mine")
    assert path == tmp_path / "mine" / "model.safetensors"
    hub.close()
    shutil.rmtree(cache())
    loaded = load_pretrained(tmp_path / "mine")
    assert loaded.spec == model.spec
    assert torch.equal(loaded(images).maps, model(images).maps)


LOAD_IN_EIGHT_PROCESSES = """
import os, sys, torch
from pylon_zoo.weights.load import load_pretrained
torch.set_num_threads(1)
children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        line = f"{load_pretrained(sys.argv[1]).head.weight.sum().item()}\\n"
        os.write(1, line.encode())
        os._exit(0)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def test_eight_processes_at_once_download_once(
    hub: HubServer, pushed: str, model: LocalizationModel
) -> None:
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_ETAG_TIMEOUT": "60", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    command = [sys.executable, "-c", LOAD_IN_EIGHT_PROCESSES, pushed]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [str(model.head.weight.sum().item())] * 8
    commit = hub.commits[pushed.partition("@")[2]]
    blobs = [path for path in cache().rglob("blobs/*") if not path.is_symlink()]
    stored = sum(path.stat().st_size for path in blobs)
    assert stored == len(commit["model.safetensors"]) + len(commit["config.json"])
    assert hub.downloads("model.safetensors") == 1
