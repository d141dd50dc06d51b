"""Train a published checkpoint again by its recipe, and compare what comes out."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from pylon_zoo.data import open_task
from pylon_zoo.errors import ReproductionError
from pylon_zoo.recipes import load_recipe
from pylon_zoo.training import TrainingConfig, train
from pylon_zoo.training.evaluation import evaluate, summary_rows
from pylon_zoo.weights import load_manifest, load_pretrained, save_pretrained
from pylon_zoo.weights.locate import local_copies
from pylon_zoo.weights.manifest import Entry, Metric
from pylon_zoo.weights.reader import read_header

__all__ = ["Comparison", "Reproduction", "metrics_of", "published_config", "reproduce"]

#: What a metric of a report is called in the manifest, before its class or mean.
NAMES = {
    "AUROC": "auroc",
    "point localization (corners_false)": "point_localization_corners_false",
    "point localization (receptive_field)": "point_localization_receptive_field",
}


def metrics_of(report: dict[str, Any], command: str) -> tuple[Metric, ...]:
    """The numbers of an evaluation that have an interval, as a manifest lists them.

    Args:
        report: what :func:`pylon_zoo.training.evaluation.evaluate` returned.
        command: the command line that prints them.
    """
    return tuple(
        Metric(
            name=f"{NAMES[metric]}_{name}",
            value=round(estimate["value"], 4),
            interval=(
                min(round(estimate["low"], 4), round(estimate["value"], 4)),
                max(round(estimate["high"], 4), round(estimate["value"], 4)),
            ),
            level=0.95,
            chance=round(estimate["chance"], 4),
            support=estimate["support"],
            dataset=report["dataset"],
            split=report["split"],
            command=command,
        )
        for metric, name, estimate in summary_rows(report)
        if metric in NAMES and estimate["value"] is not None and estimate["low"] is not None
    )


@dataclass(frozen=True)
class Comparison:
    """A published metric beside the one of the new weights.

    Attributes:
        published: of the manifest.
        value: measured again, on the same split.
    """

    published: Metric
    value: float

    @property
    def difference(self) -> float:
        """New minus published."""
        return self.value - self.published.value

    @property
    def inside(self) -> bool:
        """Whether the new value lies in the published interval, ends included."""
        low, high = self.published.interval
        return low <= self.value <= high


@dataclass(frozen=True)
class Reproduction:
    """What training a checkpoint again gave.

    Attributes:
        name: the checkpoint.
        folder: where the new weights are, in the floating-point type of the published ones.
        identical: whether every tensor is the published one, bit for bit.
        comparisons: one for each published metric.
    """

    name: str
    folder: Path
    identical: bool
    comparisons: tuple[Comparison, ...]

    @property
    def succeeded(self) -> bool:
        """Whether every metric lies in its published interval."""
        return all(comparison.inside for comparison in self.comparisons)


def published_config(entry: Entry, root: str | None = None) -> TrainingConfig:
    """The configuration that an entry's command trains with.

    Args:
        entry: of the manifest.
        root: folder of the dataset, in place of the one the command names.

    Raises:
        ReproductionError: the command is no ``pylon-zoo train RECIPE``, or needs ``root``.
    """
    words = shlex.split(entry.command)
    settings = [after for word, after in pairwise(words) if word == "--set"]
    if words[:3] != ["pylon-zoo", "train", entry.recipe] or len(words) != 3 + 2 * len(settings):
        raise ReproductionError(
            f"{entry.name} was not made by `pylon-zoo train {entry.recipe} --set ...` but by "
            f"`{entry.command}`; run that by hand and compare with `pylon-zoo evaluate`."
        )
    needs_root = any(setting.startswith("root=") for setting in settings)
    if needs_root and root is None:
        raise ReproductionError(
            f"{entry.name} was trained on {entry.data.name}, which needs files: get them from "
            f"{entry.data.url} and give their folder as root (--root DIR)."
        )
    settings = [setting for setting in settings if not setting.startswith("root=")]
    if root is not None and needs_root:
        settings.append(f"root={root}")
    return load_recipe(entry.recipe).override(settings)


def reproduce(
    name: str, output: str | Path, *, root: str | None = None, progress: bool = True
) -> Reproduction:
    """Train a checkpoint of the manifest again and measure it as it was measured.

    Args:
        name: a checkpoint of the manifest.
        output: folder of the run; one that was interrupted goes on.
        root: the dataset's folder, where it has files.
        progress: show progress bars.

    Raises:
        UnknownNameError: no such checkpoint; suggests the nearest.
        ReproductionError: the manifest's command cannot be repeated, or ``root`` is missing.
        DatasetError: the dataset's files are missing or damaged.
        TrainingError: as :func:`pylon_zoo.training.train`.
    """
    entry = load_manifest().find(name)
    config = published_config(entry, root)
    published = load_pretrained(name).state_dict()
    run = train(config, output, progress=progress)
    # As published: rounded to the type that the weights are stored in.
    header = read_header(next(local_copies(name)).weights)
    dtype = next(info.dtype for info in header if info.dtype.is_floating_point)
    stored = save_pretrained(load_pretrained(run.folder), run.folder / "stored", dtype=dtype)
    model = load_pretrained(stored)
    state = model.state_dict()
    identical = state.keys() == published.keys() and all(
        torch.equal(tensor, published[key]) for key, tensor in state.items()
    )
    task = open_task(config.data, root)
    values: dict[tuple[str, str], float] = {}
    for split in dict.fromkeys(metric.split for metric in entry.metrics):
        report = evaluate(model, task, split, progress=progress)
        values |= {(split, metric.name): metric.value for metric in metrics_of(report, "")}
    return Reproduction(
        name=name,
        folder=stored,
        identical=identical,
        comparisons=tuple(
            Comparison(metric, values[metric.split, metric.name]) for metric in entry.metrics
        ),
    )
