import xml.etree.ElementTree as ET
from pathlib import Path

import fake_bccd
import pytest

from pylon_zoo.data import BCCD, Tiles, open_task
from pylon_zoo.errors import DatasetError, UnknownNameError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_bccd.write(tmp_path / "BCCD")


def test_boxes_are_converted_to_edges_between_pixels(root: Path) -> None:
    sample = BCCD(root, "val")[0]
    assert sample.boxes.tolist() == [[10, 20, 110, 120], [200, 100, 400, 300]]
    assert sample.box_classes.tolist() == [0, 1]
    assert sample.labels.tolist() == [1, 1, 0]
    assert sample.image.shape == (3, 480, 640)
    # The made-up cell is dark in one channel exactly inside its box.
    red = sample.image[0].float()
    assert abs(float(red[100:300, 200:400].mean()) - 90) < 3
    assert abs(float(red[98, 200:400].mean()) - 200) < 8


def test_fit_and_select_partition_the_train_list(bccd_root: Path) -> None:
    names = {split: BCCD(bccd_root, split).names for split in ("train", "val", "fit", "select")}
    assert sorted(names["fit"] + names["select"]) == sorted(names["train"])
    assert not set(names["fit"]) & set(names["select"])
    assert not set(names["train"]) & set(names["val"])
    assert (len(names["train"]), len(names["val"])) == (205, 87)
    assert len(names["select"]) == 34


def test_counts_agree_with_the_annotation_files(bccd_root: Path) -> None:
    dataset = BCCD(bccd_root, "val")
    counted = dict.fromkeys(BCCD.class_names, 0)
    for name in (bccd_root / "ImageSets/Main/val.txt").read_text().split():
        for found in ET.parse(bccd_root / "Annotations" / f"{name}.xml").getroot().iter("name"):
            counted[str(found.text)] += 1
    mine = dict.fromkeys(BCCD.class_names, 0)
    for found in dataset._annotations:
        assert len(found.boxes) == len(found.classes)
        for k in found.classes.tolist():
            mine[BCCD.class_names[k]] += 1
    assert mine == counted


def test_missing_files_name_the_remedy(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DatasetError, match=r"val\.txt.*JPEGImages.*github\.com/Shenggan"):
        BCCD(tmp_path, "val")
    (root / "Annotations" / "BloodImage_00001.xml").unlink()
    with pytest.raises(DatasetError, match=r"BloodImage_00001\.xml"):
        BCCD(root, "val")
    with pytest.raises(UnknownNameError, match="'val'"):
        BCCD(root, "vall")
    with pytest.raises(DatasetError, match="--root DIR"):
        open_task("bccd")


@pytest.mark.parametrize(
    "damage", ["<annotation><object>", "<annotation><object><name>RBC</name></object></annotation>"]
)
def test_a_damaged_annotation_is_named(root: Path, damage: str) -> None:
    (root / "Annotations" / "BloodImage_00000.xml").write_text(damage)
    with pytest.raises(DatasetError, match=r"BloodImage_00000\.xml.*damaged"):
        BCCD(root, "val")


def test_an_unknown_cell_is_named(root: Path) -> None:
    path = root / "Annotations" / "BloodImage_00000.xml"
    path.write_text(path.read_text().replace("WBC", "wbc"))
    with pytest.raises(DatasetError, match=r"BloodImage_00000\.xml"):
        BCCD(root, "val")


def test_the_tasks_views(root: Path) -> None:
    task = open_task("bccd", str(root))
    assert len(task.classification("val")) == 2 * 6
    assert len(task.localization("val")) == 2
    assert task.localization("val")[1].image.shape == (3, 480, 640)
    # By hand: the platelet of the second image is in the lower left tile alone; of the red cell
    # 56 % are in the upper middle tile and 76 % in the lower middle one.
    tiles = task.classification("val")
    assert isinstance(tiles, Tiles)
    labels = [tiles[6 + i].labels.tolist() for i in range(6)]
    assert labels == [[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]


def test_an_unknown_task_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'phantom'"):
        open_task("fantom")
