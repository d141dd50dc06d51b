import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pylon_zoo import create_transform
from pylon_zoo.data import Sample
from pylon_zoo.data.transforms import (
    AUGMENTATIONS,
    brightness_contrast,
    flip,
    quarter_turn,
    random_crop,
    rotate,
)
from pylon_zoo.spec import Preprocessing


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
        masks=image > 0.5,
        mask_classes=torch.tensor([0]),
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
    assert torch.equal(sample.masks[0], bright)


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


@pytest.mark.parametrize("name", sorted({*AUGMENTATIONS} - {"paper"}))
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


def test_rotation_by_a_right_angle_is_a_quarter_turn() -> None:
    square = marked(10, 5, 20, 15)
    square = dataclasses.replace(
        square,
        image=square.image[:, :, 10:50],
        masks=square.masks[:, :, 10:50],
        boxes=torch.tensor([[0.0, 5.0, 10.0, 15.0]]),
        points=torch.tensor([[0.5, 5.5]]),
    )
    turned, expected = rotate(square, 90), quarter_turn(square, 1)
    assert torch.allclose(turned.image, expected.image, atol=1e-4)
    assert torch.allclose(turned.boxes, expected.boxes, atol=1e-4)
    assert torch.allclose(turned.points, expected.points, atol=1e-4)
    assert torch.equal(turned.masks, expected.masks)


@settings(max_examples=30, deadline=None)
@given(degrees=st.floats(-90, 90))
def test_a_turned_box_holds_what_was_in_it(degrees: float) -> None:
    turned = rotate(marked(25, 15, 35, 25), degrees)
    rows, columns = torch.nonzero(turned.image[0] > 0.6, as_tuple=True)
    x0, y0, x1, y1 = turned.boxes[0].tolist()
    assert x0 - 1 <= columns.min() <= columns.max() <= x1
    assert y0 - 1 <= rows.min() <= rows.max() <= y1
    assert x1 - x0 <= 10 * 2**0.5 + 0.01
    # Each turned pixel is the nearest one's: all that is brightest, nothing that is dark.
    assert turned.masks[0][turned.image[0] > 0.74].all()
    assert (turned.image[0][turned.masks[0]] > 0.3).all()
    assert abs(int(turned.masks.sum()) - 100) <= 12


def test_crops_keep_boxes_with_their_pixels_and_drop_what_is_outside() -> None:
    generator = torch.Generator().manual_seed(0)
    kept = 0
    for _ in range(40):
        sample = random_crop(marked(2, 2, 10, 10), generator)
        assert 0.65 <= sample.width * sample.height / 2400 <= 1.05
        whole = (sample.width, sample.height) == (60, 40)
        assert whole or 0.7 <= sample.width / sample.height <= 1.4
        bright = sample.image[0] > 0.5
        assert len(sample.boxes) == len(sample.box_classes) == int(bright.any())
        assert len(sample.masks) == len(sample.mask_classes) == int(bright.any())
        assert not len(sample.masks) or torch.equal(sample.masks[0], bright)
        if len(sample.boxes):
            x0, y0, x1, y1 = sample.boxes[0].int().tolist()
            assert bright[y0:y1, x0:x1].all()
            assert bright.sum() == (x1 - x0) * (y1 - y0)
            kept += 1
    assert kept > 20


def test_the_papers_augmentation_follows_its_generator() -> None:
    sample, seen = marked(20, 10, 35, 22), set()
    for seed in range(20):
        first, again = (
            AUGMENTATIONS["paper"](sample, torch.Generator().manual_seed(seed)) for _ in range(2)
        )
        assert torch.equal(first.image, again.image)
        assert torch.equal(first.boxes, again.boxes)
        assert 0 <= first.image.min() <= first.image.max() <= 1
        assert torch.equal(first.masks, again.masks)
        limits = torch.tensor([first.width, first.height] * 2)
        assert ((first.boxes >= 0) & (first.boxes <= limits)).all()
        seen.add(float(first.image.mean()))
    assert len(seen) == 20


@settings(max_examples=40, deadline=None)
@given(box=boxes, name=st.sampled_from(sorted(AUGMENTATIONS)), seed=st.integers(0, 9999))
def test_a_mask_moves_with_the_box_that_it_fills(
    box: tuple[int, int, int, int], name: str, seed: int
) -> None:
    """Through every augmentation and the resize: corners of the mask are those of the box."""
    x, y, width, height = box
    transform = create_transform(Preprocessing(input_size=(1, 80, 120)), True, name)
    sample = transform(marked(x, y, x + width, y + height), torch.Generator().manual_seed(seed))
    assert sample.masks.shape == (len(sample.mask_classes), 80, 120)
    for (x0, y0, x1, y1), mask in zip(sample.boxes.tolist(), sample.masks, strict=False):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        # A turned rectangle fills its box only at right angles; nowhere does it leave it.
        slack = 1.5
        assert x0 - slack <= columns[0] <= columns[-1] + 1 <= x1 + slack
        assert y0 - slack <= rows[0] <= rows[-1] + 1 <= y1 + slack
        if name != "paper":
            # The mask is the pixels whose centres are in the box.
            middle_x, middle_y = torch.arange(120) + 0.5, torch.arange(80)[:, None] + 0.5
            inside = (middle_x > x0) & (middle_x < x1) & (middle_y > y0) & (middle_y < y1)
            assert torch.equal(mask, inside)
    # A box may keep a corner of less than a pixel that no pixel's centre lies in.
    assert len(sample.masks) <= len(sample.boxes)
