"""The notebooks of examples/ run from the first cell to the last, and are small."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
# What the Jupyter client says of its own event loop and files.
@pytest.mark.filterwarnings("ignore")
def test_notebook_runs(path: Path) -> None:
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason=f"notebooks need {package}: pip install '.[dev]'")
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    notebooks: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(notebooks)
    done = notebooks.execute(path)
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    pictures = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert pictures
    printed = "".join(o.text for cell in code for o in cell.outputs if o.output_type == "stream")
    assert ("in its box" if path.name == "quickstart.ipynb" else "finding covered") in printed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_is_small_and_tells_of_no_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not [place for place in ("/tmp", "/home", "/root", "site-packages") if place in text]
    assert "Not for clinical use" in text
    assert '"execution_count": null' not in text


def test_both_are_there() -> None:
    assert [p.stem for p in NOTEBOOKS] == ["finetune_and_explain", "quickstart"]
