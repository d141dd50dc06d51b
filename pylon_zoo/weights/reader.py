"""Tensors from a safetensors file straight into the memory of a model's parameters.

The file is read once, front to back; the bytes that are hashed are the bytes that stay, so there
is neither a second copy nor a moment in which the file could change after it was checked.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pylon_zoo.errors import CheckpointError, StateDictError
from pylon_zoo.weights.files import CHUNK, integrity_error, verify_file

__all__ = ["check_tensors", "read_header", "read_tensors"]

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


class TensorInfo(NamedTuple):
    """What a header says of one tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


def read_header(path: Path) -> list[TensorInfo]:
    """What tensors a file holds, in the order of their bytes; reads no tensor.

    The safetensors library checks that the header is of sane size and that the tensors fill the
    file without holes or overlaps, so that no claim of a header is believed beyond the file's end.

    Raises:
        CheckpointError: it is not a safetensors file.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    if magic[:2] == b"PK" or magic[:1] == b"\x80":
        raise CheckpointError(
            f"{path} is a pickle (a .pth file under another name), which can run any code and is "
            f"never loaded. Get the checkpoint as safetensors."
        )
    try:
        with safe_open(path, framework="numpy"), path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(length))
    except (SafetensorError, struct.error, ValueError) as error:
        raise CheckpointError(f"{path} is not a valid safetensors file: {error}.") from error
    header.pop("__metadata__", None)
    strange = sorted({t["dtype"] for t in header.values()} - set(_DTYPES))
    if strange:
        raise CheckpointError(
            f"{path} holds tensors of type {', '.join(strange)}; accepted: {', '.join(_DTYPES)}."
        )
    in_order = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    return [TensorInfo(n, _DTYPES[t["dtype"]], tuple(t["shape"])) for n, t in in_order]


def check_tensors(path: Path, infos: list[TensorInfo], state: Mapping[str, Tensor]) -> None:
    """Raise :class:`StateDictError` unless names, shapes and kinds fit the model's state dict."""
    received = {info.name: info for info in infos}
    problems = []
    if missing := [name for name in state if name not in received]:
        problems.append(f"missing from the file: {_some(missing)}")
    if unexpected := [name for name in received if name not in state]:
        problems.append(f"unknown to the model: {_some(unexpected)}")
    wrong = []
    for name, tensor in state.items():
        info = received.get(name)
        if info is None:
            continue
        if info.shape != tuple(tensor.shape):
            wrong.append(f"{name} is {info.shape}, the model's {tuple(tensor.shape)}")
        elif info.dtype != tensor.dtype and not (
            info.dtype.is_floating_point and tensor.dtype.is_floating_point
        ):
            wrong.append(f"{name} is {info.dtype}, the model's {tensor.dtype}")
    if wrong:
        problems.append(f"of another shape or type: {_some(wrong, '; ')}")
    if problems:
        raise StateDictError(
            f"The tensors of {path} do not fit the model. {'. '.join(problems).capitalize()}. "
            f"Load it into the architecture and the options that it was trained with."
        )


def _some(names: list[str], separator: str = ", ") -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return separator.join(names[:10]) + more


def read_tensors(path: Path, state: Mapping[str, Tensor], *, sha256: str, size: int) -> None:
    """Fill ``state`` from a file, and refuse the file unless its sha256 and size are as given.

    Where the file is float16 and the tensor is not (or the reverse), values are converted.

    Args:
        path: a safetensors file.
        state: CPU tensors by name; written in place. After an error their content is undefined.
        sha256: of the file, hexadecimal.
        size: of the file, in bytes.

    Raises:
        IntegrityError: the file's bytes are not those that were published.
        StateDictError: they are, but their names or shapes do not fit ``state``.
        CheckpointError: they are, but it is no safetensors file, or a value is not finite.
    """
    try:
        infos = read_header(path)
        check_tensors(path, infos, state)
    except CheckpointError as error:
        # Of a file that is not the published one, this is the thing to say first.
        verify_file(path, sha256=sha256, size=size, detail=str(error))
        raise
    digest = hashlib.sha256()
    read = 0
    with path.open("rb", buffering=0) as file:
        prefix = file.read(8)
        header = file.read(min(struct.unpack("<Q", prefix)[0], size)) if len(prefix) == 8 else b""
        digest.update(prefix + header)
        read += len(prefix) + len(header)
        for info in infos:
            read += _read_tensor(file, digest, info, state[info.name].detach())
        while rest := file.read(CHUNK):
            digest.update(rest)
            read += len(rest)
    actual = digest.hexdigest()
    if (actual, read) != (sha256, size):
        raise integrity_error(path, (sha256, size), (actual, read))
    bad = [n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{path} has NaN or infinite values in {_some(bad)}: its training diverged, or its "
            f"values do not fit {next(iter(state.values())).dtype}."
        )


def _read_tensor(file: BinaryIO, digest: Any, info: TensorInfo, target: Tensor) -> int:
    """Read one tensor into ``target``, and return the number of bytes read."""
    flat = target.view(-1)
    direct = info.dtype == target.dtype
    per_chunk = CHUNK // info.dtype.itemsize
    total = 0
    for start in range(0, flat.numel(), per_chunk):
        piece = flat[start : start + per_chunk]
        buffer = piece if direct else torch.empty(piece.numel(), dtype=info.dtype)
        view = memoryview(buffer.view(torch.uint8).numpy())  # type: ignore[arg-type]
        filled = 0
        while filled < len(view):
            count = file.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                break
            filled += count
        digest.update(view[:filled])
        total += filled
        if not direct:
            piece.copy_(buffer)
    return total
