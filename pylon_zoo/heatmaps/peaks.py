"""The highest place of a map."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Peaks", "find_peaks"]


class Peaks(NamedTuple):
    """Highest pixel of each map.

    Attributes:
        xy: (B, K, 2) int64, (x, y) pixel indices from 0.
        score: (B, K), the map's value there.
    """

    xy: Tensor
    score: Tensor


def find_peaks(maps: Tensor) -> Peaks:
    """The arg-max of (B, K, H, W) maps; of equal pixels the first in reading order."""
    score, index = maps.flatten(2).max(dim=2)
    width = maps.shape[-1]
    return Peaks(torch.stack([index % width, index // width], dim=-1), score)
