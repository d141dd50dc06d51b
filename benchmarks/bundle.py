"""Put the best run of a recipe into the package, with its manifest entry.

    python benchmarks/bundle.py phantom --split test
    python benchmarks/bundle.py bccd --root DIR --split val

Of the runs that ``twins.py`` left, the one with the lowest loss on the selection data is stored
as float16, loaded again, evaluated on the split as it is stored, and listed in
``weights_manifest.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch

import pylon_zoo
from pylon_zoo.data import BCCD, TASKS, Task, open_task
from pylon_zoo.recipes import load_recipe
from pylon_zoo.reproduction import metrics_of
from pylon_zoo.training.evaluation import evaluate, format_estimate, summary_rows
from pylon_zoo.weights.manifest import DataRecord, Record, add_entry


def splits_of(task: Task, seed: int) -> dict[str, str]:
    """What identifies the images of each split."""
    if task.name == "phantom":
        return {
            "train": f"Phantom('train', seed={seed}), items 0 to 2999",
            "select": "Phantom('val', seed=0), items 0 to 499",
            "test": "Phantom('test', seed=0), items 0 to 499",
        }
    splits = {}
    for split in ("fit", "select", "val"):
        names = sorted(BCCD(task.root or "", split).names)
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
        splits[split] = f"{len(names)} images, sha256 of the sorted names {digest}"
    return splits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("recipe", choices=sorted(TASKS))
    parser.add_argument("--root")
    parser.add_argument("--split", required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/twins"))
    arguments = parser.parse_args()

    finished = [
        (json.loads(path.read_text(encoding="utf-8")), path.parent)
        for path in sorted(arguments.runs.glob(f"{arguments.recipe}_[0-9]*/run.json"))
    ]
    run, folder = min(finished, key=lambda found: found[0]["best_validation_loss"])
    seed = run["config"]["seed"]
    model = pylon_zoo.load_pretrained(folder)
    stored = pylon_zoo.save_pretrained(model, folder / "float16", dtype=torch.float16)
    task = open_task(arguments.recipe, arguments.root)
    name = f"{load_recipe(arguments.recipe).model}.{arguments.recipe}"
    root = " --root DIR" if arguments.root else ""
    command = f"pylon-zoo evaluate {name} --data {arguments.recipe}{root} --split {arguments.split}"
    report = evaluate(pylon_zoo.load_pretrained(stored), task, arguments.split, progress=True)
    setting = f" --set root=DIR --set seed={seed}" if arguments.root else f" --set seed={seed}"
    entry = add_entry(
        stored,
        name,
        record=Record(
            recipe=arguments.recipe,
            command=f"pylon-zoo train {arguments.recipe}{setting}",
            data=DataRecord(
                name=arguments.recipe,
                license=task.license,
                url=task.url,
                splits=splits_of(task, seed),
            ),
            weights_license="Apache-2.0",
            metrics=metrics_of(report, command),
            thresholds=None,
            project_version=pylon_zoo.__version__,
        ),
        bundle=True,
    )
    for metric, of, estimate in summary_rows(report):
        print(f"{metric:40} {of:15} {format_estimate(estimate)}")
    print(f"{entry.name}: seed {seed}, {entry.bytes:,} bytes, sha256 {entry.sha256}")


if __name__ == "__main__":
    main()
