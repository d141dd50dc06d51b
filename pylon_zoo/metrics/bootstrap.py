"""Percentile bootstrap intervals over groups (patients, images), vectorized over replicates."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "group_weights", "percentile_interval"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95 % bootstrap interval and what chance would give.

    NaN where nothing could be measured.
    """

    value: float
    low: float
    high: float
    chance: float
    support: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: None for NaN."""
        return {k: None if math.isnan(v) else v for k, v in asdict(self).items()}


def group_weights(groups: NDArray[Any], replicates: int, seed: int) -> Floats:
    """How often each row is drawn in each replicate when whole groups are resampled.

    Rows of one group (tiles of an image, images of a patient) are not independent: resampling
    them one by one would make intervals too narrow.

    Args:
        groups: (N,) group of each row.
        replicates: R.
        seed: of the resampling.

    Returns:
        (R, N) counts.
    """
    _, inverse = np.unique(groups, return_inverse=True)
    count = int(inverse.max()) + 1 if len(inverse) else 0
    if count == 0:
        return np.zeros((replicates, 0))
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(count, np.full(count, 1 / count), size=replicates)
    return np.asarray(counts[:, inverse], dtype=np.float64)


def percentile_interval(replicates: Floats, coverage: float = 0.95) -> tuple[Floats, Floats]:
    """Lower and upper percentiles over the first axis, leaving out replicates that are NaN."""
    tail = (1 - coverage) / 2
    with np.errstate(all="ignore"):
        bounds = [_nanquantile(replicates, q) for q in (tail, 1 - tail)]
    return bounds[0], bounds[1]


def _nanquantile(values: Floats, q: float) -> Floats:
    # numpy's own nanquantile warns on columns that are all NaN, which a rare class may be.
    columns = values.reshape(len(values), -1)
    result = np.full(columns.shape[1], np.nan)
    for index, column in enumerate(columns.T):
        known = column[~np.isnan(column)]
        if len(known):
            result[index] = np.quantile(known, q)
    return result.reshape(values.shape[1:])
