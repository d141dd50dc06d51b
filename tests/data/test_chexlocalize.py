import json
import pickle
from pathlib import Path

import fake_chexlocalize
import pytest
import torch

from pylon_zoo.data import CheXlocalize, Tiles, open_task
from pylon_zoo.errors import DatasetError, UnknownNameError

CLASSES = {n: k for k, n in enumerate(CheXlocalize.CLASS_NAMES)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_chexlocalize.write(tmp_path / "chexlocalize")


@pytest.mark.parametrize("scale", [1, 2])
def test_masks_also_of_a_resized_copy(tmp_path: Path, scale: int) -> None:
    dataset = CheXlocalize(fake_chexlocalize.write(tmp_path / "copy", scale=scale), "val")
    sample = dataset[0]
    assert sample.image.shape == (1, 64 // scale, 80 // scale)
    names = [dataset.class_names[k] for k in sample.mask_classes]
    assert names == ["Cardiomegaly", "Lung Opacity"]
    for mask, (x0, y0, x1, y1) in zip(
        sample.masks, ((30, 20, 60, 50), (5, 5, 20, 25)), strict=True
    ):
        expected = torch.zeros(64, 80, dtype=torch.bool)
        expected[y0:y1, x0:x1] = True
        # Nearest pixels: at half the size, that of every second row and column from the second on.
        assert torch.equal(mask, expected[scale - 1 :: scale, scale - 1 :: scale])
    assert sample.labels.nonzero().flatten().tolist() == sample.mask_classes.tolist()
    assert sample.group == "patient64541"


def test_images_without_a_finding_have_no_mask(root: Path) -> None:
    dataset = CheXlocalize(root, "val")
    assert [len(sample.masks) for sample in dataset] == [2, 0, 1]
    assert [r.path.name for r in dataset.with_boxes().records] == [
        "view1_frontal.jpg",
        "view2_lateral.jpg",
    ]
    assert dataset[2].masks[0, :10].all()
    assert not dataset[2].masks[0, 10:].any()


def test_training_images_of_chexpert(root: Path) -> None:
    dataset = CheXlocalize(root, "train")
    assert len(dataset) == 8
    sample = dataset[3]
    assert sample.labels[3] == 1
    # Not mentioned, and uncertain.
    assert sample.labels.isnan().nonzero().flatten().tolist() == [0, 4]
    assert sample.masks.shape == (0, 64, 80)


def test_records_travel_to_other_processes(root: Path) -> None:
    dataset = CheXlocalize(root, "val")
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0].masks, dataset[0].masks)


def test_the_tasks_views(root: Path) -> None:
    task = open_task("chexlocalize", str(root))
    assert task.class_names == CheXlocalize.CLASS_NAMES
    assert (len(task.training()), len(task.selection())) == (8, 3)
    assert len(task.classification("val")) == 3
    assert len(task.localization("val")) == 2
    # The opacity is in the upper left tile alone, a third of the heart in each of the next two.
    tiles = Tiles(task.localization("val"), 32, min_visible=0.25)
    shown = [tile.labels.nonzero().flatten().tolist() for tile in (tiles[i] for i in range(6))]
    heart, opacity = CLASSES["Cardiomegaly"], CLASSES["Lung Opacity"]
    assert shown[:3] == [[opacity], [heart], []]
    assert tiles[0].mask_classes.tolist() == [opacity]
    assert tiles[0].masks.sum() == 15 * 20


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gt_segmentations_val\.json.*stanfordaimi"):
        CheXlocalize(tmp_path)
    with pytest.raises(UnknownNameError, match="'val'"):
        CheXlocalize(root, "valid")
    with pytest.raises(DatasetError, match="--root DIR"):
        open_task("chexlocalize")
    assert "train" in open_task("chexlocalize", str(root)).splits
    (root / "CheXpert" / "train.csv").unlink()
    assert "train" not in open_task("chexlocalize", str(root)).splits
    with pytest.raises(DatasetError, match=r"train\.csv.*a release of their own"):
        open_task("chexlocalize", str(root)).training()


def change(root: Path, **changes: object) -> None:
    path = root / "CheXlocalize" / "gt_segmentations_val.json"
    content = json.loads(path.read_text())
    content["patient64541_study1_view1_frontal"]["Cardiomegaly"].update(changes)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"counts": "PVWX6"}, "do not add up"),
        ({"counts": [5120]}, "AttributeError"),
        ({"size": [64]}, "ValueError"),
        ({"size": [80, 64]}, "ValueError"),
        ({"size": None}, "TypeError"),
    ],
)
def test_damaged_masks_are_named(root: Path, changes: dict[str, object], match: str) -> None:
    change(root, **changes)
    with pytest.raises(DatasetError, match=f"patient64541_study1_view1_frontal: .*{match}"):
        CheXlocalize(root, "val")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "no JSON file"),
        ("[1]", "does not map images to masks"),
        ('{"patient1_study1_view1_frontal": {"Fracture": {}}}', "damaged"),
        ('{"patient1_study1_view1_frontal": {}}', "damaged"),
    ],
)
def test_a_damaged_file_of_masks_is_named(root: Path, content: str, match: str) -> None:
    (root / "CheXlocalize" / "gt_segmentations_val.json").write_text(content)
    with pytest.raises(DatasetError, match=rf"gt_segmentations_val\.json.*{match}"):
        CheXlocalize(root, "val")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (",1.0", ",2.0", "row 2: there is no label 1, 0, -1 or blank for"),
        ("Edema", "Oedema", "for 'Edema'"),
        ("/patient64541/study1/", "/patient64541_study1_", "no row for patient64541"),
        ("CheXpert-v1.0/valid/patient64541/study1/", "", "is no path of an image"),
    ],
)
def test_a_damaged_table_is_named(root: Path, old: str, new: str, match: str) -> None:
    path = root / "CheXpert" / "val_labels.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DatasetError, match=rf"val_labels\.csv.*{match}"):
        CheXlocalize(root, "val")
