"""Which image of a dataset is in which split, and what its group is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from os.path import commonpath
from pathlib import PurePath

from pylon_zoo.data.files import FileDataset
from pylon_zoo.data.sample import LocalizationDataset
from pylon_zoo.data.tasks import FilesTask, Task
from pylon_zoo.errors import PylonZooError

__all__ = ["SplitRow", "as_csv", "is_elsewhere", "open_partition", "split_rows"]


@dataclass(frozen=True, order=True)
class SplitRow:
    """Where an image belongs.

    Attributes:
        image: the name of its file; where a dataset has a name twice, with the folders that tell
            the files apart.
        split: of the task's partition.
        group: what must not straddle splits, e.g. the patient.
    """

    image: str
    split: str
    group: str


def open_partition(
    task: Task,
) -> tuple[dict[str, LocalizationDataset], dict[str, PylonZooError]]:
    """The whole images of each split of :attr:`Task.partition`; and why others cannot be opened."""
    splits: dict[str, LocalizationDataset] = {}
    absent: dict[str, PylonZooError] = {}
    for split in (name for name in task.partition if name in task.splits):
        try:
            whole = task.dataset if isinstance(task, FilesTask) else task.localization
            splits[split] = whole(split)
        except PylonZooError as error:
            absent[split] = error
    return splits, absent


def is_elsewhere(error: PylonZooError, splits: Mapping[str, LocalizationDataset]) -> bool:
    """Whether a split is only not in this copy, which has others; else its list is damaged."""
    return bool(splits) and isinstance(error.__cause__, FileNotFoundError)


def split_rows(task: Task) -> list[SplitRow]:
    """Every image of the splits of :attr:`Task.partition` that are there, sorted by its name.

    Raises:
        DatasetError: none is there, or the list of one is damaged.
        ImageReadError: an image is damaged, where only reading it tells its group.
    """
    splits, absent = open_partition(task)
    for error in absent.values():
        if not is_elsewhere(error, splits):
            raise error
    found = [(path, split, group) for split in splits for path, group in _files(splits[split])]
    paths = {path for path, _, _ in found}
    if len({path.name for path in paths}) == len(paths):
        names = {path: path.name for path in paths}
    else:
        common = commonpath([path.parent for path in paths])
        names = {path: path.relative_to(common).as_posix() for path in paths}
    return sorted(SplitRow(names[path], split, group) for path, split, group in found)


def _files(dataset: LocalizationDataset) -> Iterator[tuple[PurePath, str]]:
    """The file of each image, and its group."""
    if isinstance(dataset, FileDataset):
        yield from ((record.path, record.group) for record in dataset.records)
        return
    for index in range(len(dataset)):
        sample = dataset[index]
        yield PurePath(sample.source), sample.group


def as_csv(rows: Iterable[SplitRow]) -> str:
    """The rows below a header; the same on every system."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(SplitRow)])
    writer.writerows(map(astuple, rows))
    return text.getvalue()
