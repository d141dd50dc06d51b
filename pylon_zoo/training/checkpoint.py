"""The state of a run on disk: whole or not at all, and never the only copy.

A checkpoint is two files. ``step_00000120.pt`` holds tensors and numbers, and is read with
``weights_only=True``; ``step_00000120.json`` is written after it and says what it belongs to
(configuration, versions, revision) and what its sha256 is. Without its JSON file a checkpoint
does not exist, so that a crash at any moment leaves the one before in force.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pylon_zoo.errors import CheckpointError, PylonZooError, TrainingError
from pylon_zoo.training.config import TrainingConfig
from pylon_zoo.training.record import revision, versions
from pylon_zoo.weights.files import replace_file, verify_file

__all__ = ["Checkpoints", "get_random_states", "report_full_disk", "set_random_states"]

logger = logging.getLogger("pylon_zoo")

#: The last checkpoint and the one before it.
KEPT = 2


class Checkpoints:
    """The checkpoints of one run in one folder: the last two, and the one of the best epoch."""

    def __init__(self, folder: Path, config: TrainingConfig) -> None:
        """Look at the folder; it need not exist yet.

        Args:
            folder: holds nothing but the checkpoints of this run.
            config: of the run.
        """
        self.folder, self.config = folder, config

    def save(self, state: dict[str, Any], *, step: int, best_step: int) -> Path:
        """Write a checkpoint atomically, flushed to the disk, and delete those not kept.

        Args:
            state: tensors, numbers, strings, lists and dicts.
            step: optimizer steps done.
            best_step: the step of the best epoch's checkpoint, which is kept.

        Raises:
            TrainingError: the disk is full; the checkpoints before stay as they were.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        header = {
            "step": step,
            "sha256": hashlib.sha256(buffer.getbuffer()).hexdigest(),
            "bytes": len(buffer.getbuffer()),
            "config": self.config.to_dict(),
            "versions": versions(),
            "revision": revision(),
        }
        path = self._path(step)
        with report_full_disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            # A header that stood here before would not fit the new content.
            path.with_suffix(".json").unlink(missing_ok=True)
            with replace_file(path) as temporary:
                temporary.write_bytes(buffer.getbuffer())
            with replace_file(path.with_suffix(".json")) as temporary:
                temporary.write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
        self._prune(keep={best_step, *self._steps()[-KEPT:]})
        return path

    def load(self) -> dict[str, Any] | None:
        """The state of the newest checkpoint that is whole; None where there is none.

        Says in the log which checkpoints were damaged and passed over.

        Raises:
            CheckpointError: the checkpoints are of a run with another configuration; the message
                lists what differs.
        """
        for step in reversed(self._steps()):
            path = self._path(step)
            try:
                header = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                config, saved_versions = dict(header["config"]), header["versions"]
                verify_file(path, sha256=header["sha256"], size=header["bytes"])
            except (OSError, ValueError, KeyError, TypeError, PylonZooError) as error:
                logger.warning(
                    "The checkpoint of step %d is torn or gone (%s); taking the one before it.",
                    step,
                    error,
                )
                continue
            if different := self.config.differences(config):
                raise CheckpointError(
                    f"{self.folder} holds a run with another configuration:\n  "
                    + "\n  ".join(different)
                    + "\nGo on with the old one, give another output folder, or start over with "
                    "--fresh (resume=False), which deletes its checkpoints."
                )
            now = versions()
            changed = [f"{k} {saved_versions.get(k)} -> {v}" for k, v in now.items()]
            if saved_versions != now:
                logger.warning(
                    "Going on with other versions (%s): results may differ in the last digits.",
                    ", ".join(changed),
                )
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
            return state
        return None

    def clear(self) -> None:
        """Delete all checkpoints."""
        self._prune(keep=set())

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}.pt"

    def _steps(self) -> list[int]:
        """Steps that have a header, in order."""
        return sorted(int(path.stem[5:]) for path in self.folder.glob("step_*.json"))

    def _prune(self, keep: set[int]) -> None:
        names = {self._path(step).stem for step in keep}
        # Headers first: a header without its tensors would be reported as damage. Temporary
        # files of writes that were killed go as well.
        for pattern in ("step_*.json", "step_*.pt", ".step_*.tmp"):
            for path in self.folder.glob(pattern):
                if path.stem not in names:
                    path.unlink(missing_ok=True)


@contextmanager
def report_full_disk(folder: Path) -> Iterator[None]:
    """Turn an error of a full disk into a :class:`TrainingError` that names the disk."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        # safetensors reports the system's words, but not its number.
        if number not in (errno.ENOSPC, errno.EDQUOT) and "No space left" not in str(error):
            raise
        mount = folder.resolve()
        while not mount.exists() or not mount.is_mount():
            mount = mount.parent
        usage = shutil.disk_usage(mount)
        raise TrainingError(
            f"The disk of {folder} is full: {usage.free / 1e6:,.0f} MB of "
            f"{usage.total / 1e6:,.0f} MB are free on {mount}. The checkpoints written before are "
            f"whole: make room and run the same command again."
        ) from error


def get_random_states() -> dict[str, Any]:
    """The states of all global generators of this process, as ``weights_only`` reads them."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            position,
            has_gauss,
            gauss,
        ],
        "python": [version, list(words), gauss_next],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """The reverse of :func:`get_random_states`."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, words, gauss_next = states["python"]
    random.setstate((version, tuple(words), gauss_next))
