"""Run the matrix of architectures and encoders and write docs/encoders.md.

    python benchmarks/encoders.py

Runs ``pytest -m full tests/architectures/test_matrix.py`` (some minutes on one core) and writes its
results down, after what the survey of timm's models found. Exits with 1 if a test failed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import timm
import torch

from pylon_zoo.encoders import survey
from pylon_zoo.registry import ARCHITECTURES

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "encoders.md"
MATRIX = "tests/architectures/test_matrix.py"

Cell = dict[str, Any]


def run_matrix() -> dict[str, dict[str, Cell]]:
    """The outcome and properties of each test, by encoder and architecture."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "full", "-q", f"--junit-xml={report}"]
        command += ["-o", "junit_family=legacy"]
        subprocess.run([*command, MATRIX, *sys.argv[1:]], cwd=ROOT, check=False)
        tests = ElementTree.parse(report).iter("testcase")
        matrix: dict[str, dict[str, Cell]] = defaultdict(dict)
        for test in tests:
            encoder, _, architecture = test.attrib["name"].split("[")[1][:-1].rpartition("-")
            properties = {p.attrib["name"]: p.attrib["value"] for p in test.iter("property")}
            failed = test.find("failure") is not None or test.find("error") is not None
            matrix[encoder][architecture] = {"passed": not failed, **properties}
    return matrix


def size_rule(record: dict[str, Any]) -> str:
    """In words, which sizes of image an encoder takes."""
    other = ", others by `img_size=`" if record.get("adjustable") else ""
    if "img_size" in record:
        return "{} x {}".format(*record["img_size"]) + other
    if "multiple" in record:
        return f"multiples of {record['multiple']}{other}"
    return "any"


def family_table() -> list[str]:
    """One row per family of timm models that can serve as encoders."""
    families: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, record in survey()["encoders"].items():
        families[record["family"]][name] = record
    rows = [
        "| family (timm module) | encoders | smallest | parameters | takes images of | dilates |",
        "|---|---|---|---|---|---|",
    ]
    for family, members in sorted(families.items()):
        smallest = min(members, key=lambda name: members[name]["params"])
        rules = {size_rule(record).split(",")[0] for record in members.values()}
        own = size_rule(members[smallest])
        dilating = sum(record["dilates"] for record in members.values())
        rows.append(
            f"| {family} | {len(members)} | `{smallest}` | {members[smallest]['params']:,} "
            f"| {own}{'; differs by model' if len(rules) > 1 else ''} "
            f"| {'yes' if dilating == len(members) else dilating or 'no'} |"
        )
    return rows


def matrix_table(matrix: dict[str, dict[str, Cell]]) -> list[str]:
    """One row per encoder, one column per architecture."""
    rows = [
        "| encoder | family | built with | odd size | " + " | ".join(ARCHITECTURES) + " |",
        "|---" * (4 + len(ARCHITECTURES)) + "|",
    ]
    for encoder, cells in matrix.items():
        first = cells[next(iter(ARCHITECTURES))]
        marks = ["yes" if cells[a]["passed"] else "**no**" for a in ARCHITECTURES]
        rows.append(
            f"| `{encoder}` | {survey()['encoders'][encoder]['family']} "
            f"| {first.get('options') or 'defaults'} | {first.get('odd', 'one size only')} | "
            + " | ".join(marks)
            + " |"
        )
    return rows


def main() -> None:
    """Write the page."""
    matrix = run_matrix()
    encoders, refused = survey()["encoders"], survey()["refused"]
    anysize = sum("img_size" not in r and "multiple" not in r for r in encoders.values())
    passed = sum(cell["passed"] for cells in matrix.values() for cell in cells.values())
    total = sum(len(cells) for cells in matrix.values())
    page = [
        "# Encoders",
        "",
        "Made by `python benchmarks/encoders.py`; edit that, not this page.",
        "",
        f"Of the {len(encoders) + len(refused)} models of timm {survey()['timm']}, {len(encoders)} "
        "give features at strides 4, 8, 16 and 32 and can serve every architecture; "
        f"{anysize} of them take images of any size from 64 px on. The other {len(refused)}, plain "
        "vision transformers most of them, are refused by a message that names similar ones. "
        "`pylon_zoo.list_encoders()` lists the encoders; models that a newer timm adds work by "
        "their names. `python -m pylon_zoo.architectures.survey` makes the survey.",
        "",
        "`deeplabv3plus` dilates the encoder's last stage; with encoders that cannot be dilated it "
        "takes `output_stride=32`.",
        "",
        *family_table(),
        "",
        "## Every architecture on every kind of encoder",
        "",
        f"{passed} of {total} combinations pass on torch {torch.__version__.split('+')[0]} and "
        f"timm {timm.__version__}: a forward pass, a backward pass with a finite gradient in every "
        "parameter, equality after saving and loading, bfloat16 autocast with float32 maps, and, "
        "where the encoder takes it, an image of odd sides.",
        "",
        *matrix_table(matrix),
    ]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(page) + "\n", encoding="utf-8")
    sys.exit(passed != total)


if __name__ == "__main__":
    main()
