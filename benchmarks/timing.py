"""Paired timing: several ways to do the same work, in turn, in one process; and their table."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

RESULTS = Path(__file__).parent / "results"
#: What two outputs may differ by, relative to the largest magnitude.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        row: the subcommand that prints it.
        what: was measured.
        against: what it is compared with.
        value: the ratio (or difference, or exponent) of medians.
        unit: ``x``, ``ms``, ``images/s``, ``MB``, ...
        goal: e.g. ``<= 1.21``; empty where there is none.
        paired: the median of the ratios (or differences) within a repeat.
        seconds: median seconds of what was measured.
        against_seconds: of the other.
        difference: of the outputs, relative to their largest magnitude.
        repeats: pairs.
        note: what limits it, or how it was measured.
    """

    row: str
    what: str
    against: str
    value: float
    unit: str
    goal: str = ""
    paired: float | None = None
    seconds: float | None = None
    against_seconds: float | None = None
    difference: float | None = None
    repeats: int | None = None
    note: str = ""

    @property
    def reached(self) -> str:
        """``yes``, ``no``, or nothing where there is no goal."""
        if not self.goal:
            return ""
        sign, bound = self.goal.split()
        return "yes" if (self.value <= float(bound)) == (sign == "<=") else "no"


def now(device: str = "cpu") -> float:
    """Seconds, once the device has done its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def interleaved(
    calls: dict[str, Callable[[], Any]], repeats: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of every call, each in turn ``repeats`` times, after an untimed round.

    The order is turned round each time, so that what one leaves behind (caches, clock, other
    people's work) falls on all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name in list(calls)[:: 1 if repeat % 2 else -1]:
            started = now(device)
            calls[name]()
            if repeat:
                seconds[name].append(now(device) - started)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """``value`` and ``paired`` of a :class:`Row`: how many times ``slow`` takes ``fast``'s time."""
    return {
        "value": statistics.median(slow) / statistics.median(fast),
        "paired": statistics.median(a / b for a, b in zip(slow, fast, strict=True)),
    }


def agreement(received: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> float:
    """The largest difference relative to the largest magnitude; exits if it is too large."""
    received, expected = received.detach().double().cpu(), expected.detach().double().cpu()
    if received.shape != expected.shape:
        raise SystemExit(f"The outputs have shapes {received.shape} and {expected.shape}.")
    difference = float((received - expected).abs().max() / expected.abs().max())
    if not difference <= tolerance:  # NaN included
        raise SystemExit(f"The outputs differ by {difference:.2g} of their largest magnitude.")
    return difference


def machine(device: str, threads: int) -> dict[str, str]:
    """What the numbers were measured on, and with."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name()
    return {
        "machine": f"{name}, {os.cpu_count()} cores, {threads} threads",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"timm {timm.__version__}",
        "measured": datetime.date.today().isoformat(),
    }


COLUMNS = [f.name for f in fields(Row)] + ["reached", "settings", "machine", "versions", "measured"]


def read_results(path: Path) -> list[dict[str, str]]:
    """Rows of a table; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_results(path: Path, name: str, rows: list[Row], facts: dict[str, str]) -> None:
    """Replace the lines of the subcommand ``name`` in the CSV, and render the table beside it."""
    kept = [line for line in read_results(path) if line["row"] != name]
    for row in rows:
        values = asdict(row) | {"reached": row.reached} | facts
        kept.append({k: _text(values[k]) for k in COLUMNS})
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    path.with_suffix(".md").write_text(table(kept), encoding="utf-8")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(lines: list[dict[str, str]]) -> str:
    """Markdown of the lines of a CSV."""
    head = ("what", "against", "measured", "goal", "reached", "seconds", "outputs differ by")
    text = [f"| {' | '.join((*head, 'command'))} |", f"|{'---|' * (len(head) + 1)}"]
    for line in lines:
        seconds = line["seconds"]
        if line["against_seconds"]:
            seconds += f" / {line['against_seconds']}"
        cells = (
            line["what"],
            line["against"],
            f"{line['value']} {line['unit']}",
            line["goal"],
            line["reached"],
            seconds,
            line["difference"],
            f"`speed.py {line['row']}`",
        )
        text.append(f"| {' | '.join(cells)} |")
    notes = dict.fromkeys(f"- `{line['row']}`: {line['note']}" for line in lines if line["note"])
    where = {
        f"- {line['machine']}; {line['versions']}; {line['settings']}; {line['measured']}": None
        for line in lines
    }
    return "\n".join(
        [
            *text,
            "",
            "Ratios are of medians over paired repeats, the two sides in turn in one process; "
            "seconds are medians.",
            "",
            *notes,
            "",
            "Measured on:",
            "",
            *where,
            "",
        ]
    )
