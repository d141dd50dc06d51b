"""One's own images with annotations in COCO format (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from pylon_zoo.data.files import Record, is_file, make_record
from pylon_zoo.data.own import OwnDataset, parse_box, split_of
from pylon_zoo.errors import DatasetError

__all__ = ["COCO"]

REMEDY = (
    "The coco dataset needs a JSON file in COCO format, or a folder that holds such files (or "
    "annotations/ with them) and the images, in folders named as the files say or in images/."
)


class COCO(OwnDataset):
    """Images and boxes of COCO files; an image has the classes that it has boxes of.

    A file whose name says ``train``, ``val`` or ``test`` (``instances_val2017.json``) is that
    split. Boxes of crowds (``iscrowd``) count as a label but not as a place.
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "all") -> None:
        """Read the annotations.

        Args:
            root: a JSON file, or a folder with some.
            split: ``train``, ``val``, ``test`` or ``all``; see :class:`OwnDataset`.

        Raises:
            UnknownNameError: no such split.
            DatasetError: a file is missing, damaged, or names other categories than another.
        """
        files, folder = _annotation_files(Path(root))
        names: tuple[str, ...] = ()
        records: list[Record] = []
        given: list[str | None] = []
        for file in files:
            words = [split_of(word) for word in re.split(r"[^a-z]+", file.stem.lower())]
            word = next((w for w in words if w), None)
            try:
                own, found = _read(file, folder)
            except (
                LookupError,
                TypeError,
                ValueError,
                AttributeError,
                ArithmeticError,
                RecursionError,
            ) as error:
                raise DatasetError(
                    f"{file} does not follow the COCO format ({type(error).__name__}: {error}). "
                    f"{REMEDY}"
                ) from error
            if names and own != names:
                raise DatasetError(f"{file} has the categories {own}, another file has {names}.")
            names = own
            records += found
            given += [word] * len(found)
        super().__init__(names, records, given, split, REMEDY)


def _annotation_files(root: Path) -> tuple[list[Path], Path]:
    """The files, and the folder that images are looked for in."""
    if root.is_file():
        inner = root.parent.name == "annotations"
        return [root], root.parent.parent if inner else root.parent
    files = sorted([*root.glob("*.json"), *root.glob("annotations/*.json")])
    # The official archive has captions and key points in the same folder.
    files = [f for f in files if f.stem.startswith("instances_")] or files
    if not files:
        raise DatasetError(f"There is no annotation file in {root}. {REMEDY}")
    return files, root


def _read(file: Path, folder: Path) -> tuple[tuple[str, ...], list[Record]]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{file} cannot be read ({error.strerror}). {REMEDY}") from error
    categories = sorted(content["categories"], key=lambda category: int(category["id"]))
    names = tuple(str(category["name"]) for category in categories)
    if len(set(names)) != len(names):
        raise DatasetError(f"{file}: two categories have the same name.")
    index = {int(category["id"]): k for k, category in enumerate(categories)}
    boxes: dict[int, list[tuple[int, list[float]]]] = {}
    present: dict[int, set[int]] = {}
    for annotation in content["annotations"]:
        image, kind = int(annotation["image_id"]), index[int(annotation["category_id"])]
        present.setdefault(image, set()).add(kind)
        if not annotation.get("iscrowd"):
            where = f"{file}, annotation {annotation.get('id')}"
            box = parse_box(annotation["bbox"], where, sides=True)
            boxes.setdefault(image, []).append((kind, box))
    records = []
    for image in content["images"]:
        number, name = int(image["id"]), str(image["file_name"])
        labels = [float(k in present.get(number, ())) for k in range(len(names))]
        group = str(image.get("patient_id", name))
        path = _locate(folder, file, name)
        records.append(make_record(path, labels, boxes.get(number, ()), group))
    return names, records


def _locate(folder: Path, file: Path, name: str) -> Path:
    inner = file.stem.removeprefix("instances_")
    places = [folder / "images" / name, folder / inner / name, folder / "images" / inner / name]
    return next((place for place in places if is_file(place)), folder / name)
