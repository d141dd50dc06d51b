"""Fine-tuning a checkpoint beside training from scratch on the same few images.

    python benchmarks/finetune.py --data DIR

``DIR`` holds BCCD in its official layout, in ``bccd/`` or itself. Each task is written out as its
user would have it (tiles as image files, ``labels.csv``, ``boxes.csv``) and fine-tuned twice for
each seed: from the checkpoint, and from random weights. Images, their order and augmentation,
steps and selection are the same. Only what suits random weights differs: BatchNorm that learns its
statistics, and a learning rate of 3e-3 (with another seed, better than the recipes' 1e-3).

* ``cells``: what a tile of a blood smear holds, from a checkpoint that has seen drawn radiographs
  only. 20 smears of the fit split to train on, 8 of the select split to choose the epoch by.
* ``new_smears``: the same question on other smears, from the checkpoint that was trained on the
  fit split and selected on the select split. 20 and 8 smears of the official validation list.

Both are measured on 40 other smears of the official validation list. No image that is trained on,
selected by or measured on here was seen in the making of the checkpoint that is started from.

Prints the table, and writes every number to ``results/finetune.csv`` and the table to ``.md``.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image

from pylon_zoo.data import BCCD, LocalizationDataset, Sample, Tiles
from pylon_zoo.training import finetune
from pylon_zoo.training.evaluation import summary_rows

RESULTS = Path(__file__).parent / "results"
WEIGHTS = {"cells": "pylon_regnetx_002.phantom", "new_smears": "pylon_regnetx_002.bccd"}
COMMON = ["image_size=128", "epochs=16"]
STARTS = {
    "checkpoint": [],
    "scratch": ["weights=", "learning_rate=3e-3", "batch_norm=local"],
}
METRICS = {
    "AUROC": "AUROC",
    "point localization (corners_false)": "point localization",
}
FIELDS = ["task", "start", "seed", "metric", "class", "value", "low", "high", "chance", "support"]


class Part:
    """So many items of a dataset, evenly spread over those that ``start`` and ``step`` leave."""

    def __init__(
        self, dataset: LocalizationDataset, count: int, start: int = 0, step: int = 1
    ) -> None:
        self.dataset, self.class_names = dataset, dataset.class_names
        left = range(start, len(dataset), step)
        count = min(count, len(left))
        self.indices = [left[i * len(left) // count] for i in range(count)]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]


def splits_of(task: str, root: Path) -> dict[str, LocalizationDataset]:
    """Tiles of the smears of each split; every second smear of the official list is for testing."""
    val = BCCD(root, "val")
    smears = {
        "train": Part(BCCD(root, "fit"), 20),
        "val": Part(BCCD(root, "select"), 8),
        "test": Part(val, 40, 1, 2),
    }
    if task == "new_smears":
        smears |= {"train": Part(val, 20, 0, 4), "val": Part(val, 8, 2, 4)}
    return {split: Tiles(images) for split, images in smears.items()}


def write(folder: Path, splits: dict[str, LocalizationDataset]) -> None:
    """Image files, ``labels.csv`` and ``boxes.csv``, as ``pylon-zoo finetune`` reads them."""
    (folder / "images").mkdir(parents=True)
    names = list(splits["train"].class_names)
    labels: list[list[Any]] = [["path", "patient", "split", *names]]
    boxes: list[list[Any]] = [["path", "class", "x0", "y0", "x1", "y1"]]
    for split, items in splits.items():
        for index in range(len(items)):
            sample = items[index]
            name = f"{split}_{index:04}.png"
            Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(folder / "images" / name)
            labels.append([name, sample.group, split, *map(int, sample.labels.tolist())])
            for box, k in zip(sample.boxes.tolist(), sample.box_classes.tolist(), strict=True):
                boxes.append([name, names[k], *box])
    for name, rows in {"labels.csv": labels, "boxes.csv": boxes}.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


def measure(root: Path, runs: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Fine-tune from both starts for every task and seed; one row per number."""
    rows = []
    for task, weights in WEIGHTS.items():
        data = runs / task / "data"
        if not data.exists():
            write(data, splits_of(task, root))
        for seed in seeds:
            for start, settings in STARTS.items():
                report = finetune(
                    data,
                    runs / task / f"{start}_{seed}",
                    weights=weights,
                    settings=[*COMMON, f"seed={seed}", *settings],
                ).report
                for metric, name, estimate in summary_rows(report):
                    if metric in METRICS:
                        row = {"task": task, "start": start, "seed": seed}
                        row |= {"metric": METRICS[metric], "class": name}
                        rows.append(row | {key: estimate[key] for key in FIELDS[5:]})
    return rows


def table(rows: list[dict[str, Any]], seeds: Sequence[int]) -> str:
    """Markdown: the mean over seeds of both starts, and what each seed gained."""
    lines = [
        "| task | metric | class | from the checkpoint | from scratch | gain of each seed | chance "
        "| n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, metric, name in dict.fromkeys((r["task"], r["metric"], r["class"]) for r in rows):
        cells, values = [], {}
        for start in STARTS:
            group = [
                row
                for row in rows
                if (row["task"], row["metric"], row["class"], row["start"])
                == (task, metric, name, start)
            ]
            values[start] = [row["value"] for row in group]
            low, high = min(row["low"] for row in group), max(row["high"] for row in group)
            cells.append(f"{fmean(values[start]):.3f} [{low:.2f}, {high:.2f}]")
        gains = [a - b for a, b in zip(values["checkpoint"], values["scratch"], strict=True)]
        gain = ", ".join(f"{value:+.3f}" for value in gains)
        chance, support = group[0]["chance"], group[0]["support"]
        lines.append(
            f"| {task} | {metric} | {name} | {cells[0]} | {cells[1]} | {gain} | {chance:.3f} "
            f"| {support} |"
        )
    note = (
        f"Mean of {len(seeds)} seeds, in brackets the lowest lower and the highest upper bound of "
        f"the seeds' 95 % bootstrap intervals (over smears). Tiles of 256 px, seen at 128 px."
    )
    return "\n".join([*lines, "", note, ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, help="keep the runs here, and go on with them")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    inner = arguments.data / "bccd"
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(
            inner if inner.is_dir() else arguments.data,
            arguments.runs or Path(temporary),
            arguments.seeds,
        )
    target = arguments.output / "finetune.csv"
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = table(rows, arguments.seeds)
    target.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
