"""From the name of a checkpoint to its weights file, wherever that lies."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from pylon_zoo.errors import (
    DownloadError,
    IntegrityError,
    PylonZooError,
    UnknownNameError,
    WeightsNotFoundError,
)
from pylon_zoo.weights.config import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    parse_config,
    read_config,
    write_config,
)
from pylon_zoo.weights.files import copy_file, hash_file, verify_file
from pylon_zoo.weights.hub import discard, fetch_file, is_offline, split_reference
from pylon_zoo.weights.manifest import (
    BundledSource,
    Entry,
    RepositorySource,
    checkpoints_folder,
    load_manifest,
    repository_folder,
)

__all__ = [
    "download",
    "folder_name",
    "identify",
    "local_copies",
    "use_checkpoint",
    "verify_copy",
]

logger = logging.getLogger("pylon_zoo")

T = TypeVar("T")


def use_checkpoint(name: str | Path, use: Callable[[Checkpoint], T], *, refresh: bool = False) -> T:
    """Find a checkpoint, downloading it where needed, and hand it to ``use``.

    A file from the Hub that ``use`` refuses with an :class:`IntegrityError` is downloaded once
    more. Where a checkpoint of the manifest has several sources, the next is tried.

    Args:
        name: see :func:`pylon_zoo.load_pretrained`.
        use: takes the checkpoint, of which the config is verified and the weights are not.
        refresh: ask the Hub anew what a branch or tag is.

    Returns:
        What ``use`` returns.
    """
    target = _resolve(name)
    if isinstance(target, Path):
        return use(read_config(target))
    if isinstance(target, str):
        return _use_repository(target, use, refresh=refresh)
    return _use_entry(target, use)


def _resolve(name: str | Path) -> Path | str | Entry:
    """What a name means: a path, a reference to a Hub repository, or an entry of the manifest."""
    text = os.fspath(name)
    if text.startswith("hf-hub:"):
        return text.removeprefix("hf-hub:")
    if text.startswith("local-dir:"):
        return Path(text.removeprefix("local-dir:"))
    if isinstance(name, Path) or os.sep in text or "/" in text:
        return Path(text)
    try:
        return load_manifest().find(text)
    except UnknownNameError:
        if Path(text).exists():
            return Path(text)
        raise


def _use_repository(reference: str, use: Callable[[Checkpoint], T], *, refresh: bool) -> T:
    repo_id, revision = split_reference(reference)
    fetch = partial(fetch_file, repo_id, CONFIG_NAME, revision, refresh=refresh)
    checkpoint = _twice(fetch, lambda path: parse_config(path.read_bytes(), path))
    return _twice(
        partial(fetch_file, repo_id, WEIGHTS_NAME, _commit(checkpoint)),
        lambda path: use(replace(checkpoint, weights=path)),
    )


def _commit(checkpoint: Checkpoint) -> str:
    """The commit that a cached config belongs to, so that its weights are taken from the same.

    The cache keeps files under ``snapshots/{commit}/``.
    """
    return checkpoint.weights.parent.name


def _use_entry(entry: Entry, use: Callable[[Checkpoint], T]) -> T:
    errors: list[PylonZooError] = []
    for source in entry.sources:
        try:
            if isinstance(source, (BundledSource, RepositorySource)):
                return use(_describe(entry, _local_file(entry, source)))
            return _twice(
                partial(fetch_file, source.repo_id, source.filename, source.revision),
                lambda path: use(_describe(entry, path)),
            )
        except (DownloadError, IntegrityError, WeightsNotFoundError) as error:
            errors.append(error)
            if len(errors) < len(entry.sources):
                logger.warning("%s The next source is tried.", error)
    if len(errors) == 1:
        raise errors[0]
    raise type(errors[-1])(
        f"No source of {entry.name} could be used. " + " ".join(map(str, errors))
    ) from errors[-1]


def _local_file(entry: Entry, source: BundledSource | RepositorySource) -> Path:
    """The file of a source that is no download.

    Raises:
        WeightsNotFoundError: it is not there; says what to do.
    """
    if isinstance(source, BundledSource):
        path, remedy = checkpoints_folder() / source.filename, "reinstall pylon-zoo."
    else:
        top = repository_folder()
        if top is None:
            raise WeightsNotFoundError(
                f"The weights of {entry.name} lie in pylon_zoo's repository and are not published "
                f"on the Hub yet, so that an installed package cannot get them. Clone the "
                f"repository and, in its top folder, call "
                f"load_pretrained({source.folder!r})."
            )
        path, remedy = top / source.path, f"`git restore {source.path}` brings it back."
    if not path.is_file():
        raise WeightsNotFoundError(f"{path} is missing; {remedy}")
    return path


def _describe(entry: Entry, weights: Path) -> Checkpoint:
    return Checkpoint(
        weights=weights,
        sha256=entry.sha256,
        bytes=entry.bytes,
        spec=entry.spec,
        record=entry.to_record(),
    )


def _twice(fetch: Callable[..., Path], use: Callable[[Path], T]) -> T:
    """Use a fetched file; if it is damaged, download it once more, and keep no bad file."""
    try:
        return use(fetch())
    except IntegrityError as error:
        if is_offline():
            raise
        logger.warning("%s It is downloaded once more.", error)
        try:
            path = fetch(force=True)
        except PylonZooError as failure:
            raise IntegrityError(
                f"{error} It could not be downloaded again: {failure}"
            ) from failure
    try:
        return use(path)
    except IntegrityError as error:
        discard(path)
        raise IntegrityError(f"{error} It came like this twice.") from error


def local_copies(name: str | Path) -> Iterator[Checkpoint]:
    """Every copy of a checkpoint on this machine: in the package, repository, cache or a path."""
    target = _resolve(name)
    if isinstance(target, Path):
        yield read_config(target)
    elif isinstance(target, str):
        repo_id, revision = split_reference(target)
        config = fetch_file(repo_id, CONFIG_NAME, revision, local_only=True)
        checkpoint = parse_config(config.read_bytes(), config)
        weights = fetch_file(repo_id, WEIGHTS_NAME, _commit(checkpoint), local_only=True)
        yield replace(checkpoint, weights=weights)
    else:
        for source in target.sources:
            try:
                if isinstance(source, (BundledSource, RepositorySource)):
                    path = _local_file(target, source)
                else:
                    path = fetch_file(
                        source.repo_id, source.filename, source.revision, local_only=True
                    )
            except WeightsNotFoundError:
                continue
            yield _describe(target, path)


def identify(file: str | Path) -> Checkpoint:
    """What a weights file should be, by the config beside it, or else by its hash.

    Raises:
        WeightsNotFoundError: there is no such file.
        IntegrityError: it has no config, and no published checkpoint has its sha256.
    """
    path = Path(file).expanduser()
    if path.is_dir() or not path.is_file() or path.with_name(CONFIG_NAME).is_file():
        return read_config(path)
    sha256, size = hash_file(path)
    for entry in load_manifest().checkpoints:
        if entry.sha256 == sha256:
            return _describe(entry, path)
    raise IntegrityError(
        f"{path} has no {CONFIG_NAME} beside it, and no checkpoint of the manifest has its sha256 "
        f"{sha256} ({size:,} bytes). It is damaged, or was not published with this version."
    )


def verify_copy(checkpoint: Checkpoint) -> None:
    """Raise :class:`IntegrityError` unless the weights file has the bytes it must have."""
    verify_file(checkpoint.weights, sha256=checkpoint.sha256, size=checkpoint.bytes)


def folder_name(name: str) -> str:
    """A folder's name for a checkpoint: its full name, or ``org--repo--revision``."""
    target = _resolve(name)
    if isinstance(target, Entry):
        return target.name
    if isinstance(target, str):
        return re.sub("[/@]", "--", target)
    return target.expanduser().resolve().name


def download(name: str | Path, to: str | Path | None = None, *, refresh: bool = False) -> Path:
    """Bring a checkpoint to this machine, and verify it.

    Args:
        name: see :func:`pylon_zoo.load_pretrained`.
        to: folder that gets ``model.safetensors`` and ``config.json``, to be loaded by its path;
            None leaves the file in the cache.
        refresh: ask the Hub anew what a branch or tag is.

    Returns:
        The verified weights file.
    """

    def use(checkpoint: Checkpoint) -> Path:
        verify_copy(checkpoint)
        if to is None:
            return checkpoint.weights
        folder = Path(to).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        weights = folder / WEIGHTS_NAME
        copy_file(checkpoint.weights, weights)
        verify_copy(replace(checkpoint, weights=weights))
        write_config(
            folder / CONFIG_NAME,
            checkpoint.spec,
            sha256=checkpoint.sha256,
            size=checkpoint.bytes,
            record=checkpoint.record,
        )
        return weights

    return use_checkpoint(name, use, refresh=refresh)
