import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pylon_zoo.data import Sample, Tiles
from pylon_zoo.data.tiles import cut, grid_positions
from pylon_zoo.errors import InvalidInputError


def sample_of(boxes: list[list[float]], classes: list[int], size: tuple[int, int]) -> Sample:
    height, width = size
    pixels = torch.arange(height * width, dtype=torch.float32).reshape(1, height, width)
    return Sample(
        image=pixels / (height * width),
        labels=torch.ones(3),
        boxes=torch.tensor(boxes).reshape(-1, 4),
        box_classes=torch.tensor(classes, dtype=torch.int64),
        source="made",
    )


class One:
    class_names = ("a", "b", "c")

    def __init__(self, sample: Sample, length: int = 1) -> None:
        self.sample, self.length = sample, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        return self.sample


def test_a_box_counts_from_half_of_its_area_on() -> None:
    sample = sample_of(
        [[90, 10, 110, 20], [91, 10, 111, 20], [95, 50, 125, 60]], [0, 1, 2], (200, 200)
    )
    tile = cut(sample, 0, 0, 100)
    assert tile.labels.tolist() == [1, 0, 0]
    assert tile.boxes.tolist() == [[90, 10, 100, 20]]
    assert torch.equal(tile.image, sample.image[:, :100, :100])


def test_points_and_unknown_labels() -> None:
    sample = Sample(
        image=torch.zeros(1, 100, 100),
        labels=torch.tensor([1.0, float("nan"), 0.0]),
        points=torch.tensor([[30.0, 40.0], [80.0, 80.0]]),
        point_classes=torch.tensor([0, 2]),
    )
    tile = cut(sample, 20, 20, 50)
    assert tile.points.tolist() == [[10, 20]]
    assert tile.labels[0] == 1
    assert tile.labels[1].isnan()
    assert tile.labels[2] == 0


box = st.tuples(
    st.integers(0, 150), st.integers(0, 110), st.integers(1, 60), st.integers(1, 60)
).map(lambda t: [t[0], t[1], min(t[0] + t[2], 160), min(t[1] + t[3], 120)])


@settings(max_examples=100, deadline=None)
@given(
    boxes=st.lists(box, max_size=6),
    x=st.integers(0, 96),
    y=st.integers(0, 56),
    part=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_cut_agrees_with_counting_pixels(
    boxes: list[list[int]], x: int, y: int, part: float
) -> None:
    classes = [i % 3 for i in range(len(boxes))]
    sample = sample_of([[float(v) for v in b] for b in boxes], classes, (120, 160))
    tile = cut(sample, x, y, 64, min_visible=part)
    expected: list[tuple[int, list[int]]] = []
    for (x0, y0, x1, y1), k in zip(boxes, classes, strict=True):
        mask = torch.zeros(120, 160, dtype=torch.bool)
        mask[y0:y1, x0:x1] = True
        inside = mask[y : y + 64, x : x + 64]
        if inside.sum() >= part * mask.sum() and inside.any():
            rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
            corners = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            expected.append((k, [int(v) for v in corners]))
    assert tile.box_classes.tolist() == [k for k, _ in expected]
    assert tile.boxes.int().tolist() == [b for _, b in expected]
    assert tile.labels.nonzero().flatten().tolist() == sorted({k for k, _ in expected})
    # Masks that fill the boxes count where these do, and are cut with the image.
    masks = torch.zeros(len(boxes), 120, 160, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    masked = dataclasses.replace(
        sample,
        boxes=sample.boxes[:0],
        box_classes=sample.box_classes[:0],
        masks=masks,
        mask_classes=sample.box_classes,
    )
    same = cut(masked, x, y, 64, min_visible=part)
    assert torch.equal(same.labels, tile.labels)
    assert same.mask_classes.tolist() == tile.box_classes.tolist()
    for (x0, y0, x1, y1), mask in zip(tile.boxes.int().tolist(), same.masks, strict=True):
        assert mask[y0:y1, x0:x1].all()
        assert mask.sum() == (x1 - x0) * (y1 - y0)


@given(length=st.integers(64, 2000), size=st.integers(32, 64))
def test_a_grid_covers_every_pixel_with_the_fewest_tiles(length: int, size: int) -> None:
    starts = grid_positions(length, size)
    covered = torch.zeros(length, dtype=torch.bool)
    for start in starts:
        assert 0 <= start <= length - size
        covered[start : start + size] = True
    assert covered.all()
    assert len(starts) == -(-length // size)


def test_grid_tiles_of_a_smear() -> None:
    tiles = Tiles(One(sample_of([], [], (480, 640)), length=2), 256)
    assert len(tiles) == 2 * 3 * 2
    assert all(tiles[i].image.shape == (1, 256, 256) for i in range(len(tiles)))


def test_random_tiles_are_reproducible_unlimited_and_spread() -> None:
    sample = sample_of([], [], (300, 400))

    def tiles(seed: int) -> Tiles:
        return Tiles(One(sample), 64, positions="random", length=50, seed=seed)

    def corner(tile: Sample) -> float:
        value: Tensor = tile.image[0, 0, 0]
        return float(value)

    assert len(tiles(0)) == 50
    corners = [corner(tiles(0)[i]) for i in range(200)]
    assert corners == [corner(tiles(0)[i]) for i in range(200)]
    assert corners != [corner(tiles(1)[i]) for i in range(200)]
    assert len(set(corners)) > 190


def test_a_tile_larger_than_the_image_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"made: a tile of 256 px at .* 100 x 80"):
        cut(sample_of([], [], (80, 100)), 0, 0, 256)
