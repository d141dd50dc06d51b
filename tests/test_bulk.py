import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pylon_zoo
from pylon_zoo import bulk
from pylon_zoo.cli import main as cli
from pylon_zoo.data import Phantom, Sample, read_image
from pylon_zoo.errors import ImageReadError, InvalidOptionError, MissingExtraError
from pylon_zoo.prediction import Prediction, predict

CLASSES = ("mass", "heart", "rib")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = pylon_zoo.create_model("pylon_test_efficientnet", class_names=CLASSES)
    return pylon_zoo.save_pretrained(model, tmp_path_factory.mktemp("bulk") / "model")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = Phantom(size=64)[int(name[2]) + 3 * (name[0] == "b")].image[0].numpy()
        Image.fromarray(pixels).save(folder / name)
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["predict", *map(str, arguments)])
    code = stopped.value.code
    return code if isinstance(code, int) else 0


def test_sources(images: Path, tmp_path: Path) -> None:
    every = [images / name for name in ("a/1.png", "a/2.png", "b/1.png")]
    assert bulk.find_sources([str(images)]) == every
    assert bulk.find_sources([f"{images}/**/1.png"]) == [every[0], every[2]]
    assert bulk.find_sources([str(every[1]), str(images)]) == [every[1], every[0], every[2]]
    listed = images / "list.csv"
    listed.write_text("\ufeffid,Path\n7,b/1.png\n8,a/2.png\n", encoding="utf-8")
    assert bulk.find_sources([str(listed)]) == [every[2], every[1]]
    listed.write_text("scan\na/1.png\n", encoding="utf-8")
    assert bulk.find_sources([str(listed)]) == [every[0]]
    for bad, words in {f"{images}/*.gif": "pattern", str(tmp_path / "no.csv"): "no.csv"}.items():
        with pytest.raises(ImageReadError, match=words):
            bulk.find_sources([bad])


def test_names_are_unique(images: Path) -> None:
    assert bulk.image_names([Path("x/1.png"), Path("y/2.png")]) == ["1", "2"]
    assert bulk.image_names(bulk.find_sources([str(images)])) == ["a_1", "a_2", "b_1"]
    assert bulk.image_names([Path("a/1.png"), Path("a/1.jpg")]) == ["1.png", "1.jpg"]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_command_says_what_the_library_says(
    workers: int, checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    (images / "b" / "bad.png").write_bytes(b"no image")
    out = tmp_path / "out"
    options = ["-m", checkpoint, "-o", out, "--maps", "--threshold", 2, "--workers", workers]
    assert run(images, *options) == 1
    rows = rows_of(out)
    model = pylon_zoo.load_pretrained(checkpoint)
    expected = []
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        path = images / name
        prediction = predict(model, Sample(read_image(path), torch.zeros(0), source=str(path)))
        expected += [
            (str(path), f.class_name, f"{f.probability:.4f}", str(f.x), str(f.y))
            for f in prediction.findings
        ]
        with np.load(out / "maps" / (name.replace("/", "_")[:-4] + ".npz")) as saved:
            assert saved["classes"].tolist() == list(CLASSES)
            for position, k in enumerate(prediction.classes):
                heat = prediction.probability_maps[position].numpy()
                assert np.allclose(saved["maps"][k], heat, atol=1e-3)
    assert [tuple(row.values())[:5] for row in rows] == expected
    # One picture an image: of its most probable class, since none reaches the threshold.
    assert {path.name.rpartition("_")[0] for path in out.glob("*.png")} == {"a_1", "a_2", "b_1"}


def test_an_interrupted_table_goes_on(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    options = ["-m", checkpoint, "--no-overlays", "-o"]
    assert run(images, *options, tmp_path / "whole") == 0
    whole = (tmp_path / "whole" / "predictions.csv").read_text()
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        out = tmp_path / str(cut)
        assert run(images / "a", *options, out) == 0
        (out / "predictions.csv").write_text(whole[: len(whole) - cut])
        before = (out / "predictions.csv").stat().st_mtime_ns
        assert run(images, *options, out, "--resume") == 0
        assert (out / "predictions.csv").read_text() == whole
        assert (out / "predictions.csv").stat().st_mtime_ns > before
    assert not list(tmp_path.rglob("out/*.png"))


def test_what_is_done_is_not_done_again_nor_mixed(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of = {"model": "m"}
    table = bulk.PredictionTable(tmp_path / "t", run_of)
    model = pylon_zoo.load_pretrained(checkpoint)
    files = bulk.find_sources([str(images)])
    for prediction in bulk.predict_files(model, files[:2]):
        assert isinstance(prediction, Prediction)
        table.add(prediction)
    again = bulk.PredictionTable(tmp_path / "t", run_of, resume=True)
    assert again.done == {str(path) for path in files[:2]}
    with pytest.raises(InvalidOptionError, match="'model': 'm'"):
        bulk.PredictionTable(tmp_path / "t", {"model": "other"}, resume=True)
    assert json.loads((tmp_path / "t" / "predictions.json").read_text()) == run_of
    assert bulk.PredictionTable(tmp_path / "t", run_of).done == set()


def test_parquet(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    options = ["-m", checkpoint, "--no-overlays", "--parquet", "-o", tmp_path]
    try:
        from pyarrow import parquet
    except ImportError:
        assert run(images, *options) == 1
        with pytest.raises(MissingExtraError, match=r"pylon-zoo\[parquet\]"):
            bulk.require_pyarrow()
        return
    assert run(images, *options) == 0
    table = parquet.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [row["image"] for row in table] == [row["image"] for row in rows_of(tmp_path)]
