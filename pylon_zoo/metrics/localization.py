"""Where is the finding? Points, boxes and masks against the maps of a model.

Every measure is taken over pairs of an image and a class that is annotated in it. A class that
is annotated nowhere has no value and is left out of the means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics.accumulator import Accumulator
from pylon_zoo.metrics.bootstrap import Floats, bootstrap, estimate, mean_over, rates_report
from pylon_zoo.metrics.boxes import box_iou, boxes_from_maps, checked_maps
from pylon_zoo.metrics.otsu import otsu_masks

__all__ = ["BoxAccuracy", "MapOverlap", "MaskOverlap", "PixelPrecision", "PointLocalization"]


class PointLocalization(Accumulator):
    """Does the highest point of a class's map hit the finding?

    For every pair of an image and a class that has boxes, points or a mask in it, the arg-max of
    the map must lie inside any box of that class, borders included, or within a radius of any of
    its points, or on its mask (Preechakul et al., arXiv 2010.11475, section 4; the pointing game
    of Zhang et al., ECCV 2016; hit rate of Saporta et al., Nature Machine Intelligence 2022).
    """

    COLUMNS: ClassVar = {"hits": (), "chance": ()}

    def __init__(self, class_names: Sequence[str], *, radius: float = 0.0) -> None:
        """Start empty.

        Args:
            class_names: K names.
            radius: how far, in pixels, from an annotated point a peak still hits it.
        """
        super().__init__(class_names)
        self.radius = radius

    def update(
        self,
        peak_xy: Tensor,
        size: tuple[int, int],
        boxes: Tensor,
        box_classes: Tensor,
        *,
        points: Tensor | None = None,
        point_classes: Tensor | None = None,
        masks: Tensor | None = None,
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
            masks: (K, H, W) of bool, true on the finding; a class whose mask is empty has none.
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
        if masks is not None and masks.shape != (classes, *size):
            raise InvalidInputError(
                f"Expected masks {(classes, *size)} of the image's size; got {tuple(masks.shape)}."
            )
        if boxes.isnan().any() or (points is not None and points.isnan().any()):
            raise InvalidInputError("Boxes and points must be numbers; got NaN.")
        # numpy from here on: these arrays are too small for torch's threads.
        (height, width), kinds = size, box_classes.numpy()
        rows, columns = np.arange(height)[None, :], np.arange(width)[None, :]
        x0, y0, x1, y1 = boxes.numpy().T[..., None]
        in_rows, in_columns = (rows >= y0) & (rows <= y1), (columns >= x0) & (columns <= x1)
        annotated = set(kinds.tolist())
        if masks is not None:
            annotated |= set(masks.flatten(1).any(dim=1).nonzero().flatten().tolist())
        if points is not None and point_classes is not None:
            annotated |= set(point_classes.tolist())
        hits, chance = np.full(classes, np.nan), np.full(classes, np.nan)
        for k in annotated:
            target = np.zeros((height, width), dtype=bool)
            for box in np.nonzero(kinds == k)[0]:
                target |= in_rows[box][:, None] & in_columns[box]
            if masks is not None:
                target |= masks[k].numpy()
            if points is not None and point_classes is not None:
                for x, y in points[point_classes == k].numpy():
                    squared = (rows.T - y) ** 2 + (columns - x) ** 2
                    target |= squared <= self.radius**2
            x, y = peak_xy[k].tolist()
            hits[k] = target[y, x]
            chance[k] = target.mean()
        self._add(group, hits=hits, chance=chance)

    def compute(self, *, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Hit rates so far.

        Returns:
            ``micro`` (over all pairs), ``macro`` (mean over classes) and ``per_class``, each with
            value, low, high (95 % bootstrap over groups), chance (the rate of a peak placed
            uniformly at random) and support (the number of pairs).
        """
        return rates_report(
            self._column("hits"),
            self._column("chance"),
            self.class_names,
            self.groups,
            replicates=replicates,
            seed=seed,
        )


def _annotated(
    maps: Tensor, classes: int, boxes: Tensor, box_classes: Tensor
) -> dict[int, tuple[Floats, Floats]]:
    """The map and the boxes of each class that has boxes, checked."""
    if maps.ndim != 3 or len(maps) != classes or boxes.shape != (len(box_classes), 4):
        raise InvalidInputError(
            f"Expected maps ({classes}, H, W) and boxes (N, 4) with N classes; got "
            f"{tuple(maps.shape)}, {tuple(boxes.shape)} and {len(box_classes)} classes."
        )
    if boxes.isnan().any():
        raise InvalidInputError("Boxes must be numbers; got NaN.")
    named = sorted(set(box_classes.tolist()))
    values = checked_maps(maps[named].double().numpy())
    return {
        k: (value, boxes[box_classes == k].double().numpy())
        for k, value in zip(named, values, strict=True)
    }


class MapOverlap(Accumulator):
    """Does the bright part of a map overlap the finding?

    Bright is what exceeds half of the map's own maximum; the finding is the union of the class's
    boxes, a pixel belonging to it when its centre does. IoBB is the intersection over the bright
    area, IoU over the union of both (Li et al., CVPR 2018; Preechakul et al., arXiv 2010.11475);
    ``either`` asks that one of the two exceed the threshold. (As defined here IoBB is never the
    smaller one, so that ``either`` equals it.)
    """

    THRESHOLDS = (0.1, 0.25, 0.5)
    KINDS = ("iobb", "iou", "either")
    COLUMNS: ClassVar = {"overlaps": (len(KINDS),), "chance": ()}

    def update(self, maps: Tensor, boxes: Tensor, box_classes: Tensor, *, group: str = "") -> None:
        """Add one image.

        Args:
            maps: (K, H, W) probabilities in pixels of the image.
            boxes: (N, 4) as (x0, y0, x1, y1) in the same pixels.
            box_classes: (N,).
            group: what is resampled as one; the empty string makes each image its own group.

        Raises:
            InvalidInputError: a shape does not fit, or a value is NaN, infinite or negative.
        """
        classes = len(self.class_names)
        overlaps = np.full((classes, len(self.KINDS)), np.nan)
        chance = np.full(classes, np.nan)
        for k, (values, of_class) in _annotated(maps, classes, boxes, box_classes).items():
            rows, columns = (np.arange(side) + 0.5 for side in values.shape)
            x0, y0, x1, y1 = of_class.T[..., None]
            in_rows = ((rows >= y0) & (rows <= y1)).astype(np.float32)
            in_columns = ((columns >= x0) & (columns <= x1)).astype(np.float32)
            truth = (in_rows.T @ in_columns) > 0
            highest = values.max()
            bright = (values > 0.5 * highest) & (highest > 0)
            shared = float((bright & truth).sum())
            iobb = shared / max(float(bright.sum()), 1.0)
            iou = shared / max(float((bright | truth).sum()), 1.0)
            overlaps[k] = iobb, iou, max(iobb, iou)
            chance[k] = truth.mean()
        self._add(group, overlaps=overlaps, chance=chance)

    def compute(self, *, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Rates so far.

        Returns:
            for ``iobb``, ``iou`` and ``either``, at each of the thresholds (``"0.1"``, ``"0.25"``,
            ``"0.5"``), a table as of :meth:`PointLocalization.compute`; chance is the rate of a
            map that is equally bright everywhere.
        """
        overlaps, constant = self._column("overlaps"), self._column("chance")

        def exceeds(values: Floats, threshold: float) -> Floats:
            return np.where(np.isnan(values), np.nan, values > threshold)

        return {
            kind: {
                str(t): rates_report(
                    exceeds(overlaps[..., which], t),
                    exceeds(constant, t),
                    self.class_names,
                    self.groups,
                    replicates=replicates,
                    seed=seed,
                )
                for t in self.THRESHOLDS
            }
            for which, kind in enumerate(self.KINDS)
        }


def _check_masks(maps: Tensor, masks: Tensor, classes: int) -> None:
    if maps.shape != masks.shape or maps.ndim != 3 or len(maps) != classes:
        raise InvalidInputError(
            f"Expected maps and masks ({classes}, H, W); got {tuple(maps.shape)} and "
            f"{tuple(masks.shape)}."
        )


class MaskOverlap(Accumulator):
    """How well does the bright part of a map fit the mask of the finding? The mean IoU.

    Bright is what exceeds Otsu's threshold of the map's own values (:func:`otsu_masks`), as in
    Saporta et al., Nature Machine Intelligence 2022; a map that is equal everywhere has no bright
    part and an IoU of 0. (Their hit rate is :class:`PointLocalization` on masks.)
    """

    COLUMNS: ClassVar = {"overlaps": (), "chance": ()}

    def update(self, maps: Tensor, masks: Tensor, *, group: str = "") -> None:
        """Add one image.

        Args:
            maps: (K, H, W), not negative, in pixels of the image; the paper's is as large as the
                radiograph was stored.
            masks: (K, H, W) of bool, true on the finding; a class whose mask is empty has none.
            group: what is resampled as one; the empty string makes each image its own group.

        Raises:
            InvalidInputError: a shape does not fit, or a value is NaN, infinite or negative.
        """
        _check_masks(maps, masks, len(self.class_names))
        bright, truth = otsu_masks(maps.double().numpy()), masks.bool().numpy()
        shared = (bright & truth).sum(axis=(1, 2), dtype=np.float64)
        either = (bright | truth).sum(axis=(1, 2), dtype=np.float64)
        known = truth.any(axis=(1, 2))
        self._add(
            group,
            overlaps=np.where(known, shared / np.maximum(either, 1), np.nan),
            chance=np.where(known, truth.mean(axis=(1, 2)), np.nan),
        )

    def compute(self, *, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Mean IoU so far: a table as of :meth:`PointLocalization.compute`.

        ``macro`` is the mean over classes of each one's mean IoU; chance is the mean IoU of
        calling all of the image bright.
        """
        return rates_report(
            self._column("overlaps"),
            self._column("chance"),
            self.class_names,
            self.groups,
            replicates=replicates,
            seed=seed,
        )


class BoxAccuracy(Accumulator):
    """MaxBoxAccV2 (Choe et al., CVPR 2020): do boxes drawn around the bright parts fit?

    At threshold tau a box is drawn around each connected component of what exceeds tau times the
    map's maximum; the best IoU of any of them with any true box of the class must reach delta.
    The measure is the mean over delta of the rate at the best of :attr:`TAUS`, one for all images.
    """

    DELTAS = (0.3, 0.5, 0.7)
    # Closer below 0.05: maps with a sharp peak have their best threshold there.
    TAUS = (0.0, 0.01, 0.02, 0.03, 0.04, *(round(0.05 * step, 2) for step in range(1, 20)))
    COLUMNS: ClassVar = {"best": (len(TAUS),), "chance": ()}

    def update(self, maps: Tensor, boxes: Tensor, box_classes: Tensor, *, group: str = "") -> None:
        """Add one image; arguments and errors are those of :meth:`MapOverlap.update`."""
        classes = len(self.class_names)
        best = np.full((classes, len(self.TAUS)), np.nan)
        chance = np.full(classes, np.nan)
        for k, (values, truth) in _annotated(maps, classes, boxes, box_classes).items():
            for at, tau in enumerate(self.TAUS):
                drawn = boxes_from_maps(values[None], tau).boxes
                best[k, at] = box_iou(drawn, truth).max(initial=0.0)
            whole = np.array([[0.0, 0.0, *values.shape[::-1]]])
            chance[k] = box_iou(whole, truth).max()
        self._add(group, best=best, chance=chance)

    def best_taus(self) -> dict[str, float]:
        """For each delta the tau with the highest rate over all pairs so far, of equal ones the
        lowest.
        """
        best = self._column("best")
        pairs = best[~np.isnan(best[..., 0])]
        return {
            str(delta): self.TAUS[int((pairs >= delta).sum(axis=0).argmax())]
            for delta in self.DELTAS
        }

    def compute(
        self, taus: dict[str, float] | None = None, *, replicates: int = 1000, seed: int = 0
    ) -> dict[str, Any]:
        """Rates so far.

        Args:
            taus: for each delta the tau, as :meth:`best_taus` of another split gives them; None
                takes this one's own best, which looks a little too good.
            replicates: bootstrap replicates.
            seed: of the bootstrap.

        Returns:
            a table as of :meth:`PointLocalization.compute`, and ``taus``; chance is the rate of
            one box around the whole image.
        """
        taus = self.best_taus() if taus is None else taus
        best, whole = self._column("best"), self._column("chance")

        def mean_over_deltas(by_delta: list[tuple[Floats, float]]) -> Floats:
            hits = [np.where(np.isnan(iou), np.nan, iou >= delta) for iou, delta in by_delta]
            return np.asarray(np.mean(hits, axis=0))

        chosen = [(best[..., self.TAUS.index(taus[str(d)])], d) for d in self.DELTAS]
        values = mean_over_deltas(chosen)
        chance = mean_over_deltas([(whole, delta) for delta in self.DELTAS])
        return {"taus": dict(taus)} | rates_report(
            values, chance, self.class_names, self.groups, replicates=replicates, seed=seed
        )


class PixelPrecision(Accumulator):
    """Average precision over the pixels of all images that have a mask (Choe et al., CVPR 2020).

    Values of maps are rounded down to :attr:`LEVELS` levels, so that images add up to a histogram.
    """

    LEVELS = 256
    COLUMNS: ClassVar = {"counts": (2, LEVELS)}

    def update(
        self, maps: Tensor, masks: Tensor, *, known: Tensor | None = None, group: str = ""
    ) -> None:
        """Add one image.

        Args:
            maps: (K, H, W) in [0, 1].
            masks: (K, H, W) of bool, true on the finding; all false where a class is absent.
            known: (K,) of bool; a class for which it is false (its label is missing, or it is
                present and was not outlined) is left out. None means that all are known.
            group: what is resampled as one; the empty string makes each image its own group.

        Raises:
            InvalidInputError: a shape does not fit, or a value is NaN or outside [0, 1].
        """
        classes = len(self.class_names)
        _check_masks(maps, masks, classes)
        values = checked_maps(maps.double().numpy())
        if values.size and values.max() > 1:
            raise InvalidInputError("Maps must lie in [0, 1]; apply a sigmoid first.")
        level = np.minimum((values * self.LEVELS).astype(np.int32), self.LEVELS - 1)
        cell = (np.arange(classes)[:, None, None] * 2 + masks.numpy()) * self.LEVELS + level
        counts = np.bincount(cell.ravel(), minlength=classes * 2 * self.LEVELS)
        counts = counts.reshape(classes, 2, self.LEVELS).astype(np.int32)
        if known is not None:
            counts[~known.numpy()] = 0
        self._add(group, counts=counts)

    def compute(self, *, replicates: int = 1000, seed: int = 0) -> dict[str, Any]:
        """Average precision so far.

        Returns:
            ``macro`` and ``per_class`` with value, low, high (95 % bootstrap over groups), chance
            (the part of pixels on the finding) and support (images that show it).
        """
        counts = self._column("counts")
        classes = len(self.class_names)
        flat = counts.reshape(len(counts), classes * 2 * self.LEVELS)

        def precision(rows: Floats) -> Floats:
            total = (rows @ flat).reshape(-1, classes, 2, self.LEVELS)[..., ::-1]
            called = np.cumsum(total.sum(axis=2), axis=-1)
            found = total[:, :, 1]
            with np.errstate(invalid="ignore", divide="ignore"):
                at_level = np.nan_to_num(np.cumsum(found, axis=-1) / called)
                return np.asarray((at_level * found).sum(-1) / found.sum(-1))

        value = precision(np.ones((1, len(counts))))[0]
        draws = bootstrap(
            precision, self.groups, replicates=replicates, seed=seed, held=flat.shape[1]
        )
        pixels = counts.sum(axis=(0, 3))
        with np.errstate(invalid="ignore", divide="ignore"):
            chance = np.where(pixels[:, 1] > 0, pixels[:, 1] / pixels.sum(axis=1), np.nan)
        support = (counts[:, :, 1].sum(axis=-1) > 0).sum(axis=0)
        return {
            "macro": estimate(
                mean_over(value), mean_over(draws), mean_over(chance), int(support.sum())
            ),
            "per_class": {
                name: estimate(value[k], draws[:, k], chance[k], int(support[k]))
                for k, name in enumerate(self.class_names)
            },
        }
