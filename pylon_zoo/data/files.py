"""Datasets of image files whose labels and boxes were read beforehand."""

from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from pylon_zoo.data.readers import read_image
from pylon_zoo.data.sample import Sample, empty_boxes, resize_masks
from pylon_zoo.errors import DatasetError

__all__ = [
    "FileDataset",
    "Record",
    "group_part",
    "is_file",
    "make_record",
    "read_rows",
    "read_table",
]


@dataclass(frozen=True)
class Record:
    """What is known of one image before it is read.

    Attributes:
        path: the image file.
        labels: (K,) float32: 1, 0, NaN.
        boxes: (N, 4) float32, as :class:`Sample` has them but for ``reference``.
        box_classes: (N,) int64.
        group: what must not straddle splits, e.g. the patient.
        reference: (width, height) of the image that the boxes were drawn in, where it may differ
            from the file's; None where boxes are in the file's own pixels.
        masks: reads (M, H, W) bool masks and their (M,) int64 classes, of any size: they are
            resized to the file's; None where there are none. Must be picklable.
    """

    path: Path
    labels: Tensor
    boxes: Tensor = field(default_factory=empty_boxes)
    box_classes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    group: str = ""
    reference: tuple[int, int] | None = None
    masks: Callable[[], tuple[Tensor, Tensor]] | None = None


class FileDataset:
    """Samples of a list of records; beyond the end it starts over, as training asks for.

    Attributes:
        class_names: K names.
        records: one an image, in order.
        remedy: a sentence that says what to do when files are missing.
    """

    def __init__(
        self, class_names: Sequence[str], records: Sequence[Record], remedy: str = ""
    ) -> None:
        self.class_names = tuple(class_names)
        self.records = list(records)
        self.remedy = remedy

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index % len(self.records)]
        image = read_image(record.path)
        boxes = record.boxes
        height, width = image.shape[-2:]
        if record.reference is not None:
            scale = torch.tensor([width / record.reference[0], height / record.reference[1]])
            boxes = boxes * scale.repeat(2)
        sample = Sample(
            image=image,
            labels=record.labels,
            boxes=boxes,
            box_classes=record.box_classes,
            source=str(record.path),
            group=record.group,
        )
        if record.masks is None:
            return sample
        masks, classes = record.masks()
        return replace(sample, masks=resize_masks(masks, height, width), mask_classes=classes)

    def with_boxes(self) -> FileDataset:
        """The images that have boxes or masks."""
        kept = [r for r in self.records if len(r.boxes) or r.masks is not None]
        return FileDataset(self.class_names, kept, self.remedy)

    def require_files(self) -> FileDataset:
        """Itself, once every image file is known to be there.

        Raises:
            DatasetError: images are missing (says how many, and which is the first), or there is
                none in the split.
        """
        if not self.records:
            raise DatasetError(f"There is no image in this split. {self.remedy}")
        missing = [record.path for record in self.records if not is_file(record.path)]
        if missing:
            raise DatasetError(
                f"{len(missing)} of {len(self.records)} images are missing, first {missing[0]}. "
                f"{self.remedy}"
            )
        return self


def make_record(
    path: Path,
    labels: Sequence[float],
    boxes: Sequence[tuple[int, Sequence[float]]] = (),
    group: str = "",
    reference: tuple[int, int] | None = None,
) -> Record:
    """A record from plain numbers; ``boxes`` are (class, (x0, y0, x1, y1))."""
    return Record(
        path,
        torch.tensor(labels, dtype=torch.float32),
        torch.tensor([list(box) for _, box in boxes], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([k for k, _ in boxes], dtype=torch.int64),
        group,
        reference,
    )


def is_file(path: Path) -> bool:
    """Whether there is such a file; False also for what can be no path, e.g. a name too long."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises there


def group_part(group: str, parts: int = 10) -> int:
    """Which of ``parts`` a group belongs to: always the same, whatever else there is."""
    return zlib.crc32(group.encode()) % parts


def read_rows(path: str | os.PathLike[str], remedy: str) -> list[list[str]]:
    """Lines of a CSV file that are not empty (UTF-8, with or without a byte order mark).

    Raises:
        DatasetError: the file is missing, empty or damaged.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}). {remedy}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is no CSV file in UTF-8 ({error}). {remedy}") from error
    if not rows:
        raise DatasetError(f"{path} is empty. {remedy}")
    return rows


def read_table(
    path: str | os.PathLike[str], columns: Sequence[str], remedy: str
) -> list[dict[str, str]]:
    """Rows of a CSV file by the names of its header.

    Raises:
        DatasetError: the file is missing or damaged, a column is missing or named twice, or a row
            has another number of values than the header.
    """
    header, *rows = read_rows(path, remedy)
    missing = [column for column in columns if column not in header]
    if missing:
        raise DatasetError(f"{path} has no column {missing[0]!r}; it has {header}. {remedy}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise DatasetError(
                f"{path}: row {number} has {len(row)} values, the header {len(header)}. {remedy}"
            )
    return [dict(zip(header, row, strict=True)) for row in rows]
