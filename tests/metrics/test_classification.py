import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics import auroc, auroc_report

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
