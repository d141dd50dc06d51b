from pathlib import Path

import fake_vindr_cxr
import pytest
import torch
from fake_vindr_cxr import name

from pylon_zoo.data import Tiles, VinDrCXR, open_task
from pylon_zoo.data.check import check_task
from pylon_zoo.errors import DatasetError, InvalidOptionError, UnknownNameError

CLASSES = {n: k for k, n in enumerate(VinDrCXR.CLASS_NAMES)}
CARDIOMEGALY, OTHER, NONE = (CLASSES[n] for n in ("Cardiomegaly", "Other lesion", "No finding"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_vindr_cxr.write(tmp_path / "vindr")


def first(dataset: VinDrCXR) -> int:
    return [record.group for record in dataset.records].index(name(0))


@pytest.mark.parametrize(("layout", "shift"), [("physionet", 0.5), ("kaggle", 0.0)])
def test_labels_of_any_reader_and_boxes_of_all(tmp_path: Path, layout: str, shift: float) -> None:
    dataset = VinDrCXR(fake_vindr_cxr.write(tmp_path / layout, layout=layout))
    sample = dataset[first(dataset)]
    expected = [[16, 40, 48, 64], [18, 40, 50, 66], [2, 4, 10, 20]]
    assert sample.boxes.tolist() == [[v + shift for v in box] for box in expected]
    assert sample.box_classes.tolist() == [CARDIOMEGALY, CARDIOMEGALY, OTHER]
    present = sample.labels.nonzero().flatten().tolist()
    # The third reader said a disease, which the competition has no class for.
    assert present == [CARDIOMEGALY, OTHER] + ([NONE] if layout == "kaggle" else [])
    assert sample.image.shape == (1, 80, 64)
    assert (sample.image[0, 40:66, 18:48] == 65535).all()


def test_unknown_readings_weigh_less_than_known_ones(root: Path) -> None:
    table = root / "annotations" / "image_labels_train.csv"
    header, *rows = table.read_text().splitlines()
    at = header.split(",").index("Cardiomegaly")
    other, edema = header.split(",").index("ILD"), header.split(",").index("Edema")
    cells = [row.split(",") for row in rows]
    cells[2][at] = ""  # said by the other two
    cells[0][other] = "-1"  # by nobody
    cells[0][edema] = "-1"  # another reader has another lesion
    table.write_text("\n".join([header, *map(",".join, cells)]))
    dataset = VinDrCXR(root)
    labels = dataset.records[first(dataset)].labels
    assert labels[CARDIOMEGALY] == labels[OTHER] == 1
    assert labels[CLASSES["ILD"]].isnan()
    assert labels.isnan().sum() == 1


@pytest.mark.parametrize("percent", [70, 50, 10])
def test_parts_of_the_training_images(root: Path, percent: int) -> None:
    groups = {
        s: [r.group for r in VinDrCXR(root, s, train_percent=percent).records]
        for s in VinDrCXR.SPLITS
    }
    assert sorted(groups["official_train"]) == sorted(fake_vindr_cxr.TRAIN)
    parts = groups["train"] + groups["val"] + groups["held_out"]
    assert sorted(parts) == sorted(fake_vindr_cxr.TRAIN)
    assert groups["test"] == list(fake_vindr_cxr.TEST)
    counts = {70: (42, 3, 15), 50: (35, 7, 18), 10: (5, 12, 43)}
    assert tuple(len(groups[s]) for s in ("train", "val", "held_out")) == counts[percent]
    smaller = [r.group for r in VinDrCXR(root, train_percent=10).records]
    assert set(smaller) <= set(groups["train"])


def test_the_consensus_of_the_test_images(root: Path) -> None:
    finding, none = VinDrCXR(root, "test")
    assert finding.boxes.tolist() == [[8.5, 8.5, 24.5, 40.5]]
    assert finding.labels.nonzero().flatten().tolist() == [CLASSES["ILD"]]
    assert none.labels.nonzero().flatten().tolist() == [NONE]
    assert len(none.boxes) == 0


@pytest.mark.parametrize("layout", ["physionet", "kaggle"])
def test_boxes_follow_copies(tmp_path: Path, layout: str) -> None:
    root = fake_vindr_cxr.write(tmp_path / "copy", layout=layout, scale=2)
    dataset = VinDrCXR(root)
    sample = dataset[first(dataset)]
    assert sample.image.shape == (1, 40, 32)
    original = dataset.records[first(dataset)].boxes
    assert torch.equal(sample.boxes * 2, original)
    assert (sample.image[0, 20:33, 9:24] == 250).all()
    # Without the originals' sizes nobody can tell where the boxes are.
    (root / "train_meta.csv").unlink()
    with pytest.raises(DatasetError, match=r"boxes of 1 images.*train_meta\.csv.*dim0 \(height\)"):
        VinDrCXR(root)
    # The DICOM image needs no such table, and is preferred to its copy.
    fake_vindr_cxr.write(tmp_path / "dicom", layout=layout)
    originals = tmp_path / "dicom" / "train"
    (originals / f"{name(0)}.dicom").rename(root / "train" / f"{name(0)}.dicom")
    dataset = VinDrCXR(root)
    assert dataset[first(dataset)].image.shape == (1, 80, 64)


def test_the_tasks_views(root: Path, tmp_path: Path) -> None:
    counts = {}
    for data, percent in (("vindr_cxr", 70), ("vindr_cxr_50", 50), ("vindr_cxr_10", 10)):
        task = open_task(data, str(root))
        assert task.class_names == VinDrCXR.CLASS_NAMES
        assert "test" in task.splits
        counts[percent] = (len(task.training()), len(task.selection()))
    assert counts == {70: (42, 3), 50: (35, 7), 10: (5, 12)}
    assert len(task.localization("test")) == 1
    tiles = Tiles(task.localization("test"), 32)
    # Rows of tiles begin at 0, 24 and 48; the box spans 32 rows from 8.5 on.
    shown = [bool(tile.labels[CLASSES["ILD"]]) for tile in (tiles[i] for i in range(6))]
    assert shown == [True, False, True, False, False, False]
    kaggle = open_task("vindr_cxr", str(fake_vindr_cxr.write(tmp_path / "k", layout="kaggle")))
    assert "test" not in kaggle.splits
    for sound in (task, kaggle):
        assert set(check_task(sound, workers=1).counts()) == {"empty class"}


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train\.csv.*physionet\.org"):
        VinDrCXR(tmp_path)
    with pytest.raises(UnknownNameError, match="'held_out'"):
        VinDrCXR(root, "heldout")
    with pytest.raises(InvalidOptionError, match="70, 50, 10; got 60"):
        VinDrCXR(root, train_percent=60)
    with pytest.raises(DatasetError, match="--root DIR"):
        open_task("vindr_cxr")
    kaggle = fake_vindr_cxr.write(tmp_path / "kaggle", layout="kaggle")
    with pytest.raises(DatasetError, match="no labels; measure on held_out"):
        VinDrCXR(kaggle, "test")
    (root / "train" / f"{name(0)}.dicom").unlink()
    with pytest.raises(DatasetError, match=rf"1 of 42 images are missing, first .*{name(0)}"):
        VinDrCXR(root).require_files()


@pytest.mark.parametrize(
    ("file", "old", "new", "match"),
    [
        ("annotations_train.csv", "Cardiomegaly", "Cardiomegalie", "'Cardiomegalie' is no class"),
        ("annotations_train.csv", "16.5", "nan", r"row 2: a box has an area"),
        ("annotations_train.csv", "16.5", "", r"row 2: a box is four numbers"),
        ("annotations_train.csv", "x_min", "left", "no column 'x_min'"),
        ("annotations_train.csv", name(0), "other", "other has boxes, but no row of labels"),
        ("image_labels_train.csv", "R8,0", "R8,2", r"row 2: 'Aortic enlargement' is '2'"),
        ("image_labels_train.csv", "ILD", "IPD", "no column 'ILD'"),
    ],
)
def test_damaged_tables_are_named(root: Path, file: str, old: str, new: str, match: str) -> None:
    path = root / "annotations" / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DatasetError, match=f"{file}.*{match}"):
        VinDrCXR(root)


def test_a_table_of_sizes_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    root = fake_vindr_cxr.write(tmp_path / "copy", scale=2)
    table = root / "train_meta.csv"
    table.write_text(table.read_text().replace("80,64", "80,0", 1))
    with pytest.raises(DatasetError, match=r"train_meta\.csv.*no height and width"):
        VinDrCXR(root)
