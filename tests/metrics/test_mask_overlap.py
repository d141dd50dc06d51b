from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics import MaskOverlap, PointLocalization, otsu_masks

HEIGHT, WIDTH, NAMES = 7, 9, ("a", "b")


def literal_otsu(values: np.ndarray) -> np.ndarray:
    """Every threshold in turn, the variance between the classes in exact numbers."""
    low, high = values.min(), values.max()
    if low == high:
        return np.zeros(values.shape, bool)
    levels = [[int((v - low) / (high - low) * 255) for v in row] for row in values]
    pixels = [level for row in levels for level in row]
    best, chosen = Fraction(0), 0
    for threshold in range(256):
        below = [p for p in pixels if p <= threshold]
        above = [p for p in pixels if p > threshold]
        if below and above:
            apart = Fraction(sum(above), len(above)) - Fraction(sum(below), len(below))
            variance = apart**2 * len(below) * len(above)
            if variance > best:
                best, chosen = variance, threshold
    return np.array(levels) > chosen


def made(seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Maps of few or many different values, of one for a single step, and masks, also empty."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, steps, (2, HEIGHT, WIDTH)) / steps * rng.random()
    masks = rng.random(maps.shape) < rng.choice([0, 0.3, 1], (2, 1, 1))
    return maps, masks


images = st.lists(
    st.tuples(st.integers(0, 9999), st.sampled_from([1, 2, 3, 30, 10**6])), min_size=1, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(images=images)
def test_equals_a_literal_loop(images: list[tuple[int, int]]) -> None:
    meter = MaskOverlap(NAMES)
    ious: dict[str, list[float]] = {name: [] for name in NAMES}
    areas: dict[str, list[float]] = {name: [] for name in NAMES}
    for seed, steps in images:
        maps, masks = made(seed, steps)
        meter.update(torch.from_numpy(maps), torch.from_numpy(masks))
        for name, values, mask in zip(NAMES, maps, masks, strict=True):
            bright = literal_otsu(values)
            assert np.array_equal(otsu_masks(values[None])[0], bright)
            if mask.any():
                shared = either = 0
                for y in range(HEIGHT):
                    for x in range(WIDTH):
                        shared += int(bright[y, x] and mask[y, x])
                        either += int(bright[y, x] or mask[y, x])
                ious[name].append(shared / either)
                areas[name].append(float(mask.sum()) / mask.size)
    report = meter.compute(replicates=3)
    for name in NAMES:
        estimate = report["per_class"][name]
        assert estimate["support"] == len(ious[name])
        if ious[name]:
            assert estimate["value"] == pytest.approx(np.mean(ious[name]))
            assert estimate["chance"] == pytest.approx(np.mean(areas[name]))
        else:
            assert estimate["value"] is None
    means = [np.mean(of_class) for of_class in ious.values() if of_class]
    everything = ious["a"] + ious["b"]
    if everything:
        assert report["macro"]["value"] == pytest.approx(np.mean(means))
        assert report["micro"]["value"] == pytest.approx(np.mean(everything))


def test_by_hand() -> None:
    maps = torch.full((2, HEIGHT, WIDTH), 0.1)
    maps[0, 2:4, 3:6] = 0.9  # six bright pixels
    masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, 2:5, 3:5] = True  # six pixels, four of them bright
    masks[1] = True
    meter = MaskOverlap(NAMES)
    meter.update(maps, masks)
    report = meter.compute(replicates=3)["per_class"]
    assert report["a"]["value"] == pytest.approx(4 / 8)
    assert report["b"]["value"] == 0


@settings(max_examples=40, deadline=None)
@given(images=images)
def test_hit_rate_on_masks_equals_a_literal_loop(images: list[tuple[int, int]]) -> None:
    meter = PointLocalization(NAMES)
    hits: dict[str, list[bool]] = {name: [] for name in NAMES}
    none = torch.zeros(0, dtype=torch.int64)
    for seed, steps in images:
        maps, masks = made(seed, steps)
        peaks = []
        for name, values, mask in zip(NAMES, maps, masks, strict=True):
            y, x = np.unravel_index(values.argmax(), values.shape)
            peaks.append([int(x), int(y)])
            if mask.any():
                hits[name].append(bool(mask[y, x]))
        meter.update(
            torch.tensor(peaks),
            (HEIGHT, WIDTH),
            torch.zeros(0, 4),
            none,
            masks=torch.from_numpy(masks),
        )
    report = meter.compute(replicates=3)["per_class"]
    for name in NAMES:
        assert report[name]["support"] == len(hits[name])
        expected = np.mean(hits[name]) if hits[name] else None
        assert report[name]["value"] == expected


def test_what_does_not_fit_is_refused() -> None:
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    meter = MaskOverlap(NAMES)
    for shape in ((3, 4, 4), (2, 4, 5)):
        with pytest.raises(InvalidInputError, match=r"maps and masks \(2, H, W\); got"):
            meter.update(torch.zeros(shape), masks)
    for value in (float("nan"), -1.0):
        with pytest.raises(InvalidInputError, match="finite and not negative"):
            meter.update(torch.full((2, 4, 4), value), masks)
