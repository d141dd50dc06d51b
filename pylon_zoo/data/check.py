"""Is a dataset fit to train and measure on? Files, labels, duplicates, leaks between splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pylon_zoo.data.sample import LocalizationDataset, Sample
from pylon_zoo.data.splits import is_elsewhere, open_partition
from pylon_zoo.data.tasks import Task
from pylon_zoo.errors import PylonZooError
from pylon_zoo.progress import track

__all__ = ["CheckReport", "Problem", "check_splits", "check_task", "perceptual_hash"]

#: Side of a perceptual hash, which has the square of it as bits.
HASH_SIDE = 16
#: Images whose hashes differ in at most this many of 256 bits are near duplicates.
NEAR_BITS = 10


@dataclass(frozen=True)
class Problem:
    """One thing that is amiss.

    Attributes:
        kind: ``missing split``, ``unreadable``, ``empty class``, ``label conflict``,
            ``exact duplicate``, ``near duplicate``, ``duplicate across splits`` or
            ``group across splits``.
        message: says what it is.
        items: the images or splits concerned, as ``split: source``.
        severity: ``"error"`` for what makes training or its numbers wrong; ``"note"`` for what is
            worth knowing: a split whose list is not in this copy while another is, a class without
            a positive in a split, near duplicates in one split, and exact ones of one group in it.
    """

    kind: str
    message: str
    items: tuple[str, ...]
    severity: Literal["error", "note"] = "error"


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_splits` found.

    Attributes:
        images: how many images each split has.
        problems: errors and notes, in the order of their kinds.
    """

    images: dict[str, int]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What makes training or its numbers wrong."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def notes(self) -> tuple[Problem, ...]:
        """What is worth knowing."""
        return tuple(problem for problem in self.problems if problem.severity == "note")

    @property
    def passes(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def counts(self) -> dict[str, int]:
        """How many problems of each kind."""
        return dict(Counter(problem.kind for problem in self.problems))

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"passes": self.passes, **asdict(self), "counts": self.counts()}


@dataclass(frozen=True)
class _Seen:
    """What is kept of an image once it was read."""

    split: str
    source: str
    group: str
    labels: Tensor
    boxed: frozenset[int]
    pixels: bytes
    hashed: NDArray[np.bool_] | None

    @property
    def name(self) -> str:
        return f"{self.split}: {self.source}"


def check_task(task: Task, *, workers: int = 4, progress: bool = False) -> CheckReport:
    """Check the splits of a task's partition, as far as they are there."""
    splits, absent = open_partition(task)
    report = check_splits(splits, workers=workers, progress=progress)
    missing = []
    for split, error in absent.items():
        # Without any split, or with a damaged list, nothing can be said for the dataset.
        severity: Literal["error", "note"] = "note" if is_elsewhere(error, splits) else "error"
        missing.append(Problem("missing split", str(error), (split,), severity))
    return CheckReport(report.images, (*missing, *report.problems))


def check_splits(
    splits: Mapping[str, LocalizationDataset], *, workers: int = 4, progress: bool = False
) -> CheckReport:
    """Read every image of datasets that must not overlap, and look for what is amiss.

    Exact duplicates have equal pixels, whatever their files' formats; near duplicates have nearly
    equal perceptual hashes (:func:`perceptual_hash`). Images without any contrast have no hash.

    Args:
        splits: datasets by the name of their split; they have the same classes.
        workers: threads that read images.
        progress: show a progress bar.
    """
    items = [(split, dataset, i) for split, dataset in splits.items() for i in range(len(dataset))]
    with ThreadPoolExecutor(workers) as pool:
        looked = pool.map(lambda item: _look(*item), items)
        results = list(track(looked, "reading images", total=len(items), enabled=progress))
    seen = [result for result in results if isinstance(result, _Seen)]
    problems = [result for result in results if isinstance(result, Problem)]
    names = next(iter(splits.values())).class_names if splits else ()
    problems += _empty_classes(seen, names)
    problems += _conflicts(seen, names)
    problems += _duplicates(seen)
    problems += _straddling_groups(seen)
    return CheckReport({split: len(dataset) for split, dataset in splits.items()}, tuple(problems))


def perceptual_hash(image: Tensor) -> NDArray[np.bool_] | None:
    """Whether each of 16 x 16 cells is brighter than its right neighbour (a difference hash).

    Args:
        image: (C, H, W).

    Returns:
        (256,), the same for a resized, recompressed, brightened or darkened copy but for a few
        bits; None for an image that is equal everywhere.
    """
    gray = image.to(torch.float32).mean(dim=0)[None, None]
    if bool((gray == gray.flatten()[0]).all()):
        return None
    cells = F.interpolate(
        gray, (HASH_SIDE, HASH_SIDE + 1), mode="bilinear", antialias=True, align_corners=False
    )[0, 0]
    return np.asarray((cells[:, :-1] > cells[:, 1:]).flatten().numpy(), dtype=np.bool_)


def _look(split: str, dataset: LocalizationDataset, index: int) -> _Seen | Problem:
    try:
        sample: Sample = dataset[index]
    except PylonZooError as error:
        return Problem("unreadable", str(error), (f"{split}: item {index}",))
    pixels = hashlib.sha256(repr((sample.image.shape, sample.image.dtype)).encode())
    pixels.update(sample.image.contiguous().view(torch.uint8).numpy().tobytes())
    places = torch.cat([sample.box_classes, sample.point_classes, sample.mask_classes])
    return _Seen(
        split,
        sample.source,
        sample.group,
        sample.labels,
        frozenset(places.tolist()),
        pixels.digest(),
        perceptual_hash(sample.image),
    )


def _empty_classes(seen: list[_Seen], names: Any) -> Iterator[Problem]:
    for split in dict.fromkeys(one.split for one in seen):
        labels = torch.stack([one.labels for one in seen if one.split == split])
        for k, name in enumerate(names):
            if not bool((labels[:, k] == 1).any()):
                yield Problem("empty class", f"{split} has no image with {name}.", (split,), "note")


def _conflicts(seen: list[_Seen], names: Any) -> Iterator[Problem]:
    for one in seen:
        for k in sorted(one.boxed):
            if one.labels[k] == 0:
                message = f"{names[k]} is marked in the image, but its label is 0."
                yield Problem("label conflict", message, (one.name,))
    for copies in _same_pixels(seen):
        labels = torch.stack([one.labels for one in copies])
        differ = (labels == 1).any(dim=0) & (labels == 0).any(dim=0)
        for k in differ.nonzero().flatten().tolist():
            message = f"Equal images have different labels of {names[k]}."
            yield Problem("label conflict", message, tuple(one.name for one in copies))


def _same_pixels(seen: list[_Seen]) -> list[list[_Seen]]:
    copies: dict[bytes, list[_Seen]] = {}
    for one in seen:
        copies.setdefault(one.pixels, []).append(one)
    return [group for group in copies.values() if len(group) > 1]


def _duplicates(seen: list[_Seen]) -> Iterator[Problem]:
    for copies in _same_pixels(seen):
        yield _duplicate("exact duplicate", "The pixels are equal.", copies)
    hashed = [one for one in seen if one.hashed is not None]
    # As -1 and 1, hashes of n bits that differ in d have the product n - 2 d.
    bits = np.array([one.hashed for one in hashed], dtype=np.float32) * 2 - 1
    for start in range(0, len(hashed), 1024):
        different = (HASH_SIDE**2 - bits[start : start + 1024] @ bits[start:].T) / 2
        for row, column in np.argwhere(different <= NEAR_BITS):
            if row < column:
                pair = [hashed[start + row], hashed[start + column]]
                if pair[0].pixels != pair[1].pixels:
                    message = (
                        f"The perceptual hashes differ in {different[row, column]:.0f} of "
                        f"{HASH_SIDE**2} bits."
                    )
                    yield _duplicate("near duplicate", message, pair)


def _duplicate(kind: str, message: str, copies: list[_Seen]) -> Problem:
    items = tuple(one.name for one in copies)
    if len({one.split for one in copies}) > 1:
        return Problem("duplicate across splits", f"{kind}: {message}", items)
    groups = sorted({one.group for one in copies})
    if kind == "exact duplicate" and (len(groups) > 1 or not groups[0]):
        named = ", ".join(groups) if groups[0] else "no group"
        return Problem(kind, f"{message} They count as independent images: {named}.", items)
    return Problem(kind, message, items, "note")


def _straddling_groups(seen: list[_Seen]) -> Iterator[Problem]:
    groups: dict[str, dict[str, _Seen]] = {}
    for one in seen:
        if one.group:
            groups.setdefault(one.group, {}).setdefault(one.split, one)
    for group, splits in groups.items():
        if len(splits) > 1:
            message = f"Group {group!r} is in {' and '.join(splits)}."
            items = tuple(one.name for one in splits.values())
            yield Problem("group across splits", message, items)
