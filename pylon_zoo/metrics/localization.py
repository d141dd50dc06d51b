"""Point localization accuracy: does the highest point of a class's map hit the finding?

For every pair of an image and a class that has boxes (or points) in it, the arg-max of the map
must lie inside any box of that class, borders included, or within a radius of any of its points
(Preechakul et al., arXiv 2010.11475, section 4; the pointing game of Zhang et al., ECCV 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics.bootstrap import Estimate, Floats, group_weights, percentile_interval

__all__ = ["PointLocalization"]


class PointLocalization:
    """Accumulates hits over images; :meth:`compute` gives rates with chance and intervals."""

    def __init__(self, class_names: Sequence[str], *, radius: float = 0.0) -> None:
        """Start empty.

        Args:
            class_names: K names.
            radius: how far, in pixels, from an annotated point a peak still hits it.
        """
        self.class_names = tuple(class_names)
        self.radius = radius
        self._groups: list[str] = []
        self._hits: list[Floats] = []
        self._chance: list[Floats] = []

    def update(
        self,
        peak_xy: Tensor,
        size: tuple[int, int],
        boxes: Tensor,
        box_classes: Tensor,
        *,
        points: Tensor | None = None,
        point_classes: Tensor | None = None,
        group: str = "",
    ) -> None:
        """Add one image.

        Args:
            peak_xy: (K, 2) pixel indices (x, y) of each class's highest pixel.
            size: (H, W) of the image in which peaks and boxes are given.
            boxes: (N, 4) as (x0, y0, x1, y1) in pixels.
            box_classes: (N,).
            points: (P, 2) as (x, y) in pixels, or None.
            point_classes: (P,).
            group: what is resampled as one; the empty string makes each image its own group.

        Raises:
            InvalidInputError: a shape does not fit, or a coordinate is NaN.
        """
        classes = len(self.class_names)
        if peak_xy.shape != (classes, 2) or boxes.shape != (len(box_classes), 4):
            raise InvalidInputError(
                f"Expected peaks ({classes}, 2) and boxes (N, 4) with N classes; got "
                f"{tuple(peak_xy.shape)}, {tuple(boxes.shape)} and {len(box_classes)} classes."
            )
        if boxes.isnan().any() or (points is not None and points.isnan().any()):
            raise InvalidInputError("Boxes and points must be numbers; got NaN.")
        height, width = size
        hits, chance = np.full(classes, np.nan), np.full(classes, np.nan)
        annotated = set(box_classes.tolist())
        if points is not None and point_classes is not None:
            annotated |= set(point_classes.tolist())
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
        for k in annotated:
            target = torch.zeros(height, width, dtype=torch.bool)
            for x0, y0, x1, y1 in boxes[box_classes == k]:
                target |= (rows >= y0) & (rows <= y1) & (columns >= x0) & (columns <= x1)
            if points is not None and point_classes is not None:
                for x, y in points[point_classes == k]:
                    target |= (columns - x) ** 2 + (rows - y) ** 2 <= self.radius**2
            x, y = peak_xy[k].tolist()
            hits[k] = float(target[int(y), int(x)])
            chance[k] = float(target.float().mean())
        self._hits.append(hits)
        self._chance.append(chance)
        self._groups.append(group or f"image {len(self._groups)}")

    def compute(self, *, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Hit rates so far.

        Returns:
            ``micro`` (over all pairs), ``macro`` (mean over classes) and ``per_class``, each with
            value, low, high (95 % bootstrap over groups), chance (the rate of a peak placed
            uniformly at random) and support (the number of pairs).
        """
        classes = len(self.class_names)
        hits = np.array(self._hits).reshape(-1, classes)
        chance = np.array(self._chance).reshape(-1, classes)
        weights = group_weights(np.array(self._groups), replicates, seed)
        known = (~np.isnan(hits)).astype(np.float64)
        every = np.ones((1, len(hits)))

        def rates(values: Floats, rows: Floats) -> tuple[Floats, Floats, Floats]:
            """(R, K) per class, (R,) micro, (R,) macro."""
            found, pairs = rows @ np.nan_to_num(values), rows @ known
            with np.errstate(invalid="ignore", divide="ignore"):
                per_class = found / pairs
                micro = found.sum(axis=1) / pairs.sum(axis=1)
                seen = ~np.isnan(per_class)
                macro = np.nan_to_num(per_class).sum(axis=1) / seen.sum(axis=1)
            return per_class, micro, macro

        value, by_chance, draws = rates(hits, every), rates(chance, every), rates(hits, weights)
        bounds = [percentile_interval(draw) for draw in draws]
        support = known.sum(axis=0).astype(int)

        def summary(which: int) -> dict[str, Any]:
            low, high = (float(bound) for bound in bounds[which])
            return Estimate(
                float(value[which][0]), low, high, float(by_chance[which][0]), int(support.sum())
            ).to_dict()

        low, high = bounds[0]
        return {
            "micro": summary(1),
            "macro": summary(2),
            "per_class": {
                name: Estimate(
                    float(value[0][0, k]),
                    float(low[k]),
                    float(high[k]),
                    float(by_chance[0][0, k]),
                    int(support[k]),
                ).to_dict()
                for k, name in enumerate(self.class_names)
            },
        }
