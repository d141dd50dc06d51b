"""A heatmap over its image, with peak and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pylon_zoo.errors import InvalidInputError, MissingExtraError

__all__ = ["colorize", "draw_overlay"]

TRUE_BOX, PEAK = "#00e5ff", "#ffffff"
#: Pictures are enlarged by a whole factor to at least this side, so that text can be read.
MIN_SIDE = 512


def colorize(heat: NDArray[np.float32], colormap: str = "inferno") -> NDArray[np.uint8]:
    """Color values in [0, 1] by a matplotlib colormap: (H, W) -> (H, W, 3)."""
    try:
        from matplotlib import colormaps
    except ImportError as error:
        raise MissingExtraError("matplotlib", "viz", "Drawing heatmaps") from error
    return np.asarray(colormaps[colormap](heat, bytes=True)[..., :3], dtype=np.uint8)


def draw_overlay(
    image: Tensor,
    probability_map: Tensor,
    *,
    title: str = "",
    peak: tuple[float, float] | None = None,
    boxes: Sequence[Sequence[float]] | Tensor = (),
    opacity: float = 0.65,
    colormap: str = "inferno",
) -> Image.Image:
    """Draw the image and, beside it, the same image under a class's heatmap.

    The heat is as opaque as the probability is high: where the model sees nothing, the image
    shows through unchanged, and two pictures can be compared with each other.

    Args:
        image: (C, H, W), uint8 or uint16 over its range or float in [0, 1], gray or RGB.
        probability_map: (H, W) in [0, 1], e.g. the sigmoid of one class of
            :func:`pylon_zoo.get_cam`.
        title: one line above the picture.
        peak: (x, y) pixel index to mark with a ring, or None.
        boxes: true boxes (x0, y0, x1, y1) in pixels.
        opacity: of probability 1.
        colormap: a name that matplotlib knows; the default is perceptually uniform.

    Raises:
        InvalidInputError: sizes differ, or the map leaves [0, 1].
        MissingExtraError: matplotlib is not installed.
    """
    from pylon_zoo.preprocessing import to_unit_range

    height, width = image.shape[-2:]
    heat = probability_map.detach().float().cpu().numpy()
    if heat.shape != (height, width):
        raise InvalidInputError(
            f"The map is {heat.shape} and the image {(height, width)} (height, width); "
            f"get_cam(..., size=(height, width)) makes one that fits."
        )
    if not (heat.min() >= 0 and heat.max() <= 1):
        raise InvalidInputError("The map must lie in [0, 1]; take the sigmoid of raw scores.")
    gray_or_rgb = to_unit_range(image).expand(3, -1, -1).permute(1, 2, 0).numpy()
    base = np.asarray(gray_or_rgb * 255 + 0.5, dtype=np.uint8)
    alpha = (opacity * heat)[..., None]
    blended = np.asarray(base * (1 - alpha) + colorize(heat, colormap) * alpha + 0.5, np.uint8)

    scale = max(1, -(-MIN_SIDE // max(height, width)))
    gap, bar = 8, 28 if title else 0
    canvas = Image.new("RGB", (2 * width * scale + gap, height * scale + bar), "#101418")
    for column, pixels in enumerate((base, blended)):
        panel = Image.fromarray(pixels).resize(
            (width * scale, height * scale), Image.Resampling.BICUBIC
        )
        canvas.paste(panel, (column * (width * scale + gap), bar))
    draw: Any = ImageDraw.Draw(canvas)
    if title:
        draw.text((6, 5), title, fill="white", font=ImageFont.load_default(16))
    for left in (0, width * scale + gap):
        for x0, y0, x1, y1 in (map(float, box) for box in boxes):
            corners = [left + x0 * scale, bar + y0 * scale, left + x1 * scale, bar + y1 * scale]
            draw.rectangle(corners, outline=TRUE_BOX, width=2)
    if peak is not None:
        x = width * scale + gap + (peak[0] + 0.5) * scale
        y = bar + (peak[1] + 0.5) * scale
        radius = 9
        # White inside black is seen on any ground.
        for color, extra in (("black", 1), (PEAK, 0)):
            r = radius + extra
            draw.ellipse([x - r, y - r, x + r, y + r], outline=color, width=2 + extra)
            draw.point((x, y), fill=color)
    return canvas
