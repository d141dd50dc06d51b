"""Percentile bootstrap intervals over groups (patients, images), vectorized over replicates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "bootstrap", "percentile_interval", "rates_report"]

Floats = NDArray[np.float64]

#: Numbers that are held at once, so that memory does not grow with replicates times rows.
BLOCK = 2_000_000


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


def bootstrap(
    measure: Callable[[Floats], Floats],
    groups: Sequence[str] | NDArray[Any],
    *,
    replicates: int,
    seed: int,
    held: int = 0,
) -> Floats:
    """Measure replicates in which whole groups are resampled.

    Rows of one group (tiles of an image, images of a patient) are not independent: resampling
    them one by one would make intervals too narrow.

    Args:
        measure: given (r, N), how often each row is drawn in each of r replicates, it returns
            (r, ...).
        groups: (N,) group of each row.
        replicates: R.
        seed: of the resampling.
        held: numbers that ``measure`` holds for each replicate, if more than N.

    Returns:
        (R, ...).
    """
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    count = int(inverse.max()) + 1 if len(inverse) else 0
    rng = np.random.default_rng(seed)
    at_once = min(max(BLOCK // max(len(inverse), held, 1), 1), replicates)
    parts = []
    for start in range(0, replicates, at_once):
        draws = min(at_once, replicates - start)
        if count:
            drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws)
            weights = drawn[:, inverse].astype(np.float64)
        else:
            weights = np.zeros((draws, 0))
        parts.append(measure(weights))
    return np.concatenate(parts)


def mean_over(values: Floats, share: Floats | float = 1.0) -> Floats:
    """Mean over the last axis, weighted, leaving out NaN; NaN where nothing is left."""
    share = np.where(np.isnan(values), 0.0, share)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((np.nan_to_num(values) * share).sum(-1) / share.sum(-1))


def estimate(value: Floats, draws: Floats, chance: Floats, support: int) -> dict[str, Any]:
    """One number, given the (R,) replicates of it, as :meth:`Estimate.to_dict` writes it."""
    low, high = percentile_interval(draws)
    return Estimate(float(value), float(low), float(high), float(chance), support).to_dict()


def rates_report(
    values: Floats,
    chance: Floats,
    class_names: Sequence[str],
    groups: Sequence[str] | NDArray[Any],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Means over pairs of an image and a class, with intervals.

    Args:
        values: (N, K) in [0, 1], NaN where there is no such pair.
        chance: (N, K) what chance would give, NaN in the same places.
        class_names: K names.
        groups: (N,) what is resampled as one.
        replicates: bootstrap replicates.
        seed: of the bootstrap.

    Returns:
        ``micro`` (over all pairs), ``macro`` (mean over classes) and ``per_class``, each with
        value, low, high, chance and support (pairs).
    """
    known = (~np.isnan(values)).astype(np.float64)

    def rates(found: Floats, rows: Floats) -> Floats:
        """(r, 2 + K): micro, macro and per class."""
        total, pairs = rows @ np.nan_to_num(found), rows @ known
        with np.errstate(invalid="ignore", divide="ignore"):
            per_class = total / pairs
            micro = total.sum(axis=1) / pairs.sum(axis=1)
        return np.column_stack([micro, mean_over(per_class), per_class])

    every = np.ones((1, len(values)))
    value, by_chance = rates(values, every)[0], rates(chance, every)[0]
    draws = bootstrap(lambda rows: rates(values, rows), groups, replicates=replicates, seed=seed)
    support = known.sum(axis=0).astype(int)
    counts = [int(support.sum())] * 2 + support.tolist()
    table = [estimate(value[at], draws[:, at], by_chance[at], n) for at, n in enumerate(counts)]
    return {
        "micro": table[0],
        "macro": table[1],
        "per_class": dict(zip(class_names, table[2:], strict=True)),
    }


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
