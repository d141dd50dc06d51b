"""``weights_manifest.json``: every published checkpoint, and all that is known about it.

The dataclasses below are the schema; ``manifest.schema.json`` beside this file says the same as a
JSON Schema, for other tools. Reading is strict: an unknown field, a wrong type, a path that leaves
its folder or a name that comes twice is a :class:`ManifestError` naming the field.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pylon_zoo.errors import (
    InvalidOptionError,
    ManifestError,
    PylonZooError,
    UnknownNameError,
    unknown_name,
)
from pylon_zoo.spec import ModelSpec
from pylon_zoo.weights.files import copy_file, replace_file, verify_file
from pylon_zoo.weights.schema import decode, encode, json_schema, parse_json

__all__ = [
    "BundledSource",
    "DataRecord",
    "Entry",
    "HubSource",
    "Manifest",
    "Metric",
    "Precision",
    "Record",
    "RepositorySource",
    "Source",
    "add_entry",
    "checkpoints_folder",
    "load_manifest",
    "manifest_path",
    "manifest_schema",
    "repository_folder",
    "write_manifest",
]

PACKAGE = Path(__file__).resolve().parent.parent

# No segment begins with a dot, so neither "..", nor an absolute path, nor a hidden file gets in.
FileName = Annotated[str, r"^[A-Za-z0-9][A-Za-z0-9_.-]*\.safetensors$"]
WeightsPath = Annotated[
    str, r"^([A-Za-z0-9][A-Za-z0-9_.-]*/)*[A-Za-z0-9][A-Za-z0-9_.-]*\.safetensors$"
]
RepoId = Annotated[str, r"^(?!.*(--|\.\.))[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$"]
Commit = Annotated[str, r"^[0-9a-f]{40}$"]
Sha256 = Annotated[str, r"^[0-9a-f]{64}$"]
CheckpointName = Annotated[str, r"^[a-z0-9]+_[A-Za-z0-9_]+\.[A-Za-z0-9_-]+$"]
Text = Annotated[str, r"^\S(.*\S)?$"]
Positive = Annotated[int, range(1, 1 << 62)]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measured number.

    Attributes:
        name: e.g. ``"auroc_macro"``.
        value: the point estimate.
        interval: (low, high) of its confidence interval.
        level: coverage of the interval, e.g. 0.95.
        chance: what guessing would give; None where that is not known.
        support: number of cases (images, tiles, pairs of image and class) it was measured on.
        dataset: what it was measured on, e.g. ``"nih14"``.
        split: which part of it, e.g. ``"test"``.
        command: the command line that printed it.
    """

    name: Text
    value: float
    interval: tuple[float, float]
    level: float
    chance: float | None
    support: Positive
    dataset: Text
    split: Text
    command: Text

    def __post_init__(self) -> None:
        low, high = self.interval
        if not low <= self.value <= high:
            raise ManifestError(f"interval: [{low}, {high}] does not hold the value {self.value}.")
        if not 0 < self.level < 1:
            raise ManifestError(f"level: expected a number between 0 and 1; got {self.level}.")


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What a checkpoint was trained on.

    Attributes:
        name: of the dataset.
        license: SPDX identifier or the name of the terms of use.
        url: where the dataset is had.
        splits: what identifies the images of each split, e.g. a sha256 of the sorted list.
    """

    name: Text
    license: Text
    url: Text
    splits: dict[str, Text]

    @property
    def drawn(self) -> bool:
        """Whether pylon_zoo draws the images itself, so that they are free to be shown."""
        return self.url.startswith("pylon_zoo.")


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What storing the weights in a smaller type did to the published metrics.

    Attributes:
        dtype: of the stored weights, e.g. ``"float16"``.
        largest_change: the largest absolute difference of a published metric between the weights
            as they were trained and as they are stored.
        metric: the name of that metric.
    """

    dtype: Text
    largest_change: float
    metric: Text


@dataclass(frozen=True, kw_only=True)
class Record:
    """How a checkpoint came to be and what it is worth.

    Attributes:
        recipe: name of the recipe in :mod:`pylon_zoo.recipes`.
        command: the command line that trains it again.
        data: what it was trained on.
        weights_license: SPDX identifier of the weights' licence.
        metrics: measured numbers with their intervals.
        thresholds: operating threshold on the probability, by class; None where none was chosen.
        thresholds_rule: how the thresholds were chosen, and on what.
        precision: what storing the weights in a smaller type did; None where it was not measured.
        project_version: version of pylon_zoo that trained it.
    """

    recipe: Text
    command: Text
    data: DataRecord
    weights_license: Text
    metrics: tuple[Metric, ...]
    thresholds: dict[str, float] | None
    thresholds_rule: Text | None = None
    precision: Precision | None = None
    project_version: Text


@dataclass(frozen=True, kw_only=True)
class BundledSource:
    """A file in this package's ``checkpoints`` folder."""

    type: Literal["bundled"] = "bundled"
    filename: FileName


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A file in a repository of the Hugging Face Hub, at one commit."""

    type: Literal["hub"] = "hub"
    repo_id: RepoId
    revision: Commit
    filename: WeightsPath


@dataclass(frozen=True, kw_only=True)
class RepositorySource:
    """A file in this project's repository that is not on the Hub yet; a wheel has it not."""

    type: Literal["repository"] = "repository"
    path: WeightsPath

    @property
    def folder(self) -> str:
        """That :func:`pylon_zoo.load_pretrained` takes at the repository's top."""
        return self.path.rpartition("/")[0]


Source = BundledSource | HubSource | RepositorySource


@dataclass(frozen=True, kw_only=True)
class PretrainedCfg:
    """``pretrained_cfg`` of a config, under timm's field names."""

    tag: str
    num_classes: Positive
    input_size: tuple[Positive, Positive, Positive]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    fixed_input_size: bool
    resize: str


@dataclass(frozen=True, kw_only=True)
class ArchitectureConfig:
    """``pylon_zoo`` of a config: what timm has no field for."""

    config_version: Positive
    architecture: Text
    encoder: Text
    in_chans: Positive
    architecture_options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A model's config, as :meth:`ModelSpec.to_config` writes it."""

    architecture: Text
    num_classes: Positive
    label_names: tuple[Text, ...] | None
    pretrained_cfg: PretrainedCfg
    pylon_zoo: ArchitectureConfig


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A weights file, where it is had, and the model it belongs to.

    Attributes:
        name: ``{architecture}_{encoder}.{tag}``.
        sources: where the file is had, in the order to try; the same bytes from every source.
        sha256: of the file, hexadecimal.
        bytes: size of the file.
        config: what the model is, see :attr:`spec`.
    """

    name: CheckpointName
    sources: tuple[Source, ...]
    sha256: Sha256
    bytes: Positive
    config: Config

    @property
    def spec(self) -> ModelSpec:
        """What the model is and how to feed it."""
        return ModelSpec.from_config(encode(self.config))


# The bases stand in this order so that an entry's fields begin with its name.
@dataclass(frozen=True, kw_only=True)
class Entry(Record, Weights):
    """A published checkpoint: its file, its model, how it came to be and what it is worth."""

    def __post_init__(self) -> None:
        try:
            spec = self.spec
        except PylonZooError as error:
            raise ManifestError(f"config: {error}") from error
        if spec.to_config() != encode(self.config):
            raise ManifestError("config: its fields contradict each other.")
        if spec.name != self.name:
            raise ManifestError(f"config: it describes {spec.name!r}, but the name is {self.name}.")
        if not self.sources:
            raise ManifestError("sources: empty; name at least one place that has the file.")
        for name in self.thresholds or ():
            if name not in (spec.class_names or ()):
                raise ManifestError(f"thresholds.{name}: the model has no such class.")

    def to_record(self) -> Record:
        """How the checkpoint came to be, without its file."""
        return Record(**{field.name: getattr(self, field.name) for field in fields(Record)})


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All published checkpoints; the first one listed for a model is that model's default."""

    manifest_version: Literal[1] = 1
    checkpoints: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        for index, name in enumerate(self.names):
            if name in self.names[:index]:
                raise ManifestError(f"checkpoints[{index}].name: {name!r} comes twice.")

    @property
    def names(self) -> list[str]:
        """Full names, e.g. ``pylon_dla46_c.phantom``, in the manifest's order."""
        return [entry.name for entry in self.checkpoints]

    def find(self, name: str) -> Entry:
        """The checkpoint of that name; without a tag, the first one listed for that model.

        Raises:
            UnknownNameError: there is none; suggests the nearest.
        """
        base, _, tag = name.partition(".")
        of_model = [entry for entry in self.checkpoints if entry.name.partition(".")[0] == base]
        for entry in of_model:
            if tag in ("", entry.name.partition(".")[2]):
                return entry
        if of_model:
            names = tuple(entry.name for entry in of_model)
            raise UnknownNameError(
                f"{base} has no checkpoint {'.' + tag!r}. It has {', '.join(names)}.",
                "checkpoint",
                name,
                names,
            )
        error = unknown_name(
            "checkpoint",
            name,
            self.names,
            hint=f"No weights are published for {base}; pylon_zoo.list_models(pretrained=True) "
            f"lists those that are. pylon_zoo.create_model({base!r}) makes one to train.",
        )
        raise error


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema of the manifest, which ``manifest.schema.json`` holds."""
    return json_schema(Manifest, "weights_manifest.json")


def manifest_path() -> Path:
    """Where the manifest lies: inside an installed package, or at the top of the repository."""
    installed = PACKAGE / "weights_manifest.json"
    return installed if installed.is_file() else PACKAGE.parent / "weights_manifest.json"


def checkpoints_folder(path: Path | None = None) -> Path:
    """The folder of bundled weights files: in the package, or beside another manifest."""
    return (path.parent if path else PACKAGE) / "checkpoints"


def repository_folder(path: Path | None = None) -> Path | None:
    """The top of the repository: around the package, or the folder of another manifest.

    None where the package is installed without its repository, i.e. brings its own manifest.
    """
    path = path or manifest_path()
    return None if path.parent == PACKAGE else path.parent


def load_manifest(path: Path | None = None) -> Manifest:
    """Read and check the manifest; the result is cached.

    Args:
        path: a manifest other than this package's own.

    Raises:
        ManifestError: it cannot be read, or a field breaks the schema; the message names the field.
    """
    return _read(path or manifest_path())


@lru_cache(maxsize=4)
def _read(path: Path) -> Manifest:
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
        manifest: Manifest = decode(Manifest, data, "manifest")
    except OSError as error:
        raise ManifestError(
            f"The manifest {path} cannot be read: {error}. Reinstall pylon-zoo."
        ) from error
    except ValueError as error:
        raise ManifestError(f"{path}: {error}") from error
    return manifest


def write_manifest(manifest: Manifest, path: Path | None = None) -> None:
    """Write a manifest atomically, sorted by model.

    Checkpoints of the same model keep their order, since the first of them is its default.
    """
    path = path or manifest_path()
    entries = sorted(manifest.checkpoints, key=lambda entry: entry.name.partition(".")[0])
    data = encode(replace(manifest, checkpoints=tuple(entries)))
    decode(Manifest, data, "manifest")
    with replace_file(path) as temporary:
        temporary.write_text(
            json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )
    _read.cache_clear()


def add_entry(
    folder: str | Path,
    name: str,
    *,
    record: Record | None = None,
    hub: Sequence[HubSource] = (),
    bundle: bool = False,
    repository: bool = False,
    path: Path | None = None,
) -> Entry:
    """List a checkpoint that :func:`pylon_zoo.save_pretrained` wrote, replacing its namesake.

    Args:
        folder: holds ``model.safetensors`` and ``config.json``; both are verified.
        name: ``{architecture}_{encoder}.{tag}``; the tag becomes the checkpoint's.
        record: how it came to be; None takes the one that ``save_pretrained`` was given.
        hub: places on the Hub that have this file.
        bundle: copy the weights file into the package, and list that copy first.
        repository: copy it to ``checkpoints/NAME/model.safetensors`` of the repository, and list
            that copy; where it lies there already, it stays.
        path: a manifest other than this package's own; bundled files then lie beside it, in
            ``checkpoints``.

    Raises:
        CheckpointError: the folder's files are damaged.
        InvalidOptionError: ``repository`` outside of one.
        ManifestError: the entry breaks the schema.
    """
    from pylon_zoo.weights.config import WEIGHTS_NAME, read_config  # it needs Record from here

    checkpoint = read_config(folder)
    verify_file(checkpoint.weights, sha256=checkpoint.sha256, size=checkpoint.bytes)
    record = record or checkpoint.record
    if record is None:
        raise ManifestError(
            f"{folder}: a published checkpoint needs its record (recipe, data, licence, metrics); "
            f"give record=, here or to save_pretrained."
        )
    local: dict[Source, Path] = {}
    if bundle:
        source = BundledSource(filename=f"{name}.safetensors")
        local[source] = checkpoints_folder(path) / source.filename
    if repository:
        top = repository_folder(path)
        if top is None:
            raise InvalidOptionError(
                f"{PACKAGE} is installed without the repository, which alone has a folder for "
                f"{name}; clone the repository and run this there."
            )
        in_repository = RepositorySource(path=f"checkpoints/{name}/{WEIGHTS_NAME}")
        local[in_repository] = top / in_repository.path
    data = {
        "name": name,
        "sources": encode([*local, *hub]),
        "sha256": checkpoint.sha256,
        "bytes": checkpoint.bytes,
        "config": replace(checkpoint.spec, tag=name.partition(".")[2]).to_config(),
        **encode(record),
    }
    entry: Entry = decode(Entry, data, name)
    for target in local.values():
        if target.resolve() != checkpoint.weights.resolve():
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(checkpoint.weights, target)
    entries = list(load_manifest(path).checkpoints)
    names = [known.name for known in entries]
    if name in names:
        entries[names.index(name)] = entry
    else:
        entries.append(entry)
    write_manifest(Manifest(checkpoints=tuple(entries)), path)
    return entry
