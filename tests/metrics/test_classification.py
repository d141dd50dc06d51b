import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    roc_auc_score,
)
from sklearn.metrics import roc_curve as sklearn_roc_curve
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multilabel_auroc,
    multilabel_average_precision,
)

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics import (
    ClassScores,
    auroc,
    auroc_report,
    average_precision,
    average_precision_report,
    brier_report,
    brier_score,
    calibration_error,
    calibration_report,
    operating_points,
    operating_points_report,
    roc_curve,
)

rows = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(-3, 3)), min_size=2, max_size=60)


@settings(max_examples=200, deadline=None)
@given(rows=rows)
def test_auroc_equals_scikit_learn_with_ties(rows: list[tuple[float, int]]) -> None:
    labels, scores = np.array(rows, dtype=float).T
    if 0 < labels.sum() < len(labels):
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    else:
        assert np.isnan(auroc(labels, scores))


@settings(max_examples=50, deadline=None)
@given(rows=rows, seed=st.integers(0, 99))
def test_integer_weights_equal_repeated_rows(rows: list[tuple[float, int]], seed: int) -> None:
    labels, scores = np.array(rows, dtype=float).T
    weights = np.random.default_rng(seed).integers(0, 4, size=(3, len(labels)))
    areas = auroc(labels, scores, weights)
    for area, counts in zip(areas, weights, strict=True):
        repeated = auroc(np.repeat(labels, counts), np.repeat(scores, counts))
        assert area == pytest.approx(float(repeated), nan_ok=True)


def test_unknown_labels_are_left_out() -> None:
    labels = np.array([0, 1, np.nan, 1, 0])
    scores = np.array([0.1, 0.9, 5.0, 0.05, 0.2])
    assert auroc(labels, scores) == roc_auc_score([0, 1, 1, 0], [0.1, 0.9, 0.05, 0.2])


@pytest.mark.parametrize(
    ("labels", "scores", "match"),
    [
        ([0, 1], [0.5, np.nan], "finite"),
        ([0, 2], [0.5, 0.1], "0, 1 or NaN"),
        ([0, 1, 1], [0.5, 0.1], r"\(3,\) and \(2,\)"),
    ],
)
def test_bad_input(labels: list[float], scores: list[float], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        auroc(np.array(labels, dtype=float), np.array(scores, dtype=float))


def test_report_means_support_and_intervals() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 3)) < [0.5, 0.1, 0.0]).astype(float)
    scores = labels * [1.0, 2.0, 0.0] + rng.normal(size=(400, 3))
    report = auroc_report(labels, scores, ["a", "b", "never"], np.arange(400))
    per_class = report["per_class"]
    expected = [roc_auc_score(labels[:, k], scores[:, k]) for k in (0, 1)]
    assert [per_class[name]["value"] for name in "ab"] == pytest.approx(expected)
    assert per_class["never"]["value"] is None
    assert per_class["never"]["support"] == 0
    assert per_class["never"]["negatives"] == 400
    assert report["macro"]["value"] == pytest.approx(np.mean(expected))
    positives = labels.sum(axis=0)[:2]
    assert report["weighted"]["value"] == pytest.approx(np.average(expected, weights=positives))
    for estimate in (report["macro"], per_class["a"], per_class["b"]):
        assert estimate["low"] < estimate["value"] < estimate["high"]
        assert estimate["chance"] == 0.5
    # Hanley and McNeil's standard error of an area A, as an independent yardstick.
    area, n1, n0 = expected[0], labels[:, 0].sum(), (1 - labels[:, 0]).sum()
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    error = np.sqrt(
        (area * (1 - area) + (n1 - 1) * (q1 - area**2) + (n0 - 1) * (q2 - area**2)) / (n0 * n1)
    )
    width = per_class["a"]["high"] - per_class["a"]["low"]
    assert width == pytest.approx(2 * 1.96 * error, rel=0.2)


def test_groups_widen_intervals() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat((rng.random((40, 1)) < 0.5).astype(float), 10, axis=0)
    scores = np.repeat(rng.normal(size=(40, 1)), 10, axis=0) + labels
    alone = auroc_report(labels, scores, ["a"], np.arange(400))["macro"]
    grouped = auroc_report(labels, scores, ["a"], np.repeat(np.arange(40), 10))["macro"]
    assert grouped["value"] == alone["value"]
    assert grouped["high"] - grouped["low"] > 2 * (alone["high"] - alone["low"])


@settings(max_examples=60, deadline=None)
@given(rows=rows)
def test_average_precision_equals_scikit_learn_with_ties(rows: list[tuple[float, int]]) -> None:
    labels, scores = np.array(rows, dtype=float).T
    if labels.sum():
        expected = average_precision_score(labels, scores)
        assert average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)
        counts = np.random.default_rng(0).integers(0, 4, size=(1, len(labels)))
        repeated = average_precision(np.repeat(labels, counts[0]), np.repeat(scores, counts[0]))
        weighted = average_precision(labels, scores, counts)[0]
        assert weighted == pytest.approx(float(repeated), nan_ok=True)
    else:
        assert np.isnan(average_precision(labels, scores))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), bins=st.integers(1, 20), length=st.integers(1, 60))
def test_calibration_error_equals_torchmetrics(seed: int, bins: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.random(length)
    labels = (rng.random(length) < probabilities**2).astype(float)
    expected = 0.0
    for low in range(bins):
        inside = (probabilities >= low / bins) & (probabilities < (low + 1) / bins)
        if inside.any():
            gap = abs(labels[inside].mean() - probabilities[inside].mean())
            expected += inside.mean() * gap
    found = calibration_error(labels, probabilities, bins=bins)
    assert found == pytest.approx(expected, abs=1e-12)
    theirs = binary_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels).long(), n_bins=bins
    )
    assert float(theirs) == pytest.approx(float(found), abs=1e-6)


def test_calibration_of_values_at_the_ends() -> None:
    assert calibration_error(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0
    assert calibration_error(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1
    with pytest.raises(InvalidInputError, match=r"\[0, 1\]"):
        calibration_error(np.array([1.0]), np.array([1.5]))


def test_brier_score_with_weights_is_that_of_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 2, 30).astype(float), rng.random(30)
    labels[3] = np.nan
    counts = rng.integers(0, 3, (2, 30))
    found = brier_score(labels, probabilities, counts.astype(float))
    for row, value in zip(counts, found, strict=True):
        repeated = np.repeat(labels, row), np.repeat(probabilities, row)
        known = ~np.isnan(repeated[0])
        assert value == pytest.approx(brier_score_loss(repeated[0][known], repeated[1][known]))
    with pytest.raises(InvalidInputError, match=r"\[0, 1\]"):
        brier_score(np.array([1.0]), np.array([-0.5]))
    assert np.isnan(brier_score(np.array([]), np.array([])))


@example(rows=[(0, 0)] * 2 + [(0, -1)] * 3 + [(0, -2)] + [(1, 0)] * 2 + [(1, -1)] * 2, asked=0.0)
@settings(max_examples=60, deadline=None)
@given(rows=rows, asked=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_operating_points_equal_a_literal_search(
    rows: list[tuple[float, int]], asked: float
) -> None:
    labels, scores = np.array(rows, dtype=float).T
    points = operating_points(labels, scores, asked)
    if not 0 < labels.sum() < len(labels):
        assert np.isnan(points["youden"]["threshold"])
        return
    table = []
    for threshold in [*sorted(set(scores)), np.inf]:
        called = scores >= threshold
        table.append((threshold, called[labels == 1].mean(), 1 - called[labels == 0].mean()))
    best = max(table, key=lambda row: (round(row[1] + row[2], 9), row[0]))
    enough = next(row for row in table if row[2] >= asked - 1e-9)
    for name, row in (("youden", best), ("specificity", enough)):
        assert tuple(points[name].values()) == pytest.approx(row)


def test_reports_of_the_other_measures() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 2)) < [0.3, 0.0]).astype(float)
    labels[:20, 0] = np.nan
    logits = np.nan_to_num(labels) + rng.normal(size=(200, 2))
    known = ~np.isnan(labels[:, 0])
    report = average_precision_report(labels, logits, ["a", "never"], np.arange(200), replicates=50)
    a = report["per_class"]["a"]
    assert a["value"] == pytest.approx(average_precision_score(labels[known, 0], logits[known, 0]))
    assert a["chance"] == pytest.approx(labels[known, 0].mean())
    assert a["low"] < a["value"] < a["high"]
    assert report["macro"]["chance"] == a["chance"]
    assert report["per_class"]["never"]["value"] is None
    probabilities = 1 / (1 + np.exp(-logits))
    calibration = calibration_report(
        labels, probabilities, ["a", "never"], np.arange(200), replicates=50
    )
    # A class that never occurs is calibrated if its probabilities are near 0.
    never = calibration["per_class"]["never"]["value"]
    assert never == pytest.approx(probabilities[:, 1].mean())
    assert calibration["macro"]["chance"] is None
    brier = brier_report(labels, probabilities, ["a", "never"], np.arange(200), replicates=50)
    a = brier["per_class"]["a"]
    expected = brier_score_loss(labels[known, 0], probabilities[known, 0])
    assert a["value"] == pytest.approx(expected)
    assert a["low"] < expected < a["high"]
    share = labels[known, 0].mean()
    always = brier_score_loss(labels[known, 0], np.full(known.sum(), share))
    assert a["chance"] == pytest.approx(always)
    assert brier["per_class"]["never"]["chance"] == 0
    both = brier_score_loss(
        np.r_[labels[known, 0], labels[:, 1]], np.r_[probabilities[known, 0], probabilities[:, 1]]
    )
    assert brier["micro"]["value"] == pytest.approx(both)


@settings(max_examples=60, deadline=None)
@given(rows=rows)
def test_roc_curve_equals_scikit_learns(rows: list[tuple[float, int]]) -> None:
    labels, scores = np.array(rows, dtype=float).T
    at = np.linspace(0, 1, 2001)
    curve = roc_curve(labels, scores, at=at)
    if not 0 < labels.sum() < len(labels):
        assert np.isnan(curve).all()
        return
    rate, found, _ = sklearn_roc_curve(labels, scores, drop_intermediate=False)
    assert curve == pytest.approx(np.interp(at, rate, found), abs=1e-12)
    assert np.trapezoid(curve, at) == pytest.approx(float(auroc(labels, scores)), abs=2e-3)
    counts = np.random.default_rng(0).integers(1, 4, size=(1, len(labels)))
    repeated = roc_curve(np.repeat(labels, counts[0]), np.repeat(scores, counts[0]), at=at)
    assert roc_curve(labels, scores, counts, at=at)[0] == pytest.approx(repeated)


def labels_and_logits(classes: int = 3, n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a tenth is unknown, the last class never present; logits with ties."""
    rng = np.random.default_rng(0)
    labels = (rng.random((n, classes)) < [*np.linspace(0.3, 0.6, classes - 1), 0]).astype(float)
    logits = np.round(2 * labels + rng.normal(size=labels.shape), 1)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return labels, logits


def test_means_equal_torchmetrics_where_labels_are_missing() -> None:
    labels, logits = labels_and_logits()
    groups = np.arange(len(labels))
    names = ["a", "b", "never"]
    known = ~np.isnan(labels)
    target = torch.from_numpy(np.where(known, labels, -1)).long()
    probabilities = torch.from_numpy(logits).sigmoid()
    for ours, theirs in (
        (auroc_report, multilabel_auroc),
        (average_precision_report, multilabel_average_precision),
    ):
        report = ours(labels, logits, names, groups, replicates=2)
        micro = theirs(probabilities, target, num_labels=3, average="micro", ignore_index=-1)
        assert report["micro"]["value"] == pytest.approx(float(micro), abs=1e-6)
        each = [
            float(theirs(probabilities[:, [k, k]], target[:, [k, k]], 2, "macro", None, -1))
            for k in (0, 1)
        ]
        assert report["macro"]["value"] == pytest.approx(np.mean(each), abs=1e-6)
        positives = (labels[:, :2] == 1).sum(axis=0)
        weighted = np.average(each, weights=positives)
        assert report["weighted"]["value"] == pytest.approx(weighted, abs=1e-6)
        assert report["micro"]["support"] == (labels == 1).sum()
        assert report["macro"]["negatives"] == (labels == 0).sum()
        assert report["per_class"]["never"]["value"] is None
    calibration = calibration_report(labels, probabilities.numpy(), names, groups, replicates=2)
    error = binary_calibration_error(
        probabilities[known].flatten(), target[known].flatten(), n_bins=15
    )
    assert calibration["micro"]["value"] == pytest.approx(float(error), abs=1e-6)


def test_operating_points_measured_on_other_images() -> None:
    labels, logits = labels_and_logits(n=400)
    names, half = ["a", "b", "never"], 200
    report = operating_points_report(
        labels[half:],
        logits[half:],
        names,
        np.arange(half),
        choose_on=(labels[:half], logits[:half]),
        replicates=200,
    )
    for kind in ("youden", "specificity"):
        hits, spared = [], []
        for k, name in enumerate(names[:2]):
            threshold = operating_points(labels[:half, k], logits[:half, k])[kind]["threshold"]
            probability = report[kind]["thresholds"][name]
            assert probability == pytest.approx(1 / (1 + np.exp(-threshold)))
            known = ~np.isnan(labels[half:, k])
            truth, called = labels[half:, k][known], logits[half:, k][known] >= threshold
            tn, fp, fn, tp = confusion_matrix(truth, called).ravel()
            sensitivity = report[kind]["sensitivity"]["per_class"][name]
            specificity = report[kind]["specificity"]["per_class"][name]
            assert sensitivity["value"] == pytest.approx(tp / (tp + fn))
            assert specificity["value"] == pytest.approx(tn / (tn + fp))
            assert (sensitivity["support"], specificity["support"]) == (tp + fn, tn + fp)
            assert sensitivity["chance"] == pytest.approx(called.mean())
            assert specificity["chance"] == pytest.approx(1 - called.mean())
            p = sensitivity["value"]
            width = 2 * 1.96 * np.sqrt(p * (1 - p) / (tp + fn))
            assert sensitivity["high"] - sensitivity["low"] == pytest.approx(width, rel=0.35)
            hits += [called[truth == 1]]
            spared += [~called[truth == 0]]
        for name, parts in (("sensitivity", hits), ("specificity", spared)):
            assert report[kind][name]["micro"]["value"] == pytest.approx(
                np.concatenate(parts).mean()
            )
            assert report[kind][name]["macro"]["value"] == pytest.approx(
                np.mean([part.mean() for part in parts])
            )
        assert report[kind]["thresholds"]["never"] is None
        assert report[kind]["specificity"]["per_class"]["never"]["value"] is None


def test_no_image_at_all_is_no_error() -> None:
    report = ClassScores(["a", "b"]).compute(replicates=3)
    assert report["classification"]["micro"]["value"] is None
    assert report["operating_points"]["youden"]["thresholds"] == {"a": None, "b": None}
    assert report["roc"]["per_class"] == {"a": None, "b": None}


def test_scores_are_checked_as_they_come() -> None:
    scores = ClassScores(["a"])
    with pytest.raises(InvalidInputError, match="finite"):
        scores.update(torch.ones(1, 1), torch.full((1, 1), float("nan")), [""])
    with pytest.raises(InvalidInputError, match="0, 1 or NaN"):
        scores.update(torch.full((1, 1), 0.5), torch.zeros(1, 1), [""])
    with pytest.raises(InvalidInputError, match=r"\(2, 1\); got \(1, 1\)"):
        scores.update(torch.zeros(1, 1), torch.zeros(1, 1), ["x", "y"])
    assert len(scores) == 0
