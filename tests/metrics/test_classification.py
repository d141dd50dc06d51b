import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_calibration_error

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics import (
    auroc,
    auroc_report,
    average_precision,
    average_precision_report,
    calibration_error,
    calibration_report,
    operating_points,
    operating_points_report,
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
    points = operating_points_report(labels, logits, ["a", "never"], "val")
    expected = operating_points(labels[:, 0], logits[:, 0])["youden"]["threshold"]
    found = points["per_class"]["a"]["youden"]["threshold"]
    assert found == pytest.approx(1 / (1 + np.exp(-expected)))
    assert points["per_class"]["never"]["youden"]["threshold"] is None
    assert points["chosen_on"] == "val"
