"""The verdicts of the zoo's benchmark, and that its page is what the committed rows give."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    from pylon_zoo.data import TASKS

    monkeypatch.syspath_prepend(BENCHMARKS)
    before = dict(TASKS)
    import zoo as module

    yield module
    sys.modules.pop("zoo")
    TASKS.clear()
    TASKS.update(before)


def row(seed: int, value: float, half: float = 0.0) -> dict[str, str]:
    ends = {"value": value, "low": value - half, "high": value + half}
    return {"seed": str(seed), **{f"m|{part}": str(number) for part, number in ends.items()}}


def test_the_committed_page_is_what_the_rows_give(zoo: ModuleType) -> None:
    for profile in zoo.PROFILES:
        page = BENCHMARKS / "results" / f"zoo_{profile}.md"
        rows = sum(len(zoo.read_rows(profile, dataset)) for dataset in zoo.SPLITS)
        assert page.exists() == bool(rows)
        if rows:
            assert page.read_text(encoding="utf-8") == zoo.render(profile)


def test_the_interval_adds_seeds_and_images(zoo: ModuleType) -> None:
    better = [row(0, 0.8), row(1, 0.9), row(5, 0.1)]
    worse = [row(1, 0.6), row(0, 0.7), row(7, 0.9)]
    mean, low, high, seeds = zoo.effect(better, worse, "m")
    # Differences of 0.1 and 0.3: variance 0.02, of the mean 0.01.
    assert seeds == 2
    assert (mean, low, high) == pytest.approx((0.2, 0.2 - 0.196, 0.2 + 0.196))
    # Images alone: the two runs' intervals of 0.03 and 0.04 either side add up to 0.05.
    mean, low, high, seeds = zoo.effect([row(0, 0.8, 0.03)], [row(0, 0.5, 0.04)], "m")
    assert (mean, low, high) == pytest.approx((0.3, 0.25, 0.35))


def test_verdicts(zoo: ModuleType) -> None:
    claim = zoo.CLAIMS[0]
    assert zoo.verdict(claim, 0.01, 0.2, True) == "holds"
    assert zoo.verdict(claim, -0.2, -0.01, True) == "does not hold"
    assert zoo.verdict(claim, -0.1, 0.1, True) == "cannot tell here"
    assert "chance" in zoo.verdict(claim, 0.01, 0.2, False)
    auroc = next(c for c in zoo.CLAIMS if c.metric == "AUROC")
    assert zoo.verdict(auroc, -0.01, 0.1, True) == "holds"
    assert zoo.verdict(auroc, -0.1, -0.03, True) == "does not hold"
    assert zoo.verdict(auroc, -0.03, 0.1, True) == "cannot tell here"
