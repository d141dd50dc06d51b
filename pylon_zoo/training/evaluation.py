"""AUROC and point localization of a model on a split, with chance levels and intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pylon_zoo import __version__
from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.data import LocalizationDataset, Sample, Task
from pylon_zoo.errors import InvalidInputError, unknown_name
from pylon_zoo.heatmaps import ALIGNMENTS, find_peaks, get_cam, resize_maps
from pylon_zoo.metrics import PointLocalization, auroc_report
from pylon_zoo.preprocessing import create_transform

__all__ = ["evaluate"]

REPLICATES = 1000


def evaluate(
    model: LocalizationModel,
    task: Task,
    split: str,
    *,
    batch_size: int = 8,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a model on one split of a task.

    Args:
        model: its classes must be the task's, in the same order.
        task: see :func:`pylon_zoo.data.open_task`.
        split: one of the task's splits.
        batch_size: images at once; those of one batch have one size.
        progress: show progress bars.

    Returns:
        A report that JSON takes: ``classification`` (AUROC, on tiles where the task has tiles)
        and ``localization`` (point localization on whole images, for each alignment of the maps),
        each with value, low, high (95 % bootstrap over images), chance and support.

    Raises:
        InvalidInputError: the model has other classes.
        UnknownNameError: the task has no such split.
    """
    names = model.spec.class_names
    if names != task.class_names:
        raise InvalidInputError(
            f"The model's classes {names} are not those of {task.name} {task.class_names}; "
            f"evaluate it on data with its own classes, or fine-tune it."
        )
    if split not in task.splits:
        raise unknown_name(f"split of {task.name},", split, task.splits)
    transform = create_transform(model)
    device = next(model.parameters()).device
    model.eval()

    # Classification: every tile (or image) of the split.
    items = task.classification(split)
    scores: list[Tensor] = []
    labels: list[Tensor] = []
    groups: list[str] = []
    for batch in _batches(items, transform, batch_size, "classification", progress):
        with torch.no_grad():
            logits = model(torch.stack([s.image for s in batch]).to(device)).logits
        scores.append(logits.double().cpu())
        labels += [s.labels for s in batch]
        groups += [s.group for s in batch]
    classification = auroc_report(
        torch.stack(labels).double().numpy(),
        torch.cat(scores).numpy(),
        task.class_names,
        np.array(groups),
        replicates=REPLICATES,
    )

    # Localization: the peak of each map on whole images.
    images = task.localization(split)
    meters = {alignment: PointLocalization(task.class_names) for alignment in ALIGNMENTS}
    for batch in _batches(images, transform, batch_size, "localization", progress):
        inputs = torch.stack([s.image for s in batch]).to(device)
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        maps = get_cam(model, inputs, size="map")
        for alignment, meter in meters.items():
            peaks = find_peaks(resize_maps(maps, model, size, size, alignment)).xy.cpu()
            for sample, xy in zip(batch, peaks, strict=True):
                meter.update(
                    xy,
                    size,
                    sample.boxes,
                    sample.box_classes,
                    points=sample.points,
                    point_classes=sample.point_classes,
                    group=sample.group,
                )
    return {
        "model": model.spec.name,
        "dataset": task.name,
        "split": split,
        "items": {"classification": len(items), "localization": len(images)},
        "classification": classification,
        "localization": {
            alignment: meter.compute(replicates=REPLICATES) for alignment, meter in meters.items()
        },
        "interval": f"95 % percentile bootstrap over images, {REPLICATES} replicates, seed 0",
        "pylon_zoo": __version__,
    }


def _batches(
    dataset: LocalizationDataset,
    transform: Any,
    batch_size: int,
    description: str,
    progress: bool,
) -> Iterator[list[Sample]]:
    """Transformed samples in order, in batches of equal image size."""
    indices: Iterable[int] = range(len(dataset))
    if progress:
        from rich.progress import track

        indices = track(indices, description=description, transient=True)
    batch: list[Sample] = []
    for index in indices:
        sample = transform(dataset[index])
        if batch and (len(batch) == batch_size or sample.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def summary_rows(report: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """A report's (metric, class or mean, estimate), in the order of a table."""
    rows = []
    tables = {"AUROC": report["classification"]}
    tables |= {
        f"point localization ({alignment})": table
        for alignment, table in report["localization"].items()
    }
    for metric, table in tables.items():
        means = [key for key in table if key != "per_class"]
        rows += [(metric, mean, table[mean]) for mean in means]
        rows += [(metric, name, estimate) for name, estimate in table["per_class"].items()]
    return rows


def format_estimate(estimate: dict[str, Any]) -> str:
    """``0.949 [0.88, 1.00]``, or ``n/a`` where nothing was measured."""
    if estimate["value"] is None:
        return "n/a"
    text = f"{estimate['value']:.3f}"
    if estimate["low"] is not None:
        text += f" [{estimate['low']:.2f}, {estimate['high']:.2f}]"
    return text
