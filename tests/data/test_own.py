import math
from pathlib import Path

import fake_own
import numpy as np
import pytest
import test_fuzz
import torch

from pylon_zoo.data import COCO, CSVTable, FileDataset, ImageFolder, open_task
from pylon_zoo.errors import DatasetError, PylonZooError, UnknownNameError


def labels_of(dataset: FileDataset, index: int) -> list[float | None]:
    values = dataset.records[index].labels.tolist()
    return [None if math.isnan(value) else value for value in values]


def assert_disjoint_and_complete(kind: type[FileDataset], root: Path) -> None:
    splits = {split: kind(root, split).records for split in ("train", "val", "test", "all")}  # type: ignore[call-arg]
    assert all(splits.values())
    parts = [{r.group for r in splits[s]} for s in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert sum(len(splits[s]) for s in ("train", "val", "test")) == len(splits["all"])


def test_class_columns_and_masked_labels(tmp_path: Path) -> None:
    dataset = CSVTable(fake_own.csv_table(tmp_path))
    assert dataset.class_names == ("cyst", "stone")
    assert [labels_of(dataset, i) for i in range(3)] == [[0, 1], [1, 0], [0, None]]
    assert [labels_of(dataset, i)[1] for i in (5, 8, 11)] == [None] * 3
    sample = dataset[1]
    assert sample.boxes.tolist() == [[10, 8, 30, 24]]
    assert sample.box_classes.tolist() == [0]
    assert (sample.image[0, 8:24, 10:30] == 200).all()
    assert sample.group == "p1"
    assert_disjoint_and_complete(CSVTable, tmp_path)


def test_a_label_column_with_separators(tmp_path: Path) -> None:
    fake_own.csv_table(tmp_path, images=4)
    (tmp_path / "labels.csv").write_text(
        "Image Index,Finding Labels\n0.png,stone|cyst\n1.png,No Finding\n2.png,\n3.png,stone;cyst\n"
    )
    dataset = CSVTable(tmp_path / "labels.csv")
    assert dataset.class_names == ("cyst", "stone")
    assert [labels_of(dataset, i) for i in range(4)] == [[1, 1], [0, 0], [None, None], [1, 1]]
    chosen = CSVTable(tmp_path, class_names=("stone", "cyst"))
    assert chosen[1].box_classes.tolist() == [1]
    with pytest.raises(DatasetError, match="row 2: 'stone' is none of the classes"):
        CSVTable(tmp_path, class_names=("cyst",))


def test_given_splits_are_kept(tmp_path: Path) -> None:
    fake_own.csv_table(tmp_path, images=30)
    rows = [f"{i}.png,{i % 2},{'Testing' if i < 5 else 'train'}" for i in range(30)]
    (tmp_path / "labels.csv").write_text("path,cyst,split\n" + "\n".join(rows))
    assert [r.path.stem for r in CSVTable(tmp_path, "test").records] == list("01234")
    # Validation images are then made from training ones.
    assert_disjoint_and_complete(CSVTable, tmp_path)
    with pytest.raises(UnknownNameError, match="'train'"):
        CSVTable(tmp_path, "trian")


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ("path,cyst\n0.png,54\n", r"row 2: 'cyst' is '54'.*class_names"),
        ("picture,cyst\n0.png,1\n", "no column 'path'.*picture"),
        ("path,cyst\n0.png,1,3\n", "row 2 has 3 values, the header 2"),
        ("path,cyst\n", "no row"),
        ("", "is empty"),
        ("path,cyst,split\n0.png,1,both\n", "row 2: a split is train, val or test; got 'both'"),
        ("path,cyst\n0.png,1\n", r"boxes\.csv has boxes of '1\.png'"),
        ("path\n1.png\n", r"none of the classes \[\]"),
    ],
)
def test_tables_that_are_not_understood(tmp_path: Path, labels: str, match: str) -> None:
    fake_own.csv_table(tmp_path, images=2)
    (tmp_path / "labels.csv").write_text(labels)
    with pytest.raises(DatasetError, match=match):
        CSVTable(tmp_path)


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ("image,label,xmin,ymin,xmax,ymax\n1.png,stone,1,2,4,8\n", [1, 2, 4, 8]),
        ("path,class,x,y,w,h\n1.png,stone,1,2,4,8\n", [1, 2, 5, 10]),
        ("path,class,x0,y0,x1,y1\n1.png,stone,4,2,1,8\n", "area above 0"),
        ("path,class,x0,y0,x1,y1\n1.png,stone,nan,2,1,8\n", "area above 0"),
        ("path,class,x0,y0,x1,y1\n1.png,stone,a,2,1,8\n", "four numbers"),
        ("path,class,x0,y0,x1,y1\n1.png,bone,0,2,1,8\n", "'bone' is none of the classes"),
        ("path,class,x0\n1.png,stone,0\n", "needs the columns"),
    ],
)
def test_tables_of_boxes(tmp_path: Path, boxes: str, expected: list[float] | str) -> None:
    fake_own.csv_table(tmp_path, images=2)
    (tmp_path / "boxes.csv").write_text(boxes)
    if isinstance(expected, str):
        with pytest.raises(DatasetError, match=expected):
            CSVTable(tmp_path)
    else:
        assert CSVTable(tmp_path)[1].boxes.tolist() == [expected]


def test_coco(tmp_path: Path) -> None:
    dataset = COCO(fake_own.coco(tmp_path))
    assert dataset.class_names == ("cyst", "stone")
    assert [labels_of(dataset, i) for i in range(3)] == [[1, 1], [0, 0], [1, 0]]
    sample = dataset[0]
    assert sample.boxes.tolist() == [[10, 8, 30, 24]]
    assert (sample.image[:, 8:24, 10:30] == 200).all()
    assert_disjoint_and_complete(COCO, tmp_path)


def test_coco_files_of_splits(tmp_path: Path) -> None:
    fake_own.coco(tmp_path, "annotations/instances_train2017.json", "train2017")
    fake_own.coco(tmp_path, "annotations/instances_val2017.json", "val2017")
    (tmp_path / "annotations" / "captions_val2017.json").write_text("{}")
    splits = {split: COCO(tmp_path, split) for split in ("train", "val")}
    assert {len(dataset.require_files()) for dataset in splits.values()} == {30}
    assert splits["val"].records[0].path.parent.name == "val2017"
    with pytest.raises(DatasetError, match="no image in this split"):
        COCO(tmp_path, "test").require_files()
    one = COCO(tmp_path / "annotations" / "instances_val2017.json", "val")
    assert len(one.require_files()) == 30


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"images": [], "annotations": [{}], "categories": []}', "[" * 9999]
)
def test_what_is_no_coco_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DatasetError, match=r"a\.json"):
        COCO(tmp_path)
    with pytest.raises(DatasetError, match="no annotation file"):
        COCO(tmp_path / "none")


def test_image_folder(tmp_path: Path) -> None:
    dataset = ImageFolder(fake_own.image_folder(tmp_path / "plain"))
    assert dataset.class_names == ("cyst", "stone")
    assert labels_of(dataset, 0) == [1, 0]
    assert labels_of(dataset, 30) == [0, 1]
    assert_disjoint_and_complete(ImageFolder, tmp_path / "plain")
    root = fake_own.image_folder(tmp_path / "split", ("train", "valid"), images=2)
    assert len(ImageFolder(root, "val")) == len(ImageFolder(root, "train")) == 4
    with pytest.raises(DatasetError, match="no image or no class"):
        ImageFolder(tmp_path / "split" / "train" / "cyst")
    with pytest.raises(DatasetError, match="one folder of images for each class"):
        ImageFolder(tmp_path / "none")


def test_a_new_image_moves_no_other_to_another_split(tmp_path: Path) -> None:
    few = ImageFolder(fake_own.image_folder(tmp_path, images=10), "val").records
    many = ImageFolder(fake_own.image_folder(tmp_path, images=20), "val").records
    assert {r.path for r in few} < {r.path for r in many}


def test_the_tasks_take_classes_and_channels_from_the_files(tmp_path: Path) -> None:
    task = open_task("csv", str(fake_own.csv_table(tmp_path / "csv")))
    assert (task.class_names, task.preprocessing.input_size[0]) == (("cyst", "stone"), 1)
    assert len(task.training()) + len(task.selection()) + len(task.classification("test")) == 40
    assert len(task.localization("all")) == 1
    color = open_task("coco", str(fake_own.coco(tmp_path / "coco")))
    assert color.preprocessing.input_size[0] == 3
    folder = open_task("image_folder", str(fake_own.image_folder(tmp_path / "folder")))
    assert folder.class_names == ("cyst", "stone")
    with pytest.raises(DatasetError, match="--root DIR"):
        open_task("csv")


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.full)])
@pytest.mark.parametrize("file", ["labels.csv", "boxes.csv", "annotations.json"])
def test_mutated_tables_meet_typed_errors_only(tmp_path: Path, file: str, count: int) -> None:
    write = fake_own.coco if file.endswith("json") else fake_own.csv_table
    kind = COCO if file.endswith("json") else CSVTable
    path = write(tmp_path) / file
    original, rng = path.read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for _ in range(count):
        path.write_bytes(test_fuzz.mutate(original, rng))
        try:
            records = kind(tmp_path).records
        except PylonZooError:
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert all(torch.isfinite(record.boxes).all() for record in records)
    assert "refused" in outcomes
