import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pylon_zoo.data import Phantom
from pylon_zoo.errors import InvalidOptionError, UnknownNameError


def test_the_same_index_is_the_same_image_and_others_differ() -> None:
    first, again = Phantom("test")[7], Phantom("test", length=9)[7]
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.boxes, again.boxes)
    for other in (Phantom("test")[8], Phantom("val")[7], Phantom("test", seed=1)[7]):
        assert not torch.equal(first.image, other.image)


def test_unlimited() -> None:
    sample = Phantom(length=10)[123_456_789]
    assert sample.image.shape == (1, 256, 256)
    assert sample.image.dtype == torch.uint8


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, 10**6), size=st.sampled_from([64, 100, 256]))
def test_boxes_lie_in_the_image_and_agree_with_the_labels(index: int, size: int) -> None:
    sample = Phantom("train", size=size)[index]
    boxes = sample.boxes
    assert sample.image.shape == (1, size, size)
    assert ((boxes >= 0) & (boxes <= size)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert set(sample.box_classes.tolist()) == set(sample.labels.nonzero().flatten().tolist())


def test_findings_differ_in_size_and_come_together() -> None:
    dataset = Phantom("train", size=256)
    sides: dict[int, list[float]] = {k: [] for k in range(len(dataset.class_names))}
    counts = []
    for index in range(150):
        sample = dataset[index]
        counts.append(int(sample.labels.sum()))
        extent = (sample.boxes[:, 2:] - sample.boxes[:, :2]).amax(dim=1) / 256
        for k, side in zip(sample.box_classes.tolist(), extent.tolist(), strict=True):
            sides[k].append(side)
    assert len(sides) >= 6
    nodules = sides[dataset.class_names.index("nodule")]
    assert 0.02 <= min(nodules) <= max(nodules) <= 0.04
    assert min(sides[dataset.class_names.index("cardiomegaly")]) > 0.25
    assert max(counts) >= 3
    assert counts.count(0) > 5


@pytest.mark.parametrize("finding", ["nodule", "mass", "effusion"])
def test_a_bright_finding_is_brighter_than_what_surrounds_it(finding: str) -> None:
    dataset = Phantom("train", size=256)
    kind = dataset.class_names.index(finding)
    contrast = []
    for index in range(120):
        sample = dataset[index]
        for x0, y0, x1, y1 in sample.boxes[sample.box_classes == kind].round().int().tolist():
            pixels = sample.image[0].float()
            inside = pixels[y0:y1, x0:x1].mean()
            around = pixels[max(y0 - 6, 0) : y1 + 6, max(x0 - 6, 0) : x1 + 6].mean()
            contrast.append(float(inside - around))
    assert len(contrast) > 10
    assert sum(c > 0 for c in contrast) > 0.9 * len(contrast)


def test_bad_options() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'train'"):
        Phantom("trian")
    with pytest.raises(InvalidOptionError, match="size 32"):
        Phantom(size=32)
