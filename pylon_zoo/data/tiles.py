"""Tiles: a weakly supervised task from a dataset whose whole images hold every class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pylon_zoo.data.sample import LocalizationDataset, Sample
from pylon_zoo.data.seeds import generator_for
from pylon_zoo.errors import InvalidInputError

__all__ = ["Tiles", "cut", "grid_positions"]


def cut(sample: Sample, x: int, y: int, size: int, min_visible: float = 0.5) -> Sample:
    """Cut the square tile at (x, y) and recompute its image-level labels.

    A box or mask counts when at least ``min_visible`` of its area is inside the tile (a point when
    it is inside at all); what counts is clipped to the tile, the rest is dropped. A class that
    counts nowhere in the tile is labelled 0; a label unknown for the image (NaN) stays unknown.

    Raises:
        InvalidInputError: the tile leaves the image.
    """
    if not (0 <= x <= sample.width - size and 0 <= y <= sample.height - size):
        raise InvalidInputError(
            f"{sample.source}: a tile of {size} px at ({x}, {y}) leaves the image of "
            f"{sample.width} x {sample.height} px; choose a smaller tile or resize the image."
        )
    offset = torch.tensor([x, y, x, y], dtype=torch.float32)
    clipped = (sample.boxes - offset).clamp(0, size)
    area = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(dim=1)
    visible = (clipped[:, 2:] - clipped[:, :2]).prod(dim=1)
    keep = (visible >= min_visible * area) & (visible > 0)
    points = sample.points - offset[:2]
    inside = ((points >= 0) & (points < size)).all(dim=1)
    masks = sample.masks[:, y : y + size, x : x + size]
    area, visible = (m.flatten(1).sum(dim=1) for m in (sample.masks, masks))
    seen = (visible >= min_visible * area) & (visible > 0)
    labels = torch.where(sample.labels.isnan(), sample.labels, torch.zeros_like(sample.labels))
    labels[sample.box_classes[keep]] = 1
    labels[sample.point_classes[inside]] = 1
    labels[sample.mask_classes[seen]] = 1
    return replace(
        sample,
        image=sample.image[:, y : y + size, x : x + size],
        labels=labels,
        boxes=clipped[keep],
        box_classes=sample.box_classes[keep],
        points=points[inside],
        point_classes=sample.point_classes[inside],
        masks=masks[seen],
        mask_classes=sample.mask_classes[seen],
    )


def grid_positions(length: int, size: int) -> list[int]:
    """Starts of the fewest tiles of ``size`` that cover ``length``, evenly spread."""
    count = -(-length // size)
    if count == 1:
        return [0]
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


class Tiles:
    """Tiles of a dataset's images.

    With ``positions="grid"`` each image is covered by a fixed grid, the last tiles overlapping
    their neighbours where the side is no multiple of the tile. With ``"random"`` item ``i`` is one
    tile of image ``i % len(dataset)``, at a place that ``(seed, i)`` decides: any index, however
    large, is a tile, so training never runs out of them.
    """

    def __init__(
        self,
        dataset: LocalizationDataset,
        size: int = 256,
        *,
        positions: str = "grid",
        min_visible: float = 0.5,
        length: int | None = None,
        seed: int = 0,
    ) -> None:
        """Lay out the tiles.

        Args:
            dataset: whole images with boxes, points or masks.
            size: side of a tile in pixels.
            positions: ``"grid"`` or ``"random"``.
            min_visible: part of a box's area that must be inside for it to count.
            length: what ``len`` says of random tiles; None means one an image.
            seed: of the random places.
        """
        self.dataset = dataset
        self.size = size
        self.positions = positions
        self.min_visible = min_visible
        self.length = len(dataset) if length is None else length
        self.seed = seed
        self._grid: list[tuple[int, int, int]] = []
        if positions == "grid":
            for index in range(len(dataset)):
                sample = dataset[index]
                self._grid += [
                    (index, x, y)
                    for y in grid_positions(sample.height, size)
                    for x in grid_positions(sample.width, size)
                ]

    @property
    def class_names(self) -> Sequence[str]:
        """The dataset's."""
        return self.dataset.class_names

    def __len__(self) -> int:
        return len(self._grid) if self.positions == "grid" else self.length

    def __getitem__(self, index: int) -> Sample:
        if self.positions == "grid":
            image, x, y = self._grid[index]
            return cut(self.dataset[image], x, y, self.size, self.min_visible)
        sample = self.dataset[index % len(self.dataset)]
        generator = generator_for(self.seed, index)
        room = (sample.width - self.size, sample.height - self.size)
        x, y = (int(torch.randint(max(r, 0) + 1, (), generator=generator)) for r in room)
        return cut(sample, x, y, self.size, self.min_visible)
