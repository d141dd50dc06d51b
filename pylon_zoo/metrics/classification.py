"""Ranking (AUROC, average precision), calibration and operating points, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics.accumulator import Accumulator
from pylon_zoo.metrics.bootstrap import (
    Floats,
    bootstrap,
    estimate,
    mean_over,
    percentile_interval,
    rates_report,
)

__all__ = [
    "ClassScores",
    "auroc",
    "auroc_report",
    "average_precision",
    "average_precision_report",
    "brier_report",
    "brier_score",
    "calibration_error",
    "calibration_report",
    "operating_points",
    "operating_points_report",
    "roc_curve",
    "roc_report",
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
    if known.all():
        return labels, scores, rows
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
    labels, scores, rows = _probable(labels, probabilities, weights)
    bin_of = np.minimum((scores * bins).astype(int), bins - 1)
    inside = (bin_of[:, None] == np.arange(bins)).astype(np.float64)
    gap = np.abs((rows * (scores - labels)) @ inside).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = gap / rows.sum(axis=1)
    return np.asarray(error if weights is not None else error[0])


def brier_score(labels: Floats, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Mean squared distance of probability and label of one class (Brier, 1950).

    It falls with better calibration and with better ranking. Arguments, shapes and errors are those
    of :func:`calibration_error`; NaN where there is no image.
    """
    labels, scores, rows = _probable(labels, probabilities, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = rows @ (scores - labels) ** 2 / rows.sum(axis=1)
    return np.asarray(mean if weights is not None else mean[0])


def _probable(
    labels: Floats, probabilities: Floats, weights: Floats | None
) -> tuple[Floats, Floats, Floats]:
    """As :func:`_checked`, of scores in [0, 1]."""
    labels, scores, rows = _checked(labels, probabilities, weights)
    if len(scores) and not (scores.min() >= 0 and scores.max() <= 1):
        raise InvalidInputError("Probabilities must lie in [0, 1]; apply a sigmoid first.")
    return labels, scores, rows


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
    below = np.r_[0, np.cumsum(positive)], np.r_[0, np.cumsum(negative)]
    missed, spared = below[0] / positive.sum(), below[1] / negative.sum()
    # In whole numbers, so that what is equal compares as equal.
    gain = below[1] * positive.sum() - below[0] * negative.sum()
    best = len(thresholds) - 1 - int(np.argmax(gain[::-1]))
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


def roc_curve(
    labels: Floats, scores: Floats, weights: Floats | None = None, *, at: Floats
) -> Floats:
    """Sensitivity of one class at given rates of false positives (1 - specificity).

    Straight between the points of different scores, so that the area under the whole curve is
    :func:`auroc`; where it rises upright, its upper end.

    Args:
        labels: (N,) of 1, 0 and NaN; NaN (unknown) is left out.
        scores: (N,) finite; larger means more likely present.
        weights: (R, N), as in :func:`auroc`.
        at: (G,) rates in [0, 1].

    Returns:
        (R, G), or (G,) without weights; NaN where either label is missing.

    Raises:
        InvalidInputError: as in :func:`auroc`.
    """
    labels, scores, rows = _checked(labels, scores, weights)
    positive, negative = (part[:, ::-1] for part in _steps(labels, scores, rows))
    curves = np.full((len(rows), len(at)), np.nan)
    found, mistaken = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
    for curve, hits, errors in zip(curves, found, mistaken, strict=True):
        if len(hits) and hits[-1] and errors[-1]:
            curve[:] = np.interp(at, np.r_[0, errors] / errors[-1], np.r_[0, hits] / hits[-1])
    return curves if weights is not None else curves[0]


def _prevalence(labels: Floats) -> Floats:
    """The part of positives of each class among its known labels, (N, K) -> (K,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((labels == 1).sum(axis=0) / (~np.isnan(labels)).sum(axis=0))


def _report(
    measure: Measure,
    labels: Floats,
    scores: Floats,
    class_names: Sequence[str],
    groups: NDArray[Any],
    chance: Callable[[Floats], Floats],
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """A measure per class and its means, each with its interval; see :func:`auroc_report`."""
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    classes = len(class_names)
    positives, negatives = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)

    def measures(rows: Floats | None) -> Floats:
        """(r, 3 + K): micro, macro, weighted and per class."""
        rows = np.ones((1, len(labels))) if rows is None else rows
        pooled = measure(labels.ravel(), scores.ravel(), np.repeat(rows, classes, axis=1))
        per_class = np.stack(
            [measure(labels[:, k], scores[:, k], rows) for k in range(classes)], axis=1
        )
        means = mean_over(per_class), mean_over(per_class, positives)
        return np.column_stack([pooled, *means, per_class])

    value = measures(None)[0]
    draws = bootstrap(measures, groups, replicates=replicates, seed=seed, held=labels.size)
    per_class = np.where(np.isnan(value[3:]), np.nan, chance(labels))
    pooled = chance(labels.reshape(-1, 1))[0] if not np.isnan(value[0]) else np.nan
    by_chance = [pooled, mean_over(per_class), mean_over(per_class, positives), *per_class]
    counts = [
        *[(int(positives.sum()), int(negatives.sum()))] * 3,
        *zip(positives.tolist(), negatives.tolist(), strict=True),
    ]
    table = [
        estimate(value[at], draws[:, at], by_chance[at], n) | {"negatives": absent}
        for at, (n, absent) in enumerate(counts)
    ]
    return dict(zip(("micro", "macro", "weighted"), table[:3], strict=True)) | {
        "per_class": dict(zip(class_names, table[3:], strict=True))
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
    """AUROC per class, its means, and of all classes pooled, with intervals.

    Args:
        labels: (N, K) of 1, 0 and NaN.
        scores: (N, K) finite.
        class_names: K names.
        groups: (N,) what is resampled as one, e.g. the patient or the image of a tile.
        replicates: bootstrap replicates.
        seed: of the bootstrap.

    Returns:
        ``micro`` (over all pairs of an image and a class at once), ``macro`` (mean over classes),
        ``weighted`` (mean weighted by positives) and ``per_class``, each with value, low, high,
        chance, support (the number of positives) and ``negatives``. Classes of which only one
        label occurs have no AUROC and are left out of the means.
    """

    def chance(known: Floats) -> Floats:
        return np.full(known.shape[1], 0.5)

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
    return _report(
        average_precision, labels, scores, class_names, groups, _prevalence, replicates, seed
    )


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

    def chance(known: Floats) -> Floats:
        return np.full(known.shape[1], np.nan)

    return _report(
        calibration_error, labels, probabilities, class_names, groups, chance, replicates, seed
    )


def brier_report(
    labels: Floats,
    probabilities: Floats,
    class_names: Sequence[str],
    groups: NDArray[Any],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Brier score as :func:`auroc_report` has AUROC; chance always answers the part of positives.

    That answer is calibrated, and tells no image from another.
    """

    def chance(known: Floats) -> Floats:
        share = _prevalence(known)
        return np.asarray(share * (1 - share))

    return _report(
        brier_score, labels, probabilities, class_names, groups, chance, replicates, seed
    )


def operating_points_report(
    labels: Floats,
    logits: Floats,
    class_names: Sequence[str],
    groups: NDArray[Any],
    *,
    choose_on: tuple[Floats, Floats] | None = None,
    specificity: float = 0.9,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Sensitivity and specificity of each class at the thresholds of :func:`operating_points`.

    Args:
        labels: (N, K) of 1, 0 and NaN.
        logits: (N, K) finite.
        class_names: K names.
        groups: (N,) what is resampled as one.
        choose_on: labels and logits of other images, on which the thresholds are chosen; None
            chooses them on these, which looks a little too good.
        specificity: what is asked of the second point.
        replicates: bootstrap replicates, in which the thresholds stay.
        seed: of the bootstrap.

    Returns:
        for ``youden`` and ``specificity``: ``thresholds`` by class, as probabilities (None where
        either label is missing), and ``sensitivity`` and ``specificity``, tables of
        ``micro``, ``macro`` and ``per_class``; support counts positives and negatives, chance is
        that of a coin that calls as many images positive. And ``asked_specificity``.
    """
    labels, logits = np.asarray(labels, np.float64), np.asarray(logits, np.float64)
    known, seen = (labels, logits) if choose_on is None else choose_on
    points = [
        operating_points(np.asarray(known)[:, k], np.asarray(seen)[:, k], specificity)
        for k in range(len(class_names))
    ]
    report: dict[str, Any] = {"asked_specificity": specificity}
    for kind in ("youden", "specificity"):
        thresholds = np.array([point[kind]["threshold"] for point in points])
        measured = ~np.isnan(labels) & ~np.isnan(thresholds)
        called = (logits >= thresholds).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = (called * measured).sum(axis=0) / measured.sum(axis=0)
        # exp(-t) at an infinite threshold is 0, and the probability then 1.
        probabilities = 1 / (1 + np.exp(-np.clip(thresholds, -700, None)))
        report[kind] = {
            "thresholds": {
                name: None if np.isnan(p) else float(p)
                for name, p in zip(class_names, probabilities, strict=True)
            }
        } | {
            name: rates_report(
                np.where(measured & (labels == label), values, np.nan),
                np.where(measured & (labels == label), chance, np.nan),
                class_names,
                groups,
                replicates=replicates,
                seed=seed,
            )
            for name, label, values, chance in (
                ("sensitivity", 1, called, rate),
                ("specificity", 0, 1 - called, 1 - rate),
            )
        }
    return report


def roc_report(
    labels: Floats,
    scores: Floats,
    class_names: Sequence[str],
    groups: NDArray[Any],
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """ROC curves of all classes with pointwise 95 % intervals; arguments of :func:`auroc_report`.

    Returns:
        ``false_positive_rate``, 101 rates from 0 to 1, and ``per_class``: ``sensitivity``,
        ``low`` and ``high`` at each of them, rounded to 4 digits; None for a class of which only
        one label occurs.
    """
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    at = np.linspace(0, 1, 101)

    def curves(rows: Floats) -> Floats:
        return np.stack(
            [roc_curve(labels[:, k], scores[:, k], rows, at=at) for k in range(len(class_names))],
            axis=1,
        )

    value = curves(np.ones((1, len(labels))))[0]
    low, high = percentile_interval(bootstrap(curves, groups, replicates=replicates, seed=seed))
    return {
        "false_positive_rate": at.round(2).tolist(),
        "per_class": {
            name: None
            if np.isnan(value[k]).any()
            else {
                key: part[k].round(4).tolist()
                for key, part in (("sensitivity", value), ("low", low), ("high", high))
            }
            for k, name in enumerate(class_names)
        },
    }


class ClassScores(Accumulator):
    """Labels and logits of images (or tiles), from which every measure of this module follows."""

    COLUMNS: ClassVar = {"labels": (), "logits": ()}

    def update(self, labels: Tensor, logits: Tensor, groups: Sequence[str]) -> None:
        """Add a batch.

        Args:
            labels: (B, K) of 1, 0 and NaN (unknown).
            logits: (B, K) finite.
            groups: B names of what is resampled as one; the empty string makes each image its own.

        Raises:
            InvalidInputError: a shape does not fit, a logit is NaN or infinite, or a label is
                neither 0 nor 1 nor NaN.
        """
        expected = (len(groups), len(self.class_names))
        if labels.shape != expected or logits.shape != expected:
            raise InvalidInputError(
                f"Expected labels and logits {expected}; got {tuple(labels.shape)} and "
                f"{tuple(logits.shape)}."
            )
        truth, scores = labels.double().cpu().numpy(), logits.double().cpu().numpy()
        _checked(truth.ravel(), scores.ravel(), None)
        for group, row, score in zip(groups, truth, scores, strict=True):
            self._add(group, labels=row, logits=score)

    @property
    def labels(self) -> Floats:
        """(N, K) so far."""
        return self._column("labels")

    @property
    def logits(self) -> Floats:
        """(N, K) so far."""
        return self._column("logits")

    def compute(
        self, choose_on: ClassScores | None = None, *, replicates: int = 1000, seed: int = 0
    ) -> dict[str, Any]:
        """Every report of this module.

        Args:
            choose_on: scores of another split, to choose the thresholds on; None means these.
            replicates: bootstrap replicates.
            seed: of the bootstrap.

        Returns:
            ``classification`` (AUROC), ``average_precision``, ``calibration`` (expected
            calibration error), ``brier``, ``roc`` and ``operating_points``.
        """
        labels, logits = self.labels, self.logits
        probabilities = 1 / (1 + np.exp(-np.clip(logits, -700, None)))
        other = None if choose_on is None else (choose_on.labels, choose_on.logits)
        common: Any = {"replicates": replicates, "seed": seed}
        names, groups = self.class_names, np.array(self.groups)
        return {
            "classification": auroc_report(labels, logits, names, groups, **common),
            "average_precision": average_precision_report(labels, logits, names, groups, **common),
            "calibration": calibration_report(labels, probabilities, names, groups, **common),
            "brier": brier_report(labels, probabilities, names, groups, **common),
            "roc": roc_report(labels, logits, names, groups, **common),
            "operating_points": operating_points_report(
                labels, logits, names, groups, choose_on=other, **common
            ),
        }
