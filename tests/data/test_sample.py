import pytest
import torch

from pylon_zoo.data import Cached, LocalizationDataset, Phantom, Sample
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
