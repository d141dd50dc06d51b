"""Decoded images in memory-mapped files: ``pylon-zoo data cache`` writes, training reads.

A cache has a folder for each split, with ``index.json`` and pairs of ``00000.bin`` and
``00000.json``. A ``.bin`` holds the items of a shard one after another; its ``.json`` says where
they begin, and holds a CRC-32 of each, the shard's sha256, and the key of what it was made from.
Every file is written under another name and moved when it is whole, the ``.json`` after the
``.bin``: with it a shard is finished. Nothing in a cache depends on when or by how many threads
it was written.

An item is a header (its length in 4 bytes, then JSON) and the tensors of a :class:`Sample`, each
at a multiple of 64 bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pylon_zoo.data.files import FileDataset, Record
from pylon_zoo.data.sample import Sample
from pylon_zoo.data.transforms import resize
from pylon_zoo.errors import CacheError, ImageReadError, InvalidInputError
from pylon_zoo.files import hash_file, replace_file
from pylon_zoo.progress import create_bar
from pylon_zoo.spec import Preprocessing

__all__ = ["CacheReport", "CachedShards", "resize_stored", "write_cache"]

FORMAT = 1
ALIGNMENT = 64
#: Images of a shard: 16 MiB of 256 x 256 px in 8 bits.
SHARD_ITEMS = 256
REMEDY = "Run pylon-zoo data cache again as it was run; it writes anew what is not as it must be."

OWN = re.compile(r"(index\.json|\d{5}\.(bin|json))|\..+\.tmp")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class CacheReport:
    """What :func:`write_cache` did.

    Attributes:
        images: in the cache.
        written: shards that were written.
        kept: shards that were there, finished and intact.
        nbytes: of all shards.
        unreadable: what is wrong with the images that could not be read; reading them from the
            cache raises the same.
    """

    images: int
    written: int
    kept: int
    nbytes: int
    unreadable: tuple[str, ...]


def write_cache(
    dataset: FileDataset,
    folder: str | os.PathLike[str],
    *,
    name: str,
    size: int = 0,
    interpolation: str = "bicubic",
    workers: int = 4,
    progress: str = "",
    shard_items: int = SHARD_ITEMS,
) -> CacheReport:
    """Decode and resize the images of a dataset once; go on with what an earlier call left.

    One call at a time may write to a folder.

    Args:
        dataset: images in files.
        folder: of one split.
        name: of the dataset.
        size: side that images are resized to (:func:`resize_stored`); 0 keeps them as they are.
        interpolation: of the resizing.
        workers: threads that read images.
        progress: title of a progress bar, or empty for none.
        shard_items: images in a shard.

    Raises:
        CacheError: the folder holds a cache of another dataset or size, or other files.
        DatasetError: images are missing.
    """
    dataset.require_files()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    transform = {"size": size, "interpolation": interpolation if size else ""}
    index = {
        "format": FORMAT,
        "dataset": name,
        "class_names": list(dataset.class_names),
        "transform": transform,
        "images": len(dataset),
        "shard_items": shard_items,
    }
    keys = _keys(dataset, index)
    _clear_leftovers(folder, index, len(keys))
    _write_sealed(folder / "index.json", index)

    kept = nbytes = 0
    unreadable: list[str] = []
    bar = create_bar(enabled=bool(progress))
    with bar, ThreadPoolExecutor(workers) as pool:
        task = bar.add_task(progress, total=len(dataset))
        for number, key in enumerate(keys):
            path = folder / f"{number:05}.bin"
            items = range(number * shard_items, min((number + 1) * shard_items, len(dataset)))
            shard = _finished(path, key)
            if shard is not None:
                kept += 1
                bar.advance(task, len(items))
            else:
                make = partial(_make, dataset, size=size, interpolation=interpolation)
                blobs = _ahead(pool, make, items, 2 * workers)
                shard = _write_shard(path, key, blobs, lambda: bar.advance(task))
            nbytes += shard["bytes"]
            unreadable += shard["unreadable"]
    return CacheReport(len(dataset), len(keys) - kept, kept, nbytes, tuple(unreadable))


class CachedShards:
    """The samples of a cache's split; beyond the end it starts over.

    Opening looks at the index and at the sizes of the shards. Each item is compared with its
    CRC-32 when it is read; :meth:`verify` compares whole files with their sha256.

    Attributes:
        folder: of the split.
        class_names: K names.
        size: side that images were resized to; 0 for their own size.
        interpolation: of that resizing.
    """

    def __init__(self, folder: str | os.PathLike[str], dataset: FileDataset | None = None) -> None:
        """Open a split.

        Args:
            folder: of one split.
            dataset: what the cache must be of, file by file (size, time of change, labels, boxes);
                None trusts it.

        Raises:
            CacheError: there is no cache, it is unfinished or damaged, or files, labels or boxes
                have changed since it was written.
        """
        self.folder = Path(folder)
        index = _read_sealed(self.folder / "index.json")
        if index.get("format") != FORMAT:
            raise CacheError(
                f"{self.folder} is a cache of format {index.get('format')}; this version reads "
                f"format {FORMAT}. Write it anew in another folder."
            )
        self.class_names = tuple(index["class_names"])
        self.size: int = index["transform"]["size"]
        self.interpolation: str = index["transform"]["interpolation"]
        self._length: int = index["images"]
        self._shard_items: int = index["shard_items"]
        self._paths = [
            self.folder / f"{number:05}.bin"
            for number in range(-(-self._length // self._shard_items))
        ]
        self._shards = [_read_sealed(path.with_suffix(".json")) for path in self._paths]
        for path, shard in zip(self._paths, self._shards, strict=True):
            size = path.stat().st_size if path.exists() else 0
            if size != shard["bytes"]:
                raise CacheError(
                    f"{path} has {size:,} bytes instead of {shard['bytes']:,}. {REMEDY}"
                )
        self._starts = [np.array(shard["starts"], dtype=np.int64) for shard in self._shards]
        self._crcs = [np.array(shard["crc32"], dtype=np.uint32) for shard in self._shards]
        self._maps: dict[int, NDArray[np.uint8]] = {}
        if dataset is not None:
            self._require(dataset, index)

    def _require(self, dataset: FileDataset, index: dict[str, Any]) -> None:
        index = index | {"class_names": list(dataset.class_names)}
        keys = _keys(dataset.require_files(), index)
        changed = [
            n for n, key in enumerate(keys[: len(self._shards)]) if not self._has_key(n, key)
        ]
        if len(dataset) != self._length or changed:
            first = min([*changed, len(self._shards) - 1]) * self._shard_items
            raise CacheError(
                f"The cache {self.folder} is of other data: it has {self._length} images and the "
                f"dataset {len(dataset)}, and {len(changed)} of its {len(self._shards)} shards "
                f"differ, from image {first} on. Files, labels or boxes have changed. {REMEDY}"
            )

    def _has_key(self, number: int, key: str) -> bool:
        return bool(self._shards[number]["key"] == key)

    def require_transform(self, preprocessing: Preprocessing) -> CachedShards:
        """Itself, if its images are what a model with this preprocessing can be trained on.

        Raises:
            CacheError: they are smaller than the model's input, were resized by another
                interpolation, or were resized and the model takes them as they are.
        """
        side = max(preprocessing.input_size[1:])
        if self.size and (
            preprocessing.resize == "native"
            or self.size < side
            or self.interpolation != preprocessing.interpolation
        ):
            wish = "their own size" if preprocessing.resize == "native" else f"{side} px or more"
            raise CacheError(
                f"The cache {self.folder} holds images resized to {self.size} px by "
                f"{self.interpolation} interpolation; the model takes {wish}, by "
                f"{preprocessing.interpolation} interpolation. Write another cache, with "
                f"--size {side} or without --size, or set image_size."
            )
        return self

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        """Read an item.

        Raises:
            ImageReadError: the image could not be read when the cache was written.
            CacheError: the item's bytes are not the ones that were written; names the shard.
        """
        number, place = divmod(index % self._length, self._shard_items)
        if number not in self._maps:
            self._maps[number] = np.memmap(self._paths[number], dtype=np.uint8, mode="r")
        start, stop = self._starts[number][place : place + 2]
        blob = self._maps[number][start:stop]
        if zlib.crc32(blob.data) != self._crcs[number][place]:
            raise CacheError(f"{self._paths[number]}: item {place} is damaged. {REMEDY}")
        return _decode(blob)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the files itself.
        return self.__dict__ | {"_maps": {}}

    def verify(self) -> None:
        """Compare every shard with its sha256.

        Raises:
            CacheError: names the shards that differ.
        """
        damaged = [
            str(path)
            for path, shard in zip(self._paths, self._shards, strict=True)
            if hash_file(path)[0] != shard["sha256"]
        ]
        if damaged:
            raise CacheError(
                f"{len(damaged)} of {len(self._paths)} shards are not as they were written: "
                f"{', '.join(damaged)}. {REMEDY}"
            )


def resize_stored(sample: Sample, size: int, interpolation: str = "bicubic") -> Sample:
    """A sample as a cache stores it: ``size`` x ``size`` px, rounded to its own bit depth."""
    dtype = sample.image.dtype
    top = 1 if dtype.is_floating_point else torch.iinfo(dtype).max
    unit = replace(sample, image=sample.image.to(torch.float32) / top)
    image = (resized := resize(unit, size, size, interpolation)).image * top
    return replace(resized, image=(image if dtype.is_floating_point else image.round()).to(dtype))


def _clear_leftovers(folder: Path, index: dict[str, Any], shards: int) -> None:
    """Delete unfinished files, and shards beyond the last; refuse a folder of anything else."""
    foreign = [path.name for path in folder.iterdir() if not OWN.fullmatch(path.name)]
    if foreign:
        raise CacheError(f"{folder} holds other files, e.g. {foreign[0]}; give another folder.")
    try:
        found = _read_sealed(folder / "index.json")
    except CacheError:
        found = index
    for field in ("dataset", "transform"):
        if found.get(field) != index[field]:
            raise CacheError(
                f"{folder} holds a cache of {field} {found.get(field)}, not {index[field]}; "
                f"give another folder, or delete this one first."
            )
    for path in folder.iterdir():
        if path.suffix == ".tmp" or (path.stem.isdigit() and int(path.stem) >= shards):
            path.unlink()


def _keys(dataset: FileDataset, index: dict[str, Any]) -> list[str]:
    """What decides each shard's bytes: transform, records, and size and time of every file."""
    count = index["shard_items"]
    common = json.dumps({**index, "images": None}, sort_keys=True).encode()
    keys = []
    for start in range(0, len(dataset), count):
        digest = hashlib.sha256(common)
        for record in dataset.records[start : start + count]:
            digest.update(repr(_state(record)).encode())
        keys.append(digest.hexdigest())
    return keys


def _state(value: Any) -> Any:
    """What a record holds, as plain data; a file is its name, size and time of change."""
    if isinstance(value, Record):
        return [_state(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, Path):
        # Where the dataset lies does not matter.
        stat = value.stat()
        return value.name, stat.st_size, stat.st_mtime_ns
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, partial):
        return value.func.__qualname__, _state(value.args), _state(value.keywords)
    if isinstance(value, dict):
        return sorted((key, _state(item)) for key, item in value.items())
    return [_state(item) for item in value] if isinstance(value, (list, tuple)) else value


def _make(dataset: FileDataset, index: int, size: int, interpolation: str) -> tuple[bytes, str]:
    """An item's bytes, and what is wrong with its image."""
    try:
        sample = dataset[index]
        return _encode(resize_stored(sample, size, interpolation) if size else sample), ""
    except (ImageReadError, InvalidInputError) as error:
        return _with_header({"unreadable": str(error)}, b""), str(error)


def _encode(sample: Sample) -> bytes:
    tensors, values, body = {}, {}, bytearray()
    for field in fields(sample):
        value = getattr(sample, field.name)
        if isinstance(value, Tensor):
            body += bytes(-len(body) % ALIGNMENT)
            array = value.contiguous().numpy()
            tensors[field.name] = [len(body), array.nbytes, str(array.dtype), list(array.shape)]
            body += array.tobytes()
        else:
            values[field.name] = value
    return _with_header({"tensors": tensors, "values": values}, body)


def _with_header(header: dict[str, Any], body: bytes | bytearray) -> bytes:
    text = json.dumps(header, sort_keys=True).encode()
    text += b" " * (-(4 + len(text)) % ALIGNMENT)
    return b"".join((len(text).to_bytes(4, "little"), text, body, bytes(-len(body) % ALIGNMENT)))


def _decode(blob: NDArray[np.uint8]) -> Sample:
    end = 4 + int.from_bytes(blob[:4].tobytes(), "little")
    header = json.loads(blob[4:end].tobytes())
    if "unreadable" in header:
        raise ImageReadError(header["unreadable"])
    content: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in header["values"].items()
    }
    for name, (start, length, dtype, shape) in header["tensors"].items():
        array = blob[end + start : end + start + length].copy().view(dtype).reshape(shape)
        content[name] = torch.from_numpy(array)
    return Sample(**content)


def _write_shard(
    path: Path, key: str, blobs: Iterator[tuple[bytes, str]], advance: Callable[[], None]
) -> dict[str, Any]:
    digest, starts, crcs, unreadable = hashlib.sha256(), [0], [], []
    with replace_file(path) as temporary, temporary.open("wb") as file:
        for blob, problem in blobs:
            file.write(blob)
            digest.update(blob)
            starts.append(starts[-1] + len(blob))
            crcs.append(zlib.crc32(blob))
            unreadable += [problem] if problem else []
            advance()
    shard = {
        "key": key,
        "bytes": starts[-1],
        "sha256": digest.hexdigest(),
        "starts": starts,
        "crc32": crcs,
        "unreadable": unreadable,
    }
    _write_sealed(path.with_suffix(".json"), shard)
    return shard


def _finished(path: Path, key: str) -> dict[str, Any] | None:
    """What is known of a shard of this key that is there and intact."""
    try:
        shard = _read_sealed(path.with_suffix(".json"))
        whole = shard["key"] == key and hash_file(path)[0] == shard["sha256"]
    except (CacheError, OSError):
        return None
    return shard if whole else None


def _write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with the sha256 of itself."""
    text = json.dumps(content, sort_keys=True)
    sealed = {"content": content, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(sealed, sort_keys=True) + "\n", encoding="utf-8")


def _read_sealed(path: Path) -> dict[str, Any]:
    try:
        sealed = json.loads(path.read_text(encoding="utf-8"))
        content: dict[str, Any] = sealed["content"]
        text = json.dumps(content, sort_keys=True)
        intact = hashlib.sha256(text.encode()).hexdigest() == sealed["sha256"]
    except FileNotFoundError:
        raise CacheError(
            f"{path} is missing: there is no cache, or it is unfinished. Write it with pylon-zoo "
            f"data cache, or run that again."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise CacheError(f"{path} is damaged. {REMEDY}")
    return content


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item], depth: int
) -> Iterator[Result]:
    """Results in order; at most ``depth`` are computed ahead of what is asked for."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > depth:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
