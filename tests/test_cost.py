"""The page of costs is what its script makes of the committed measurements."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def cost() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cost", ROOT / "docs" / "cost.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_up_to_date(cost: ModuleType) -> None:
    assert cost.PAGE.read_text(encoding="utf-8") == cost.render()


def test_hours_follow_from_rates(
    cost: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "RESULTS", tmp_path)
    assert cost.render().count("| not measured | not measured | not measured |") == 6
    with (tmp_path / "speed_cuda.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "what", "value", "unit", "machine", "versions", "measured"])
        for task, rate in (("predict", 1000), ("train", 50)):
            writer.writerow(["rates", f"{task}: it", rate, "images/s", "a GPU", "torch", "today"])
            writer.writerow(["rates", f"{task}: it", 4000, "MB", "a GPU", "torch", "today"])
    page = cost.render()
    assert "| one GPU | 1e+03 | 0.278 | 4 GB | `pylon-zoo predict" in page  # 1000 s
    assert "| one GPU | 50 | 5.56 | 4 GB | `pylon-zoo train" in page  # 20 000 s
    assert page.count("not measured") == 12
    assert page.count("one GPU: a GPU; torch; today.") == 1
