from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pylon_zoo.errors import IntegrityError
from pylon_zoo.weights.files import CHUNK, hash_file, replace_file, verify_file


def test_replaced_file_is_whole_or_untouched(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def stop_halfway() -> None:
        with replace_file(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_halfway()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]

    with replace_file(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_replaced_file_has_the_usual_mode(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    with replace_file(tmp_path / "a") as temporary:
        temporary.write_bytes(b"x")
        temporary.chmod(0o600)
    assert (tmp_path / "a").stat().st_mode == usual.stat().st_mode


def test_hash_of_a_file_longer_than_a_chunk(tmp_path: Path) -> None:
    content = bytes(range(256)) * (CHUNK // 100)
    (tmp_path / "a").write_bytes(content)
    assert hash_file(tmp_path / "a") == (hashlib.sha256(content).hexdigest(), len(content))


def test_verification_names_both_hashes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    right = hashlib.sha256(b"abc").hexdigest()
    verify_file(path, sha256=right, size=3)
    wrong = "0" * 64
    with pytest.raises(IntegrityError, match=f"{wrong} .*{right}"):
        verify_file(path, sha256=wrong, size=3)
    with pytest.raises(IntegrityError, match=r"4 bytes.*3 bytes"):
        verify_file(path, sha256=right, size=4)
