"""What a model looks at in a few fixed images, epoch by epoch, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.data import LocalizationDataset, Sample
from pylon_zoo.heatmaps import get_cam
from pylon_zoo.preprocessing import Transform, to_unit_range
from pylon_zoo.weights.files import replace_file

__all__ = ["HeatmapPage"]

#: Epochs that fit on the page: the first, the last and evenly between.
COLUMNS = 10


class HeatmapPage:
    """The first images that have a finding, each with the map of its first one.

    The maps of every epoch are kept in ``heatmaps/``, so that a resumed run's page is whole.
    """

    def __init__(
        self, folder: Path, items: LocalizationDataset, transform: Transform, count: int
    ) -> None:
        """Choose the images.

        Args:
            folder: of the run.
            items: the selection data.
            transform: without augmentation.
            count: images on the page, at most.
        """
        self.folder = folder
        self.class_names = items.class_names
        self.samples: list[Sample] = []
        for index in range(len(items)):
            if len(self.samples) == count:
                break
            if bool((items[index].labels == 1).any()):
                self.samples.append(items[index])
        self.classes = [int((s.labels == 1).nonzero()[0]) for s in self.samples]
        self.inputs = [transform(sample).image for sample in self.samples]

    def add(self, model: LocalizationModel, epoch: int) -> None:
        """Compute the maps of an epoch and draw the page anew."""
        device = next(model.parameters()).device
        maps: dict[str, Any] = {}
        for number, (sample, k, image) in enumerate(
            zip(self.samples, self.classes, self.inputs, strict=True)
        ):
            cam = get_cam(model, image[None].to(device), size=(sample.height, sample.width))
            maps[str(number)] = (cam[0, k].float().sigmoid() * 255).to(torch.uint8).cpu().numpy()
        path = self.folder / "heatmaps" / f"epoch_{epoch:04d}.npz"
        path.parent.mkdir(exist_ok=True)
        with replace_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **maps)
        if maps:
            self._draw(epoch)

    def _draw(self, last: int) -> None:
        from matplotlib.figure import Figure

        chosen = sorted({round(e) for e in np.linspace(1, last, min(last, COLUMNS))})
        rows, columns = len(self.samples), 1 + len(chosen)
        figure = Figure(figsize=(1.6 * columns, 1.75 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for row, sample, k in zip(axes, self.samples, self.classes, strict=True):
            picture = to_unit_range(sample.image).expand(3, -1, -1).permute(1, 2, 0).numpy()
            for axis in row:
                axis.imshow(picture)
            row[0].set_title(self.class_names[k], fontsize=8)
            for x0, y0, x1, y1 in sample.boxes[sample.box_classes == k].tolist():
                row[0].plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="white", linewidth=1)
        for column, epoch in enumerate(chosen, start=1):
            with np.load(self.folder / "heatmaps" / f"epoch_{epoch:04d}.npz") as maps:
                for number in range(rows):
                    heat = maps[str(number)] / 255
                    axes[number, column].imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=heat)
            axes[0, column].set_title(f"epoch {epoch}", fontsize=8)
        with replace_file(self.folder / "heatmaps.png") as temporary:
            figure.savefig(temporary, dpi=110, format="png")
