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
    # The first of the highest rows, and the first of its highest pixels: a maximum without its
    # place is several times cheaper to find.
    score, y = maps.amax(dim=3).max(dim=2)
    row = maps.gather(2, y[..., None, None].expand(-1, -1, 1, maps.shape[3]))
    x = row[:, :, 0].argmax(dim=2)
    return Peaks(torch.stack([x, y], dim=-1), score)
