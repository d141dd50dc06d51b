"""A grid of training runs, one row of a table each: resumable, and shared by several processes."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pylon_zoo.data import open_task
from pylon_zoo.errors import InvalidOptionError
from pylon_zoo.files import replace_file
from pylon_zoo.registry import create_model
from pylon_zoo.training import TrainingConfig, train
from pylon_zoo.training.config import BYSTANDERS
from pylon_zoo.training.evaluation import evaluate, summary_rows
from pylon_zoo.weights import load_pretrained

__all__ = ["KEY", "ResultsTable", "Run", "grid_of", "run_grid"]

#: What tells the runs of :func:`grid_of` apart.
KEY = ("variant", "seed", "split", "config")
#: What is written of each estimate.
PARTS = ("value", "low", "high", "chance", "support")


@dataclass(frozen=True)
class Run:
    """One cell of a grid.

    Attributes:
        key: what tells it from the others; the first columns of its row.
        config: what it trains.
        folder: where its state and its model are kept.
        split: that its best epoch is measured on; it must not be the one that selects the epoch.
    """

    key: dict[str, str | int]
    config: TrainingConfig
    folder: Path
    split: str


class ResultsTable:
    """A CSV file with one row for each run that is done; several processes may add to it."""

    def __init__(
        self,
        path: Path,
        key: Sequence[str],
        order: Callable[[dict[str, str]], Any] | None = None,
    ) -> None:
        """Look at a file that need not exist yet.

        Args:
            path: of the file; ``.lock`` in place of its suffix guards it.
            key: columns that tell runs apart.
            order: sorts the rows; None leaves them in the order in which they were added.
        """
        self.path, self.key, self.order = path, tuple(key), order

    def read(self) -> list[dict[str, str]]:
        """The rows that are there.

        Raises:
            InvalidOptionError: the file is another table.
        """
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = set(self.key) - set(reader.fieldnames or ())
            if missing:
                raise InvalidOptionError(
                    f"{self.path} is no table of this benchmark: it has no column "
                    f"{', '.join(sorted(missing))}. Give another output file."
                )
            return list(reader)

    def find(self, run: Run) -> dict[str, str] | None:
        """The row of a run, if it is there."""
        wanted = {name: str(value) for name, value in run.key.items()}
        rows = (row for row in self.read() if wanted.items() <= row.items())
        return next(rows, None)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row.

        Raises:
            InvalidOptionError: the rows that are there have other columns.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            rows: list[dict[str, Any]] = [*self.read(), row]
            if rows[0].keys() != row.keys():
                other = sorted(rows[0].keys() ^ row.keys())
                raise InvalidOptionError(
                    f"{self.path} has other columns than this run ({', '.join(other[:4])}, ...): "
                    f"it is of another dataset. Give another output file."
                )
            if self.order is not None:
                rows.sort(key=self.order)
            with (
                replace_file(self.path) as temporary,
                temporary.open("w", newline="", encoding="utf-8") as file,
            ):
                writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


def grid_of(
    variants: Sequence[str],
    seeds: Sequence[int],
    base: TrainingConfig,
    *,
    split: str,
    folder: Path,
) -> list[Run]:
    """Every variant with every seed, seed by seed; rows are keyed by :data:`KEY`.

    Args:
        variants: a model's name each, and after it, separated by spaces, ``key=value`` settings
            of its own, e.g. ``"cam_resnet50 options.pooling=avg"``.
        seeds: of weights, order, augmentation and drawn data.
        base: what all runs have in common; its model, options, weights and seed are replaced.
        split: to measure on.
        folder: gets one folder for each run.

    Raises:
        UnknownNameError: no such model, setting or option; suggests the nearest.
        InvalidOptionError: a setting has a wrong value.
    """
    configs = {}
    for variant in variants:
        model, *settings = variant.split()
        config = replace(base, model=model, options={}, weights=None).override(settings)
        # Better now than after the runs before it.
        create_model(model, **config.options)
        configs[variant] = config
    return [
        Run(
            key=dict(zip(KEY, (variant, seed, split, _digest(config)), strict=True)),
            config=replace(config, seed=seed),
            folder=folder / f"{config.model}_{seed}_{_digest(config)}",
            split=split,
        )
        for seed in seeds
        for variant, config in configs.items()
    ]


def _digest(config: TrainingConfig) -> str:
    """Eight digits that change with every setting that changes a result, but for the seed."""
    settings = config.to_dict()
    for name in (*BYSTANDERS, "seed", "root"):
        del settings[name]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def run_grid(runs: Iterable[Run], table: ResultsTable, *, progress: bool = False) -> Iterator[Run]:
    """Train and measure every run that has no row yet, and yield it once it has.

    A run that was interrupted goes on from its checkpoint; one that another process has under way
    is passed over, so that the same call may be made by several processes at a time.

    Args:
        runs: in the order in which they are made.
        table: gets the rows.
        progress: show progress bars.

    Raises:
        InvalidOptionError: the table is of another grid.
        CheckpointError: a run's folder holds a run with another configuration.
        TrainingError: see :func:`pylon_zoo.training.train`.
    """
    for run in runs:
        with _claimed(run.folder) as mine:
            if not mine or table.find(run) is not None:
                continue
            train(run.config, run.folder, progress=progress)
            task = open_task(run.config.data, run.config.root)
            report = evaluate(load_pretrained(run.folder), task, run.split, progress=progress)
            table.add(_row(run, report))
            yield run


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Whether this process has the run to itself."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(folder.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _row(run: Run, report: dict[str, Any]) -> dict[str, Any]:
    """A run as one row: what it was, and every number with the ends of its interval."""
    record = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    row = {
        **run.key,
        "model": run.config.model,
        "data": run.config.data,
        "split": report["split"],
        "epochs": run.config.epochs,
        "best_epoch": record["best_epoch"],
        "seconds": record["seconds"],
        "device": record["device"],
    }
    for metric, name, estimate in summary_rows(report):
        row |= {f"{metric}|{name}|{part}": estimate[part] for part in PARTS}
    return row
