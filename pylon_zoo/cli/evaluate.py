"""``pylon-zoo evaluate``: how good is a checkpoint on a dataset?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pylon_zoo.cli.completion import complete_datasets
from pylon_zoo.cli.options import Checkpoint, Device, Root, usable_device
from pylon_zoo.cli.terminal import AsJson, make_table, note, out, print_json

__all__ = ["EXAMPLES", "evaluate", "print_report"]

EXAMPLES = (
    "pylon-zoo evaluate pylon_dla46_c.phantom --data phantom --split test",
    "pylon-zoo evaluate pylon_dla46_c.bccd --data bccd --root BCCD",
    "pylon-zoo evaluate my_model --data csv --root my_images.csv -o report",
    "pylon-zoo evaluate my_model --data csv --root my_images.csv --json > r.json",
)


def evaluate(
    model: Checkpoint,
    data: Annotated[
        str,
        typer.Option(
            help="Dataset; pylon-zoo list --datasets has them all.",
            autocompletion=complete_datasets,
            show_default=False,
        ),
    ],
    root: Root = None,
    split: Annotated[str, typer.Option(help="Split to measure on, e.g. val or test.")] = "val",
    threshold_split: Annotated[
        str | None,
        typer.Option(
            help="Split to choose thresholds on; by default the measured one, which the report "
            "then says.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for report.json, report.md and plots (extra viz).",
            show_default=False,
        ),
    ] = None,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Measure classification and localization, with chance levels and 95 % intervals.

    Under torchrun each process measures a share of the images.
    """
    from pylon_zoo.data import open_task
    from pylon_zoo.training import evaluation, evaluation_plots
    from pylon_zoo.training.processes import process_group
    from pylon_zoo.weights import load_pretrained

    if output is not None:
        evaluation_plots.require_matplotlib()
    task = open_task(data, root)
    with process_group(device) as (own_device, is_main):
        report = evaluation.evaluate(
            load_pretrained(model, device=usable_device(own_device)),
            task,
            split,
            threshold_split=threshold_split,
            progress=True,
        )
    if not is_main:
        return
    report["command"] = f"pylon-zoo evaluate {model} --data {data} --split {split}"
    report["command"] += " --root DIR" if root else ""
    report["command"] += f" --threshold-split {threshold_split}" if threshold_split else ""
    if as_json:
        print_json(report)
    else:
        print_report(report, f"{model} on {data} {split}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=2) + "\n"
        (output / "report.json").write_text(text, encoding="utf-8")
        (output / "report.md").write_text(evaluation.markdown_report(report), encoding="utf-8")
        evaluation_plots.plot_roc(report, output / "roc.png")
        evaluation_plots.plot_localization(report, output / "localization.png")
        note(f"Every metric: {output / 'report.md'}")


def print_report(report: dict[str, Any], title: str) -> None:
    """Print AUROC and point localization as a table."""
    from pylon_zoo.training.evaluation import format_chance, format_estimate, summary_rows

    numbers = ("chance", "n")
    table = make_table("metric", "class", "value [95 %]", *numbers, right=numbers, title=title)
    previous = ""
    for metric, name, estimate in summary_rows(report):
        if previous not in ("", metric):
            table.add_section()
        label = "" if metric == previous else metric
        value, chance = format_estimate(estimate), format_chance(estimate)
        table.add_row(label, name, value, chance, str(estimate["support"]))
        previous = metric
    out.print(table, markup=False)
