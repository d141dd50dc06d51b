"""Which part of a map is bright? A threshold from the map's own histogram."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylon_zoo.metrics.boxes import checked_maps

__all__ = ["otsu_masks"]

LEVELS = 256


def otsu_masks(maps: NDArray[Any]) -> NDArray[np.bool_]:
    """What exceeds the threshold that parts a map's values into the two most distinct classes.

    Each map is stretched from its least to its largest value over 256 levels, rounded down; of
    the thresholds that make the variance between what is above and what is not the largest (Otsu,
    IEEE Transactions on Systems, Man, and Cybernetics 1979), the lowest is taken.

    Args:
        maps: (N, H, W), finite and non-negative, e.g. probabilities.

    Returns:
        (N, H, W); all false for a map that is equal everywhere.

    Raises:
        InvalidInputError: a value is NaN, infinite or negative.
    """
    maps = checked_maps(maps)
    count = len(maps)
    flat = maps.reshape(count, -1)
    low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    stretched = (flat - low) / np.where(high > low, high - low, 1)
    level = (stretched * (LEVELS - 1)).astype(np.int64)
    cell = np.arange(count)[:, None] * LEVELS + level
    pixels = np.bincount(cell.ravel(), minlength=count * LEVELS).reshape(count, LEVELS)
    # Of the pixels up to each level: how many, and the sum of their levels.
    below = np.cumsum(pixels, axis=1, dtype=np.float64)
    total = np.cumsum(pixels * np.arange(LEVELS), axis=1, dtype=np.float64)
    above = below[:, -1:] - below
    apart = total[:, -1:] * below - total * below[:, -1:]
    variance = apart**2 / np.where(below * above > 0, below * above, np.inf)
    bright: NDArray[np.bool_] = level > variance.argmax(axis=1)[:, None]
    return bright.reshape(maps.shape)
