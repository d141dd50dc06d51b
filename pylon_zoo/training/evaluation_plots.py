"""The plots of an evaluation: ROC curves, and localization beside chance."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from pylon_zoo.errors import MissingExtraError
from pylon_zoo.heatmaps.overlay import stack
from pylon_zoo.training.evaluation import format_estimate, localization_tables
from pylon_zoo.weights.files import replace_file

__all__ = ["plot_localization", "plot_report", "plot_roc", "require_matplotlib"]

#: Of Okabe and Ito's palette, told apart with any color vision, and by shape as well.
COLORS = ("#0072B2", "#D55E00")
MARKERS = ("o", "s")
CHANCE = "#666666"
PANELS = 4


def require_matplotlib() -> None:
    """Raise :class:`MissingExtraError` if nothing can be plotted: better before than after."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("matplotlib", "viz", "Plotting") from error


def plot_report(report: dict[str, Any]) -> Image.Image:
    """Both plots as one picture, ROC curves above; for a notebook, or to ``save``.

    Arguments and errors are those of :func:`plot_roc`.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("roc.png", "localization.png")]
        plot_roc(report, paths[0])
        plot_localization(report, paths[1])
        pictures = [Image.open(path).convert("RGB") for path in paths if path.exists()]
    return stack(pictures, ground="white")


def plot_roc(report: dict[str, Any], path: Path) -> None:
    """Draw each class's ROC curve with its 95 % band, chance and operating points; write a PNG.

    Args:
        report: of :func:`pylon_zoo.training.evaluation.evaluate`.
        path: of the PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    curves, points = report["roc"]["per_class"], report["operating_points"]
    columns = min(len(curves), PANELS)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(2.6 * columns + 0.3, 3.1 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    rate = report["roc"]["false_positive_rate"]
    asked = f"specificity {points['asked_specificity']:g}"
    for (name, curve), axis in zip(curves.items(), axes, strict=False):
        estimate = report["classification"]["per_class"][name]
        counts = f"{estimate['support']} of {estimate['support'] + estimate['negatives']}"
        axis.set_title(f"{name} ({counts})\nAUROC {format_estimate(estimate)}", fontsize=9)
        axis.plot([0, 1], [0, 1], color=CHANCE, linestyle=":", label="chance")
        axis.set_aspect("equal")
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axis.set_xlabel("1 - specificity", fontsize=8)
        axis.set_ylabel("sensitivity", fontsize=8)
        axis.tick_params(labelsize=8)
        if curve is None:
            axis.text(0.98, 0.03, "only one label occurs", ha="right", fontsize=8)
            continue
        axis.fill_between(
            rate,
            curve["low"],
            curve["high"],
            color=COLORS[0],
            alpha=0.25,
            linewidth=0,
            label="95 %",
        )
        axis.plot([0, *rate], [0, *curve["sensitivity"]], color=COLORS[0], label="ROC")
        for kind, marker, label in (("youden", "D", "Youden"), ("specificity", "s", asked)):
            at = [
                points[kind][key]["per_class"][name]["value"]
                for key in ("specificity", "sensitivity")
            ]
            if None not in at:
                axis.plot(
                    1 - at[0],
                    at[1],
                    marker,
                    color=COLORS[1],
                    markeredgecolor="white",
                    markersize=6,
                    label=label,
                )
    for axis in axes:
        axis.set_axis_off()
    chosen = report["thresholds"]
    where = f"on {chosen['chosen_on']}" + (" itself" if chosen["chosen_on_measured_split"] else "")
    _finish(figure, report, f"operating points chosen {where}", path)


def plot_localization(report: dict[str, Any], path: Path) -> None:
    """Draw every localization metric by class: value, 95 % interval and chance; write a PNG.

    Where the data have no boxes, points or masks, there is nothing to draw and no file. Arguments
    and errors are those of :func:`plot_roc`.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    # The curve of "either" is that of IoBB, which is never the smaller one.
    tables = {k: v for k, v in localization_tables(report).items() if not k.startswith("either")}
    if not tables:
        return
    alignments = list(report["localization"])
    names = ["micro", "macro", *next(iter(tables.values()))[alignments[0]]["per_class"]]
    columns = min(len(tables), PANELS)
    rows = -(-len(tables) // columns)
    height = 0.3 * len(names) + 0.75
    figure = Figure(figsize=(2.5 * columns + 1, height * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for (metric, by_alignment), axis in zip(tables.items(), axes, strict=False):
        axis.set_title(metric, fontsize=9)
        for which, alignment in enumerate(alignments):
            table = by_alignment[alignment]
            estimates = {k: table.get(k) or table["per_class"].get(k) for k in names}
            for row, estimate in enumerate(estimates.values()):
                if estimate is None or estimate["value"] is None:
                    continue
                y = row + 0.22 * (which - (len(alignments) - 1) / 2)
                axis.plot(
                    [estimate["low"], estimate["high"]], [y, y], color=COLORS[which], linewidth=1.5
                )
                axis.plot(
                    estimate["value"],
                    y,
                    MARKERS[which],
                    color=COLORS[which],
                    markersize=4.5,
                    label=alignment,
                )
                if not which:
                    axis.plot(
                        [estimate["chance"]] * 2,
                        [row - 0.35, row + 0.35],
                        color=CHANCE,
                        linewidth=2,
                        label="chance",
                    )
        axis.axhline(1.5, color="#bbbbbb", linewidth=0.8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set(xlim=(-0.03, 1.03), ylim=(len(names) - 0.5, -0.5))
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.tick_params(axis="x", labelsize=8)
    for axis in axes:
        axis.set_axis_off()
    _finish(figure, report, "bars: 95 % intervals", path)


def _finish(figure: Any, report: dict[str, Any], note: str, path: Path) -> None:
    title = f"{report['model']} on {report['dataset']}, {report['split']} split ({note})"
    figure.suptitle(title, fontsize=10)
    handles: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=len(handles) or 1, fontsize=8
    )
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
