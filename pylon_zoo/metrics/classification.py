"""Area under the ROC curve, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics.bootstrap import Estimate, Floats, group_weights, percentile_interval

__all__ = ["auroc", "auroc_report"]


def auroc(labels: Floats, scores: Floats, weights: Floats | None = None) -> Floats:
    """Area under the ROC curve of one class: P(positive scores higher) + P(equal) / 2.

    Args:
        labels: (N,) of 1, 0 and NaN; NaN (unknown) is left out.
        scores: (N,) finite; larger means more likely present.
        weights: (R, N) non-negative weights of the rows, one result for each of the R; None
            means one result with equal weights.

    Returns:
        (R,), or () without weights; NaN where either label is missing.

    Raises:
        InvalidInputError: shapes differ, a score is NaN or infinite, a label is neither 0 nor 1.
    """
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise InvalidInputError(
            f"labels and scores must both be (N,); got {labels.shape} and {scores.shape}."
        )
    if not np.isfinite(scores).all():
        raise InvalidInputError("Scores must be finite; got NaN or infinity.")
    known = ~np.isnan(labels)
    if not np.isin(labels[known], (0, 1)).all():
        raise InvalidInputError("Labels must be 0, 1 or NaN (unknown).")
    rows = np.ones((1, len(labels))) if weights is None else np.asarray(weights, np.float64)
    labels, scores, rows = labels[known], scores[known], rows[:, known]
    order = np.argsort(scores, kind="stable")
    labels, scores, rows = labels[order], scores[order], rows[:, order]
    if len(scores):
        # Equal scores form one step of the curve.
        starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
        positive = np.add.reduceat(rows * labels, starts, axis=1)
        negative = np.add.reduceat(rows * (1 - labels), starts, axis=1)
    else:
        positive = negative = rows
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
    return np.asarray(area if weights is not None else area[0])


def auroc_report(
    labels: Floats,
    scores: Floats,
    class_names: Sequence[str],
    groups: NDArray[Any],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """AUROC per class, its macro mean and its mean weighted by positives, with intervals.

    Args:
        labels: (N, K) of 1, 0 and NaN.
        scores: (N, K) finite.
        class_names: K names.
        groups: (N,) what is resampled as one, e.g. the patient or the image of a tile.
        replicates: bootstrap replicates.
        seed: of the bootstrap.

    Returns:
        ``macro``, ``weighted`` and ``per_class`` with value, low, high, chance and support (the
        number of positives); per class also ``negatives``. Classes of which only one label occurs
        have no AUROC and are left out of the means.
    """
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    weights = group_weights(groups, replicates, seed)
    columns = range(len(class_names))
    values = np.array([auroc(labels[:, k], scores[:, k]) for k in columns])
    draws = np.stack([auroc(labels[:, k], scores[:, k], weights) for k in columns], axis=1)
    positives = np.nansum(labels == 1, axis=0).astype(int)
    negatives = np.nansum(labels == 0, axis=0).astype(int)

    def mean(per_class: Floats, by_support: bool) -> Floats:
        share = np.where(np.isnan(per_class), 0.0, positives if by_support else 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((np.nan_to_num(per_class) * share).sum(-1) / share.sum(-1))

    def estimate(value: Floats, replicate: Floats, support: int) -> dict[str, Any]:
        low, high = percentile_interval(replicate)
        return Estimate(float(value), float(low), float(high), 0.5, support).to_dict()

    total = int(positives.sum())
    return {
        "macro": estimate(mean(values, False), mean(draws, False), total),
        "weighted": estimate(mean(values, True), mean(draws, True), total),
        "per_class": {
            name: estimate(values[k], draws[:, k], int(positives[k]))
            | {"negatives": int(negatives[k])}
            for k, name in enumerate(class_names)
        },
    }
