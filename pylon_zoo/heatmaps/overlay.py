"""Pictures of class maps: the image, and beside it the image under each map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pylon_zoo.data.sample import Sample
from pylon_zoo.errors import InvalidInputError, InvalidOptionError, MissingExtraError, unknown_name
from pylon_zoo.heatmaps.peaks import find_peaks
from pylon_zoo.metrics.boxes import component_boxes
from pylon_zoo.preprocessing import as_tensor, to_unit_range

if TYPE_CHECKING:
    from pylon_zoo.architectures import LocalizationModel
    from pylon_zoo.preprocessing import ImageLike

__all__ = ["colorize", "plot_cam", "stack"]

#: Light lines in a dark casing are seen on any ground, also in gray.
GROUND, TEXT, CASING, TRUE_BOX, FOUND = "#101418", "#ffffff", "#000000", "#00e5ff", "#ffffff"
GAP = 8


def colorize(heat: NDArray[np.float32], colormap: str = "inferno") -> NDArray[np.uint8]:
    """Color values in [0, 1] by a matplotlib colormap: (H, W) -> (H, W, 3).

    Raises:
        MissingExtraError: matplotlib is not installed.
        UnknownNameError: it knows no such colormap.
    """
    try:
        from matplotlib import colormaps
    except ImportError as error:
        raise MissingExtraError("matplotlib", "viz", "Drawing heatmaps") from error
    if colormap not in colormaps:
        raise unknown_name("colormap", colormap, colormaps)
    return np.asarray(colormaps[colormap](heat, bytes=True)[..., :3], dtype=np.uint8)


def plot_cam(
    image: ImageLike,
    maps: Tensor | LocalizationModel,
    classes: Sequence[str] | None = None,
    *,
    titles: Sequence[str] = (),
    peaks: Sequence[Sequence[float]] | None = None,
    boxes: Sequence[Tensor] = (),
    threshold: float | None = 0.5,
    opacity: float = 0.65,
    colormap: str = "inferno",
    size: int = 512,
    columns: int = 4,
    plain: bool = True,
) -> Image.Image:
    """Draw an image and, beside it, the same image under each class's map, with a color bar.

    The heat is as opaque as the probability is high: where the model sees nothing, the image
    shows through unchanged, and pictures can be compared with each other. A ring marks each map's
    highest pixel; regions that reach the threshold are outlined and boxed by dashes; true boxes
    are drawn in full lines. Nothing rests on hue alone.

    Args:
        image: a path, a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W): uint8 or
            uint16 over its range, or float in [0, 1]; gray or RGB.
        maps: a model of the zoo; or (H, W) or (K, H, W) values in [0, 1] in pixels of the image,
            e.g. ``get_cam(model, images, size=(H, W))[0].sigmoid()``.
        classes: of a model, the names of those to draw; None means those of a probability of at
            least ``threshold``, or else the most probable one.
        titles: one line above each map.
        peaks: (x, y) pixel indices to mark in each map; None means where it is highest.
        boxes: true boxes, (N, 4) as (x0, y0, x1, y1) in pixels, for each map.
        threshold: from which value on a region is outlined; None outlines nothing.
        opacity: of value 1, in [0, 1].
        colormap: a name that matplotlib knows; the default is perceptually uniform and rises in
            lightness. ``"jet"`` is as it always was.
        size: of the longer side of each panel, in pixels of the picture.
        columns: panels in a row, that of the plain image included.
        plain: begin with the image as it is, without heat.

    Raises:
        InvalidInputError: sizes differ, or a map leaves [0, 1].
        InvalidOptionError: an option leaves its range, or does not go with maps or with a model.
        MissingExtraError: matplotlib is not installed.
        UnknownNameError: no such class or colormap.
    """
    if not isinstance(maps, Tensor):
        from pylon_zoo.prediction import predict

        sample = Sample(as_tensor(image), torch.zeros(0), source=str(image)[:200])
        if titles or peaks or boxes:
            raise InvalidOptionError("Titles, peaks and boxes go with maps; a model makes its own.")
        return predict(maps, sample).plot(
            classes,
            threshold=threshold,
            opacity=opacity,
            colormap=colormap,
            size=size,
            columns=columns,
            plain=plain,
        )
    if classes is not None:
        raise InvalidOptionError("Classes are chosen of a model; choose maps, and give titles.")
    if not 0 <= opacity <= 1 or size < 32 or columns < 1:
        raise InvalidOptionError(
            f"Opacity lies in [0, 1], size is at least 32 and columns 1; got opacity {opacity}, "
            f"size {size}, columns {columns}."
        )
    pixels = as_tensor(image)
    maps = (maps[None] if maps.ndim == 2 else maps).detach().float().cpu()
    _check(pixels, maps, titles, peaks, boxes)
    if peaks is None:
        peaks = find_peaks(maps[None]).xy[0].tolist()

    height, width = pixels.shape[-2:]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    rgb = to_unit_range(pixels).expand(3, -1, -1).permute(1, 2, 0).numpy()
    base = Image.fromarray((rgb * 255 + 0.5).astype(np.uint8)).resize(
        shape, Image.Resampling.BICUBIC
    )
    everything = torch.cat(list(boxes)) if boxes else torch.zeros(0, 4)
    pen = Pen(scale, size)
    panels, found = [], False
    if plain:
        panels.append(base.copy())
        pen.boxes(panels[0], everything)
    for k, values in enumerate(maps.numpy()):
        heat = Image.fromarray(values).resize(shape, Image.Resampling.BILINEAR)
        heated = np.asarray(heat).clip(0, 1)
        panel = blend(np.asarray(base), heated, opacity, colormap)
        if threshold is not None and (values >= threshold).any():
            panel = pen.outline(panel, heated >= threshold)
            around = component_boxes((values >= threshold)[None]).boxes
            pen.boxes(panel, torch.from_numpy(around), dashed=True)
            found = True
        if boxes:
            pen.boxes(panel, boxes[k])
        if k < len(peaks):
            pen.ring(panel, *peaks[k])
        panels.append(panel)
    legend = [
        "ring: highest" if peaks else "",
        f"dashes: {threshold:g} and above" if found else "",
        "full lines: true boxes" if len(everything) else "",
    ]
    sheet = _Sheet(panels, columns, pen.unit)
    sheet.titles(["", *titles] if plain else titles)
    sheet.color_bar(opacity, colormap)
    sheet.legend("    ".join(filter(None, legend)))
    return sheet.picture


def stack(pictures: Sequence[Image.Image], columns: int = 1, ground: str = GROUND) -> Image.Image:
    """Pictures row by row on one sheet of a color, in columns as wide as the widest."""
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    width = max(picture.width for picture in pictures) + GAP
    heights = [max(picture.height for picture in row) + GAP for row in rows]
    sheet = Image.new("RGB", (len(rows[0]) * width - GAP, sum(heights) - GAP), ground)
    for index, row in enumerate(rows):
        for column, picture in enumerate(row):
            sheet.paste(picture, (column * width, sum(heights[:index])))
    return sheet


def _check(
    image: Tensor,
    maps: Tensor,
    titles: Sequence[str],
    peaks: Sequence[Sequence[float]] | None,
    boxes: Sequence[Tensor],
) -> None:
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise InvalidInputError(f"An image to draw is gray or RGB; got {tuple(image.shape)}.")
    if maps.ndim != 3 or maps.shape[-2:] != image.shape[-2:] or not len(maps):
        raise InvalidInputError(
            f"The maps are {tuple(maps.shape)} and the image {tuple(image.shape[-2:])} (height, "
            f"width); get_cam(..., size=(height, width))[0] makes maps that fit."
        )
    if not bool(((maps >= 0) & (maps <= 1)).all()):
        raise InvalidInputError("Maps must lie in [0, 1]; take the sigmoid of raw scores.")
    for name, given in (("titles", titles), ("peaks", peaks), ("boxes", boxes)):
        if given and len(given) != len(maps):
            raise InvalidInputError(f"There are {len(maps)} maps and {len(given)} {name}.")


def blend(
    base: NDArray[np.uint8], heat: NDArray[np.float32], opacity: float, colormap: str
) -> Image.Image:
    """Lay a map's colors over an image, as opaque as its values are high."""
    alpha = (opacity * heat)[..., None]
    mixed = base * (1 - alpha) + colorize(heat, colormap) * alpha
    return Image.fromarray((mixed + 0.5).astype(np.uint8))


class Pen:
    """Draws marks in a panel's pixels, in widths that fit its size."""

    def __init__(self, scale: float, size: int) -> None:
        self.scale = scale
        self.unit = size / 512

    def boxes(self, panel: Image.Image, boxes: Tensor, *, dashed: bool = False) -> None:
        draw: Any = ImageDraw.Draw(panel)
        width = max(1, round(2 * self.unit))
        dash = max(3, round(7 * self.unit))
        for box in boxes.tolist():
            x0, y0, x1, y1 = (round(v * self.scale) for v in box)
            if dashed and max(x1 - x0, y1 - y0) < 24 * self.unit:
                continue  # its outline is box enough
            # A true box's outer edge is the frame's; a found one leaves its outlined region free.
            out = 2 + width if dashed else 0
            x0, y0, x1, y1 = x0 - out, y0 - out, max(x0, x1 - 1) + out, max(y0, y1 - 1) + out
            around = (x0 - 1, y0 - 1, x1 + 1, y1 + 1)
            draw.rectangle(around, outline=CASING, width=width + 2)
            if not dashed:
                draw.rectangle((x0, y0, x1, y1), outline=TRUE_BOX, width=width)
                continue
            for x in range(x0, x1 + 1, 2 * dash):
                for y in (y0, y1 - width + 1):
                    draw.rectangle((x, y, min(x + dash, x1), y + width - 1), fill=FOUND)
            for y in range(y0, y1 + 1, 2 * dash):
                for x in (x0, x1 - width + 1):
                    draw.rectangle((x, y, x + width - 1, min(y + dash, y1)), fill=FOUND)

    def outline(self, panel: Image.Image, region: NDArray[np.bool_]) -> Image.Image:
        # Around the region, not on it: one of a single pixel still shows its heat.
        near = _grown(region)
        pixels = np.array(panel)
        pixels[_grown(near) & ~near] = 255
        pixels[near & ~region] = 0
        return Image.fromarray(pixels)

    def ring(self, panel: Image.Image, x: float, y: float) -> None:
        draw: Any = ImageDraw.Draw(panel)
        x, y = (x + 0.5) * self.scale, (y + 0.5) * self.scale
        width = max(1, round(2 * self.unit))
        for color, extra in ((CASING, 1), (FOUND, 0)):
            r = max(4.0, 9 * self.unit) + extra
            draw.ellipse((x - r, y - r, x + r, y + r), outline=color, width=width + 2 * extra)
            draw.point((x, y), fill=color)


def _grown(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region and the four neighbours of each of its pixels."""
    padded = np.pad(region, 1)
    sides = (padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1])
    return np.asarray(np.logical_or.reduce([region, *sides]))


class _Sheet:
    """Panels of one size in rows, each under its title, and beside them the color bar."""

    def __init__(self, panels: Sequence[Image.Image], columns: int, unit: float) -> None:
        self.width, self.height = panels[0].size
        self.columns = min(columns, len(panels))
        self.count = len(panels)
        points = max(10, round(16 * unit))
        self.font = ImageFont.load_default(points)
        self.line = round(1.75 * points)
        self.bar = max(8, round(14 * unit))
        labels = GAP + self.bar + 4 + round(self.font.getlength("0.5")) + 4
        rows = -(-self.count // self.columns)
        self.picture = Image.new(
            "RGB",
            (
                self.columns * (self.width + GAP) - GAP + labels,
                rows * (self.height + self.line) + self.line,
            ),
            GROUND,
        )
        self.draw: Any = ImageDraw.Draw(self.picture)
        for index, panel in enumerate(panels):
            self.picture.paste(panel, self._corner(index))

    def _corner(self, index: int) -> tuple[int, int]:
        row, column = divmod(index, self.columns)
        return column * (self.width + GAP), row * (self.height + self.line) + self.line

    def titles(self, titles: Sequence[str]) -> None:
        """Write above the panels."""
        for index, title in enumerate(titles):
            left, top = self._corner(index)
            self._write(title, left + 4, top - self.line / 2, self.width - 8)

    def legend(self, text: str) -> None:
        """Write below everything."""
        self._write(text, 4, self.picture.height - self.line / 2, self.picture.width - 8)

    def _write(self, text: str, x: float, y: float, room: float) -> None:
        while self.font.getlength(text) > room:
            text = text[:-2].rstrip() + "\u2026"
        self.draw.text((x, y), text, fill=TEXT, font=self.font, anchor="lm")

    def color_bar(self, opacity: float, colormap: str) -> None:
        """At the end of the first row, as the colors lie over middle gray."""
        left, top = self.columns * (self.width + GAP), self.line
        values = np.linspace(1, 0, self.height, dtype=np.float32)[:, None].repeat(self.bar, 1)
        gray = np.full((self.height, self.bar, 3), 128, np.uint8)
        self.picture.paste(blend(gray, values, opacity, colormap), (left, top))
        for value, anchor in ((1.0, "la"), (0.5, "lm"), (0.0, "ld")):
            at = left + self.bar + 4, top + (1 - value) * (self.height - 1)
            self.draw.text(at, f"{value:g}", fill=TEXT, font=self.font, anchor=anchor)
