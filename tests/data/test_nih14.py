import csv
from collections import Counter
from pathlib import Path

import fake_nih14
import pytest
import torch

from pylon_zoo.data import NIH14, open_task
from pylon_zoo.errors import DatasetError, UnknownNameError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_nih14.write(tmp_path / "nih14")


@pytest.mark.parametrize("folders", [False, True])
def test_labels_and_boxes_of_a_resized_copy(tmp_path: Path, folders: bool) -> None:
    root = fake_nih14.write(tmp_path / "copy", width=256, height=128, folders=folders)
    dataset = NIH14(root, "test")
    sample = dataset[0]
    assert sample.image.shape == (1, 128, 256)
    assert sample.group == "50"
    present = {"Cardiomegaly", "Infiltration"}
    assert {n for n, v in zip(dataset.class_names, sample.labels, strict=True) if v} == present
    assert sample.boxes.tolist() == [[64, 64, 160, 96], [160, 16, 192, 24]]
    assert [dataset.class_names[k] for k in sample.box_classes] == ["Cardiomegaly", "Infiltration"]
    # The made-up findings are bright exactly in their boxes.
    for value, (x0, y0, x1, y1) in zip((100, 200), sample.boxes.int().tolist(), strict=True):
        outside = (sample.image[0] == value).clone()
        assert outside[y0:y1, x0:x1].all()
        outside[y0:y1, x0:x1] = False
        assert not outside.any()
    assert dataset[1].labels.sum() == 0
    assert len(dataset.with_boxes()) == 1
    assert [s.source for s in dataset] == [dataset[i].source for i in (2, 3)]


def test_validation_patients_are_their_own(root: Path) -> None:
    splits = {split: NIH14(root, split).records for split in NIH14.SPLITS}
    groups = {split: {r.group for r in records} for split, records in splits.items()}
    assert groups["train"] | groups["val"] == groups["train_val"]
    assert not groups["train"] & groups["val"]
    assert 0 < len(groups["val"]) < len(groups["train"])
    assert len(splits["train"]) + len(splits["val"]) == len(splits["train_val"])


def test_the_older_table_is_read_too(root: Path) -> None:
    (root / "Data_Entry_2017_v2020.csv").rename(root / "Data_Entry_2017.csv")
    assert len(NIH14(root, "test")) == 2


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"Data_Entry_2017_v2020\.csv.*nihcc\.app\.box\.com"):
        NIH14(tmp_path)
    with pytest.raises(UnknownNameError, match="'train_val'"):
        NIH14(root, "trainval")
    with pytest.raises(DatasetError, match="--root DIR"):
        open_task("nih14")
    (root / "images" / "00000051_000.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 2 images are missing, first .*00000051_000\.png"):
        open_task("nih14", str(root)).classification("test")
    (root / "test_list.txt").write_text("00009999_000.png")
    with pytest.raises(DatasetError, match=r"no row for 00009999_000\.png"):
        NIH14(root, "test")


@pytest.mark.parametrize(
    ("file", "old", "new", "match"),
    [
        ("Data_Entry_2017_v2020.csv", "Hernia", "Hernie", "'Hernie' is no finding"),
        ("BBox_List_2017.csv", "256.0", "", "a row is damaged"),
        ("BBox_List_2017.csv", "Infiltrate", "Infiltrated", "'Infiltrated'"),
        ("Data_Entry_2017_v2020.csv", "Finding Labels", "Findings", "no column 'Finding Labels'"),
    ],
)
def test_damaged_tables_are_named(root: Path, file: str, old: str, new: str, match: str) -> None:
    path = root / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DatasetError, match=f"{file}.*{match}"):
        NIH14(root, "train_val")


def test_the_tasks_views(root: Path) -> None:
    task = open_task("nih14", str(root))
    assert task.class_names == NIH14.CLASS_NAMES
    training, selection = task.training(), task.selection()
    assert len(training) + len(selection) == len(fake_nih14.IMAGES) - 2
    # Any index is an image: training counts on over the epochs.
    again, first = training[len(training) + 1], training[1]
    assert torch.equal(again.image, first.image)
    assert len(task.classification("test")) == 2
    assert len(task.localization("test")) == 1


def test_counts_of_the_real_copy_agree_with_its_table(nih14_root: Path) -> None:
    counted: Counter[str] = Counter()
    listed = {
        split: set((nih14_root / f"{split}_list.txt").read_text().split())
        for split in ("train_val", "test")
    }
    with (nih14_root / "Data_Entry_2017_v2020.csv").open(encoding="utf-8") as file:
        for row in csv.reader(file):
            for split, names in listed.items():
                if row[0] in names:
                    counted.update((split, finding) for finding in row[1].split("|"))
    for split, names in listed.items():
        dataset = NIH14(nih14_root, split).require_files()
        assert isinstance(dataset, NIH14)
        assert len(dataset) == len(names)
        labels = torch.stack([record.labels for record in dataset.records])
        assert dict(zip(NIH14.CLASS_NAMES, labels.sum(0).int().tolist(), strict=True)) == {
            name: counted[split, name] for name in NIH14.CLASS_NAMES
        }
        assert int((labels.sum(1) == 0).sum()) == counted[split, "No Finding"]


def test_all_boxes_of_the_real_copy_lie_where_1024_pixels_say(nih14_root: Path) -> None:
    expected: dict[str, list[list[float]]] = {}
    with (nih14_root / "BBox_List_2017.csv").open(encoding="utf-8") as file:
        for line in file.read().splitlines()[1:]:
            name, _, x, y, w, h = line.split(",")[:6]
            corners = [float(x), float(y), float(x) + float(w), float(y) + float(h)]
            expected.setdefault(name, []).append(corners)
    checked = 0
    for split in ("train_val", "test"):
        for sample in NIH14(nih14_root, split).with_boxes():
            assert sample.image.shape == (1, 458, 458)
            boxes = torch.tensor(expected[Path(sample.source).name]) / 1024 * 458
            assert torch.allclose(sample.boxes, boxes, atol=1e-3)
            checked += len(boxes)
    assert checked == 485
