import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics import (
    BoxAccuracy,
    MapOverlap,
    PixelPrecision,
    PointLocalization,
)

HEIGHT, WIDTH, NAMES = 10, 12, ("a", "b")

box = st.tuples(st.integers(-3, 10), st.integers(-3, 8), st.integers(1, 8), st.integers(1, 8)).map(
    lambda t: [float(v) for v in (t[0], t[1], t[0] + t[2], t[1] + t[3])]
)
pair = st.tuples(box, st.integers(0, 1))
image = st.tuples(st.lists(pair, max_size=4), st.integers(0, 99), st.sampled_from([1, 3, 100]))


def maps_of(seed: int, levels: int) -> np.ndarray:
    """Maps with few or many different values; with one level a constant map."""
    rng = np.random.default_rng(seed)
    maps = ndimage.gaussian_filter(rng.random((2, HEIGHT, WIDTH)), (0, 1, 1))
    return np.asarray(np.ceil(maps * levels) / levels) if levels > 1 else np.full_like(maps, 0.3)


def literal_overlap(values: np.ndarray, boxes: list[list[float]]) -> tuple[float, float]:
    shared = bright = union = 0
    for y, x in itertools.product(range(HEIGHT), range(WIDTH)):
        lit = values[y, x] / values.max() > 0.5
        true = any(x0 <= x + 0.5 <= x1 and y0 <= y + 0.5 <= y1 for x0, y0, x1, y1 in boxes)
        shared, bright, union = shared + (lit and true), bright + lit, union + (lit or true)
    return shared / bright, shared / union


def literal_best_iou(values: np.ndarray, boxes: list[list[float]], tau: float) -> float:
    labelled, _ = ndimage.label(values > tau * values.max(), structure=np.ones((3, 3)))
    best = 0.0
    for rows, columns in ndimage.find_objects(labelled):
        for x0, y0, x1, y1 in boxes:
            w = max(min(x1, columns.stop) - max(x0, columns.start), 0)
            h = max(min(y1, rows.stop) - max(y0, rows.start), 0)
            drawn = (columns.stop - columns.start) * (rows.stop - rows.start)
            best = max(best, w * h / ((x1 - x0) * (y1 - y0) + drawn - w * h))
    return best


def feed(meter: Any, images: list[Any]) -> dict[int, list[tuple[np.ndarray, list[list[float]]]]]:
    pairs: dict[int, list[tuple[np.ndarray, list[list[float]]]]] = {0: [], 1: []}
    for found, seed, levels in images:
        maps = maps_of(seed, levels)
        boxes = torch.tensor([b for b, _ in found]).reshape(-1, 4)
        meter.update(torch.from_numpy(maps), boxes, torch.tensor([k for _, k in found]).long())
        for k in {k for _, k in found}:
            pairs[k].append((maps[k], [b for b, c in found if c == k]))
    return pairs


@settings(max_examples=25, deadline=None)
@given(images=st.lists(image, min_size=1, max_size=3))
def test_overlap_equals_a_literal_loop(images: list[Any]) -> None:
    meter = MapOverlap(NAMES)
    pairs = feed(meter, images)
    report = meter.compute(replicates=3)
    for k, name in enumerate(NAMES):
        overlaps = [literal_overlap(values, boxes) for values, boxes in pairs[k]]
        for t in (0.1, 0.25, 0.5):
            for which, kind in enumerate(("iobb", "iou")):
                estimate = report[kind][str(t)]["per_class"][name]
                assert estimate["support"] == len(overlaps)
                if overlaps:
                    assert estimate["value"] == np.mean([o[which] > t for o in overlaps])
            if overlaps:
                either = report["either"][str(t)]["per_class"][name]["value"]
                assert either == np.mean([max(o) > t for o in overlaps])


@settings(max_examples=15, deadline=None)
@given(images=st.lists(image, min_size=1, max_size=3))
def test_box_accuracy_equals_a_literal_loop(images: list[Any]) -> None:
    meter = BoxAccuracy(NAMES)
    pairs = [pair for of_class in feed(meter, images).values() for pair in of_class]
    report = meter.compute(replicates=3)
    if not pairs:
        assert report["micro"]["value"] is None
        return
    at_best = []
    for delta in (0.3, 0.5, 0.7):
        rates = {
            tau: np.mean([literal_best_iou(v, b, tau) >= delta for v, b in pairs])
            for tau in BoxAccuracy.TAUS
        }
        at_best.append(max(rates.values()))
        tau = report["taus"][str(delta)]
        assert rates[tau] == at_best[-1]
    assert report["micro"]["value"] == pytest.approx(np.mean(at_best))
    other = meter.compute(dict.fromkeys(report["taus"], 0.95), replicates=3)
    assert other["micro"]["value"] <= report["micro"]["value"] + 1e-9


def test_chance_levels_by_hand() -> None:
    boxes, classes = torch.tensor([[0.0, 0, 6, 10]]), torch.tensor([0])
    maps = torch.rand(2, HEIGHT, WIDTH)
    overlap, accuracy = MapOverlap(NAMES), BoxAccuracy(NAMES)
    overlap.update(maps, boxes, classes)
    accuracy.update(maps, boxes, classes)
    # The box is half of the image: above 0.25, not above 0.5.
    report = overlap.compute(replicates=3)
    assert [report["iou"][t]["micro"]["chance"] for t in ("0.1", "0.25", "0.5")] == [1, 1, 0]
    assert accuracy.compute(replicates=3)["micro"]["chance"] == pytest.approx(2 / 3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 3))
def test_pixel_precision_equals_scikit_learn(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, 256, (count, 2, HEIGHT, WIDTH)) / 256
    masks = rng.random(maps.shape) < maps * [[[0.5]], [[0.0]]]
    meter = PixelPrecision(NAMES)
    for image_maps, image_masks in zip(maps, masks, strict=True):
        meter.update(torch.from_numpy(image_maps), torch.from_numpy(image_masks))
    report = meter.compute(replicates=5)["per_class"]
    expected = average_precision_score(masks[:, 0].ravel(), maps[:, 0].ravel())
    assert report["a"]["value"] == pytest.approx(expected)
    assert report["a"]["chance"] == pytest.approx(masks[:, 0].mean())
    assert report["a"]["support"] == count
    assert report["b"]["value"] is None


def test_pixels_of_unknown_classes_are_left_out() -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 256, (2, 2, HEIGHT, WIDTH)) / 256
    masks = rng.random(maps.shape) < maps * 0.5
    meter = PixelPrecision(NAMES)
    for index in (0, 1):
        known = torch.tensor([True, index == 1])
        values, truth = torch.from_numpy(maps[index]), torch.from_numpy(masks[index])
        meter.update(values, truth, known=known)
    report = meter.compute(replicates=2)["per_class"]
    for name, at in (("a", np.s_[:, 0]), ("b", np.s_[1:, 1])):
        expected = average_precision_score(masks[at].ravel(), maps[at].ravel())
        assert report[name]["value"] == pytest.approx(expected)
        assert report[name]["support"] == len(masks[at])


def test_peaks_on_masks() -> None:
    masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, 2:4, 3:9] = True
    none = torch.zeros(0, dtype=torch.int64)
    for peak, hit in (((3, 2), 1.0), ((9, 2), 0.0)):
        meter = PointLocalization(NAMES)
        meter.update(
            torch.tensor([peak, peak]), (HEIGHT, WIDTH), torch.zeros(0, 4), none, masks=masks
        )
        report = meter.compute(replicates=3)
        assert report["per_class"]["a"]["value"] == hit
        assert report["per_class"]["a"]["chance"] == pytest.approx(12 / 120)
        assert report["per_class"]["b"]["support"] == 0
    with pytest.raises(InvalidInputError, match="masks"):
        meter.update(torch.tensor([peak, peak]), (9, 9), torch.zeros(0, 4), none, masks=masks)


@pytest.mark.parametrize("kind", [MapOverlap, BoxAccuracy])
def test_bad_maps(kind: type[MapOverlap] | type[BoxAccuracy]) -> None:
    boxes, classes = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
    for maps in (torch.full((2, 4, 4), float("nan")), torch.full((2, 4, 4), -1.0)):
        with pytest.raises(InvalidInputError, match="finite and not negative"):
            kind(NAMES).update(maps, boxes, classes)
        with pytest.raises(InvalidInputError, match="finite and not negative"):
            PixelPrecision(NAMES).update(maps, torch.zeros(2, 4, 4).bool())
    with pytest.raises(InvalidInputError, match=r"maps \(2, H, W\).*\(3, 4, 4\)"):
        kind(NAMES).update(torch.zeros(3, 4, 4), boxes, classes)
    with pytest.raises(InvalidInputError, match="NaN"):
        kind(NAMES).update(torch.zeros(2, 4, 4), boxes * float("nan"), classes)
    with pytest.raises(InvalidInputError, match=r"\[0, 1\]"):
        PixelPrecision(NAMES).update(torch.full((2, 4, 4), 2.0), torch.zeros(2, 4, 4).bool())
