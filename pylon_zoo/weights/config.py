"""``config.json``: what a weights file is, and the hashes of both, so that neither can rot unseen.

The hash of the config itself is taken over its own bytes with the 64 digits of that hash set to
zeros, so that any changed byte shows.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from pylon_zoo.errors import CheckpointError, IntegrityError, ManifestError, WeightsNotFoundError
from pylon_zoo.spec import ModelSpec
from pylon_zoo.weights.files import replace_file
from pylon_zoo.weights.manifest import Record
from pylon_zoo.weights.schema import decode, encode, parse_json

__all__ = [
    "CONFIG_NAME",
    "WEIGHTS_NAME",
    "Checkpoint",
    "parse_config",
    "read_config",
    "write_config",
]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"

_ZEROS = "0" * 64
_OWN_HASH = re.compile(r'"config_sha256": "([0-9a-f]{64})"')


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A weights file on disk and what its config says of it.

    Attributes:
        weights: path of the ``.safetensors`` file; its bytes are not yet verified.
        sha256: what the file's sha256 must be.
        bytes: what its size must be.
        spec: the model.
        record: how it came to be, where the config says so.
    """

    weights: Path
    sha256: str
    bytes: int
    spec: ModelSpec
    record: Record | None = None


def write_config(
    path: Path, spec: ModelSpec, *, sha256: str, size: int, record: Record | None
) -> None:
    """Write ``config.json`` for a weights file of that sha256 and size, atomically."""
    config = spec.to_config()
    config["pylon_zoo"] |= {
        "weights": {"sha256": sha256, "bytes": size},
        "record": encode(record),
        "config_sha256": _ZEROS,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    own = hashlib.sha256(text.encode()).hexdigest()
    text = text.replace(f'"config_sha256": "{_ZEROS}"', f'"config_sha256": "{own}"')
    with replace_file(path) as temporary:
        temporary.write_bytes(text.encode())


def parse_config(content: bytes, where: Path) -> Checkpoint:
    """Verify and read a config.

    Args:
        content: of the file.
        where: its path; the weights are taken to lie beside it.

    Raises:
        CheckpointError: it is not a config of pylon_zoo, or a field is amiss.
        IntegrityError: it is no JSON, or was changed after it was written.
    """
    try:
        text = content.decode()
        config = parse_json(text)
    except ValueError as error:
        raise IntegrityError(
            f"{where} is damaged: it is not JSON ({error}). Fetch or copy it again."
        ) from error
    ours = config.get("pylon_zoo") if isinstance(config, dict) else None
    found = _OWN_HASH.findall(text)
    if not found and not isinstance(ours, dict):
        raise CheckpointError(
            f"{where} is no config of pylon_zoo: it has no object 'pylon_zoo'. It must be the one "
            f"that pylon_zoo.save_pretrained wrote beside the weights."
        )
    recorded = found[-1] if found else "none"
    actual = hashlib.sha256(text.replace(recorded, _ZEROS).encode()).hexdigest()
    if not isinstance(ours, dict) or not recorded == actual == ours.get("config_sha256"):
        raise IntegrityError(
            f"{where} was changed after it was written: it records the sha256 {recorded}, but its "
            f"content has {actual}. Fetch or copy it again; to change a model's description, load "
            f"it, set model.spec and call pylon_zoo.save_pretrained."
        )
    spec = ModelSpec.from_config(config)
    try:
        record = decode(Record | None, ours.get("record"), "record")
        sha256, size = str(ours["weights"]["sha256"]), int(ours["weights"]["bytes"])
    except (KeyError, TypeError, ValueError, ManifestError) as error:
        raise CheckpointError(f"{where}: pylon_zoo.{error}") from error
    return Checkpoint(
        weights=where.with_name(WEIGHTS_NAME), sha256=sha256, bytes=size, spec=spec, record=record
    )


def read_config(path: str | Path) -> Checkpoint:
    """Read the config of a checkpoint.

    Args:
        path: a folder that holds ``model.safetensors`` and ``config.json``, or a ``.safetensors``
            file with ``config.json`` beside it.

    Raises:
        WeightsNotFoundError: a file is missing.
        CheckpointError: the config is damaged or of another format.
        IntegrityError: the config was changed after it was written.
    """
    path = Path(path).expanduser()
    weights = path / WEIGHTS_NAME if path.is_dir() else path
    if weights.suffix != ".safetensors" and weights.exists():
        raise CheckpointError(
            f"{weights} is not a .safetensors file. Pickled checkpoints (.pth, .pt, .ckpt, .bin) "
            f"can run any code and are never loaded: create the model, fill it with "
            f"torch.load(..., weights_only=True) and call pylon_zoo.save_pretrained."
        )
    config = weights.with_name(CONFIG_NAME)
    for file in (weights, config):
        if not file.is_file():
            raise WeightsNotFoundError(
                f"There is no file {file}. A checkpoint is a folder with {WEIGHTS_NAME} and "
                f"{CONFIG_NAME}, as pylon_zoo.save_pretrained writes it. A repository of the Hub "
                f"is written hf-hub:org/repo."
            )
    return replace(parse_config(config.read_bytes(), config), weights=weights)
