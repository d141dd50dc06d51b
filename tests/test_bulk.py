import csv
import json
import os
import subprocess
import sys
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
from pylon_zoo.prediction import Finding, Prediction, predict

ROOT = Path(__file__).resolve().parent.parent

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
    def names(*paths: str) -> list[str]:
        return bulk.image_names([bulk.Frame(Path(path)) for path in paths])

    assert names("x/1.png", "y/2.png") == ["1", "2"]
    assert bulk.image_names(bulk.find_frames([str(images)])) == ["a_1", "a_2", "b_1"]
    assert names("a/1.png", "a/1.jpg") == ["1.png", "1.jpg"]
    assert names() == []
    clip = [bulk.Frame(Path("a/clip.dcm"), index, marked=True) for index in range(2)]
    assert bulk.image_names(clip) == ["clip_0", "clip_1"]
    assert [frame.source for frame in clip] == ["a/clip.dcm#0", "a/clip.dcm#1"]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_command_says_what_the_library_says(
    workers: int, checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    (images / "b" / "bad.png").write_bytes(b"no image")
    out = tmp_path / "out"
    options = ["-m", checkpoint, "-o", out, "--maps", "--threshold", 1, "--workers", workers]
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
    checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    run_of = {"model": "m"}
    table = bulk.PredictionTable(tmp_path / "t", run_of, classes=3)
    frames = bulk.find_frames([str(images)])
    for prediction in bulk.predict_files(pylon_zoo.load_pretrained(checkpoint), frames[:2]):
        assert isinstance(prediction, Prediction)
        table.add(prediction)
    again = bulk.PredictionTable(tmp_path / "t", run_of, classes=3, resume=True)
    assert again.done == {frame.source for frame in frames[:2]}
    with pytest.raises(InvalidOptionError, match="'model': 'm'"):
        bulk.PredictionTable(tmp_path / "t", {"model": "other"}, classes=3, resume=True)
    assert json.loads((tmp_path / "t" / "predictions.json").read_text()) == run_of
    assert bulk.PredictionTable(tmp_path / "t", run_of, classes=3).done == set()


def test_parts_become_one_table_of_whole_images(tmp_path: Path) -> None:
    def lines(*images: str) -> str:
        return "".join(f"{name},c{k},0.5,1,2,\r\n" for name in images for k in range(2))

    bulk.PredictionTable(tmp_path, {}, classes=2)
    header = "image,class,probability,x,y,inside\r\n"
    (tmp_path / "predictions.csv").write_text(header + lines("z", "b"), newline="")
    # "b" is there twice; "d" lacks a row, and "e" half of its last one.
    parts = {0: lines("b", '"a,1"'), 1: lines("c") + lines("d")[:14], 7: lines("e")[:-3]}
    for rank, text in parts.items():
        (tmp_path / f"predictions.part{rank}.csv").write_text(text, newline="")
    table = bulk.PredictionTable(tmp_path, {}, classes=2, resume=True)
    assert table.done == {"z", "b", "a,1", "c"}
    table.finish(["a,1", "b", "c", "d", "e"])
    text = (tmp_path / "predictions.csv").read_bytes().decode()
    assert text == header + lines("z", '"a,1"', "b", "c")
    assert not list(tmp_path.glob("*.part*"))
    (tmp_path / "predictions.part3.csv").write_text(lines("old"))
    assert bulk.PredictionTable(tmp_path, {}, classes=2).done == set()


#: Two processes; with a third argument the second one is killed after so many images.
SHARED = """
import os, sys
from pylon_zoo import bulk
from pylon_zoo.cli import main as cli
add, count = bulk.PredictionTable.add, int(sys.argv.pop(1))
def counting(table, prediction):
    global count
    add(table, prediction)
    count -= 1
    if count == 0 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), 9)
bulk.PredictionTable.add = counting
cli.main()
"""


def test_processes_share_the_images_even_after_one_was_killed(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(7):
        pixels = Phantom(size=64)[index].image[0].numpy()
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (folder / "bad.png").write_bytes(b"no image")
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    # On the CPU, accelerate launch starts several processes through MPI only.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    options = ["-m", checkpoint, "--no-overlays"]

    def shared(die_after: int, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
        arguments = [script, str(die_after), "predict", folder, *options, "-o", out, *more]
        return subprocess.run(
            [*launch, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )

    assert run(folder, *options, "-o", tmp_path / "one") == 1
    expected = (tmp_path / "one" / "predictions.csv").read_bytes()
    out = tmp_path / "two"
    killed = shared(2, out)
    assert killed.returncode != 0
    part = (out / "predictions.part1.csv").read_text().splitlines()
    assert [Path(row.split(",")[0]).stem for row in part] == ["1"] * 3 + ["3"] * 3
    again = shared(0, out, "--resume")
    # The image that cannot be read is named by the first process alone.
    assert again.stderr.count("bad.png is no image") == 1, again.stderr
    assert (out / "predictions.csv").read_bytes() == expected
    assert sorted(path.name for path in out.iterdir()) == ["predictions.csv", "predictions.json"]


def test_a_dicom_tree(checkpoint: Path, tmp_path: Path) -> None:
    fake_dicom = pytest.importorskip("fake_dicom", reason="pydicom is not installed")
    folder = tmp_path / "study"
    (folder / "series").mkdir(parents=True)
    pixels = np.stack([Phantom(size=64)[i].image[0].numpy() for i in range(3)])
    fake_dicom.write(folder / "series" / "IM0001", pixels, NumberOfFrames=3)
    fake_dicom.write(folder / "series" / "1.2.840.7", pixels[1])
    fake_dicom.write(folder / "DICOMDIR", pixels[1])
    (folder / "README").write_text("notes")
    options = ["-m", checkpoint, "--no-overlays", "-o"]

    def predicted(frames: str, code: int) -> dict[str, list[dict[str, str]]]:
        assert run(folder, *options, tmp_path / frames, "--frames", frames) == code
        found: dict[str, list[dict[str, str]]] = {}
        for row in rows_of(tmp_path / frames):
            found.setdefault(str(Path(row.pop("image")).relative_to(folder)), []).append(row)
        return found

    # The file of one frame has none of index 1, which is said.
    one, every = predicted("1", 1), predicted("all", 0)
    assert list(every) == ["series/1.2.840.7", *(f"series/IM0001#{i}" for i in range(3))]
    # Frame 1 of the clip is the other file's image.
    assert every["series/IM0001#1"] == every["series/1.2.840.7"]
    assert every["series/IM0001#1"] != every["series/IM0001#0"]
    assert one == {"series/IM0001": every["series/IM0001#1"]}
    with pytest.raises(InvalidOptionError, match="got 'first'"):
        bulk.find_frames([str(folder)], "first")


def test_parquet(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    assert run(images, "-m", checkpoint, "--no-overlays", "--parquet", "-o", tmp_path) == 0
    rows = parquet.read_table(tmp_path / "predictions.parquet").to_pylist()
    written = rows_of(tmp_path)
    assert len(rows) == len(written) == 9
    for row, line in zip(rows, written, strict=True):
        assert (row["image"], row["class"]) == (line["image"], line["class"])
        assert (row["x"], row["y"]) == (int(line["x"]), int(line["y"]))
        assert row["probability"] == float(line["probability"])
        assert row["inside"] is None


def test_a_truth_that_is_known_is_true_or_false_in_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = bulk.PredictionTable(tmp_path, {}, classes=1)
    for name, inside in {"1": True, "2": False, "NA": None}.items():
        sample = Sample(torch.zeros(1, 2, 2), torch.zeros(0), source=name)
        finding = Finding("7", 0.5, 1, 2, inside)
        table.add(Prediction(sample, (finding,), (0,), torch.zeros(1, 2, 2)))
    rows = parquet.read_table(table.write_parquet()).to_pylist()
    assert [(r["image"], r["class"], r["inside"]) for r in rows] == [
        ("1", "7", True),
        ("2", "7", False),
        ("NA", "7", None),
    ]


def test_parquet_without_pyarrow_names_the_extra(
    checkpoint: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pylon-zoo\[parquet\]"):
        bulk.require_pyarrow()
    # Before anything is computed.
    assert run(images, "-m", checkpoint, "--parquet", "-o", tmp_path / "out") == 1
    assert not (tmp_path / "out").exists()
