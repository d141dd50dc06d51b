"""PYLON beside its CAM twin: same encoder, data, seeds and budget, trained from scratch.

    python benchmarks/twins.py phantom --split test
    python benchmarks/twins.py bccd --root DIR --split val

Trains what is not trained yet (``--runs``), evaluates every run, and writes one row per number to
``results/twins_{dataset}_{split}.csv`` and the table to the ``.md`` beside it. Each run is
selected on the task's selection data, never on the split that is reported.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from pylon_zoo import load_pretrained
from pylon_zoo.data import TASKS, open_task
from pylon_zoo.recipes import load_recipe
from pylon_zoo.training import train
from pylon_zoo.training.evaluation import evaluate, summary_rows

RESULTS = Path(__file__).parent / "results"
TWINS = {"pylon": "{}", "cam": "{}_cam"}
FIELDS = ["model", "seed", "metric", "class", "value", "low", "high", "chance", "support"]


def run_folder(runs: Path, recipe: str, seed: int) -> Path:
    """Where a run of this seed is kept."""
    return runs / f"{recipe}_{seed}"


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Train and evaluate every twin and seed; one row per number."""
    task = open_task(arguments.dataset, arguments.root)
    rows = []
    for architecture, pattern in TWINS.items():
        recipe = pattern.format(arguments.dataset)
        for seed in arguments.seeds:
            folder = run_folder(arguments.runs, recipe, seed)
            if not (folder / "run.json").exists():
                settings = [f"seed={seed}"]
                if arguments.root:
                    settings.append(f"root={arguments.root}")
                train(load_recipe(recipe).override(settings), folder)
            report_path = folder / f"evaluation_{arguments.split}.json"
            if not report_path.exists():
                report = evaluate(load_pretrained(folder), task, arguments.split, progress=True)
                report_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            report = json.loads(report_path.read_text(encoding="utf-8"))
            for metric, name, estimate in summary_rows(report):
                row = {"model": architecture, "seed": seed, "metric": metric, "class": name}
                rows.append(row | {key: estimate[key] for key in FIELDS[4:]})
    return rows


def table(rows: list[dict[str, Any]], seeds: list[int]) -> str:
    """Markdown: the mean over seeds, and the hull of the seeds' 95 % intervals."""
    lines = [
        "| metric | class | PYLON | CAM | chance | n |",
        "|---|---|---|---|---|---|",
    ]
    keys = list(dict.fromkeys((row["metric"], row["class"]) for row in rows))
    for metric, name in keys:
        cells = []
        for model in TWINS:
            group = [
                row
                for row in rows
                if (row["model"], row["metric"], row["class"]) == (model, metric, name)
            ]
            value = fmean(row["value"] for row in group)
            low, high = min(row["low"] for row in group), max(row["high"] for row in group)
            cells.append(f"{value:.3f} [{low:.2f}, {high:.2f}]")
        chance, support = group[0]["chance"], group[0]["support"]
        lines.append(f"| {metric} | {name} | {cells[0]} | {cells[1]} | {chance:.3f} | {support} |")
    note = (
        f"Mean of {len(seeds)} seeds, in brackets the lowest lower and the highest upper bound of "
        f"the seeds' 95 % bootstrap intervals (over images)."
    )
    return "\n".join([*lines, "", note, ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("dataset", choices=sorted(TASKS))
    parser.add_argument("--root")
    parser.add_argument("--split", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/twins"))
    arguments = parser.parse_args()
    rows = measure(arguments)
    target = RESULTS / f"twins_{arguments.dataset}_{arguments.split}.csv"
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = table(rows, arguments.seeds)
    target.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
