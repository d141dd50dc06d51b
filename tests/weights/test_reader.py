from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from weights_helpers import make_model

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.errors import CheckpointError, IntegrityError, StateDictError
from pylon_zoo.weights import load_pretrained, save_pretrained
from pylon_zoo.weights import reader as module
from pylon_zoo.weights.config import parse_config, write_config
from pylon_zoo.weights.files import hash_file
from pylon_zoo.weights.reader import read_header, read_tensors


@pytest.fixture
def folder(model: LocalizationModel, tmp_path: Path) -> Path:
    return save_pretrained(model, tmp_path / "model")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A checkpoint that is loaded in milliseconds."""
    return save_pretrained(make_model(name="cam_test_resnet"), tmp_path / "small")


def adopt(folder: Path, model: LocalizationModel) -> None:
    """Record the hash of the folder's weights as the right one."""
    sha256, size = hash_file(folder / "model.safetensors")
    write_config(folder / "config.json", model.spec, sha256=sha256, size=size, record=None)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_longer_than_a_chunk_and_empty_ones(tmp_path: Path, stored: torch.dtype) -> None:
    count = 3 * module.CHUNK // stored.itemsize + 17
    tensors = {
        "a": torch.linspace(-1, 1, count).to(stored),
        "b": torch.tensor(7),
        "c": torch.zeros(0, 3, dtype=stored),
        "d": torch.arange(6, dtype=stored).reshape(2, 3),
        "e": torch.tensor([True, False]),
    }
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    state = {
        name: torch.full_like(t, 0, dtype=torch.float32 if t.is_floating_point() else t.dtype)
        for name, t in tensors.items()
    }
    sha256, size = hash_file(path)
    read_tensors(path, state, sha256=sha256, size=size)
    for name, tensor in tensors.items():
        assert torch.equal(state[name], tensor.to(state[name].dtype))
    with pytest.raises(IntegrityError, match="0{64}.*" + sha256):
        read_tensors(path, state, sha256="0" * 64, size=size)


def test_every_bit_counts(small: Path) -> None:
    """300 single-bit flips: 100 anywhere in the weights, 100 in their header, 100 in the config."""
    weights = (small / "model.safetensors").read_bytes()
    config = (small / "config.json").read_bytes()
    header = 8 + struct.unpack("<Q", weights[:8])[0]
    rng = random.Random(0)
    flips = [("model.safetensors", rng.randrange(header, len(weights))) for _ in range(100)]
    flips += [("model.safetensors", rng.randrange(header)) for _ in range(92)]
    flips += [("model.safetensors", position) for position in range(8)]
    flips += [("config.json", rng.randrange(len(config))) for _ in range(100)]
    for name, position in flips:
        content = bytearray({"model.safetensors": weights, "config.json": config}[name])
        content[position] ^= 1 << rng.randrange(8)
        (small / name).write_bytes(content)
        with pytest.raises(IntegrityError) as caught:
            load_pretrained(small)
        if name == "model.safetensors":
            assert hashlib.sha256(weights).hexdigest() in str(caught.value)
            assert hashlib.sha256(content).hexdigest() in str(caught.value)
        (small / name).write_bytes({"model.safetensors": weights, "config.json": config}[name])
    load_pretrained(small)


def test_every_bit_of_a_config_counts(folder: Path) -> None:
    content = (folder / "config.json").read_bytes()
    parse_config(content, folder / "config.json")
    for position in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            with pytest.raises(IntegrityError, match=r"config\.json"):
                parse_config(bytes(flipped), folder / "config.json")


def test_truncated_files_are_refused(small: Path) -> None:
    content = (small / "model.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    rng = random.Random(0)
    lengths = [0, 1, 7, 8, 9, header - 1, header, header + 1, len(content) - 1]
    lengths += [rng.randrange(len(content)) for _ in range(50 - len(lengths))]
    for length in lengths:
        (small / "model.safetensors").write_bytes(content[:length])
        with pytest.raises(IntegrityError, match=f"got [0-9a-f]{{64}} .{length:,} bytes"):
            load_pretrained(small)
    (small / "model.safetensors").write_bytes(content + b"\0")
    with pytest.raises(IntegrityError):
        load_pretrained(small)


def claim(shape: list[int], length: int, offsets: list[int] | None = None) -> bytes:
    info = {"dtype": "F32", "shape": shape, "data_offsets": offsets or [0, length]}
    header = json.dumps({"head.weight": info}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        claim([1 << 40], 4 << 40),
        claim([1 << 40], 16),
        claim([1 << 62, 1 << 62], 16),
        claim([4], 16, offsets=[0, 1 << 60]),
        claim([4], 16, offsets=[16, 0]),
        claim([-4], 16),
        struct.pack("<Q", 8 << 30) + b"{" + bytes(100),
        struct.pack("<Q", (1 << 64) - 1) + b"{}",
        struct.pack("<Q", 99 << 20) + b"{" + bytes(100),
        b"",
        b"\0" * 8,
        bytes(range(200)),
    ],
)
def test_absurd_claims_are_refused_without_allocating(
    folder: Path, model: LocalizationModel, content: bytes
) -> None:
    (folder / "model.safetensors").write_bytes(content)
    adopt(folder, model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="not a valid safetensors file") as caught:
        load_pretrained(folder)
    assert not isinstance(caught.value, (IntegrityError, StateDictError))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


@pytest.mark.parametrize("zipped", [True, False])
def test_a_renamed_pickle_is_refused(folder: Path, model: LocalizationModel, zipped: bool) -> None:
    path = folder / "model.safetensors"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(IntegrityError, match=r"model\.safetensors is a pickle"):
        load_pretrained(folder)
    adopt(folder, model)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a pickle.*never loaded"):
        load_pretrained(folder)


def rewrite(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors")


def test_tensors_that_do_not_fit_are_named(
    folder: Path, model: LocalizationModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> int:
        raise AssertionError("tensor data was read")

    monkeypatch.setattr(module, "_read_tensor", never)
    good = dict(model.state_dict())
    weight = good["head.weight"]
    renamed = {("head.wieght" if k == "head.weight" else k): v for k, v in good.items()}
    for tensors, what in [
        (renamed, r"(?i)missing from the file: head\.weight\. unknown to the model: head\.wieght"),
        (
            {**good, "head.weight": weight[:1].clone()},
            r"head\.weight is \(1, 128, 1, 1\).*\(2, 128",
        ),
        ({**good, "head.weight": weight.long()}, r"head\.weight is torch\.int64"),
        ({}, r"(?i)missing.* and \d+ more"),
    ]:
        rewrite(folder, tensors)
        with pytest.raises(IntegrityError, match=what):
            load_pretrained(folder)
        adopt(folder, model)
        with pytest.raises(StateDictError, match=what):
            load_pretrained(folder)
        save_pretrained(model, folder)


def test_a_checkpoint_of_another_architecture(folder: Path, tmp_path: Path) -> None:
    cam = make_model(name="cam_test_resnet")
    save_pretrained(cam, tmp_path / "cam")
    shutil.copy(tmp_path / "cam" / "model.safetensors", folder)
    with pytest.raises(IntegrityError, match=r"(?i)do not fit the model.*attention"):
        load_pretrained(folder)


def test_values_that_are_not_finite_are_refused(folder: Path, model: LocalizationModel) -> None:
    tensors = dict(model.state_dict())
    tensors["head.bias"] = torch.tensor([0.0, float("nan")])
    rewrite(folder, tensors)
    adopt(folder, model)
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in head\.bias"):
        load_pretrained(folder)


def test_types_that_no_model_has(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, dtype=torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"F8_E4M3.*accepted: BOOL"):
        read_header(tmp_path / "a.safetensors")


def test_a_file_that_changes_while_it_is_read(
    folder: Path, model: LocalizationModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was checked before reading does not count: the bytes that were read do."""
    path = folder / "model.safetensors"
    other = save_pretrained(make_model(1), folder.parent / "other") / "model.safetensors"
    check = module.check_tensors

    def check_and_swap(*arguments: object) -> None:
        check(*arguments)  # type: ignore[arg-type]
        shutil.copy(other, path)

    monkeypatch.setattr(module, "check_tensors", check_and_swap)
    with pytest.raises(IntegrityError):
        load_pretrained(folder)
