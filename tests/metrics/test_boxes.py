import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from torchvision.ops import box_iou as torchvision_iou

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics.boxes import box_iou, boxes_from_maps, component_boxes

sizes = st.tuples(st.integers(0, 3), st.integers(1, 12), st.integers(1, 12))


def by_scipy(mask: np.ndarray) -> list[list[float]]:
    labelled, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    return sorted(
        [
            [float(v) for v in (x.start, y.start, x.stop, y.stop)]
            for y, x in ndimage.find_objects(labelled)
        ]
    )


@settings(max_examples=60, deadline=None)
@given(masks=sizes.flatmap(lambda size: arrays(bool, size)))
def test_components_equal_scipys(masks: np.ndarray) -> None:
    found = component_boxes(masks)
    assert (np.diff(found.mask) >= 0).all()
    for index, mask in enumerate(masks):
        assert sorted(found.boxes[found.mask == index].tolist()) == by_scipy(mask)


def test_a_spiral_is_one_component() -> None:
    mask = np.zeros((1, 101, 101), bool)
    y, x, step = 0, 0, (0, 1)
    mask[0, 0, 0] = True
    for length in (
        n for pair in zip(range(100, 0, -4), range(100, 0, -4), strict=True) for n in pair
    ):
        for _ in range(length):
            y, x = y + step[0], x + step[1]
            mask[0, y, x] = True
        step = (step[1], -step[0])
    found = component_boxes(mask)
    assert found.boxes.tolist() == by_scipy(mask[0])
    assert len(found.boxes) == 1


def test_boxes_of_a_map_by_hand() -> None:
    maps = np.zeros((3, 6, 8))
    maps[0, 1:3, 2:5] = 0.6
    maps[0, 5, 7] = 0.4
    maps[1] = 0.2  # constant: all of it exceeds half of its maximum
    found = boxes_from_maps(maps)
    assert found.boxes.tolist() == [[2, 1, 5, 3], [7, 5, 8, 6], [0, 0, 8, 6]]
    assert found.mask.tolist() == [0, 0, 1]
    assert boxes_from_maps(maps, 0.7).boxes.tolist() == [[2, 1, 5, 3], [0, 0, 8, 6]]
    for bad in (np.full((1, 2, 2), np.nan), np.full((1, 2, 2), -1.0), np.zeros((2, 2))):
        with pytest.raises(InvalidInputError):
            boxes_from_maps(bad)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), sizes=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_iou_equals_torchvisions(seed: int, sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    first, second = (
        np.concatenate([low := rng.integers(0, 9, (n, 2)), low + rng.integers(1, 6, (n, 2))], 1)
        for n in sizes
    )
    expected = torchvision_iou(torch.from_numpy(first).double(), torch.from_numpy(second).double())
    assert np.allclose(box_iou(first.astype(float), second.astype(float)), expected)
