"""A grid of runs on the tiny task, as a library and as a command."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from tiny_task import CONFIG, TinyTask

from pylon_zoo import benchmark, load_pretrained
from pylon_zoo.benchmark import KEY, ResultsTable, Run, grid_of, run_grid
from pylon_zoo.cli import main as cli
from pylon_zoo.data import LocalizationDataset, Phantom, tasks
from pylon_zoo.errors import InvalidOptionError, UnknownNameError
from pylon_zoo.training import train
from pylon_zoo.training.evaluation import evaluate

VARIANTS = ("cam_test_efficientnet", "cam_test_efficientnet options.pooling=avg")
BASE = replace(CONFIG, epochs=1)


class Task(TinyTask):
    def classification(self, split: str) -> LocalizationDataset:
        return Phantom(split, size=64, length=12)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "tiny", Task)


def grid(folder: Path, seeds: tuple[int, ...] = (0,), base: Any = BASE) -> list[Run]:
    return grid_of(VARIANTS, seeds, base, split="test", folder=folder)


def test_rows_say_what_the_runs_measured_and_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = ResultsTable(tmp_path / "results.csv", KEY)
    runs = grid(tmp_path / "runs")
    assert [run.config.options for run in runs] == [{}, {"pooling": "avg"}]
    assert list(run_grid(runs, table)) == runs
    rows = table.read()
    assert [row["variant"] for row in rows] == list(VARIANTS)
    for run, row in zip(runs, rows, strict=True):
        report = evaluate(load_pretrained(run.folder), Task(), "test")
        assert row["AUROC|macro|value"] == str(report["classification"]["macro"]["value"])
        assert row["AUROC|macro|low"] == str(report["classification"]["macro"]["low"])
        assert (row["data"], row["seed"], row["split"]) == ("tiny", "0", "test")
        assert json.loads((run.folder / "run.json").read_text())["config"]["seed"] == 0

    trained = []

    def watched(config: Any, *args: Any, **more: Any) -> Any:
        trained.append((config.options, config.seed))
        return train(config, *args, **more)

    monkeypatch.setattr(benchmark, "train", watched)
    more = grid(tmp_path / "runs", seeds=(0, 1))
    assert list(run_grid(more, table)) == [run for run in more if run.config.seed == 1]
    assert trained == [({}, 1), ({"pooling": "avg"}, 1)]
    assert len(table.read()) == 4
    # Another setting makes other runs, and leaves the rows of before.
    other = grid(tmp_path / "runs", base=replace(BASE, learning_rate=1e-4))
    assert [table.find(run) for run in other] == [None, None]


def test_a_run_of_another_process_is_passed_over(tmp_path: Path) -> None:
    table = ResultsTable(tmp_path / "results.csv", KEY)
    first, second = grid(tmp_path / "runs")
    first.folder.parent.mkdir(parents=True)
    with FileLock(first.folder.with_name(first.folder.name + ".lock"), is_singleton=False):
        assert list(run_grid([first, second], table)) == [second]
    assert list(run_grid([first, second], table)) == [first]


def test_rows_are_sorted_and_other_tables_are_refused(tmp_path: Path) -> None:
    table = ResultsTable(tmp_path / "a.csv", ("seed",), order=lambda row: int(row["seed"]))
    for seed in (10, 2):
        table.add({"seed": seed, "value": 1})
    assert [row["seed"] for row in table.read()] == ["2", "10"]
    with pytest.raises(InvalidOptionError, match="other columns"):
        table.add({"seed": 3, "other": 1})
    with pytest.raises(InvalidOptionError, match="no column variant"):
        ResultsTable(tmp_path / "a.csv", ("variant", "seed")).read()


def test_names_are_checked_before_anything_is_trained(tmp_path: Path) -> None:
    for variant, word in (
        ("pylon_resnet1", "resnet"),
        ("pylon_test_resnet epoch=1", "epochs"),
        ("cam_test_resnet options.poling=avg", "pooling"),
    ):
        with pytest.raises(UnknownNameError, match=word):
            grid_of([VARIANTS[0], variant], [0], BASE, split="test", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(a) for a in arguments])
    code = stopped.value.code
    return code if isinstance(code, int) else 0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "results.csv"
    arguments = ["benchmark", "tiny", "--models", "cam_test_efficientnet", "--seeds", "0,3"]
    arguments += ["-o", str(output), "--runs", str(tmp_path / "runs"), "--recipe", "phantom"]
    arguments += ["--set", "epochs=1", "--set", "batch_size=4"]
    assert run(*arguments) == 0
    printed = capsys.readouterr()
    assert "2 of 2 runs" in printed.err
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["0", "3"]
    for row in rows:
        assert f"{float(row['AUROC|macro|value']):.3f}" in printed.out
    config = json.loads(next(tmp_path.glob("runs/tiny/*_3_*/run.json")).read_text())["config"]
    assert (config["optimizer"], config["learning_rate"]) == ("adamw", 2e-3)  # the recipe's
    assert (config["data"], config["seed"], config["epochs"]) == ("tiny", 3, 1)
    content = output.read_bytes()
    assert run(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out) == rows
    assert output.read_bytes() == content
    assert run("benchmark", "tiny", "--models", "x", "--seeds", "one") == 2
    assert run("benchmark", "tiny", "--models", "x", "--split", "tst") == 1
    assert "Did you mean 'test'" in capsys.readouterr().err


def test_the_zoo_benchmark_still_starts() -> None:
    script = Path(__file__).resolve().parent.parent / "benchmarks" / "zoo.py"
    done = subprocess.run(
        [sys.executable, script, "train", "--help"], capture_output=True, text=True, check=True
    )
    assert "--seeds" in done.stdout
