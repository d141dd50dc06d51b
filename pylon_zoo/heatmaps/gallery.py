"""Hits and misses of a model on one sheet, chosen by a rule and not by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pylon_zoo.heatmaps.overlay import GAP, GROUND, TEXT, Pen, blend
from pylon_zoo.preprocessing import to_unit_range

__all__ = ["Case", "Cell", "choose_cases", "draw_gallery"]

#: Of a map that is shown without its image.
DARK = 40
OPACITY, COLORMAP = 0.65, "inferno"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
LEGEND = "full lines: true boxes     ring: the map's highest pixel"


@dataclass(frozen=True)
class Case:
    """What a model says of a class in one image that has a box of it.

    Attributes:
        index: of the image.
        probability: that the image shows the class, in [0, 1].
        hit: whether the map's highest pixel lies in a true box of the class.
    """

    index: int
    probability: float
    hit: bool


def choose_cases(cases: Sequence[Case]) -> dict[str, Case | None]:
    """The most confident hit, the hit of the median confidence, and the most confident miss.

    Of an even number of hits the median is the more confident of the middle two; of equally
    confident cases the first is taken. None where there is no such case.
    """
    falling = sorted(cases, key=lambda case: -case.probability)
    hits = [case for case in falling if case.hit]
    misses = [case for case in falling if not case.hit]
    return {
        "hit": hits[0] if hits else None,
        "median hit": hits[(len(hits) - 1) // 2] if hits else None,
        "miss": misses[0] if misses else None,
    }


@dataclass(frozen=True)
class Cell:
    """One place on the sheet.

    Attributes:
        title: the line above it.
        values: (H, W) in [0, 1], the class's map in pixels of the image; None leaves it empty.
        boxes: (N, 4), the true boxes of the class.
        peak: (x, y), the map's highest pixel.
        image: (C, H, W), gray or RGB, see :class:`pylon_zoo.data.Sample`; None shows the map
            without its image.
    """

    title: str
    values: Tensor | None = None
    boxes: Tensor | None = None
    peak: tuple[int, int] = (0, 0)
    image: Tensor | None = None


def draw_gallery(rows: Sequence[tuple[str, Sequence[Cell]]], size: int = 192) -> Image.Image:
    """Draw rows of cells, each under its title and each row under its heading.

    A cell with an image is two panels: the image with boxes and peak, and the image under the map
    with boxes. The colors of each map go from 0 to its own highest value.

    Args:
        rows: (heading, cells); all rows have the same number of cells.
        size: of the longer side of each panel, in pixels.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    cells = [cell for _, row in rows for cell in row]
    count = 2 if any(cell.image is not None for cell in cells) else 1
    drawn = {id(cell): _panels(cell, size) for cell in cells}
    height = max((p.height for panels in drawn.values() for p in panels), default=size)
    width = count * (size + GAP) + GAP
    # The longest title, of 28 letters, is as wide as its cell.
    points = max(12, round(count * size / 18))
    large, font = ImageFont.load_default(round(1.2 * points)), ImageFont.load_default(points)
    line, heading = round(1.6 * points), round(2.2 * points)
    columns = max(len(row) for _, row in rows)
    step = heading + line + height + GAP
    legend = round(font.getlength(LEGEND)) + 12 * line
    room = max(columns * width, legend), len(rows) * step + 2 * line
    sheet = Image.new("RGB", room, GROUND)
    draw = ImageDraw.Draw(sheet)
    for number, (title, row) in enumerate(rows):
        top = number * step
        draw.text((GAP, top + heading / 2), title, fill=TEXT, font=large, anchor="lm")
        for column, cell in enumerate(row):
            left = column * width + GAP
            draw.text(
                (left, top + heading + line / 2), cell.title, fill=TEXT, font=font, anchor="lm"
            )
            for index, panel in enumerate(drawn[id(cell)]):
                sheet.paste(panel, (left + index * (size + GAP), top + heading + line))
    _legend(sheet, draw, font, line)
    return sheet


def _panels(cell: Cell, size: int) -> list[Image.Image]:
    if cell.values is None or cell.boxes is None:
        return []
    height, width = cell.values.shape
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    if cell.image is None:
        base = Image.new("RGB", shape, (DARK,) * 3)
    else:
        rgb = to_unit_range(cell.image).expand(3, -1, -1).permute(1, 2, 0).numpy()
        base = Image.fromarray((rgb * 255 + 0.5).astype(np.uint8)).resize(
            shape, Image.Resampling.BICUBIC
        )
    values = cell.values.float().cpu().numpy()
    # Of an unsure model nothing would be seen between 0 and 1; the title has the probability.
    values = values / max(values.max(), np.finfo(np.float32).tiny)
    heat = Image.fromarray(values).resize(shape, Image.Resampling.BILINEAR)
    panels = [blend(np.asarray(base), np.asarray(heat).clip(0, 1), OPACITY, COLORMAP)]
    if cell.image is not None:
        panels.insert(0, base)
    pen = Pen(scale, size)
    for panel in panels:
        pen.boxes(panel, cell.boxes.to(torch.float32))
    # Beside the image the map is free of the ring, which would hide a small spot.
    pen.ring(panels[0], *cell.peak)
    return panels


def _legend(sheet: Image.Image, draw: ImageDraw.ImageDraw, font: Font, line: int) -> None:
    """What the marks mean, and the colors of a map as they lie over middle gray."""
    middle = sheet.height - line
    draw.text((GAP, middle), LEGEND, fill=TEXT, font=font, anchor="lm")
    left = GAP + round(font.getlength(LEGEND + "     "))
    bar = np.linspace(0, 1, 6 * line, dtype=np.float32)[None].repeat(line // 2, 0)
    gray = np.full((*bar.shape, 3), 128, np.uint8)
    draw.text((left, middle), "0", fill=TEXT, font=font, anchor="lm")
    left += round(font.getlength("0 "))
    sheet.paste(blend(gray, bar, OPACITY, COLORMAP), (left, middle - line // 4))
    left += bar.shape[1] + round(font.getlength(" "))
    draw.text((left, middle), "highest", fill=TEXT, font=font, anchor="lm")
