import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics import PointLocalization

HEIGHT, WIDTH, CLASSES = 24, 32, 3

box = st.tuples(
    st.floats(-5, 30, width=32),
    st.floats(-5, 22, width=32),
    st.floats(0, 12, width=32),
    st.floats(0, 12, width=32),
).map(lambda t: [t[0], t[1], t[0] + t[2], t[1] + t[3]])
image = st.tuples(
    st.lists(st.tuples(box, st.integers(0, CLASSES - 1)), max_size=5),
    st.lists(
        st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)),
        min_size=CLASSES,
        max_size=CLASSES,
    ),
)


@settings(max_examples=60, deadline=None)
@given(images=st.lists(image, min_size=1, max_size=5))
def test_equals_a_literal_loop(
    images: list[tuple[list[tuple[list[float], int]], list[tuple[int, int]]]],
) -> None:
    meter = PointLocalization(["a", "b", "c"])
    hits: dict[int, list[bool]] = {k: [] for k in range(CLASSES)}
    chances: dict[int, list[float]] = {k: [] for k in range(CLASSES)}
    for boxes, peaks in images:
        meter.update(
            torch.tensor(peaks),
            (HEIGHT, WIDTH),
            torch.tensor([b for b, _ in boxes]).reshape(-1, 4),
            torch.tensor([k for _, k in boxes], dtype=torch.int64),
        )
        for k in {k for _, k in boxes}:

            def inside(x: int, y: int, k: int = k, boxes: list = boxes) -> bool:
                return any(
                    x0 <= x <= x1 and y0 <= y <= y1 for (x0, y0, x1, y1), c in boxes if c == k
                )

            hits[k].append(inside(*peaks[k]))
            pixels = [inside(x, y) for x in range(WIDTH) for y in range(HEIGHT)]
            chances[k].append(float(np.mean(pixels)))
    result = meter.compute(replicates=10)
    for k, name in enumerate("abc"):
        estimate = result["per_class"][name]
        assert estimate["support"] == len(hits[k])
        if hits[k]:
            assert estimate["value"] == pytest.approx(np.mean(hits[k]))
            assert estimate["chance"] == pytest.approx(np.mean(chances[k]), abs=1e-6)
        else:
            assert estimate["value"] is None
    every = [hit for row in hits.values() for hit in row]
    if every:
        assert result["micro"]["value"] == pytest.approx(np.mean(every))
        seen = [np.mean(h) for h in hits.values() if h]
        assert result["macro"]["value"] == pytest.approx(np.mean(seen))


def test_points_within_a_radius() -> None:
    for distance, hit in ((3.0, 1.0), (3.1, 0.0)):
        meter = PointLocalization(["a"], radius=3.0)
        meter.update(
            torch.tensor([[10, 10]]),
            (HEIGHT, WIDTH),
            torch.zeros(0, 4),
            torch.zeros(0, dtype=torch.int64),
            points=torch.tensor([[10 + distance, 10.0], [31.0, 23.0]]),
            point_classes=torch.tensor([0, 0]),
        )
        assert meter.compute(replicates=5)["micro"]["value"] == hit


def test_the_interval_matches_the_binomial_one() -> None:
    rng = np.random.default_rng(0)
    meter = PointLocalization(["a"])
    for hit in rng.random(300) < 0.7:
        peak = [5, 5] if hit else [20, 20]
        meter.update(
            torch.tensor([peak]),
            (HEIGHT, WIDTH),
            torch.tensor([[0.0, 0.0, 9.0, 9.0]]),
            torch.tensor([0]),
        )
    estimate = meter.compute()["micro"]
    p = estimate["value"]
    assert estimate["high"] - estimate["low"] == pytest.approx(
        2 * 1.96 * np.sqrt(p * (1 - p) / 300), rel=0.15
    )
    assert estimate["chance"] == pytest.approx(100 / (HEIGHT * WIDTH))


def test_nothing_measured_is_none_not_an_error() -> None:
    result = PointLocalization(["a"]).compute()
    assert result["micro"]["value"] is None
    assert result["micro"]["support"] == 0


def test_bad_input() -> None:
    meter = PointLocalization(["a"])
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(InvalidInputError, match=r"peaks \(1, 2\).*\(2, 2\)"):
        meter.update(torch.zeros(2, 2), (9, 9), torch.zeros(0, 4), none)
    with pytest.raises(InvalidInputError, match="NaN"):
        meter.update(torch.zeros(1, 2), (9, 9), torch.full((1, 4), float("nan")), torch.tensor([0]))


finding = st.tuples(
    st.lists(st.tuples(box, st.integers(0, CLASSES - 1)), max_size=2),
    st.lists(st.tuples(st.integers(-4, 40), st.integers(-4, 30), st.integers(0, 2)), max_size=2),
    st.lists(st.tuples(st.integers(0, 28), st.integers(0, 20), st.integers(0, 2)), max_size=2),
    st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)),
)


@settings(max_examples=40, deadline=None)
@given(found=finding, radius=st.sampled_from([0.0, 2.5, 6.0]))
def test_boxes_points_and_masks_equal_a_literal_loop(found: tuple, radius: float) -> None:
    boxes, points, squares, peak = found
    masks = torch.zeros(CLASSES, HEIGHT, WIDTH, dtype=torch.bool)
    for x, y, k in squares:
        masks[k, y : y + 3, x : x + 3] = True
    meter = PointLocalization(["a", "b", "c"], radius=radius)
    meter.update(
        torch.tensor([peak] * CLASSES),
        (HEIGHT, WIDTH),
        torch.tensor([b for b, _ in boxes]).reshape(-1, 4),
        torch.tensor([k for _, k in boxes], dtype=torch.int64),
        points=torch.tensor([p[:2] for p in points]).reshape(-1, 2).float(),
        point_classes=torch.tensor([k for *_, k in points], dtype=torch.int64),
        masks=masks,
    )
    result = meter.compute(replicates=2)["per_class"]
    for k, name in enumerate("abc"):

        def hit(x: int, y: int, k: int = k) -> bool:
            return (
                any(x0 <= x <= x1 and y0 <= y <= y1 for (x0, y0, x1, y1), c in boxes if c == k)
                or any((x - px) ** 2 + (y - py) ** 2 <= radius**2 for px, py, c in points if c == k)
                or any(sx <= x < sx + 3 and sy <= y < sy + 3 for sx, sy, c in squares if c == k)
            )

        if k not in {found[-1] for found in [*boxes, *points, *squares]}:
            assert result[name]["value"] is None
            continue
        every = [hit(x, y) for x in range(WIDTH) for y in range(HEIGHT)]
        assert result[name]["value"] == hit(*peak)
        assert result[name]["chance"] == pytest.approx(np.mean(every))


def test_a_box_outside_the_image_cannot_be_hit() -> None:
    meter = PointLocalization(["a"])
    boxes = torch.tensor([[40.0, 2.0, 50.0, 9.0]])
    meter.update(torch.tensor([[31, 5]]), (HEIGHT, WIDTH), boxes, torch.tensor([0]))
    estimate = meter.compute(replicates=2)["micro"]
    assert (estimate["value"], estimate["chance"], estimate["support"]) == (0, 0, 1)
