"""Files that are whole or absent, and the sha256 that tells one file from another."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CHUNK", "copy_file", "hash_file", "replace_file"]

#: Bytes read at a time: memory stays flat, and a chunk stays in the CPU's cache while hashed.
CHUNK = 1 << 20


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give the path of a temporary file to write; it replaces ``path`` if no exception comes.

    Whoever looks at ``path``, even after a crash, finds the old file or the new one, whole.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        # Some writers make their files private; this one gets the mode that the umask says.
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def hash_file(path: Path) -> tuple[str, int]:
    """The sha256 (hexadecimal) of a file and its size in bytes, read piece by piece."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def copy_file(source: Path, target: Path) -> None:
    """Copy a file; ``target`` is replaced as a whole."""
    with replace_file(target) as temporary:
        shutil.copyfile(source, temporary)
