import pickle
from pathlib import Path

import fake_voc2012
import numpy as np
import pytest
import torch
from PIL import Image

from pylon_zoo.data import VOC2012, Tiles, open_task
from pylon_zoo.errors import DatasetError, ImageReadError, UnknownNameError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_voc2012.write(tmp_path / "VOCdevkit" / "VOC2012")


CAT, PERSON = (VOC2012.CLASS_NAMES.index(name) for name in ("cat", "person"))


@pytest.mark.parametrize("scale", [1, 2])
def test_boxes_and_masks_also_of_a_resized_copy(tmp_path: Path, scale: int) -> None:
    sample = VOC2012(fake_voc2012.write(tmp_path / "copy", scale=scale), "val")[0]
    assert sample.image.shape == (3, 40 * scale, 60 * scale)
    assert (sample.boxes / scale).tolist() == [[10, 5, 30, 25]]
    assert sample.box_classes.tolist() == sample.mask_classes.tolist() == [CAT]
    expected = torch.zeros(40, 60, dtype=torch.bool)
    expected[6:24, 11:29] = True
    assert torch.equal(sample.masks[0, ::scale, ::scale], expected)
    assert sample.masks.sum() == expected.sum() * scale**2


def test_a_class_of_difficult_objects_only_is_unknown(root: Path) -> None:
    first, second = VOC2012(root, "val")
    assert first.labels[CAT] == 1
    assert first.labels[PERSON].isnan()
    assert first.labels.nansum() == 1
    # Another one that is not difficult makes it present; the difficult one is no place.
    assert second.labels[PERSON] == 1
    assert second.boxes.tolist() == [[0, 0, 20, 30]]
    assert second.masks.shape == (0, 40, 60)


def test_splits(root: Path) -> None:
    names = {s: {r.group for r in VOC2012(root, s).records} for s in VOC2012.SPLITS}
    assert names["val"] == set(fake_voc2012.VAL)
    assert names["train"] | names["val"] == names["trainval"] == set(fake_voc2012.OBJECTS)
    assert names["fit"] | names["select"] == names["train"]
    assert not names["fit"] & names["select"]
    assert 0 < len(names["select"]) < len(names["fit"])


def test_roots_above_it_will_do(root: Path) -> None:
    for above in (root, root.parent, root.parent.parent):
        assert len(VOC2012(above, "val")) == 2


def test_records_travel_to_other_processes(root: Path) -> None:
    dataset = VOC2012(root, "val")
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0].masks, dataset[0].masks)


def test_the_tasks_views(root: Path) -> None:
    task = open_task("voc2012", str(root))
    assert task.class_names == VOC2012.CLASS_NAMES
    assert len(task.training()) + len(task.selection()) == len(fake_voc2012.OBJECTS) - 2
    assert len(task.classification("val")) == len(task.localization("val")) == 2
    # Three eighths of the cat are in each of the first two tiles.
    tiles = Tiles(task.localization("val"), 20, min_visible=0.25)
    shows_cat = [bool(tile.labels[CAT]) for tile in (tiles[i] for i in range(6))]
    assert shows_cat == [True, True, False, False, False, False]


def test_what_is_missing_or_damaged_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"val\.txt.*host\.robots\.ox\.ac\.uk"):
        VOC2012(tmp_path / "elsewhere", "val")
    with pytest.raises(UnknownNameError, match="'trainval'"):
        VOC2012(root, "train_val")
    with pytest.raises(DatasetError, match="--root DIR"):
        open_task("voc2012")
    xml = root / "Annotations" / "2008_000001.xml"
    xml.write_text(xml.read_text().replace("cat", "lynx"))
    with pytest.raises(DatasetError, match=r"2008_000001\.xml.*damaged"):
        VOC2012(root, "val")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n damaged"])
def test_a_damaged_segmentation_is_named(root: Path, content: bytes) -> None:
    path = root / "SegmentationClass" / "2008_000001.png"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=r"2008_000001\.png: the segmentation cannot be read"):
        VOC2012(root, "val")[0]


@pytest.mark.parametrize("shape", [(40, 60, 3), (40, 60)])
def test_an_image_that_is_no_segmentation_is_refused(root: Path, shape: tuple[int, ...]) -> None:
    path = root / "SegmentationClass" / "2008_000001.png"
    Image.fromarray(np.full(shape, 77, np.uint8)).save(path)
    with pytest.raises(ImageReadError, match=r"palette indices 0 to 20, or 255 for void"):
        VOC2012(root, "val")[0]
