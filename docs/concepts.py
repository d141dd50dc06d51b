"""Draw the pictures of concepts.md, from a checkpoint, phantoms and committed results.

    python docs/concepts.py

Chosen by rule, not by hand: for each finding the first phantom of the test split that has it.
"""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

import pylon_zoo
from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.architectures.pooling import create_pooling
from pylon_zoo.data import Phantom, Sample
from pylon_zoo.heatmaps import get_cam, receptive_field_offset
from pylon_zoo.prediction import predict

ROOT = Path(__file__).parent.parent
IMAGES = Path(__file__).parent / "images"
RESULTS = ROOT / "benchmarks" / "results"
SIDE = 256
#: Of the boxes, in every picture.
TRUE_BOX = "#00e5ff"
BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#777777"

STYLE = {
    "figure.facecolor": "white",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 100,
}


def first(finding: str) -> Sample:
    """The first phantom of the test split that has the finding."""
    dataset = Phantom("test")
    k = dataset.class_names.index(finding)
    return next(s for s in map(dataset.__getitem__, range(1000)) if s.labels[k])


def scores(model: LocalizationModel, sample: Sample, finding: str, **options: Any) -> NDArray[Any]:
    """A class's map, cell by cell, or as ``options`` of get_cam say."""
    images = pylon_zoo.create_transform(model)(sample).image[None]
    cam = get_cam(model, images, [finding], **{"size": "map", **options})
    return np.asarray(cam[0, 0])


def show(axes: Any, sample: Sample, title: str) -> None:
    """The image alone."""
    axes.imshow(sample.image[0], cmap="gray", extent=(0, SIDE, SIDE, 0))
    frame(axes, title)


def frame(axes: Any, title: str) -> None:
    """A panel without ticks."""
    axes.set(xticks=[], yticks=[], title=title, xlim=(0, SIDE), ylim=(SIDE, 0))
    axes.spines[:].set_visible(False)


def box(axes: Any, sample: Sample, finding: str) -> None:
    """The true boxes of a finding."""
    k = Phantom.class_names.index(finding)
    for x0, y0, x1, y1 in sample.boxes[sample.box_classes == k].tolist():
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=TRUE_BOX, lw=1.6, zorder=3)
        )


def cells(axes: Any, values: NDArray[Any], **look: Any) -> Any:
    """A map as squares, each over the pixels that it stands for."""
    return axes.imshow(values, extent=(0, SIDE, SIDE, 0), interpolation="nearest", **look)


def draw_class_map(model: LocalizationModel) -> Figure:
    """An image, the scores of one class cell by cell, and the same in image pixels."""
    sample = first("mass")
    values = scores(model, sample, "mass")
    prediction = predict(model, sample)
    position = [f.class_name for f in prediction.findings].index("mass")
    found = prediction.findings[position]
    figure, panels = plt.subplots(1, 3, figsize=(10.4, 3.7), layout="constrained")
    show(panels[0], sample, f"image, {SIDE} x {SIDE} pixels")
    box(panels[0], sample, "mass")
    drawn = cells(panels[1], values, cmap="inferno", vmin=-15)
    frame(panels[1], f"class map of mass, {len(values)} x {len(values)} scores")
    figure.colorbar(drawn, ax=panels[1], label="score", shrink=0.9, extend="min")
    show(
        panels[2], sample, f"highest score {values.max():.1f}, probability {found.probability:.2f}"
    )
    heat = prediction.probability_maps[position].numpy()
    panels[2].imshow(
        heat, cmap="inferno", alpha=0.65 * heat, vmin=0, vmax=1, extent=(0, SIDE, SIDE, 0)
    )
    box(panels[2], sample, "mass")
    panels[2].plot(found.x + 0.5, found.y + 0.5, "o", mfc="none", mec="white", ms=11, mew=1.8)
    return figure


def draw_cells(model: LocalizationModel) -> Figure:
    """A model's own maps, and the best that 8 x 8 cells could say in their place."""
    findings = ("nodule", "mass", "pneumothorax")
    figure, grid = plt.subplots(len(findings), 3, figsize=(7.8, 8.2), layout="constrained")
    for row, finding in zip(grid, findings, strict=True):
        sample = first(finding)
        fine = 1 / (1 + np.exp(-scores(model, sample, finding)))
        coarse = fine.reshape(8, 8, 8, 8).max((1, 3))
        show(row[0], sample, finding)
        for panel, values, what in ((row[1], coarse, "stride 32"), (row[2], fine, "stride 4")):
            cells(panel, values, cmap="inferno", vmin=0, vmax=1)
            frame(panel, f"{what}: {len(values)} x {len(values)} cells")
        for panel in row:
            box(panel, sample, finding)
    return figure


def draw_pooling(model: LocalizationModel) -> Figure:
    """What each cell gets of the gradient, and what a small finding must score."""
    finding = "mass"
    sample = first(finding)
    values = torch.from_numpy(scores(model, sample, finding))[None, None]
    x0, y0, x1, y1 = sample.boxes[sample.box_classes == Phantom.class_names.index(finding)][0]
    figure = plt.figure(figsize=(10.4, 6.8), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.15))
    panels = top.subplots(1, 4)
    for axes, name in zip(panels, ("avg", "pcam", "lse", "max"), strict=True):
        leaf = values.clone().requires_grad_()
        create_pooling(name)(leaf).sum().backward()
        assert leaf.grad is not None
        share = leaf.grad[0, 0].abs().numpy()
        share = 100 * share / share.sum()
        cells(axes, share, cmap="inferno", vmin=0, vmax=share.max())
        frame(axes, f"{name}: the most is {share.max():.{2 if share.max() < 1 else 0}f} %")
        box(axes, sample, finding)
        axes.set(xlim=(x0 - 40, x1 + 40), ylim=(y1 + 40, y0 - 40))
    top.suptitle("Share of the gradient that each cell gets, around a mass", fontsize=12)

    axes = bottom.subplots()
    part = np.geomspace(1 / 64**2, 1, 200)
    axes.plot(100 * part, _needed(part), color=ORANGE, lw=2.2, label="avg")
    axes.plot(100 * part, np.full_like(part, 2), color=BLUE, lw=2.2, label="max")
    dataset = Phantom("test", length=200)
    samples = [dataset[index] for index in range(len(dataset))]
    for k, name in enumerate(dataset.class_names):
        boxes = [s.boxes[s.box_classes == k] for s in samples if s.labels[k]]
        areas = [float((b[:, 2:] - b[:, :2]).prod(1).max()) for b in boxes]
        covered = float(np.median(areas)) / SIDE**2
        point = 100 * covered, _needed(covered)
        axes.plot(*point, "o", color=ORANGE, ms=6)
        left = name == "cardiomegaly"
        axes.annotate(
            f"{name} {point[1]:,.0f}", point, (-8, -14) if left else (8, 4),
            textcoords="offset points", ha="right" if left else "left",
        )  # fmt: skip
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="part of the image that the finding's box covers, %",
        ylabel="score that its cells need",
        title="Score inside a finding for a logit of 2, where all other cells score -2",
        ylim=(1, 3e4),
    )
    axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.legend(title="pooling", frameon=False)
    return figure


def _needed(part: Any) -> Any:
    """Score of a part of the cells whose average with -2 elsewhere is 2."""
    return (2 + 2 * (1 - part)) / part


def draw_alignment(model: LocalizationModel) -> Figure:
    """Where the cells of a map of stride 32 look, and where resizing puts them."""
    name, stride = model.encoder.name, 32
    offset = receptive_field_offset(name, stride)
    count = SIDE // stride
    middle = np.arange(count) * stride
    figure, panels = plt.subplots(1, 2, figsize=(9.2, 4.6), layout="constrained")

    # Where one cell looks: the squared gradient of its features with respect to noise.
    noise = torch.randn(16, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    noise.requires_grad_()
    row = column = count // 2
    feature = model.encoder(noise)[stride][:, :, row, column]
    signs = torch.randint(0, 2, feature.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    (gradient,) = torch.autograd.grad((feature * signs).sum(), noise)
    # Smoothed, since strided convolutions leave a pattern of single pixels.
    energy = gradient.square().mean(0)[None]
    energy = torch.nn.functional.avg_pool2d(energy, 9, 1, 4)[0, 0].sqrt()
    axes = panels[0]
    cells(axes, energy.numpy(), cmap="inferno")
    frame(axes, f"what the cell in column {column} and row {row} looks at")
    axes.add_patch(
        Rectangle((column * stride, row * stride), stride, stride, fill=False, ec=TRUE_BOX, lw=1.8)
    )

    axes = panels[1]
    show(axes, first("mass"), "where the two alignments put the cells")
    for edge in range(0, SIDE + 1, stride):
        axes.plot([edge, edge], [0, SIDE], color=TRUE_BOX, lw=0.5, alpha=0.6)
        axes.plot([0, SIDE], [edge, edge], color=TRUE_BOX, lw=0.5, alpha=0.6)
    for axes in panels:
        places = (
            ("corners_false", (stride - 1) / 2, "s", TRUE_BOX),
            ("receptive_field", offset, "o", "white"),
        )
        for label, shift, marker, color in places:
            x, y = np.meshgrid(middle + shift + 0.5, middle + shift + 0.5)
            if axes is panels[0]:
                x, y = x[row, column], y[row, column]
            axes.plot(
                np.ravel(x), np.ravel(y), marker, mfc=color, mec="black", ms=6, ls="none",
                label=label, clip_on=False, zorder=4,
            )  # fmt: skip
    figure.legend(
        *panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=True,
        facecolor="#cccccc",
    )  # fmt: skip
    return figure


def draw_twins() -> Figure:
    """How well PYLON and its CAM twin tell what is there, and point at it."""
    with (RESULTS / "twins_bccd_val.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    classes = ("RBC", "WBC", "Platelets")
    metrics = (
        "AUROC",
        "point localization (corners_false)",
        "point localization (receptive_field)",
    )
    figure, panels = plt.subplots(1, 3, figsize=(10.4, 3.8), sharey=True, layout="constrained")
    for axes, metric in zip(panels, metrics, strict=True):
        for shift, model, color in ((-0.2, "pylon", BLUE), (0.2, "cam", ORANGE)):
            seeds = [
                [float(r["value"]) for r in rows
                 if (r["model"], r["metric"], r["class"]) == (model, metric, name)]
                for name in classes
            ]  # fmt: skip
            places = np.arange(len(classes)) + shift
            axes.bar(places, [np.mean(s) for s in seeds], 0.36, color=color, label=model.upper())
            for place, values in zip(places, seeds, strict=True):
                axes.plot([place] * len(values), values, "k.", ms=4)
        chance = [
            float(next(r["chance"] for r in rows if (r["metric"], r["class"]) == (metric, name)))
            for name in classes
        ]
        for place, value in enumerate(chance):
            axes.plot([place - 0.4, place + 0.4], [value] * 2, color=GREY, lw=1.4, ls="--")
        axes.set_xticks(range(len(classes)), classes)
        axes.set(ylim=(0, 1.02))
    panels[0].set_title("AUROC\n(is it there?)")
    panels[1].set_title("point localization\n(corners_false: is that it?)")
    panels[2].set_title("point localization\n(receptive_field: is that it?)")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    return figure


def draw_pylon() -> Figure:
    """PYLON's parts, with the size of what passes between them for an image of 256 px."""
    figure, axes = plt.subplots(figsize=(10.4, 4.6), layout="constrained")
    axes.set(xlim=(0, 104), ylim=(0, 46))
    axes.axis("off")

    def part(x: float, y: float, w: float, h: float, text: str, color: str) -> None:
        axes.add_patch(Rectangle((x, y), w, h, fc=color, ec="#333333", lw=1))
        axes.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=9.5)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axes.annotate(
            "", end, start, arrowprops={"arrowstyle": "-|>", "color": "#333333", "lw": 1.3}
        )

    levels = ((4, 64, 36), (8, 32, 25), (16, 16, 14), (32, 8, 3))
    part(1, 35, 13, 9, "image\n256 x 256", "#eeeeee")
    for stride, side, y in levels:
        part(24, y, 19, 7, f"encoder, stride {stride}\n{side} x {side}", "#cfe3f2")
    part(54, 3, 22, 7, "pyramid attention\n8 x 8", "#fbe3b5")
    for stride, side, y in levels[:3]:
        part(54, y, 22, 7, f"upsample, add stride {stride}\n{side} x {side}", "#fbe3b5")
        arrow((43, y + 3.5), (54, y + 3.5))
    arrow((14, 39.5), (24, 39.5))
    for above, below in pairwise(levels):
        arrow((33.5, above[2]), (33.5, below[2] + 7))
        arrow((65, below[2] + 7), (65, above[2]))
    arrow((43, 6.5), (54, 6.5))
    part(84, 35, 18, 9, "class maps\nK x 64 x 64", "#d6ecd2")
    part(84, 16, 18, 9, "logits\nK", "#d6ecd2")
    arrow((76, 39.5), (84, 39.5))
    arrow((93, 35), (93, 25))
    axes.text(94.5, 30, "max", va="center", fontsize=9.5)
    axes.text(80, 42, "1 x 1", ha="center", fontsize=9.5)
    return figure


def main() -> None:
    """Write all pictures."""
    model = pylon_zoo.load_pretrained("pylon_regnetx_002.phantom")
    IMAGES.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, figure in {
            "class_map": draw_class_map(model),
            "pylon": draw_pylon(),
            "cells": draw_cells(model),
            "pooling": draw_pooling(model),
            "alignment": draw_alignment(model),
            "twins": draw_twins(),
        }.items():
            figure.savefig(IMAGES / f"{name}.png", metadata={"Software": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
