"""What datasets in Pascal VOC layout share: lists of images and annotations in XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pylon_zoo.errors import DatasetError

__all__ = ["Objects", "read_names", "read_objects"]


class Objects(NamedTuple):
    """The objects of an annotation.

    Attributes:
        boxes: (N, 4) float32, as :class:`pylon_zoo.data.Sample` has them.
        classes: (N,) int64.
        difficult: (N,) bool: marked as hard to recognize.
        size: (width, height) of the image that they were drawn in; None where it is not said.
    """

    boxes: Tensor
    classes: Tensor
    difficult: Tensor
    size: tuple[int, int] | None


def read_names(path: Path, remedy: str) -> list[str]:
    """Names of a list of images: the first word of each line.

    Raises:
        DatasetError: the file is missing or no text.
    """
    return [line.split()[0] for line in _read(path, remedy).splitlines() if line.strip()]


def read_objects(path: Path, class_names: Sequence[str], remedy: str) -> Objects:
    """Read an annotation.

    Raises:
        DatasetError: the file is missing or damaged, or has an object of another class.
    """
    boxes: list[list[float]] = []
    classes: list[int] = []
    difficult: list[bool] = []
    try:
        root = ET.fromstring(_read(path, remedy))
        for found in root.iter("object"):
            x0, y0, x1, y1 = (
                float(found.findtext(f"bndbox/{corner}", ""))
                for corner in ("xmin", "ymin", "xmax", "ymax")
            )
            # Pascal VOC counts pixels from 1 and includes the last one.
            boxes.append([x0 - 1, y0 - 1, x1, y1])
            classes.append(class_names.index(found.findtext("name", "")))
            difficult.append(found.findtext("difficult", "0").strip() == "1")
        width, height = (int(root.findtext(f"size/{side}", "0")) for side in ("width", "height"))
    except (ET.ParseError, ValueError) as error:
        raise DatasetError(f"{path}: the annotation is damaged ({error}).") from error
    return Objects(
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(classes, dtype=torch.int64),
        torch.tensor(difficult, dtype=torch.bool),
        (width, height) if width > 0 and height > 0 else None,
    )


def _read(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path} cannot be read ({reason}). {remedy}") from error
