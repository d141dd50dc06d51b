"""Write cost.md: what a million images cost, from the rates that benchmarks/speed.py measured.

python docs/cost.py
"""

from __future__ import annotations

import csv
from pathlib import Path

PAGE = Path(__file__).parent / "cost.md"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
MEASURE = "python benchmarks/speed.py rates --again"

#: Column, the table that holds its rates, and its commands to predict and to train.
PLACES = (
    (
        "laptop (CPU, 2 threads)",
        "speed_cpu.csv",
        "pylon-zoo predict DIR --model MODEL --no-overlays",
        "pylon-zoo train nih14_pylon_256 --set root=DIR --set precision=no --set batch_size=8",
    ),
    (
        "one GPU",
        "speed_cuda.csv",
        "pylon-zoo predict DIR --model MODEL --no-overlays --device cuda --workers 8",
        "pylon-zoo train nih14_pylon_256 --set root=DIR",
    ),
    (
        "eight GPUs",
        None,
        "the command for one GPU, once for each, on an eighth of the images",
        "accelerate launch --num_processes 8 -m pylon_zoo.cli.main train nih14_pylon_256 "
        "--set root=DIR",
    ),
)


def render() -> str:
    """The page, as Markdown."""
    lines = [
        "# What a million images cost",
        "",
        "Hours are 10⁶ / 3600 over the measured images a second; memory is the peak of the whole "
        "process. Predicting goes from a PNG file of 1024² to the probability, peak and map of 14 "
        "classes in pixels of that file; training is the step alone (forward, backward, Adam), a "
        "million images seen once, on images that are ready in memory. Both with PYLON on a "
        "ResNet-50 at 256², float32. Measured by `" + MEASURE + "`.",
        "",
    ]
    notes = []
    for title, task, command in (("Predicting", "predict", 2), ("Training", "train", 3)):
        lines += [
            f"## {title}",
            "",
            "| where | images/s | hours per million | memory | command |",
            "|---|---|---|---|---|",
        ]
        for place in PLACES:
            measured = _measured(place[1], task)
            cells = ("not measured",) * 3
            if measured:
                rate, peak, where = measured
                cells = (f"{rate:.3g}", f"{1e6 / rate / 3600:.3g}", f"{peak / 1000:.2g} GB")
                notes.append(f"{place[0]}: {where}.")
            text = place[command]
            shown = f"`{text}`" if text.startswith(("pylon-zoo", "accelerate")) else text
            lines.append(f"| {' | '.join((place[0], *cells, shown))} |")
        lines.append("")
    lines += [*dict.fromkeys(notes), ""]
    return "\n".join(lines)


def _measured(table: str | None, task: str) -> tuple[float, float, str] | None:
    """Images a second, peak megabytes, and the machine; None where there is no such table."""
    if table is None or not (RESULTS / table).exists():
        return None
    with (RESULTS / table).open(newline="", encoding="utf-8") as file:
        found = [
            line
            for line in csv.DictReader(file)
            if line["row"] == "rates" and line["what"].startswith(f"{task}:")
        ]
    values = {line["unit"]: float(line["value"]) for line in found}
    if not values:
        return None
    where = f"{found[0]['machine']}; {found[0]['versions']}; {found[0]['measured']}"
    return values["images/s"], values["MB"], where


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
