"""Ranking (AUROC, average precision), calibration and operating points, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics.bootstrap import Estimate, Floats, group_weights, percentile_interval

__all__ = [
    "auroc",
    "auroc_report",
    "average_precision",
    "average_precision_report",
    "calibration_error",
    "calibration_report",
    "operating_points",
    "operating_points_report",
]

Measure = Callable[[Floats, Floats, Floats | None], Floats]


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
    labels, scores, rows = _checked(labels, scores, weights)
    positive, negative = _steps(labels, scores, rows)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        area = (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
    return np.asarray(area if weights is not None else area[0])


def _checked(
    labels: Floats, scores: Floats, weights: Floats | None
) -> tuple[Floats, Floats, Floats]:
    """Known labels (n,), their scores (n,) and weights (R, n)."""
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
    return labels[known], scores[known], rows[:, known]


def _steps(labels: Floats, scores: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives (R, S) at each different score, scores rising."""
    if not len(scores):
        return rows, rows
    order = np.argsort(scores, kind="stable")
    labels, scores, rows = labels[order], scores[order], rows[:, order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    return (
        np.add.reduceat(rows * labels, starts, axis=1),
        np.add.reduceat(rows * (1 - labels), starts, axis=1),
    )


def average_precision(labels: Floats, scores: Floats, weights: Floats | None = None) -> Floats:
    """Average precision of one class: the mean, over positives, of the precision at their score.

    Not interpolated; equal scores form one step. Arguments, shapes and errors are those of
    :func:`auroc`; NaN where there is no positive.
    """
    labels, scores, rows = _checked(labels, scores, weights)
    positive, negative = (part[:, ::-1] for part in _steps(labels, scores, rows))
    found = np.cumsum(positive, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(found / (found + np.cumsum(negative, axis=1)))
        mean = (precision * positive).sum(axis=1) / positive.sum(axis=1)
    return np.asarray(mean if weights is not None else mean[0])


def calibration_error(
    labels: Floats, probabilities: Floats, weights: Floats | None = None, *, bins: int = 15
) -> Floats:
    """Expected calibration error of one class (Naeini et al., AAAI 2015; Guo et al., ICML 2017).

    The mean, over images, of the distance between the mean probability and the part of positives
    in the image's bin, of ``bins`` of equal width.

    Args:
        labels: (N,) of 1, 0 and NaN; NaN (unknown) is left out.
        probabilities: (N,) in [0, 1].
        weights: (R, N), as in :func:`auroc`.
        bins: number of bins.

    Raises:
        InvalidInputError: as in :func:`auroc`, or a probability lies outside [0, 1].
    """
    labels, scores, rows = _checked(labels, probabilities, weights)
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        raise InvalidInputError("Probabilities must lie in [0, 1]; apply a sigmoid first.")
    bin_of = np.minimum((scores * bins).astype(int), bins - 1)
    inside = (bin_of[:, None] == np.arange(bins)).astype(np.float64)
    gap = np.abs((rows * (scores - labels)) @ inside).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = gap / rows.sum(axis=1)
    return np.asarray(error if weights is not None else error[0])


def operating_points(
    labels: Floats, scores: Floats, specificity: float = 0.9
) -> dict[str, dict[str, float]]:
    """Thresholds of one class, a score at or above being called positive.

    Args:
        labels: (N,) of 1, 0 and NaN.
        scores: (N,) finite.
        specificity: what is asked of the second point, in [0, 1].

    Returns:
        ``youden``, the threshold of the largest sensitivity + specificity - 1 (Youden 1950), of
        equal ones the highest; and ``specificity``, the lowest threshold that has at least the
        specificity asked for. Each with ``threshold``, ``sensitivity`` and ``specificity``;
        NaN where either label is missing. Where only calling nothing positive is specific enough,
        the threshold is infinite.
    """
    labels, scores, rows = _checked(labels, scores, None)
    positive, negative = (part[0] for part in _steps(labels, scores, rows))
    if not positive.sum() or not negative.sum():
        none = dict.fromkeys(("threshold", "sensitivity", "specificity"), float("nan"))
        return {"youden": dict(none), "specificity": dict(none)}
    thresholds = np.r_[np.unique(scores), np.inf]
    missed = np.r_[0, np.cumsum(positive)] / positive.sum()
    spared = np.r_[0, np.cumsum(negative)] / negative.sum()
    best = len(thresholds) - 1 - int(np.argmax((spared - missed)[::-1]))
    # Sums of reals may end a hair below what they stand for.
    enough = int(np.argmax(spared >= specificity - 1e-12))
    return {
        name: {
            "threshold": float(thresholds[at]),
            "sensitivity": float(1 - missed[at]),
            "specificity": float(spared[at]),
        }
        for name, at in (("youden", best), ("specificity", enough))
    }


def _report(
    measure: Measure,
    labels: Floats,
    scores: Floats,
    class_names: Sequence[str],
    groups: NDArray[Any],
    chance: Floats,
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """A measure per class and its means, each with its interval; see :func:`auroc_report`."""
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    weights = group_weights(groups, replicates, seed)
    columns = range(len(class_names))
    values = np.array([measure(labels[:, k], scores[:, k], None) for k in columns])
    draws = np.stack([measure(labels[:, k], scores[:, k], weights) for k in columns], axis=1)
    positives = np.nansum(labels == 1, axis=0).astype(int)
    negatives = np.nansum(labels == 0, axis=0).astype(int)

    def mean(per_class: Floats, by_support: bool) -> Floats:
        share = np.where(np.isnan(per_class), 0.0, positives if by_support else 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((np.nan_to_num(per_class) * share).sum(-1) / share.sum(-1))

    def estimate(value: Floats, replicate: Floats, by_chance: Floats, n: int) -> dict[str, Any]:
        low, high = percentile_interval(replicate)
        return Estimate(float(value), float(low), float(high), float(by_chance), n).to_dict()

    chance = np.where(np.isnan(values), np.nan, chance)
    total = int(positives.sum())
    return {
        name: estimate(
            mean(values, by_support), mean(draws, by_support), mean(chance, by_support), total
        )
        for name, by_support in (("macro", False), ("weighted", True))
    } | {
        "per_class": {
            name: estimate(values[k], draws[:, k], chance[k], int(positives[k]))
            | {"negatives": int(negatives[k])}
            for k, name in enumerate(class_names)
        },
    }


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
    chance = np.full(len(class_names), 0.5)
    return _report(auroc, labels, scores, class_names, groups, chance, replicates, seed)


def average_precision_report(
    labels: Floats,
    scores: Floats,
    class_names: Sequence[str],
    groups: NDArray[Any],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Average precision as :func:`auroc_report` has AUROC; chance is the part of positives."""
    known = np.asarray(labels, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        chance = (known == 1).sum(axis=0) / (~np.isnan(known)).sum(axis=0)
    return _report(average_precision, labels, scores, class_names, groups, chance, replicates, seed)


def calibration_report(
    labels: Floats,
    probabilities: Floats,
    class_names: Sequence[str],
    groups: NDArray[Any],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Expected calibration error as :func:`auroc_report` has AUROC; it has no chance level."""
    chance = np.full(len(class_names), np.nan)
    return _report(
        calibration_error, labels, probabilities, class_names, groups, chance, replicates, seed
    )


def operating_points_report(
    labels: Floats, logits: Floats, class_names: Sequence[str], chosen_on: str
) -> dict[str, Any]:
    """Operating points of each class, thresholds as probabilities.

    Args:
        labels: (N, K) of 1, 0 and NaN.
        logits: (N, K) finite.
        class_names: K names.
        chosen_on: the split that the rows are of; on itself a chosen threshold looks too good.
    """
    points = {
        name: operating_points(np.asarray(labels)[:, k], np.asarray(logits)[:, k])
        for k, name in enumerate(class_names)
    }
    for point in (point for of_class in points.values() for point in of_class.values()):
        point["threshold"] = float(1 / (1 + np.exp(-np.clip(point["threshold"], -700, 700))))
    return {
        "chosen_on": chosen_on,
        "asked_specificity": 0.9,
        "per_class": {
            name: {
                kind: {key: None if np.isnan(v) else v for key, v in point.items()}
                for kind, point in of_class.items()
            }
            for name, of_class in points.items()
        },
    }
