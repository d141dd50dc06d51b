"""What a run writes down of itself, so that it can be repeated."""

from __future__ import annotations

import csv
import hashlib
import json
import platform
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from pylon_zoo.weights.files import replace_file

__all__ = ["environment", "hash_weights", "revision", "versions", "write_csv", "write_json"]


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose arithmetic a run depends on."""
    from importlib.metadata import version

    from pylon_zoo import __version__

    packages = ("torchvision", "timm", "accelerate", "numpy", "pillow")
    return {
        "pylon_zoo": __version__,
        "python": platform.python_version(),
        # With its build, e.g. "+cu126", which the package's metadata does not always tell.
        "torch": str(torch.__version__),
        **{name: version(name) for name in packages},
    }


@lru_cache(maxsize=1)
def revision() -> str | None:
    """The git commit of this package's checkout, ``+changes`` where files differ; else None."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *arguments],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie inside somebody else's repository.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and git("status", "--porcelain", "-uno") else commit


def hash_weights(model: torch.nn.Module) -> str:
    """The sha256 of a model's names and tensors: where a run began, wherever it came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def environment(device: torch.device, processes: int) -> dict[str, Any]:
    """Where a run took place: versions, revision, command, machine."""
    cuda = device.type == "cuda"
    return {
        "versions": versions(),
        "revision": revision(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "device": torch.cuda.get_device_name(device) if cuda else str(device),
        "cuda": torch.version.cuda if cuda else None,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows of equal keys; the file is replaced as a whole."""
    with replace_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented JSON; the file is replaced as a whole."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
