import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pylon_zoo.data import Sample
from pylon_zoo.data.transforms import AUGMENTATIONS, brightness_contrast, flip, quarter_turn


def marked(x0: int, y0: int, x1: int, y1: int) -> Sample:
    """An image that is bright exactly in its box, with a point at the box's first pixel."""
    image = torch.full((1, 40, 60), 0.25)
    image[:, y0:y1, x0:x1] = 0.75
    return Sample(
        image=image,
        labels=torch.ones(1),
        boxes=torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32),
        box_classes=torch.tensor([0]),
        points=torch.tensor([[x0 + 0.5, y0 + 0.5]]),
        point_classes=torch.tensor([0]),
    )


def assert_boxes_moved_along(sample: Sample) -> None:
    bright = sample.image[0] > sample.image.mean() if sample.image.std() else None
    assert bright is not None
    rows, columns = bright.any(1).nonzero().flatten(), bright.any(0).nonzero().flatten()
    expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert sample.boxes[0].tolist() == [float(v) for v in expected]
    x, y = sample.points[0].int().tolist()
    assert bright[y, x]
    # The point stays at a corner pixel of the box.
    x0, y0, x1, y1 = sample.boxes[0].tolist()
    assert x in (x0, x1 - 1)
    assert y in (y0, y1 - 1)


boxes = st.tuples(st.integers(0, 50), st.integers(0, 30), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=60, deadline=None)
@given(box=boxes, turns=st.integers(0, 7))
def test_boxes_and_points_follow_flips_and_turns(
    box: tuple[int, int, int, int], turns: int
) -> None:
    x, y, width, height = box
    sample = marked(x, y, x + width, y + height)
    turned = quarter_turn(sample, turns)
    assert turned.image.shape[-2:] == ((40, 60) if turns % 2 == 0 else (60, 40))
    assert_boxes_moved_along(turned)
    assert_boxes_moved_along(flip(turned))
    back = quarter_turn(flip(flip(turned)), -turns % 4)
    assert torch.equal(back.image, sample.image)
    assert torch.equal(back.boxes, sample.boxes)
    assert torch.equal(back.points, sample.points)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_augmentations_move_boxes_and_follow_their_generator(name: str) -> None:
    sample = marked(10, 5, 25, 12)
    seen = set()
    for seed in range(40):
        draws = [AUGMENTATIONS[name](sample, torch.Generator().manual_seed(seed)) for _ in range(2)]
        assert torch.equal(draws[0].image, draws[1].image)
        assert_boxes_moved_along(draws[0])
        assert 0 <= draws[0].image.min() <= draws[0].image.max() <= 1
        seen.add((tuple(draws[0].boxes[0].tolist()), draws[0].image.shape))
    assert len(seen) == {"none": 1, "light": 2, "dihedral": 8}[name]


def test_brightness_contrast_by_hand() -> None:
    image = torch.tensor([[[0.2, 0.6]]])
    changed = brightness_contrast(image, 0.1, 2.0)
    assert changed.flatten().tolist() == pytest.approx([0.1, 0.9])
    assert image.flatten().tolist() == pytest.approx([0.2, 0.6])
