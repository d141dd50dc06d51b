"""What the readers of one's own data share: splits, labels and boxes from plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pylon_zoo.data.files import FileDataset, Record, group_part
from pylon_zoo.errors import DatasetError, unknown_name

__all__ = ["SPLITS", "OwnDataset", "parse_box", "parse_label", "split_of"]

#: ``all`` is everything; the others do not share a group.
SPLITS = ("train", "val", "test", "all")
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
LABEL_WORDS = {
    **dict.fromkeys(("1", "1.0", "true", "yes"), 1.0),
    **dict.fromkeys(("0", "0.0", "false", "no"), 0.0),
    **dict.fromkeys(("", "-1", "-1.0", "nan", "na", "n/a", "none"), math.nan),
}


def split_of(word: str) -> str | None:
    """``train``, ``val`` or ``test`` from one of their usual names; None for another word."""
    return SPLIT_WORDS.get(word.strip().lower())


def parse_label(word: str) -> float | None:
    """1, 0 or NaN (blank, -1, NaN: unknown); None for a word that is no label."""
    return LABEL_WORDS.get(word.strip().lower())


def parse_box(values: Sequence[Any], where: str, *, sides: bool = False) -> list[float]:
    """(x0, y0, x1, y1) from four numbers, of which the last are width and height for ``sides``.

    Raises:
        DatasetError: they are no finite numbers, or the box has no area.
    """
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
    except (TypeError, ValueError):
        raise DatasetError(f"{where}: a box is four numbers; got {list(values)}.") from None
    if sides:
        x1, y1 = x0 + x1, y0 + y1
    if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 <= x0 or y1 <= y0:
        raise DatasetError(f"{where}: a box has an area above 0; got {list(values)}.")
    return [x0, y0, x1, y1]


class OwnDataset(FileDataset):
    """Images of one's own, divided by group.

    Where the data name no split, the hash of an image's group decides it, so that it never
    changes when images are added: one part of five is ``test``, one ``val``, the rest ``train``.
    Where they name splits but no ``val``, one part of five of ``train`` becomes it.
    """

    SPLITS = SPLITS

    def __init__(
        self,
        class_names: Sequence[str],
        records: Sequence[Record],
        given: Sequence[str | None],
        split: str,
        remedy: str,
    ) -> None:
        """Keep the records of one split.

        Args:
            class_names: K names.
            records: of all splits.
            given: each record's split as the data name it, or None.
            split: one of :attr:`SPLITS`.
            remedy: see :class:`FileDataset`.

        Raises:
            UnknownNameError: no such split.
            DatasetError: the data name the split of some images only, or hold no image or class.
        """
        if split not in SPLITS:
            raise unknown_name("split,", split, SPLITS)
        if not records or not class_names:
            raise DatasetError(f"The data hold no image or no class. {remedy}")
        named = {word for word in given if word is not None}
        if named and None in given:
            place = records[list(given).index(None)].path
            raise DatasetError(f"Some images have a split, but {place} has none. {remedy}")
        kept = []
        for record, word in zip(records, given, strict=True):
            part = group_part(record.group, 5)
            if word is None:
                own = {0: "test", 1: "val"}.get(part, "train")
            elif word == "train" and "val" not in named:
                own = "val" if part == 1 else "train"
            else:
                own = word
            if split in (own, "all"):
                kept.append(record)
        super().__init__(class_names, kept, remedy)
