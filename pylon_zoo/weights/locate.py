"""From the name of a checkpoint to its verified config and a weights file on disk."""

from __future__ import annotations

import os
from pathlib import Path

from pylon_zoo.errors import UnknownNameError, WeightsNotFoundError
from pylon_zoo.weights.config import Checkpoint, read_config
from pylon_zoo.weights.manifest import BundledSource, Entry, checkpoints_folder, load_manifest

__all__ = ["locate"]


def locate(name_or_path: str | Path) -> Checkpoint:
    """Find a checkpoint, see :func:`pylon_zoo.load_pretrained` for the forms of its name.

    Its config is verified; the bytes of its weights are not yet.
    """
    text = os.fspath(name_or_path)
    if text.startswith("local-dir:"):
        return read_config(text.removeprefix("local-dir:"))
    if isinstance(name_or_path, Path) or os.sep in text or "/" in text:
        return read_config(text)
    try:
        entry = load_manifest().find(text)
    except UnknownNameError:
        if Path(text).exists():
            return read_config(text)
        raise
    return _locate_entry(entry)


def _locate_entry(entry: Entry) -> Checkpoint:
    tried = []
    for source in entry.sources:
        if isinstance(source, BundledSource):
            file = checkpoints_folder() / source.filename
            if file.is_file():
                return Checkpoint(
                    weights=file,
                    sha256=entry.sha256,
                    bytes=entry.bytes,
                    spec=entry.spec,
                    record=entry,
                )
            tried.append(f"{file} does not exist")
    raise WeightsNotFoundError(
        f"No source of {entry.name} has its weights: {'; '.join(tried)}. Reinstall pylon-zoo."
    )
