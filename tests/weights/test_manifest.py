from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from weights_helpers import make_model

from pylon_zoo.errors import InvalidOptionError, ManifestError, UnknownNameError
from pylon_zoo.registry import create_model, list_models
from pylon_zoo.weights import load_pretrained, save_pretrained
from pylon_zoo.weights import manifest as module
from pylon_zoo.weights.manifest import (
    BundledSource,
    HubSource,
    Record,
    add_entry,
    load_manifest,
    manifest_schema,
    write_manifest,
)

SCHEMA = Path(module.__file__).with_name("manifest.schema.json")
HUB = HubSource(repo_id="org/repo", revision="0" * 40, filename="model.safetensors")
NAME = "pylon_test_resnet.phantom"


@pytest.fixture
def entry_data(tmp_path: Path, record: Record, manifest_file: Path) -> dict[str, Any]:
    """The JSON of a manifest with one good entry."""
    save_pretrained(make_model(), tmp_path / "model", record=record)
    add_entry(tmp_path / "model", NAME, hub=[HUB], bundle=True)
    data: dict[str, Any] = json.loads(manifest_file.read_text())
    return data


def load(data: Any, folder: Path) -> module.Manifest:
    path = folder / "other.json"
    path.write_text(json.dumps(data))
    module._read.cache_clear()
    return load_manifest(path)


def at(data: Any, path: str) -> tuple[Any, Any]:
    """The container of the last step of a dotted path, and that step."""
    *steps, last = [int(s) if s.isdigit() else s for s in path.split(".")]
    for step in steps:
        data = data[step]
    return data, last


def test_schema_file_says_what_the_code_says() -> None:
    assert json.loads(SCHEMA.read_text()) == manifest_schema(), (
        "write manifest_schema() to manifest.schema.json, with json.dumps(..., indent=2)"
    )


def test_this_packages_manifest_follows_the_schema() -> None:
    data = json.loads(module.manifest_path().read_text())
    jsonschema.Draft202012Validator(manifest_schema()).validate(data)
    assert load_manifest().names == [entry["name"] for entry in data["checkpoints"]]
    for entry in load_manifest().checkpoints:
        for source in entry.sources:
            if isinstance(source, BundledSource):
                file = module.checkpoints_folder() / source.filename
                assert file.stat().st_size == entry.bytes


def test_an_entry_survives_writing_and_reading(
    entry_data: dict[str, Any], record: Record, manifest_file: Path
) -> None:
    jsonschema.Draft202012Validator(manifest_schema()).validate(entry_data)
    (entry,) = load_manifest().checkpoints
    assert entry.name == NAME
    assert entry.sources == (BundledSource(filename=f"{NAME}.safetensors"), HUB)
    for field in ("recipe", "command", "data", "weights_license", "metrics", "thresholds"):
        assert getattr(entry, field) == getattr(record, field)
    assert entry.spec.tag == "phantom"
    assert entry.spec.class_names == ("disc", "ring")
    assert (
        entry.bytes == (manifest_file.parent / "checkpoints" / f"{NAME}.safetensors").stat().st_size
    )
    before = manifest_file.read_bytes()
    write_manifest(load_manifest())
    assert manifest_file.read_bytes() == before


# What each change must be refused for, and the field that the message must name.
CHANGES: list[tuple[str, Any, str]] = [
    ("manifest_version", 2, "manifest.manifest_version"),
    ("manifest_version", True, "manifest.manifest_version"),
    ("checkpoints", {}, "manifest.checkpoints"),
    ("extra", 1, "manifest.extra"),
    ("checkpoints.0.extra", 1, "checkpoints[0].extra"),
    ("checkpoints.0.name", "../evil.x", "checkpoints[0].name"),
    ("checkpoints.0.name", "pylon_test_resnet.other", "checkpoints[0].config"),
    ("checkpoints.0.sha256", "ABC", "checkpoints[0].sha256"),
    ("checkpoints.0.sha256", 12, "checkpoints[0].sha256"),
    ("checkpoints.0.bytes", "12", "checkpoints[0].bytes"),
    ("checkpoints.0.bytes", 1.5, "checkpoints[0].bytes"),
    ("checkpoints.0.bytes", True, "checkpoints[0].bytes"),
    ("checkpoints.0.bytes", 0, "checkpoints[0].bytes"),
    ("checkpoints.0.bytes", -1, "checkpoints[0].bytes"),
    ("checkpoints.0.sources", [], "checkpoints[0].sources"),
    ("checkpoints.0.sources.0", "model.safetensors", "checkpoints[0].sources[0]"),
    ("checkpoints.0.sources.0.type", "ftp", "checkpoints[0].sources[0]"),
    ("checkpoints.0.sources.0.filename", "../x.safetensors", "sources[0].filename"),
    ("checkpoints.0.sources.0.filename", "/etc/x.safetensors", "sources[0].filename"),
    ("checkpoints.0.sources.0.filename", "a/x.safetensors", "sources[0].filename"),
    ("checkpoints.0.sources.0.filename", "C:\\x.safetensors", "sources[0].filename"),
    ("checkpoints.0.sources.0.filename", "x.pth", "sources[0].filename"),
    ("checkpoints.0.sources.0.filename", "x.safetensors\n", "sources[0].filename"),
    ("checkpoints.0.sources.1.filename", "a/../../x.safetensors", "sources[1].filename"),
    ("checkpoints.0.sources.1.filename", "/x.safetensors", "sources[1].filename"),
    ("checkpoints.0.sources.1.filename", ".hidden/x.safetensors", "sources[1].filename"),
    ("checkpoints.0.sources.1.repo_id", "../repo", "sources[1].repo_id"),
    ("checkpoints.0.sources.1.repo_id", "org", "sources[1].repo_id"),
    ("checkpoints.0.sources.1.repo_id", "org/a..b", "sources[1].repo_id"),
    ("checkpoints.0.sources.1.revision", "main", "sources[1].revision"),
    ("checkpoints.0.sources.1.token", "x", "sources[1].token"),
    ("checkpoints.0.config.num_classes", 3, "checkpoints[0].config"),
    ("checkpoints.0.config.num_classes", 0, "config.num_classes"),
    ("checkpoints.0.config.extra", 0, "config.extra"),
    ("checkpoints.0.config.label_names.0", 7, "config.label_names[0]"),
    ("checkpoints.0.config.architecture", "cam_test_resnet", "checkpoints[0].config"),
    ("checkpoints.0.config.pretrained_cfg.mean", ["0.5"], "pretrained_cfg.mean[0]"),
    ("checkpoints.0.config.pretrained_cfg.std", [0.0], "checkpoints[0].config"),
    ("checkpoints.0.config.pretrained_cfg.input_size", [1, 256], "pretrained_cfg.input_size"),
    ("checkpoints.0.metrics.0.interval", [0.1, 0.2], "metrics[0].interval"),
    ("checkpoints.0.metrics.0.level", 95, "metrics[0].level"),
    ("checkpoints.0.metrics.0.value", "good", "metrics[0].value"),
    ("checkpoints.0.metrics.0.value", None, "metrics[0].value"),
    ("checkpoints.0.thresholds", {"square": 0.5}, "thresholds.square"),
    ("checkpoints.0.data.license", "", "data.license"),
    ("checkpoints.0.data.splits.train", 3, "data.splits.train"),
]  # fmt: skip

# Those that only a look at several fields together can tell.
BEYOND_JSON_SCHEMA = {
    ("checkpoints.0.name", "pylon_test_resnet.other"),
    ("checkpoints.0.config.num_classes", 3),
    ("checkpoints.0.config.architecture", "cam_test_resnet"),
}


@pytest.mark.parametrize(("path", "value", "field"), CHANGES)
def test_a_wrong_field_is_refused_by_its_name(
    entry_data: dict[str, Any], tmp_path: Path, path: str, value: Any, field: str
) -> None:
    load(entry_data, tmp_path)
    container, key = at(entry_data, path)
    container[key] = value
    with pytest.raises(ManifestError) as caught:
        load(entry_data, tmp_path)
    assert field in str(caught.value)
    cross_checked = any(word in path for word in ("interval", "level", "thresholds", "std"))
    cross_checked |= path.endswith("sources") or (path, value) in map(tuple, BEYOND_JSON_SCHEMA)
    # Python's `$` also matches before a final newline; other languages' does not.
    if not cross_checked and not str(value).endswith("\n"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(manifest_schema()).validate(entry_data)


def test_every_field_is_required(entry_data: dict[str, Any], tmp_path: Path) -> None:
    def paths(data: Any, prefix: str = "") -> list[str]:
        steps = data.items() if isinstance(data, dict) else enumerate(data)
        found = []
        for step, value in steps:
            if isinstance(data, dict) and not prefix.endswith(("splits.", "thresholds.")):
                found.append(f"{prefix}{step}")
            if isinstance(value, (dict, list)):
                found += paths(value, f"{prefix}{step}.")
        return found

    every = paths(entry_data)
    assert len(every) > 40
    for path in every:
        data = copy.deepcopy(entry_data)
        container, key = at(data, path)
        del container[key]
        with pytest.raises(ManifestError, match=str(key)):
            load(data, tmp_path)


def test_names_that_come_twice_are_refused(entry_data: dict[str, Any], tmp_path: Path) -> None:
    entry_data["checkpoints"] *= 2
    with pytest.raises(ManifestError, match=rf"checkpoints\[1\].name: '{NAME}' comes twice"):
        load(entry_data, tmp_path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"manifest_version": 1, "manifest_version": 1, "checkpoints": []}', "comes twice"),
        ('{"manifest_version": NaN, "checkpoints": []}', "NaN"),
        ('{"manifest_version": 1', "Expecting"),
        ("[]", "expected an object"),
    ],
)
def test_broken_json_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ManifestError, match=what):
        load_manifest(path)


def test_a_missing_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="Reinstall pylon-zoo"):
        load_manifest(tmp_path / "none.json")


def test_finding_checkpoints(tmp_path: Path, record: Record, manifest_file: Path) -> None:
    save_pretrained(make_model(), tmp_path / "a", record=record)
    cam = make_model(name="cam_test_resnet")
    save_pretrained(cam, tmp_path / "b", record=record)
    for tag in ("phantom", "another"):
        add_entry(tmp_path / "a", f"pylon_test_resnet.{tag}", hub=[HUB])
    add_entry(tmp_path / "b", "cam_test_resnet.phantom", hub=[HUB])

    # Sorted by model; within a model the first one added stays the default.
    names = ["cam_test_resnet.phantom", NAME, "pylon_test_resnet.another"]
    manifest = load_manifest()
    assert manifest.names == names
    assert list_models("pylon_*", pretrained=True) == sorted(names[1:])
    assert manifest.find("pylon_test_resnet").name == NAME
    assert manifest.find("pylon_test_resnet.another").name == "pylon_test_resnet.another"

    with pytest.raises(UnknownNameError, match=r"no checkpoint '\.phantm'.*another") as caught:
        manifest.find("pylon_test_resnet.phantm")
    assert caught.value.suggestions == tuple(names[1:])
    with pytest.raises(UnknownNameError, match="No weights are published") as caught:
        manifest.find("cam_test_resnt.phantom")
    assert caught.value.suggestions[0] == "cam_test_resnet.phantom"
    with pytest.raises(UnknownNameError, match="create_model"):
        manifest.find("unet_resnet50")


def test_a_namesake_is_replaced_in_place(
    tmp_path: Path, record: Record, manifest_file: Path, images: torch.Tensor
) -> None:
    for seed in (0, 1):
        save_pretrained(make_model(seed), tmp_path / str(seed), record=record)
        add_entry(tmp_path / str(seed), NAME, bundle=True)
    add_entry(tmp_path / "0", "pylon_test_resnet.other", bundle=True)
    add_entry(tmp_path / "1", NAME, bundle=True)
    assert load_manifest().names == [NAME, "pylon_test_resnet.other"]
    loaded = load_pretrained("pylon_test_resnet")
    assert loaded.spec.name == NAME
    assert torch.equal(loaded(images).maps, make_model(1)(images).maps)


def test_create_model_takes_the_bundled_weights(
    tmp_path: Path, record: Record, manifest_file: Path, images: torch.Tensor
) -> None:
    save_pretrained(make_model(), tmp_path / "a", record=record)
    add_entry(tmp_path / "a", NAME, bundle=True)
    model = create_model(NAME, pretrained=True)
    assert not model.training
    assert torch.equal(model(images).logits, make_model()(images).logits)
    other = create_model("pylon_test_resnet", pretrained=True, num_classes=5)
    assert other(images).logits.shape == (2, 5)
    assert other.spec.num_classes == 5


def test_options_that_the_weights_do_not_have_are_refused(
    tmp_path: Path, record: Record, manifest_file: Path
) -> None:
    save_pretrained(make_model(), tmp_path / "a", record=record)
    add_entry(tmp_path / "a", NAME, bundle=True)
    # Its own by default, which the config does not name, or given once more.
    with pytest.raises(InvalidOptionError, match=r"do not fit \{'num_up': 2\}"):
        create_model(NAME, pretrained=True, num_up=2)
    with pytest.raises(InvalidOptionError, match=r"do not fit \{'img_size': \[64, 64\]\}"):
        create_model(NAME, pretrained=True, img_size=(64, 64))
    assert create_model(NAME, pretrained=True, num_up=3).map_stride == 4
    assert create_model(NAME, num_up=2).map_stride == 8


def test_a_size_is_an_option_like_any_other(
    tmp_path: Path, record: Record, manifest_file: Path
) -> None:
    name = "pylon_test_coatnet.sized"
    model = make_model(name="pylon_test_coatnet", img_size=(64, 96))
    save_pretrained(model, tmp_path / "a", record=record)
    add_entry(tmp_path / "a", name, bundle=True)
    again = create_model(name, pretrained=True, img_size=(64, 96))
    assert again.encoder.img_size == (64, 96)
    with pytest.raises(InvalidOptionError, match="do not fit"):
        create_model(name, pretrained=True, img_size=(96, 64))


def test_an_entry_needs_a_record(tmp_path: Path, manifest_file: Path) -> None:
    save_pretrained(make_model(), tmp_path / "a")
    with pytest.raises(ManifestError, match="record="):
        add_entry(tmp_path / "a", NAME, bundle=True)
    assert load_manifest().names == []


def test_reading_the_manifest_imports_no_torch() -> None:
    code = (
        "import sys; from pylon_zoo.weights.manifest import load_manifest; load_manifest().names; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
