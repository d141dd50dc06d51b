"""The one form in which an image and what is known of it travel through the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pylon_zoo.errors import InvalidInputError

__all__ = ["LocalizationDataset", "Sample", "empty_boxes", "resize_masks"]


def empty_boxes() -> Tensor:
    """No boxes: a (0, 4) float32 tensor."""
    return torch.zeros(0, 4)


def _no_classes() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


def resize_masks(masks: Tensor, height: int, width: int) -> Tensor:
    """(M, H, W) masks at another size: each pixel takes the one that its centre lies in."""
    rows, columns = (
        ((2 * torch.arange(new) + 1) * old) // (2 * new)
        for new, old in zip((height, width), masks.shape[-2:], strict=True)
    )
    return masks[:, rows[:, None], columns]


@dataclass(frozen=True)
class Sample:
    """An image, its image-level labels, and where each finding is.

    Boxes are (x0, y0, x1, y1) in pixels of ``image``, as floats, edges between pixels: a box that
    covers exactly the top left pixel is (0, 0, 1, 1). A dataset that counts otherwise converts at
    its door.

    Attributes:
        image: (C, H, W); uint8 or uint16 over the whole range of the type, or float32 in [0, 1].
        labels: (K,) float32: 1 present, 0 absent, NaN unknown.
        boxes: (N, 4) float32.
        box_classes: (N,) int64, the class of each box.
        points: (P, 2) float32, (x, y) in pixels.
        point_classes: (P,) int64, the class of each point.
        masks: (M, H, W) bool, true on the finding, in pixels of ``image``.
        mask_classes: (M,) int64, the class of each mask.
        source: the file, or whatever else names the image in an error message.
        size: (height, width) of the image as it was stored, before any transform.
        group: what must not straddle splits and is resampled as one, e.g. the patient.
    """

    image: Tensor
    labels: Tensor
    boxes: Tensor = field(default_factory=empty_boxes)
    box_classes: Tensor = field(default_factory=_no_classes)
    points: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    point_classes: Tensor = field(default_factory=_no_classes)
    masks: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0, dtype=torch.bool))
    mask_classes: Tensor = field(default_factory=_no_classes)
    source: str = ""
    size: tuple[int, int] = (0, 0)
    group: str = ""

    def __post_init__(self) -> None:
        if self.image.ndim != 3:
            raise InvalidInputError(
                f"{self.source or 'A sample'}: an image is (channels, height, width); "
                f"got shape {tuple(self.image.shape)}."
            )
        if self.boxes.shape != (len(self.box_classes), 4):
            raise InvalidInputError(
                f"{self.source or 'A sample'}: boxes of shape {tuple(self.boxes.shape)} with "
                f"{len(self.box_classes)} classes; boxes are (N, 4) with N classes."
            )
        if not len(self.masks) and not len(self.mask_classes):
            # No masks fit an image of any size.
            object.__setattr__(self, "masks", self.masks.new_zeros(0, self.height, self.width))
        expected = (len(self.mask_classes), self.height, self.width)
        if self.masks.dtype != torch.bool or self.masks.shape != expected:
            raise InvalidInputError(
                f"{self.source or 'A sample'}: masks of shape {tuple(self.masks.shape)} and "
                f"{self.masks.dtype} with {len(self.mask_classes)} classes, in an image of "
                f"{self.width} x {self.height} px; masks are (M, H, W) of bool with M classes, of "
                f"the image's size."
            )
        if self.size == (0, 0):
            object.__setattr__(self, "size", (self.height, self.width))

    def class_masks(self) -> Tensor:
        """For each class the union of its masks, (K, H, W) bool; all false where it has none."""
        united = torch.zeros(len(self.labels), self.height, self.width, dtype=torch.bool)
        for k, mask in zip(self.mask_classes.tolist(), self.masks, strict=True):
            united[k] |= mask
        return united

    @property
    def height(self) -> int:
        """Rows of the image as it is now."""
        return int(self.image.shape[-2])

    @property
    def width(self) -> int:
        """Columns of the image as it is now."""
        return int(self.image.shape[-1])


@runtime_checkable
class LocalizationDataset(Protocol):
    """What training and evaluation need of a dataset."""

    @property
    def class_names(self) -> Sequence[str]:
        """K names, in the order of the labels."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
