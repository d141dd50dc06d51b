import subprocess
import sys
from pathlib import Path

import pytest

import pylon_zoo
from pylon_zoo.data import Phantom

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(name: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_examples_fit_a_page(path: Path) -> None:
    assert 30 <= len(path.read_text(encoding="utf-8").splitlines()) <= 60


def test_quickstart() -> None:
    printed = run("quickstart.py")
    assert "maps (2, 3, 64, 64)" in printed
    assert "class maps in image pixels: (1, 6, 256, 256)" in printed
    assert all(name in printed for name in Phantom.class_names)


def test_heatmaps(tmp_path: Path) -> None:
    printed = run("heatmaps.py", "--output", tmp_path)
    pictures = sorted(tmp_path.glob("*.png"))
    assert pictures
    assert {Path(line) for line in printed.splitlines()} == set(pictures)


def test_train_phantom(tmp_path: Path) -> None:
    printed = run("train_phantom.py", "--steps", 2, "--batch-size", 2, "--output", tmp_path / "m")
    assert "step   1" in printed
    model = pylon_zoo.load_pretrained(tmp_path / "m")
    assert model.spec.class_names == ("mass", "effusion")
