"""Checkpoints to the Hugging Face Hub, and back for comparison."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pylon_zoo.errors import IntegrityError, InvalidOptionError, ManifestError
from pylon_zoo.weights.card import GALLERY_NAME, model_card
from pylon_zoo.weights.config import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    read_config,
    write_config,
)
from pylon_zoo.weights.files import hash_file
from pylon_zoo.weights.hub import client_options, explain, split_reference
from pylon_zoo.weights.manifest import (
    BundledSource,
    Entry,
    HubSource,
    Record,
    add_entry,
    load_manifest,
    manifest_path,
)

if TYPE_CHECKING:
    import torch

    from pylon_zoo.architectures import LocalizationModel

__all__ = [
    "CARD_NAME",
    "PICTURES",
    "Publication",
    "from_pretrained",
    "prepare",
    "publish",
    "push_to_hub",
]

CARD_NAME = "README.md"
#: Pictures of class maps; published and shown on the card where the folder has them.
PICTURES = (GALLERY_NAME, "heatmap.png")


@dataclass(frozen=True)
class Publication:
    """What is about to be published.

    Attributes:
        repo_id: ``org/repo``.
        name: the checkpoint's name in the manifest, or the model's.
        files: path on this machine, by path in the repository.
        card: the model card's text.
    """

    repo_id: str
    name: str
    files: Mapping[str, Path]
    card: str


@contextmanager
def prepare(folder: str | Path, repo_id: str, *, name: str | None = None) -> Iterator[Publication]:
    """Check that a checkpoint can be published, and write its config and card.

    Args:
        folder: what :func:`pylon_zoo.save_pretrained` wrote with a record, perhaps with
            ``gallery.png`` or ``heatmap.png`` added.
        repo_id: ``org/repo``.
        name: ``{architecture}_{encoder}.{tag}``; its tag is written to the config. None takes the
            one in the config.

    Raises:
        CheckpointError: the folder's files are damaged, or their tensors do not fit the model.
        InvalidOptionError: ``repo_id`` is not of the form ``org/repo``.
        ManifestError: the checkpoint has no record, or ``name`` is not its model's with a tag.
    """
    checkpoint = read_config(folder)
    if checkpoint.record is None:
        raise ManifestError(
            f"{folder}: a published checkpoint needs its record (recipe, data, licence, metrics); "
            f"give it to pylon_zoo.save_pretrained."
        )
    name = name or checkpoint.spec.name
    spec = replace(checkpoint.spec, tag=name.partition(".")[2])
    if not spec.tag or spec.name != name:
        base = replace(spec, tag="").name
        raise ManifestError(
            f"{name!r} cannot be this checkpoint's name; it must be {base}.TAG, e.g. {base}.v1."
        )
    with _stage(replace(checkpoint, spec=spec), repo_id) as publication:
        yield publication


@contextmanager
def _stage(checkpoint: Checkpoint, repo_id: str) -> Iterator[Publication]:
    """Load a checkpoint, to see that it works, and write its config and card."""
    from pylon_zoo.weights.load import load_checkpoint

    repo_id, _ = split_reference(repo_id)
    load_checkpoint(checkpoint)
    files = {WEIGHTS_NAME: checkpoint.weights}
    for name in PICTURES:
        picture = checkpoint.weights.with_name(name)
        if picture.is_file():
            files[name] = picture
    spec, sha256, size = checkpoint.spec, checkpoint.sha256, checkpoint.bytes
    card = model_card(
        spec,
        checkpoint.record,
        load=f"hf-hub:{repo_id}",
        sha256=sha256,
        size=size,
        pictures=[name for name in PICTURES if name in files],
    )
    with tempfile.TemporaryDirectory() as temporary:
        files[CONFIG_NAME] = Path(temporary) / CONFIG_NAME
        files[CARD_NAME] = Path(temporary) / CARD_NAME
        write_config(files[CONFIG_NAME], spec, sha256=sha256, size=size, record=checkpoint.record)
        files[CARD_NAME].write_text(card, encoding="utf-8")
        yield Publication(repo_id, spec.name, dict(sorted(files.items())), card)


def _upload(publication: Publication, *, private: bool) -> str:
    """Upload all files in one commit and compare what the Hub gives back; the commit's hash."""
    from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download

    options = client_options()
    api = HfApi(endpoint=options["endpoint"], library_name="pylon_zoo")
    repo_id = publication.repo_id
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.create_commit(
            repo_id,
            [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path))
                for name, path in publication.files.items()
            ],
            commit_message=f"Publish {publication.name}",
        ).oid
    except Exception as error:  # as in fetch_file
        raise explain(error, f"the upload to {repo_id}") from error
    with tempfile.TemporaryDirectory() as cache:
        for name, path in publication.files.items():
            try:
                received = hf_hub_download(
                    repo_id, name, revision=commit, **{**options, "cache_dir": cache}
                )
            except Exception as error:
                raise explain(error, f"{name} of {repo_id}@{commit}") from error
            expected, actual = hash_file(path), hash_file(Path(received))
            if expected != actual:
                raise IntegrityError(
                    f"{repo_id}@{commit} gives back another {name} than was uploaded: sha256 "
                    f"{actual[0]} ({actual[1]:,} bytes) instead of {expected[0]} "
                    f"({expected[1]:,} bytes). Do not announce this commit; publish again."
                )
    return str(commit)


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    name: str | None = None,
    private: bool = False,
    manifest: Path | None = None,
) -> Entry:
    """Publish a checkpoint of this project: upload, compare, and list it in the manifest.

    A bundled file stays the first source. A file of the repository is no source any more: every
    installation then gets the same bytes from the same commit, and the repository may drop them.

    Args:
        folder: what :func:`pylon_zoo.save_pretrained` wrote with a record, perhaps with
            ``gallery.png`` or ``heatmap.png`` added.
        repo_id: ``org/repo``; created where it does not exist.
        name: ``{architecture}_{encoder}.{tag}``; None takes the one in its config.
        private: create the repository private.
        manifest: a manifest other than this package's own.

    Returns:
        The manifest's new entry, which names the commit.

    Raises:
        InvalidOptionError: the manifest cannot be written; nothing is uploaded then.
        ManifestError: the checkpoint has no record or no tag.
        CheckpointError: its files are damaged.
        HubAccessError: no token, or one that may not write there.
        DownloadError: the Hub cannot be reached or does not answer properly.
        IntegrityError: the Hub gives back other bytes than were uploaded.
    """
    listed_in = (manifest or manifest_path()).parent
    if not os.access(listed_in, os.W_OK):
        raise InvalidOptionError(
            f"Nothing was uploaded: the checkpoint would then be listed in the manifest in "
            f"{listed_in}, which you may not write to. Run this in a clone of the repository, or "
            f"upload a model of your own with pylon_zoo.weights.push_to_hub, which lists nothing."
        )
    with prepare(folder, repo_id, name=name) as publication:
        commit = _upload(publication, private=private)
    source = HubSource(repo_id=publication.repo_id, revision=commit, filename=WEIGHTS_NAME)
    known = load_manifest(manifest)
    bundled = publication.name in known.names and any(
        isinstance(old, BundledSource) for old in known.find(publication.name).sources
    )
    return add_entry(folder, publication.name, hub=[source], bundle=bundled, path=manifest)


def push_to_hub(
    model: LocalizationModel,
    repo_id: str,
    *,
    record: Record | None = None,
    private: bool = False,
    dtype: torch.dtype | None = None,
) -> str:
    """Upload one's own model: weights, config and a model card, in one commit that is compared.

    Args:
        model: see :func:`pylon_zoo.save_pretrained`.
        repo_id: ``org/repo`` or ``user/repo``; created where it does not exist.
        record: how the model came to be, for its card.
        private: create the repository private.
        dtype: floating-point type to store.

    Returns:
        ``hf-hub:org/repo@commit``, for :func:`pylon_zoo.load_pretrained`.

    Raises:
        HubAccessError: no token, or one that may not write there.
        DownloadError: the Hub cannot be reached or does not answer properly.
        IntegrityError: the Hub gives back other bytes than were uploaded.
    """
    from pylon_zoo.weights.save import save_pretrained

    with tempfile.TemporaryDirectory() as temporary:
        save_pretrained(model, temporary, dtype=dtype, record=record)
        with _stage(read_config(temporary), repo_id) as publication:
            commit = _upload(publication, private=private)
    return f"hf-hub:{publication.repo_id}@{commit}"


def from_pretrained(
    repo_id: str,
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    refresh: bool = False,
) -> LocalizationModel:
    """Load a model that :func:`push_to_hub` has uploaded.

    The same as :func:`pylon_zoo.load_pretrained` of ``"hf-hub:{repo_id}@{revision}"``.
    """
    from pylon_zoo.weights.load import load_pretrained

    name = f"hf-hub:{repo_id}" + (f"@{revision}" if revision else "")
    return load_pretrained(name, device=device, refresh=refresh)
