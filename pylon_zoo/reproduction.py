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
from pylon_zoo.training.evaluation import evaluate
from pylon_zoo.weights import load_manifest, load_pretrained, save_pretrained
from pylon_zoo.weights.locate import local_copies
from pylon_zoo.weights.manifest import Entry, Metric
from pylon_zoo.weights.reader import read_header

__all__ = [
    "Comparison",
    "Reproduction",
    "metrics_of",
    "published_config",
    "reproduce",
    "thresholds_of",
]

#: Of these the smaller is the better.
ERRORS = ("ece_", "brier_")
MEANS = ("macro", "micro")


def metrics_of(report: dict[str, Any], command: str) -> tuple[Metric, ...]:
    """The numbers of an evaluation that have an interval, as a manifest lists them.

    AUROC, point localization, calibration (``ece``, ``brier``) and, where the thresholds were not
    chosen on the measured split, sensitivity and specificity at them; each as macro and micro mean
    and by class.

    Args:
        report: what :func:`pylon_zoo.training.evaluation.evaluate` returned.
        command: the command line that prints them.
    """
    tables = {"auroc": report["classification"]}
    tables |= {f"point_localization_{a}": table for a, table in report["localization"].items()}
    tables |= {"ece": report["calibration"], "brier": report["brier"]}
    if not report["thresholds"]["chosen_on_measured_split"]:
        youden = report["operating_points"]["youden"]
        tables |= {kind: youden[kind] for kind in ("sensitivity", "specificity")}
    return tuple(
        Metric(
            name=f"{kind}_{name}",
            value=round(estimate["value"], 4),
            interval=(
                min(round(estimate["low"], 4), round(estimate["value"], 4)),
                max(round(estimate["high"], 4), round(estimate["value"], 4)),
            ),
            level=0.95,
            chance=None if estimate["chance"] is None else round(estimate["chance"], 4),
            support=estimate["support"],
            dataset=report["dataset"],
            split=report["split"],
            command=command,
        )
        for kind, table in tables.items()
        for name, estimate in [
            *((mean, table[mean]) for mean in MEANS),
            *table["per_class"].items(),
        ]
        if estimate["value"] is not None and estimate["low"] is not None and estimate["support"]
    )


def thresholds_of(report: dict[str, Any]) -> dict[str, float]:
    """The thresholds of an evaluation that a manifest lists: Youden's, on the probability.

    Classes of which the images that thresholds were chosen on hold only one label have none.
    """
    chosen = report["operating_points"]["youden"]["thresholds"]
    return {name: value for name, value in chosen.items() if value is not None}


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
        """Whether the new value lies in the published interval, ends included.

        Of an error any value below it does, too: images that are drawn twice add to the error of
        calibration, so that its bootstrap interval may begin at the value itself.
        """
        low, high = self.published.interval
        smaller_is_better = self.published.name.startswith(ERRORS)
        return (smaller_is_better or low <= self.value) and self.value <= high


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
        report = evaluate(
            model, task, split, threshold_split=task.selection_split, progress=progress
        )
        values |= {(split, metric.name): metric.value for metric in metrics_of(report, "")}
    return Reproduction(
        name=name,
        folder=stored,
        identical=identical,
        comparisons=tuple(
            Comparison(metric, values[metric.split, metric.name]) for metric in entry.metrics
        ),
    )
