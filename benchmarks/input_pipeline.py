"""From a PNG file to an augmented input: this package against OpenCV with albumentations.

    pip install albumentations opencv-python-headless
    python benchmarks/input_pipeline.py

Radiograph phantoms of 1024 x 1024 px are written as 8-bit gray PNG files. Each pipeline makes of
each file a normalized float32 tensor of 256 x 256 px, by the PYLON paper's augmentation: rotation
within 90 degrees (p 0.5), random crop of 70 to 100 % of the area, flip (p 0.5), brightness and
contrast within 50 % (p 0.5). All take turns at all images, in one process and on one thread;
what is measured is the processor time of the process, so that other programs disturb little. The
cache is what ``pylon-zoo data cache --size 256`` writes.

Pixels as decoded must be equal, and the means and standard deviations of all inputs within 10 %,
or nothing is printed. Writes ``results/input_pipeline.csv`` and the table to the ``.md`` beside it.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

# It would ask a server for a newer version of itself.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations
import cv2
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from timing import RESULTS, machine
from torch import Tensor

from pylon_zoo.data import CachedShards, FileDataset, LocalizationDataset, Phantom, read_image
from pylon_zoo.data.files import make_record
from pylon_zoo.data.seeds import generator_for
from pylon_zoo.data.shards import write_cache
from pylon_zoo.preprocessing import Transform
from pylon_zoo.spec import Preprocessing

SIDE, INPUT = 1024, 256
THEIRS = "OpenCV + albumentations"
#: What limits the ratio of the first row.
LIMITS = (
    "Decoding the PNG file takes most of the time of both and limits their ratio: Pillow and "
    "OpenCV need about the same for it. What is left is dearer here where no rotation is drawn, "
    "since this package averages over the pixels that go into one, and the other takes four of "
    "them."
)
#: The goals of this package, as ratios of processor time.
GOALS = {"files": 1.0, "data cache": 8.0}

Pipeline = Callable[[int], Tensor]


def write_phantoms(folder: Path, count: int) -> FileDataset:
    """So many phantoms as PNG files."""
    records = []
    for index in range(count):
        path = folder / f"{index}.png"
        Image.fromarray(Phantom("test", size=SIDE)[index].image[0].numpy()).save(path)
        records.append(make_record(path, [0.0]))
    return FileDataset(("finding",), records)


def ours(dataset: LocalizationDataset) -> Pipeline:
    """As training makes its items."""
    transform = Transform(Preprocessing.default(1, INPUT), "paper")
    calls = iter(range(1 << 40))
    return lambda index: transform(dataset[index], generator_for(0, next(calls), index)).image


def theirs(dataset: FileDataset) -> Pipeline:
    """The same with OpenCV and albumentations."""
    preprocessing = Preprocessing.default(1, INPUT)
    transform = albumentations.Compose(
        [
            albumentations.Rotate(limit=90, border_mode=cv2.BORDER_CONSTANT, p=0.5),
            albumentations.RandomResizedCrop(
                size=(INPUT, INPUT), scale=(0.7, 1.0), ratio=(3 / 4, 4 / 3)
            ),
            albumentations.HorizontalFlip(p=0.5),
            albumentations.RandomBrightnessContrast(0.5, 0.5, p=0.5),
            albumentations.Normalize(mean=preprocessing.mean, std=preprocessing.std),
            ToTensorV2(),
        ],
        seed=0,
    )

    def make(index: int) -> Tensor:
        pixels = cv2.imread(str(dataset.records[index].path), cv2.IMREAD_GRAYSCALE)
        return transform(image=pixels[..., None])["image"]

    return make


def check(dataset: FileDataset, pipelines: dict[str, Pipeline]) -> None:
    """Refuse pipelines that do not do the same work."""
    for record in dataset.records:
        decoded = cv2.imread(str(record.path), cv2.IMREAD_GRAYSCALE)
        if not torch.equal(read_image(record.path)[0], torch.from_numpy(decoded)):
            raise SystemExit(f"{record.path.name} is decoded differently.")
    statistics_of = {}
    for name, make in pipelines.items():
        inputs = [make(index) for _ in range(20) for index in range(len(dataset))]
        if {(tuple(x.shape), x.dtype) for x in inputs} != {((1, INPUT, INPUT), torch.float32)}:
            raise SystemExit(f"{name} makes inputs of another shape or type.")
        # In [0, 1], where a ratio has a meaning.
        values = torch.stack(inputs) * Preprocessing.default(1).std[0]
        values += Preprocessing.default(1).mean[0]
        statistics_of[name] = values.mean(), values.std()
    for name, (mean, deviation) in statistics_of.items():
        expected = statistics_of[THEIRS]
        if abs(mean / expected[0] - 1) > 0.1 or abs(deviation / expected[1] - 1) > 0.1:
            raise SystemExit(f"{name} makes other inputs: {statistics_of}.")


def measure(pipelines: dict[str, Pipeline], images: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of processor time an image, of each pipeline in each repeat."""
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    for repeat in range(repeats):
        turn = repeat % len(pipelines)
        for name in [*pipelines, *pipelines][turn : turn + len(pipelines)]:
            start = time.process_time()
            for index in range(images):
                pipelines[name](index)
            seconds[name].append((time.process_time() - start) / images)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = write_phantoms(Path(folder), options.images)
        write_cache(files, Path(folder) / "cache", name="phantoms", size=INPUT)
        cached = CachedShards(Path(folder) / "cache", files)
        pipelines = {
            THEIRS: theirs(files),
            "files": ours(files),
            "data cache": ours(cached),
        }
        check(files, pipelines)
        seconds = measure(pipelines, options.images, options.repeats)

    packages = (
        "torchvision",
        "pillow",
        "numpy",
        "albumentations",
        "opencv-python-headless",
    )
    facts = machine("cpu", 1)
    lines = [
        "| input pipeline | ms an image | against | ms an image | ratio [least, most] | goal |",
        "|---|---|---|---|---|---|",
    ]
    rows = []
    base = statistics.median(seconds[THEIRS])
    for name, goal in GOALS.items():
        ratios = [b / a for a, b in zip(seconds[name], seconds[THEIRS], strict=True)]
        own, ratio = statistics.median(seconds[name]), statistics.median(ratios)
        lines.append(
            f"| {name} | {1e3 * own:.2f} | {THEIRS} | {1e3 * base:.2f} | "
            f"{ratio:.2f} x [{min(ratios):.2f}, {max(ratios):.2f}] | {goal:.1f} x |"
        )
        rows.append([name, own, base, ratio, min(ratios), max(ratios), goal])
    lines += [
        "",
        f"{SIDE} x {SIDE} px gray PNG to {INPUT} x {INPUT} px, augmented as in the paper; "
        f"processor time of one thread, median of {options.repeats} repeats over {options.images} "
        f"images. "
        f"{facts['machine']}; {facts['versions']}, "
        + ", ".join(f"{name} {version(name)}" for name in packages)
        + ".",
        "",
        LIMITS,
        "",
    ]
    with (RESULTS / "input_pipeline.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["pipeline", "seconds", "their_seconds", "ratio", "least", "most", "goal"])
        writer.writerows(rows)
    text = "\n".join(lines)
    (RESULTS / "input_pipeline.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
