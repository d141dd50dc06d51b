import dataclasses
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pylon_zoo.data import Cached, LocalizationDataset, Phantom, Sample
from pylon_zoo.data.sample import resize_masks
from pylon_zoo.errors import InvalidInputError


def test_size_defaults_to_the_images_own() -> None:
    sample = Sample(image=torch.zeros(1, 70, 90), labels=torch.zeros(2))
    assert sample.size == (70, 90)
    assert (sample.height, sample.width) == (70, 90)
    assert sample.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("image", "boxes", "match"),
    [
        (torch.zeros(70, 90), torch.zeros(0, 4), r"\(channels, height, width\).*\(70, 90\)"),
        (torch.zeros(1, 70, 90), torch.zeros(2, 4), r"\(2, 4\) with 0 classes"),
        (torch.zeros(1, 70, 90), torch.zeros(0, 5), r"\(0, 5\)"),
    ],
)
def test_what_does_not_fit_is_refused(image: torch.Tensor, boxes: torch.Tensor, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        Sample(image=image, labels=torch.zeros(2), boxes=boxes)


def test_datasets_follow_the_protocol() -> None:
    assert isinstance(Phantom(), LocalizationDataset)
    assert isinstance(Cached(Phantom()), LocalizationDataset)


def test_cached_draws_each_sample_once_and_starts_over() -> None:
    drawn = []

    class Counting(Phantom):
        def __getitem__(self, index: int) -> Sample:
            drawn.append(index)
            return super().__getitem__(index)

    cached = Cached(Counting(size=64, length=3))
    assert cached[4] is cached[1]
    assert drawn == [1]
    assert len(cached) == 3
    assert cached.class_names == Phantom.class_names


@pytest.mark.parametrize(
    ("masks", "classes", "match"),
    [
        (torch.zeros(1, 70, 90), torch.tensor([0]), r"float32.*\(M, H, W\) of bool"),
        (torch.zeros(2, 70, 90, dtype=torch.bool), torch.tensor([0]), r"\(2, 70, 90\).*1 classes"),
        (torch.zeros(1, 90, 70, dtype=torch.bool), torch.tensor([0]), r"an image of 90 x 70 px"),
    ],
)
def test_masks_that_do_not_fit_are_refused(
    masks: torch.Tensor, classes: torch.Tensor, match: str
) -> None:
    with pytest.raises(InvalidInputError, match=match):
        Sample(
            image=torch.zeros(1, 70, 90),
            labels=torch.zeros(2),
            masks=masks,
            mask_classes=classes,
        )


def test_no_masks_fit_any_image() -> None:
    sample = Sample(image=torch.zeros(1, 70, 90), labels=torch.zeros(2))
    assert sample.masks.shape == (0, 70, 90)
    assert dataclasses.replace(sample, image=torch.zeros(1, 20, 30)).masks.shape == (0, 20, 30)


@settings(max_examples=60, deadline=None)
@given(old=st.integers(1, 40), new=st.integers(1, 40), seed=st.integers(0, 9))
def test_a_resized_mask_takes_the_pixel_under_each_centre(old: int, new: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, old, 7, generator=generator) < 0.5
    resized = resize_masks(mask, new, 7)
    for row in range(new):
        centre = Fraction(2 * row + 1, 2) * old / new
        assert torch.equal(resized[:, row], mask[:, int(centre)])
    assert torch.equal(resize_masks(mask, old, 7), mask)


def test_masks_of_a_class_are_united() -> None:
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[0, 0], masks[1, :, 1], masks[2, 3] = True, True, True
    sample = Sample(
        image=torch.zeros(1, 4, 5),
        labels=torch.ones(3),
        masks=masks,
        mask_classes=torch.tensor([2, 0, 2]),
    )
    united = sample.class_masks()
    assert united.sum(dim=(1, 2)).tolist() == [4, 0, 10]
    assert torch.equal(united[2], masks[0] | masks[2])
    assert (
        not dataclasses.replace(
            sample, masks=masks[:0], mask_classes=torch.tensor([], dtype=torch.int64)
        )
        .class_masks()
        .any()
    )
