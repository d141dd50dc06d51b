"""Everything measured of a model on a split, with chance levels and intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed

from pylon_zoo import __version__
from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.data import LocalizationDataset, Sample, Task
from pylon_zoo.errors import InvalidInputError, unknown_name
from pylon_zoo.heatmaps import ALIGNMENTS, find_peaks, get_cam, resize_maps
from pylon_zoo.metrics import (
    Accumulator,
    BoxAccuracy,
    ClassScores,
    MapOverlap,
    MaskOverlap,
    PixelPrecision,
    PointLocalization,
)
from pylon_zoo.preprocessing import create_transform
from pylon_zoo.progress import track
from pylon_zoo.training.processes import rank_and_count

__all__ = ["evaluate", "format_estimate", "markdown_report", "summary_rows"]

REPLICATES = 1000


def evaluate(
    model: LocalizationModel,
    task: Task,
    split: str,
    *,
    threshold_split: str | None = None,
    batch_size: int = 8,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a model on one split of a task.

    In a process group (``torchrun``) all processes must call it: each takes a part of the items,
    every item once, and all return the report of the whole.

    Args:
        model: its classes must be the task's, in the same order.
        task: see :func:`pylon_zoo.data.open_task`.
        split: one of the task's splits.
        threshold_split: the split on which operating points and the thresholds of MaxBoxAccV2 are
            chosen; None chooses them on ``split`` itself, which looks a little too good and is
            marked so in the report.
        batch_size: images at once; those of one batch have one size.
        progress: show progress bars.

    Returns:
        A report that JSON takes. Of the task's items (tiles, where it has tiles):
        ``classification`` (AUROC), ``average_precision``, ``calibration``, ``brier``, ``roc`` and
        ``operating_points``. Of its whole images, for each alignment of the maps:
        ``localization`` (point localization; on masks it is the hit rate), ``overlap`` (IoBB, IoU,
        either), ``max_box_acc_v2``, ``mask_iou`` and ``pixel_average_precision``. Estimates have
        value, low, high (95 % bootstrap over images), chance and support. ``thresholds`` names
        the split that they were chosen on.

    Raises:
        InvalidInputError: the model has other classes, or its output is NaN or infinite.
        UnknownNameError: the task has no such split.
    """
    names = model.spec.class_names
    if names != task.class_names:
        raise InvalidInputError(
            f"The model's classes {names} are not those of {task.name} {task.class_names}; "
            f"evaluate it on data with its own classes, or fine-tune it."
        )
    for name in (split, threshold_split):
        if name is not None and name not in task.splits:
            raise unknown_name(f"split of {task.name},", name, task.splits)
    if threshold_split == split:
        threshold_split = None
    model.eval()
    scores = _classify(model, task, split, batch_size, progress)
    meters = _localize(model, task, split, batch_size, progress)
    chosen_scores, chosen = None, meters
    if threshold_split is not None:
        chosen_scores = _classify(model, task, threshold_split, batch_size, progress)
        chosen = _localize(model, task, threshold_split, batch_size, progress)
    return {
        "model": model.spec.name,
        "dataset": task.name,
        "split": split,
        "thresholds": {
            "chosen_on": threshold_split or split,
            "chosen_on_measured_split": threshold_split is None,
        },
        "items": {
            "classification": len(scores),
            "localization": len(meters[ALIGNMENTS[0]].points),
        },
        **scores.compute(chosen_scores, replicates=REPLICATES),
        "localization": {a: m.points.compute(replicates=REPLICATES) for a, m in meters.items()},
        "overlap": {a: m.overlap.compute(replicates=REPLICATES) for a, m in meters.items()},
        "max_box_acc_v2": {
            a: m.boxes.compute(chosen[a].boxes.best_taus(), replicates=REPLICATES)
            for a, m in meters.items()
        },
        "mask_iou": {a: m.masks.compute(replicates=REPLICATES) for a, m in meters.items()},
        "pixel_average_precision": {
            a: m.pixels.compute(replicates=REPLICATES) for a, m in meters.items()
        },
        "interval": f"95 % percentile bootstrap over images, {REPLICATES} replicates, seed 0",
        "pylon_zoo": __version__,
    }


def _classify(
    model: LocalizationModel, task: Task, split: str, batch_size: int, progress: bool
) -> ClassScores:
    """Scores of every tile (or image) of a split."""
    scores = ClassScores(task.class_names)
    items = task.classification(split)
    for batch in _batches(items, model, batch_size, f"classification, {split}", progress):
        with torch.no_grad():
            logits = model(_stack(batch, model)).logits
        scores.update(torch.stack([s.labels for s in batch]), logits, [s.group for s in batch])
    _gather([scores])
    return scores


class _Meters:
    """What is measured of maps in one alignment."""

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self.points = PointLocalization(class_names)
        self.overlap = MapOverlap(class_names)
        self.boxes = BoxAccuracy(class_names)
        self.masks = MaskOverlap(class_names)
        self.pixels = PixelPrecision(class_names)

    @property
    def all(self) -> list[Accumulator]:
        return [self.points, self.overlap, self.boxes, self.masks, self.pixels]


def _localize(
    model: LocalizationModel, task: Task, split: str, batch_size: int, progress: bool
) -> dict[str, _Meters]:
    """Measure the maps of the whole images of a split, for each alignment."""
    meters = {alignment: _Meters(task.class_names) for alignment in ALIGNMENTS}
    images = task.localization(split)
    for batch in _batches(images, model, batch_size, f"localization, {split}", progress):
        inputs = _stack(batch, model)
        maps = get_cam(model, inputs, size="map")
        for sample, cells in zip(batch, maps, strict=True):
            if not cells.isfinite().all():
                raise InvalidInputError(f"The model's maps of {sample.source} are not finite.")
            for alignment, meter in meters.items():
                _measure(meter, model, sample, cells, alignment)
    _gather([kind for meter in meters.values() for kind in meter.all])
    return meters


def _measure(
    meter: _Meters, model: LocalizationModel, sample: Sample, cells: Tensor, alignment: str
) -> None:
    """Add one image to the meters; only the maps that they look at are brought to its size."""
    classes, size = len(cells), (sample.height, sample.width)
    masks = torch.zeros(classes, *size, dtype=torch.bool)
    for k, mask in zip(sample.mask_classes.tolist(), sample.masks, strict=True):
        masks[k] |= mask
    outlined = masks.flatten(1).any(dim=1)
    # Every pixel of an outlined image is true or false for a class, unless the class is unknown or
    # it is there and was not outlined.
    known = (outlined | (sample.labels == 0)) & outlined.any()
    wanted = {*sample.box_classes.tolist(), *sample.point_classes.tolist()}
    wanted |= set(known.nonzero()[:, 0].tolist())
    maps = torch.zeros(classes, *size, dtype=torch.float64)
    peaks = torch.zeros(classes, 2, dtype=torch.int64)
    if wanted:
        chosen = sorted(wanted)
        resized = resize_maps(cells[None, chosen], model, size, size, alignment).cpu()
        maps[chosen] = resized[0].double().sigmoid()
        # Of scores: probabilities close to 1 would be equal.
        peaks[chosen] = find_peaks(resized).xy[0]
    boxes, group = (sample.boxes, sample.box_classes), sample.group
    meter.points.update(
        peaks,
        size,
        *boxes,
        points=sample.points,
        point_classes=sample.point_classes,
        masks=masks,
        group=group,
    )
    meter.overlap.update(maps, *boxes, group=group)
    meter.boxes.update(maps, *boxes, group=group)
    if outlined.any():
        meter.masks.update(maps, masks, group=group)
        meter.pixels.update(maps, masks, known=known, group=group)


def _stack(batch: list[Sample], model: LocalizationModel) -> Tensor:
    """(B, C, H, W) as the model takes it."""
    return torch.stack([s.image for s in batch]).to(next(model.parameters()))


def _batches(
    dataset: LocalizationDataset,
    model: LocalizationModel,
    batch_size: int,
    description: str,
    progress: bool,
) -> Iterator[list[Sample]]:
    """The share of this process in the transformed samples, in batches of equal image size.

    The parts follow one another, so that the rows of all processes, joined in their order, are
    those of one.
    """
    transform = create_transform(model)
    rank, processes = rank_and_count()
    part = [len(dataset) * edge // processes for edge in (rank, rank + 1)]
    batch: list[Sample] = []
    for index in track(range(*part), description, enabled=progress and rank == 0):
        sample = transform(dataset[index])
        if batch and (len(batch) == batch_size or sample.image.shape != batch[0].image.shape):
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


def _gather(meters: list[Accumulator]) -> None:
    """Give each process the rows of all, in the order of their parts."""
    _, processes = rank_and_count()
    if processes == 1:
        return
    states: list[Any] = [None] * processes
    distributed.all_gather_object(states, [meter.state() for meter in meters])
    for which, meter in enumerate(meters):
        meter.clear()
        for state in states:
            meter.extend(state[which])


def summary_rows(report: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(metric, class or mean, estimate) of AUROC and point localization, in a table's order."""
    rows = _rows("AUROC", report["classification"], ("macro", "weighted"))
    for alignment, table in report["localization"].items():
        rows += _rows(f"point localization ({alignment})", table, ("micro", "macro"))
    return rows


def _rows(
    metric: str, table: dict[str, Any], means: tuple[str, ...] = ("micro", "macro", "weighted")
) -> list[tuple[str, str, dict[str, Any]]]:
    of_means = [(metric, mean, table[mean]) for mean in means if mean in table]
    return of_means + [(metric, name, found) for name, found in table["per_class"].items()]


def classification_tables(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a report has on classification: tables (means and ``per_class``) by metric."""
    points = report["operating_points"]
    asked = f"specificity {points['asked_specificity']:g}"
    return {
        "AUROC": report["classification"],
        "average precision": report["average_precision"],
        "expected calibration error": report["calibration"],
        "Brier score": report["brier"],
        "sensitivity at Youden's threshold": points["youden"]["sensitivity"],
        "specificity at Youden's threshold": points["youden"]["specificity"],
        f"sensitivity at the threshold for {asked}": points["specificity"]["sensitivity"],
        f"specificity at the threshold for {asked}": points["specificity"]["specificity"],
    }


def localization_tables(report: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """What a report has on localization: tables by metric and alignment.

    Metrics for which the data have no boxes, points or masks are left out.
    """
    tables = {"point localization": report["localization"]}
    for kind, title in (("iobb", "IoBB"), ("iou", "IoU"), ("either", "either")):
        for threshold in MapOverlap.THRESHOLDS:
            tables[f"{title} > {threshold}"] = {
                alignment: kinds[kind][str(threshold)]
                for alignment, kinds in report["overlap"].items()
            }
    tables["MaxBoxAccV2"] = report["max_box_acc_v2"]
    tables["mask IoU"] = report["mask_iou"]
    tables["pixel average precision"] = report["pixel_average_precision"]
    return {
        metric: by_alignment
        for metric, by_alignment in tables.items()
        if any(table["macro"]["support"] for table in by_alignment.values())
    }


def markdown_report(report: dict[str, Any]) -> str:
    """The whole report as Markdown: what was measured how, and every estimate."""
    items, thresholds = report["items"], report["thresholds"]
    chosen = f"were chosen on the {thresholds['chosen_on']} split"
    if thresholds["chosen_on_measured_split"]:
        chosen += ", the one measured here: what depends on them looks a little too good"
    lines = [
        f"# {report['model']} on {report['dataset']}, {report['split']} split",
        "",
        f"In brackets: {report['interval']}. Thresholds {chosen}.",
        "",
        f"## Classification of {items['classification']} items",
        "",
        "n: positives / negatives; of a sensitivity the positives, of a specificity the negatives.",
        "",
        *_header("metric", "of", "value", "chance", "n"),
    ]
    for metric, table in classification_tables(report).items():
        for _, of, found in _rows(metric, table):
            counts = str(found["support"])
            counts += f" / {found['negatives']}" if "negatives" in found else ""
            lines.append(_cells(metric, of, format_estimate(found), format_chance(found), counts))
    points = report["operating_points"]
    asked = f"for specificity {points['asked_specificity']:g}"
    lines += ["", "Thresholds, as probabilities:", "", *_header("class", "Youden's", asked)]
    for name in points["youden"]["thresholds"]:
        both = [points[kind]["thresholds"][name] for kind in ("youden", "specificity")]
        lines.append(_cells(name, *("n/a" if value is None else f"{value:.3g}" for value in both)))
    tables = localization_tables(report)
    if tables:
        lines += [
            "",
            f"## Localization in {items['localization']} images",
            "",
            "n: pairs of an image and a class that is annotated in it.",
            "",
            *_header("metric", "of", *report["localization"], "chance", "n"),
        ]
    for metric, by_alignment in tables.items():
        for rows in zip(*(_rows(metric, table) for table in by_alignment.values()), strict=True):
            _, of, found = rows[0]
            values = [format_estimate(row[2]) for row in rows]
            support = str(found["support"])
            lines.append(_cells(metric, of, *values, format_chance(found), support))
    if "MaxBoxAccV2" in tables:
        taus = {a: table["taus"] for a, table in report["max_box_acc_v2"].items()}
        deltas = [f"IoU {delta}" for delta in taus[ALIGNMENTS[0]]]
        lines += ["", "Thresholds of MaxBoxAccV2:", "", *_header("alignment", *deltas)]
        lines += [_cells(a, *map(str, of_delta.values())) for a, of_delta in taus.items()]
    return "\n".join(lines) + "\n"


def _header(*titles: str) -> list[str]:
    return [_cells(*titles), "|" + "---|" * len(titles)]


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def format_estimate(estimate: dict[str, Any]) -> str:
    """``0.949 [0.88, 1.00]``, or ``n/a`` where nothing was measured."""
    if estimate["value"] is None:
        return "n/a"
    text = f"{estimate['value']:.3f}"
    if estimate["low"] is not None:
        text += f" [{estimate['low']:.2f}, {estimate['high']:.2f}]"
    return text


def format_chance(estimate: dict[str, Any]) -> str:
    """``0.500``, or ``n/a`` where there is no chance level."""
    return "n/a" if estimate["chance"] is None else f"{estimate['chance']:.3f}"
