"""From an image to its findings: probability and place of every class."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pylon_zoo.data.sample import Sample
from pylon_zoo.errors import unknown_name
from pylon_zoo.heatmaps import find_peaks, get_cam, plot_cam, resize_maps
from pylon_zoo.preprocessing import create_transform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from pylon_zoo.architectures import LocalizationModel

__all__ = ["Finding", "Prediction", "predict"]


@dataclass(frozen=True)
class Finding:
    """What the model says of one class in one image.

    Attributes:
        class_name: the class.
        probability: sigmoid of the logit, in [0, 1]; not calibrated.
        x: column of the map's highest pixel, in pixels of the image as it was given.
        y: its row.
        inside: whether that pixel lies in a true box of the class; None where no box is known.
    """

    class_name: str
    probability: float
    x: int
    y: int
    inside: bool | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON and CSV take it."""
        return asdict(self)


@dataclass(frozen=True)
class Prediction:
    """All findings of an image, most probable first, and their maps.

    Attributes:
        sample: the image as it was given.
        findings: one per class, by falling probability.
        classes: the index of each finding's class.
        probability_maps: (K, H, W) in [0, 1], in pixels of the image, in the order of ``findings``.
    """

    sample: Sample
    findings: tuple[Finding, ...]
    classes: tuple[int, ...]
    probability_maps: Tensor

    def boxes_of(self, position: int) -> Tensor:
        """True boxes (N, 4) of the class of ``findings[position]``, where they are known."""
        return self.sample.boxes[self.sample.box_classes == self.classes[position]]

    def plot(
        self, classes: Sequence[str] | None = None, *, threshold: float | None = 0.5, **look: Any
    ) -> Image.Image:
        """Draw the image beside its findings, see :func:`pylon_zoo.plot_cam`.

        Args:
            classes: names of those to draw; None means those of a probability of at least
                ``threshold``, or else the most probable one.
            threshold: from which probability on regions are outlined.
            look: further options of :func:`pylon_zoo.plot_cam`.

        Raises:
            MissingExtraError: matplotlib is not installed.
            UnknownNameError: no such class or colormap.
        """
        names = [finding.class_name for finding in self.findings]
        if classes is None:
            least = 0.5 if threshold is None else threshold
            classes = [f.class_name for f in self.findings if f.probability >= least] or names[:1]
        if unknown := set(classes) - set(names):
            raise unknown_name("class", min(unknown), names)
        chosen = [names.index(name) for name in classes]
        found = [self.findings[position] for position in chosen]
        return plot_cam(
            self.sample.image,
            self.probability_maps[chosen],
            titles=[f"{f.class_name}  {f.probability:.2f}" for f in found],
            peaks=[(f.x, f.y) for f in found],
            boxes=[self.boxes_of(position) for position in chosen],
            threshold=threshold,
            **look,
        )


def predict(
    model: LocalizationModel, sample: Sample, alignment: str = "corners_false"
) -> Prediction:
    """Predict one image.

    Args:
        model: a model of the zoo.
        sample: an image, with boxes where they are known (``Sample(read_image(path), labels)``).
        alignment: of the maps, see :func:`pylon_zoo.get_cam`.

    Raises:
        InvalidInputError: the image does not fit the model.
    """
    image = create_transform(model)(sample).image[None]
    seen = (int(image.shape[-2]), int(image.shape[-1]))
    cells = get_cam(model, image.to(next(model.parameters()).device), size="map")
    with torch.no_grad():
        probabilities = model.pooling(cells).sigmoid()[0]
    maps = resize_maps(cells, model, seen, (sample.height, sample.width), alignment)
    peaks = find_peaks(maps).xy[0].tolist()
    truth = {k: sample.boxes[sample.box_classes == k] for k in set(sample.box_classes.tolist())}
    findings = []
    for k, (x, y) in enumerate(peaks):
        hit = None
        if k in truth:
            x0, y0, x1, y1 = truth[k].T
            hit = bool(((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)).any())
        findings.append(Finding(model.spec.class_name(k), float(probabilities[k]), x, y, hit))
    order = sorted(range(len(findings)), key=lambda k: -findings[k].probability)
    return Prediction(
        sample, tuple(findings[k] for k in order), tuple(order), maps[0].sigmoid()[order].cpu()
    )
