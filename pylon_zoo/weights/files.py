"""What :mod:`pylon_zoo.files` has, and files that must be the published ones."""

from __future__ import annotations

from pathlib import Path

from pylon_zoo.errors import IntegrityError
from pylon_zoo.files import CHUNK, copy_file, hash_file, replace_file

__all__ = ["CHUNK", "copy_file", "hash_file", "integrity_error", "replace_file", "verify_file"]


def verify_file(path: Path, *, sha256: str, size: int, detail: str = "") -> None:
    """Raise :class:`IntegrityError` unless the file has exactly this sha256 and size.

    Args:
        path: the file.
        sha256: hexadecimal, lower case.
        size: bytes.
        detail: what else is known to be wrong, added to the message.
    """
    actual, actual_size = hash_file(path)
    if (actual, actual_size) != (sha256, size):
        raise integrity_error(path, (sha256, size), (actual, actual_size), detail)


def integrity_error(
    path: Path, expected: tuple[str, int], actual: tuple[str, int], detail: str = ""
) -> IntegrityError:
    """The error for a file whose (sha256, bytes) are ``actual`` and not ``expected``."""
    return IntegrityError(
        f"{path} is not the file that was published: expected sha256 {expected[0]} "
        f"({expected[1]:,} bytes), got {actual[0]} ({actual[1]:,} bytes). Nothing of it was used."
        + (f" {detail}" if detail else "")
        + " Fetch or copy it again."
    )
