import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import pylon_zoo
from pylon_zoo.cli import main as cli
from pylon_zoo.data import LocalizationDataset, Phantom, Sample, read_image, tasks
from pylon_zoo.errors import DatasetError
from pylon_zoo.export import export
from pylon_zoo.spec import Preprocessing
from pylon_zoo.training import finetune
from pylon_zoo.training.finetune import default_config, task_name


class Listed:
    """Images of a CSV file with the columns path, split, and one a class."""

    def __init__(self, path: Path, split: str) -> None:
        with path.open() as file:
            rows = list(csv.DictReader(file))
        self.class_names: Sequence[str] = tuple(rows[0])[2:]
        self.rows = [row for row in rows if row["split"] == split]
        self.folder = path.parent

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index % len(self)]
        labels = torch.tensor([float(row[name]) for name in self.class_names])
        return Sample(read_image(self.folder / row["path"]), labels, source=row["path"])


class ListedTask(tasks.Task):
    name = "csv"
    class_names = ()
    splits = ("train", "val", "test")
    preprocessing = Preprocessing.default(1)
    url = license = ""

    def __init__(self, root: str | None = None, seed: int = 0) -> None:
        super().__init__(root, seed)
        names = self.classification("train").class_names
        self.class_names = tuple(names)  # type: ignore[misc]

    def training(self) -> LocalizationDataset:
        return self.classification("train")

    def selection(self) -> LocalizationDataset:
        return self.classification("val")

    def classification(self, split: str) -> LocalizationDataset:
        return Listed(Path(self.root or ""), split)

    def localization(self, split: str) -> LocalizationDataset:
        return self.classification(split)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(tasks.TASKS, "csv", ListedTask)
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "mass", "heart"])
        for index in range(16):
            sample = Phantom("train", size=64)[index]
            Image.fromarray(sample.image[0].numpy()).save(tmp_path / f"{index}.png")
            split = "train" if index < 8 else "val" if index < 12 else "test"
            # Both labels occur in every split.
            writer.writerow([f"{index}.png", split, index % 2, int(index % 4 > 1)])
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = pylon_zoo.create_model("pylon_test_efficientnet", class_names=("a", "b", "c"))
    return pylon_zoo.save_pretrained(model, tmp_path / "checkpoint")


SETTINGS = ["epochs=1", "image_size=64"]


def test_classes_are_the_datas_and_the_model_is_ready(
    data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    result = finetune(
        data, tmp_path / "out", weights=str(checkpoint), settings=SETTINGS, progress=False
    )
    assert result.model.spec.class_names == ("mass", "heart")
    assert result.model.spec.preprocessing.input_size == (1, 64, 64)
    loaded = pylon_zoo.load_pretrained(tmp_path / "out")
    images = torch.randn(1, 1, 64, 64)
    assert pylon_zoo.get_cam(loaded, images).shape == (1, 2, 64, 64)
    assert torch.equal(pylon_zoo.get_cam(loaded, images), pylon_zoo.get_cam(result.model, images))
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report == result.report
    assert (report["split"], report["items"]["classification"]) == ("test", 4)
    assert 0 <= report["classification"]["macro"]["low"] <= 1


def test_what_it_makes_is_exported(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    result = finetune(data, tmp_path / "out", weights=str(checkpoint), settings=SETTINGS)
    report = export(result.model, tmp_path / "m.pt2", "torch_export", dynamic_size=False)
    assert report.model["label_names"] == ["mass", "heart"]
    assert report.compared[0][1:] == [1, 64, 64]
    assert max(report.max_relative_difference.values()) < 1e-4


def test_it_starts_from_the_checkpoint(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    settings = [*SETTINGS, "learning_rate=1e-9", "weight_decay=0", "ema_decay=0"]
    result = finetune(data, tmp_path / "o", weights=str(checkpoint), settings=settings)
    before = pylon_zoo.load_pretrained(checkpoint).state_dict()
    for name, tensor in result.model.state_dict().items():
        if not name.startswith("head."):
            assert torch.allclose(tensor, before[name], atol=1e-7), name


def test_the_command(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: list[Any] = ["finetune", data, "-w", checkpoint, "-o", tmp_path / "out"]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*map(str, arguments), *(f"--set={s}" for s in SETTINGS)])
    assert not stopped.value.code
    printed = capsys.readouterr().out
    assert "mass" in printed
    assert "AUROC" in printed
    assert "load_pretrained" in printed


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (8, (2, 40, "frozen")),
        (100, (16, 40, "frozen")),
        (1000, (16, 13, "local")),
        (50_000, (16, 4, "local")),
    ],
)
def test_defaults_follow_the_number_of_images(
    images: int, expected: tuple[int, int, str], checkpoint: Path
) -> None:
    config = default_config(images, "csv", "x.csv", str(checkpoint))
    assert (config.batch_size, config.epochs, config.batch_norm) == expected
    assert config.model == "pylon_test_efficientnet"


def test_kinds_of_data(tmp_path: Path) -> None:
    for name, kind in {"a.csv": "csv", "b.JSON": "coco", "c.txt": None}.items():
        (tmp_path / name).touch()
        if kind:
            assert task_name(tmp_path / name) == kind
    assert task_name(tmp_path) == "image_folder"
    for name, kind in {"annotations.json": "coco", "labels.csv": "csv"}.items():
        (tmp_path / name).touch()
        assert task_name(tmp_path) == kind
    with pytest.raises(DatasetError, match=r"c\.txt is none of these"):
        task_name(tmp_path / "c.txt")
    with pytest.raises(DatasetError, match=r"nothing does not exist"):
        task_name(tmp_path / "nothing")


@pytest.mark.parametrize("kind", ["csv_table", "coco", "image_folder"])
def test_every_layout_of_ones_own_data(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    fake_own = pytest.importorskip("fake_own", reason="the readers of one's own data are not here")
    root = getattr(fake_own, kind)(tmp_path / "data")
    result = finetune(root, tmp_path / "out", weights=str(checkpoint), settings=SETTINGS)
    assert set(result.model.spec.class_names or ()) == set(fake_own.CLASSES)
    assert result.report["split"] == "test"
    assert result.report["items"]["classification"] > 0
    channels = 3 if kind == "coco" else 1
    assert result.model.spec.preprocessing.input_size == (channels, 64, 64)
