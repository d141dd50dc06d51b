"""Boxes around what is bright in a map, and how well boxes overlap."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics.bootstrap import Floats

__all__ = ["ComponentBoxes", "box_iou", "boxes_from_maps", "component_boxes"]

Ints = NDArray[np.int64]


class ComponentBoxes(NamedTuple):
    """Boxes of connected components.

    Attributes:
        boxes: (M, 4) as (x0, y0, x1, y1) in pixels, edges between pixels.
        mask: (M,) the index of the mask that each box is of, rising.
    """

    boxes: Floats
    mask: Ints


def component_boxes(masks: NDArray[Any]) -> ComponentBoxes:
    """The tightest boxes around the 8-connected components of (N, H, W) masks.

    Every row is cut into runs; runs of neighbouring rows that touch are merged by handing the
    smallest number on until nothing changes. No loop over pixels, masks or components.
    """
    masks = np.asarray(masks, dtype=bool)
    if masks.ndim != 3:
        raise InvalidInputError(f"Masks are (N, H, W); got shape {masks.shape}.")
    count, height, width = masks.shape
    # One number line on which rows lie one after another, a gap after each row and each image.
    padded = np.zeros((count, height + 1, width + 2), dtype=bool)
    padded[:, :height, 1:-1] = masks
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = edges[::2], edges[1::2]
    line, start = np.divmod(starts, width + 2)
    end = ends - line * (width + 2)
    image, row = np.divmod(line, height + 1)
    first = np.searchsorted(ends, starts + width + 2, side="left")
    last = np.searchsorted(starts, ends + width + 2, side="right")
    touching = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(line)), touching)
    offset = np.arange(touching.sum()) - np.repeat(np.cumsum(touching) - touching, touching)
    lower = np.repeat(first, touching) + offset
    name = np.arange(len(line))
    while True:
        smaller = np.minimum(name[upper], name[lower])
        merged = name.copy()
        for side in (upper, lower):
            np.minimum.at(merged, name[side], smaller)
            np.minimum.at(merged, side, smaller)
        merged = merged[merged]
        if np.array_equal(merged, name):
            break
        name = merged
    _, component = np.unique(name, return_inverse=True)
    total = int(component.max()) + 1 if len(component) else 0
    boxes = np.tile([np.inf, np.inf, -np.inf, -np.inf], (total, 1))
    for column, function, values in (
        (0, np.minimum, start),
        (1, np.minimum, row),
        (2, np.maximum, end),
        (3, np.maximum, row + 1),
    ):
        function.at(boxes[:, column], component, values)
    owner = np.zeros(total, dtype=np.int64)
    owner[component] = image
    return ComponentBoxes(boxes, owner)


def boxes_from_maps(maps: NDArray[Any], threshold: float = 0.5) -> ComponentBoxes:
    """Boxes around the components of each map that exceed a part of its own maximum.

    Args:
        maps: (N, H, W), finite and non-negative, e.g. probabilities.
        threshold: part of a map's maximum, in [0, 1).

    Returns:
        Boxes and the index of the map that each is of; none for a map that is 0 throughout.

    Raises:
        InvalidInputError: a value is NaN, infinite or negative.
    """
    maps = checked_maps(maps)
    highest = maps.max(axis=(1, 2), keepdims=True, initial=0)
    return component_boxes((maps > threshold * highest) & (highest > 0))


def checked_maps(maps: NDArray[Any]) -> Floats:
    """(N, H, W) maps as float64; :class:`InvalidInputError` for NaN, infinity, negative values."""
    maps = np.asarray(maps, dtype=np.float64)
    if maps.ndim != 3:
        raise InvalidInputError(f"Maps are (N, H, W); got shape {maps.shape}.")
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise InvalidInputError(
            "Maps must be finite and not negative, e.g. probabilities; apply a sigmoid first."
        )
    return maps


def box_iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union of (M, 4) with (N, 4) boxes: (M, N); 0 where both are empty."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(b[:, 2:] - b[:, :2]).clip(0).prod(-1) for b in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(shared / np.where(union > 0, union, 1))
