import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pylon_zoo import create_transform
from pylon_zoo.data import Sample
from pylon_zoo.data.transforms import (
    AUGMENTATIONS,
    Change,
    brightness_contrast,
    change,
    change_and_resize,
    flip,
    quarter_turn,
    random_crop,
    resize,
    rotate,
)
from pylon_zoo.spec import Preprocessing

#: Of light, dihedral and paper in turn, from seed 7 and for an image of 100 x 80 px.
DRAWN = [
    Change(brightness=-0.06023936271667481, contrast=1.0636846780776978),
    Change(turns=2, mirrored=True, brightness=-0.014987719058990476, contrast=0.8828344106674194),
    Change(
        crop=(10, 7, 89, 73),
        mirrored=True,
        brightness=-0.05490982532501221,
        contrast=0.8592859506607056,
    ),
]


def marked(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (40, 60)) -> Sample:
    """An image that is bright exactly in its box, with a point at the box's first pixel."""
    image = torch.full((1, *size), 0.25)
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


def augment(sample: Sample, name: str, generator: torch.Generator) -> Sample:
    return change(sample, AUGMENTATIONS[name](sample.width, sample.height, generator))


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
        draws = [augment(sample, name, torch.Generator().manual_seed(seed)) for _ in range(2)]
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
            augment(sample, "paper", torch.Generator().manual_seed(seed)) for _ in range(2)
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


def test_the_random_streams_stand_still() -> None:
    """Published checkpoints were trained on them."""
    generator = torch.Generator().manual_seed(7)
    draws = [AUGMENTATIONS[name](100, 80, generator) for name in ("light", "dihedral", "paper")]
    assert draws == DRAWN
    assert AUGMENTATIONS["none"](100, 80, generator) == Change()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(AUGMENTATIONS)),
    seed=st.integers(0, 9999),
    place=st.tuples(st.floats(12, 148), st.floats(12, 108)),
    size=st.sampled_from([(40, 50), (64, 96), (120, 160), (150, 170)]),
)
def test_points_and_corners_follow_every_augmentation(
    name: str, seed: int, place: tuple[float, float], size: tuple[int, int]
) -> None:
    """A soft spot is found again where its point and the corners of its box say."""
    x, y = torch.arange(160) + 0.5, torch.arange(120)[:, None] + 0.5
    spot = torch.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 3.0**2))
    corners = torch.tensor([[place[0] - 8, place[1] - 8, place[0] + 8, place[1] + 8]])
    sample = Sample(
        image=0.3 + 0.4 * spot[None],
        labels=torch.ones(1),
        boxes=corners,
        box_classes=torch.tensor([0]),
        points=torch.tensor([place]),
        point_classes=torch.tensor([0]),
    )
    preprocessing = Preprocessing(input_size=(1, *size))
    moved = create_transform(preprocessing, True, name)(sample, torch.Generator().manual_seed(seed))
    assert moved.image.shape == (1, *size)
    drawn = AUGMENTATIONS[name](160, 120, torch.Generator().manual_seed(seed))
    matrix = torch.from_numpy(drawn.matrix(160, 120, size[1], size[0])).float()
    expected = matrix @ torch.tensor([*place, 1.0])
    limits = torch.tensor([size[1], size[0]])
    x0, y0, x1, y1 = corners[0].tolist()
    tracked = matrix @ torch.tensor([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]]).T
    box = torch.cat([tracked[:2].amin(1), tracked[:2].amax(1)])
    clipped = box.clamp(min=0).minimum(limits.repeat(2))
    if (clipped[2:] > clipped[:2]).all():
        assert torch.allclose(moved.boxes[0], clipped, atol=1e-3)
    else:
        assert not len(moved.boxes)
    if not ((expected[:2] > 0) & (expected[:2] < limits)).all():
        assert not len(moved.points)
        return
    assert torch.allclose(moved.points[0], expected[:2], atol=1e-3)
    # The spot itself, where all of it was kept.
    if ((box[:2] < 0) | (box[2:] > limits)).any():
        return
    px, py = torch.arange(size[1]) + 0.5, torch.arange(size[0])[:, None] + 0.5
    near = (px > box[0]) & (px < box[2]) & (py > box[1]) & (py < box[3])
    inside = moved.image[0][near]
    weight = ((moved.image[0] - inside.min() - 0.3 * (inside.max() - inside.min())) * near).clamp(0)
    if float(inside.max()) >= 1.9 or weight.sum() == 0:  # clipped by brightness
        return
    found = torch.stack([(weight * px).sum(), (weight * py).sum()]) / weight.sum()
    assert (found - expected[:2]).abs().max() < 0.35


def test_one_step_is_the_steps_one_after_another() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 9, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (240, 320), mode="bicubic").clamp(0, 1)
    sample = dataclasses.replace(marked(70, 60, 160, 150, size=(240, 320)), image=smooth[0])
    for seed in range(12):
        drawn = AUGMENTATIONS["paper"](320, 240, torch.Generator().manual_seed(seed))
        for height, width in ((240, 320), (100, 110), (50, 40)):
            steps = resize(change(sample, drawn), height, width)
            at_once = change_and_resize(sample, drawn, height, width)
            # But for the edge of what was turned out of the image.
            difference = (steps.image - at_once.image).abs()
            assert difference.median() < 0.004
            assert (difference > 0.04).float().mean() < 0.02
            assert torch.allclose(steps.boxes, at_once.boxes, atol=1e-2)
            assert torch.equal(steps.box_classes, at_once.box_classes)
            assert torch.allclose(steps.points, at_once.points, atol=1e-2)
            assert (steps.masks ^ at_once.masks).float().mean() < 0.01


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_shrinking_averages_to_the_edges(dtype: torch.dtype) -> None:
    pixels = torch.randint(0, 256, (2, 90, 92), generator=torch.Generator().manual_seed(0))
    image = pixels.to(torch.uint8) if dtype == torch.uint8 else pixels / 255
    sample = Sample(image=image, labels=torch.zeros(0))
    thirds = change_and_resize(sample, Change(crop=(0, 0, 90, 90)), 30, 30).image
    expected = (pixels[:, :, :90] / 255).unflatten(2, (30, 3)).unflatten(1, (30, 3)).mean((2, 4))
    assert thirds.dtype == torch.float32
    assert torch.allclose(thirds, expected, atol=1e-5)
    flat = Sample(image=torch.full_like(image[:, :, :91], image[0, 0, 0]), labels=torch.zeros(0))
    whole = change_and_resize(flat, Change(crop=(0, 0, 91, 90)), 40, 41).image
    assert torch.allclose(whole, flat.image[0, 0, 0] / (255 if dtype == torch.uint8 else 1))


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_batches_on_a_device_are_changed_as_in_a_worker(name: str, device: str) -> None:
    preprocessing = Preprocessing(input_size=(3, 48, 48), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    transform = create_transform(preprocessing, True, name)
    images = [torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    samples = [Sample(image=image, labels=torch.zeros(0)) for image in images]

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(100 + i) for i in range(8)]

    ours = [transform(s, g).image for s, g in zip(samples, generators(), strict=True)]
    drawn = [
        transform.draw(transform.prepare(s), g) for s, g in zip(samples, generators(), strict=True)
    ]
    batch = torch.stack([transform.prepare(s).image for s in samples])
    theirs = transform.finish(batch.to(device), torch.stack(drawn).to(device))
    assert theirs.device.type == device
    assert torch.allclose(torch.stack(ours), theirs.cpu(), atol=3e-5)
    if name != "none":
        plain = create_transform(preprocessing)
        assert not torch.allclose(plain(samples[0]).image, theirs[0].cpu(), atol=0.01)
