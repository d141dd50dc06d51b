import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import fake_dicom
import fake_nih14
import fake_own
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from pylon_zoo.cli import main as cli
from pylon_zoo.data import NIH14, CachedShards, CSVTable, FileDataset, Sample, open_task
from pylon_zoo.data.files import make_record
from pylon_zoo.data.shards import CacheReport, resize_stored, write_cache
from pylon_zoo.errors import CacheError, ImageReadError, InvalidOptionError
from pylon_zoo.spec import Preprocessing
from pylon_zoo.training import TrainingConfig, train

ROOT = Path(__file__).resolve().parents[2]


def assert_equal(ours: Sample, theirs: Sample) -> None:
    for field in fields(Sample):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(b, Tensor):
            assert a.dtype == b.dtype, field.name
            assert a.shape == b.shape, field.name
            assert torch.equal(a.nan_to_num(7), b.nan_to_num(7)), field.name
        else:
            assert a == b, field.name


def write(dataset: FileDataset, folder: Path, shard_items: int = 8, size: int = 0) -> CacheReport:
    return write_cache(dataset, folder, name="fake", shard_items=shard_items, size=size, workers=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_all(folder: Path, dataset: FileDataset) -> None:
    cached = CachedShards(folder, dataset)
    for index in range(len(cached)):
        cached[index]


def quarter(count: int, folder: Path) -> tuple[Tensor, Tensor]:
    """As many masks: the top left quarter of the image."""
    masks = torch.zeros(count, 10, 10, dtype=torch.bool)
    masks[:, :5, :5] = True
    return masks, torch.arange(count)


def mixed(root: Path) -> FileDataset:
    """Gray, color and 16-bit images of many sizes, with labels, boxes, masks and groups."""
    root.mkdir()
    rng = np.random.default_rng(0)
    records = []
    for index in range(12):
        shape = (20 + index, 30 - index, *((3,) if index % 3 == 1 else ()))
        path = root / f"{index}.png"
        if index % 3 == 2:
            path = fake_dicom.write(root / f"{index}.dcm", rng.integers(0, 4000, shape, np.uint16))
        else:
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
        boxes = [(k % 2, (k, 1, 9, 8.5)) for k in range(index % 3)]
        record = make_record(path, [1, 0, float("nan")], boxes, f"patient {index // 2}")
        masks = partial(quarter, index % 3, folder=root) if index % 3 else None
        records.append(replace(record, masks=masks))
    return FileDataset(("a", "b", "c"), records)


def test_samples_come_back_as_they_were(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "images")
    report = write(dataset, tmp_path / "cache", shard_items=5)
    assert (report.images, report.written, report.kept, report.unreadable) == (12, 3, 0, ())
    cached = CachedShards(tmp_path / "cache", dataset)
    cached.verify()
    assert len(cached) == 12
    assert cached.class_names == ("a", "b", "c")
    assert {cached[i].image.dtype for i in range(12)} == {torch.uint8, torch.uint16}
    for index in (*range(12), 12, 31):
        assert_equal(cached[index], dataset[index])
    # Worker processes get the folder, not the maps.
    again = pickle.loads(pickle.dumps(cached))
    assert len(pickle.dumps(cached)) < 20_000
    assert_equal(again[7], dataset[7])
    # What is read is the reader's own.
    cached[0].image.zero_()
    assert_equal(cached[0], dataset[0])


def test_resizing_rounds_to_the_images_own_depth(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "images")
    write(dataset, tmp_path / "cache", size=16)
    cached = CachedShards(tmp_path / "cache", dataset)
    for index in range(len(dataset)):
        sample, ours = dataset[index], cached[index]
        assert_equal(ours, resize_stored(sample, 16))
        top = torch.iinfo(sample.image.dtype).max
        exact = F.interpolate(
            sample.image.double()[None], (16, 16), mode="bicubic", antialias=True
        )[0].clamp(0, top)
        assert ours.image.dtype == sample.image.dtype
        assert (ours.image.double() - exact).abs().max() <= 0.5 + top * 1e-6
        assert ours.size == (sample.height, sample.width)
        scale = torch.tensor([16 / sample.width, 16 / sample.height] * 2)
        assert torch.allclose(ours.boxes, sample.boxes * scale)
        assert ours.masks.sum((1, 2)).tolist() == [64] * (index % 3)
        assert ours.masks[:, :8, :8].all()


def test_boxes_of_nih14_are_in_the_pixels_of_the_cache(tmp_path: Path) -> None:
    root = fake_nih14.write(tmp_path / "nih14", width=96, height=80)
    dataset = NIH14(root, "test")
    write(dataset, tmp_path / "native")
    write(dataset, tmp_path / "small", size=64)
    assert_equal(CachedShards(tmp_path / "native", dataset)[0], dataset[0])
    small = CachedShards(tmp_path / "small", dataset)[0]
    x, y, width, height = fake_nih14.BOXES[0][2]
    expected = [v / 16 for v in (x, y, x + width, y + height)]
    assert small.boxes[0].tolist() == pytest.approx(expected)
    assert small.size == (80, 96)


def test_what_changed_is_noticed_and_only_that_is_written_anew(tmp_path: Path) -> None:
    root = fake_own.csv_table(tmp_path)
    folder = tmp_path / "cache"
    write(CSVTable(root), folder)
    before = contents(folder)
    again = write(CSVTable(root), folder)
    assert (again.written, again.kept) == (0, 5)
    assert contents(folder) == before

    fake_own.picture(root / "images" / "17.png", 99)
    with pytest.raises(CacheError, match="1 of its 5 shards differ, from image 16 on"):
        CachedShards(folder, CSVTable(root))
    CachedShards(folder)  # trusted
    changed = write(CSVTable(root), folder)
    assert (changed.written, changed.kept) == (1, 4)
    assert_equal(CachedShards(folder, CSVTable(root))[17], CSVTable(root)[17])

    # A label, a box, an image more.
    table = root / "labels.csv"
    table.write_text(table.read_text().replace("3.png,p3,1,1", "3.png,p3,0,1"))
    with pytest.raises(CacheError, match="Files, labels or boxes"):
        CachedShards(folder, CSVTable(root))
    assert write(CSVTable(root), folder).written == 1
    (root / "boxes.csv").write_text("path,class,x0,y0,x1,y1\n1.png,cyst,10,8,30,25\n")
    with pytest.raises(CacheError, match="from image 0 on"):
        CachedShards(folder, CSVTable(root))
    assert write(CSVTable(root), folder).written == 1
    dataset = CSVTable(root)
    fewer = FileDataset(dataset.class_names, dataset.records[:30])
    with pytest.raises(CacheError, match="40 images and the dataset 30"):
        CachedShards(folder, fewer)
    assert write(fewer, folder).written == 1
    assert "00004.bin" not in contents(folder)
    renamed = FileDataset(("x", "y"), fewer.records)
    with pytest.raises(CacheError, match="4 of its 4 shards"):
        CachedShards(folder, renamed)


def test_a_changed_mask_file_is_noticed(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "images")
    drawn = tmp_path / "mask.png"
    drawn.write_bytes(b"one")
    # Masks that a function reads from a file of their own.
    record = replace(dataset.records[3], masks=partial(quarter, 1, folder=drawn))
    dataset = FileDataset(dataset.class_names, [record])
    write(dataset, tmp_path / "cache")
    CachedShards(tmp_path / "cache", dataset)
    drawn.write_bytes(b"another")
    with pytest.raises(CacheError, match="1 of its 1 shards"):
        CachedShards(tmp_path / "cache", dataset)


def test_another_transform_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "images")
    write(dataset, tmp_path / "cache", size=16)
    before = contents(tmp_path / "cache")
    with pytest.raises(CacheError, match=r"'size': 16.*'size': 32.*another folder"):
        write(dataset, tmp_path / "cache", size=32)
    assert contents(tmp_path / "cache") == before
    images = contents(tmp_path / "images")
    with pytest.raises(CacheError, match="holds other files"):
        write(dataset, tmp_path / "images")
    assert contents(tmp_path / "images") == images
    with pytest.raises(CacheError, match=r"index.json is missing.*data cache"):
        CachedShards(tmp_path / "none")

    cached = CachedShards(tmp_path / "cache")
    fitting = Preprocessing(input_size=(1, 16, 16))
    assert cached.require_transform(fitting) is cached
    for other in (
        Preprocessing(input_size=(1, 17, 16)),
        Preprocessing(input_size=(1, 16, 16), interpolation="bilinear"),
        Preprocessing(input_size=(1, 16, 16), resize="native"),
    ):
        with pytest.raises(CacheError, match="--size"):
            cached.require_transform(other)


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    dataset = mixed(tmp_path / "images")
    folder = tmp_path / "cache"
    write(dataset, folder, shard_items=6)
    rng = np.random.default_rng(0)
    for name, whole in contents(folder).items():
        path = folder / name
        for place in rng.integers(0, len(whole) - 1, 40).tolist():
            damaged = bytearray(whole)
            damaged[place] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged)
            with pytest.raises(CacheError, match=rf"{name}.*Run pylon-zoo data cache again"):
                read_all(folder, dataset)
            if name.endswith(".bin"):
                with pytest.raises(CacheError, match=rf"1 of 2 shards.*{name}"):
                    CachedShards(folder, dataset).verify()
        # The remedy works.
        report = write(dataset, folder, shard_items=6)
        assert (report.written, report.kept) == ((0, 2) if name == "index.json" else (1, 1))
        assert path.read_bytes() == whole
        path.write_bytes(whole[:-2])
        with pytest.raises(CacheError, match=name):
            CachedShards(folder)
        path.unlink()
        with pytest.raises(CacheError, match=name):
            CachedShards(folder)
        write(dataset, folder, shard_items=6)
    CachedShards(folder, dataset).verify()


KILLED = """
import sys, time
from pylon_zoo.data import CSVTable
from pylon_zoo.data import shards
make = shards._make
def slow(*a, **k):
    time.sleep(0.02)
    return make(*a, **k)
shards._make = slow
shards.write_cache(CSVTable(sys.argv[1]), sys.argv[2], name="fake", shard_items=4, workers=1)
"""


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    root = fake_own.csv_table(tmp_path / "data")
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    write(CSVTable(root), whole, shard_items=4)
    command = [sys.executable, "-c", KILLED, str(root), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished: list[int] = []
    for wanted in (1, 4):
        process = subprocess.Popen(command, env=environment)
        while not (folder / f"{wanted:05}.json").exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(0.03)  # into the next shard
        process.send_signal(signal.SIGKILL)
        process.wait()
        finished.append(len(list(folder.glob("0*.json"))))
        with pytest.raises(CacheError, match=r"json is missing.*unfinished"):
            CachedShards(folder)
    assert 2 <= finished[0] < finished[1] < 10
    report = write(CSVTable(root), folder, shard_items=4)
    assert (report.written, report.kept) == (10 - finished[1], finished[1])
    assert contents(folder) == contents(whole)


def test_unreadable_images_raise_the_same_from_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fake_own.csv_table(tmp_path / "data")
    damaged = root / "images" / "5.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    arguments = ["data", "cache", "csv", str(root), "-o", str(tmp_path / "c"), "--split", "all"]
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 1
        printed = capsys.readouterr().out
        assert "5.png" in printed
        assert "1 images cannot be read" in printed
    cached = CachedShards(tmp_path / "c" / "all", CSVTable(root))
    with pytest.raises(ImageReadError) as direct:
        CSVTable(root)[5]
    with pytest.raises(ImageReadError) as stored:
        cached[5]
    assert str(stored.value) == str(direct.value)
    assert_equal(cached[6], CSVTable(root)[6])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, output = fake_own.csv_table(tmp_path / "data"), tmp_path / "cache"
    arguments = ["data", "cache", "csv", str(root), "--output", str(output), "--size", "32"]

    def run(*more: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main([*arguments, *more])
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), " ".join((captured.out + captured.err).split())

    code, printed = run()
    assert code == 0
    counts = {split: len(CSVTable(root, split)) for split in ("train", "val")}
    for split, count in counts.items():
        assert f"{split}: {count} images" in printed
        assert len(CachedShards(output / split, CSVTable(root, split))) == count
    code, printed = run("--split", "val")
    assert code == 0
    assert "0 written, 1 kept" in printed
    assert "train" not in printed
    code, printed = run("--verify")
    assert code == 0
    assert printed.count("intact") == 2
    shard = output / "val" / "00000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    code, printed = run("--verify")
    assert code == 1
    assert "Error: 1 of 1 shards" in printed
    assert run()[0] == 0
    assert shard.read_bytes() == whole
    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "cache", "phantom", "x", "-o", str(tmp_path / "p")])
    assert stopped.value.code == 1
    assert "takes no cache" in " ".join(capsys.readouterr().err.split())


def config(root: Path, *settings: str) -> TrainingConfig:
    return TrainingConfig(
        model="pylon_test_efficientnet",
        data="csv",
        root=str(root),
        image_size=64,
        augmentation="paper",
        epochs=2,
        batch_size=8,
    ).override(settings)


def test_training_from_a_cache_is_bit_identical(tmp_path: Path) -> None:
    root = fake_own.csv_table(tmp_path / "data")
    # Files as the cache of 64 px holds them.
    resized = fake_own.csv_table(tmp_path / "resized")
    for path in (resized / "images").iterdir():
        pixels = torch.from_numpy(np.array(Image.open(path)))[None]
        small = resize_stored(Sample(image=pixels, labels=torch.zeros(2)), 64)
        Image.fromarray(small.image[0].numpy()).save(path)
    for split in ("train", "val"):
        dataset = CSVTable(root, split)
        write_cache(dataset, tmp_path / "native" / split, name="csv")
        write_cache(dataset, tmp_path / "small" / split, name="csv", size=64)
    runs = {
        "files": config(root),
        "native": config(root, f"cache={tmp_path / 'native'}", "workers=1"),
        "resized": config(resized),
        "small": config(root, f"cache={tmp_path / 'small'}"),
    }
    weights = {}
    for name, run in runs.items():
        train(run, tmp_path / "runs" / name, progress=False)
        weights[name] = load_file(tmp_path / "runs" / name / "model.safetensors")
    for a, b, same in (
        ("files", "native", True),
        ("resized", "small", True),
        ("files", "small", False),
    ):
        equal = [torch.equal(weights[a][key], weights[b][key]) for key in weights[a]]
        assert all(equal) == same, (a, b)
    assert json.loads((tmp_path / "runs" / "native" / "run.json").read_text())["config"]["cache"]


def test_a_cache_that_does_not_fit_the_run_is_refused(tmp_path: Path) -> None:
    root = fake_own.csv_table(tmp_path / "data")
    for split in ("train", "val"):
        write_cache(CSVTable(root, split), tmp_path / "c" / split, name="csv", size=32)
    with pytest.raises(CacheError, match=r"32 px.*64 px or more"):
        train(config(root, f"cache={tmp_path / 'c'}"), tmp_path / "run", progress=False)
    with pytest.raises(InvalidOptionError, match="phantom keeps its images in memory"):
        open_task("phantom", cache=str(tmp_path / "c"))
    # Measuring reads the files.
    task = open_task("csv", str(root), cache=str(tmp_path / "c"))
    assert_equal(task.classification("val")[0], CSVTable(root, "val")[0])
    assert isinstance(task.selection(), CachedShards)
