"""What a model looks at in a few fixed images, epoch by epoch, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.data import LocalizationDataset, Sample
from pylon_zoo.heatmaps import get_cam
from pylon_zoo.heatmaps.overlay import TRUE_BOX
from pylon_zoo.preprocessing import Transform, to_unit_range
from pylon_zoo.weights.files import replace_file

__all__ = ["HeatmapPage"]

#: Epochs that fit on the page: the first, the last and evenly between.
COLUMNS = 10
#: Images that are looked at for each on the page, to find one of every class.
LOOKED_AT = 20
#: As in :func:`pylon_zoo.heatmaps.overlay.draw_overlay`.
COLORS, OPACITY = "inferno", 0.65


class HeatmapPage:
    """The first images of each class in turn, each with the map of that class.

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
        self.classes: list[int] = []
        looked = [items[index] for index in range(min(len(items), LOOKED_AT * count))]
        left = [[s for s in looked if s.labels[k] == 1] for k in range(len(self.class_names))]
        while any(left) and len(self.samples) < count:
            for k, found in enumerate(left):
                if found and len(self.samples) < count:
                    self.samples.append(found.pop(0))
                    self.classes.append(k)
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
        from matplotlib.cm import ScalarMappable
        from matplotlib.figure import Figure

        chosen = sorted({round(e) for e in np.linspace(1, last, min(last, COLUMNS))})
        rows, columns = len(self.samples), 1 + len(chosen)
        figure = Figure(figsize=(1.6 * columns + 0.8, 1.6 * rows + 0.3), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        maps = []
        for epoch in chosen:
            with np.load(self.folder / "heatmaps" / f"epoch_{epoch:04d}.npz") as saved:
                maps.append([saved[str(number)] / np.float32(255) for number in range(rows)])
        for number, (row, sample, k) in enumerate(
            zip(axes, self.samples, self.classes, strict=True)
        ):
            picture = to_unit_range(sample.image).expand(3, -1, -1).permute(1, 2, 0).numpy()
            row[0].imshow(picture)
            for x0, y0, x1, y1 in (sample.boxes[sample.box_classes == k] - 0.5).tolist():
                row[0].plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], TRUE_BOX, linewidth=1.2)
            row[0].set_ylabel(self.class_names[k], fontsize=9)
            for axis, heats in zip(row[1:], maps, strict=True):
                axis.imshow(picture)
                heat = heats[number]
                axis.imshow(heat, cmap=COLORS, vmin=0, vmax=1, alpha=OPACITY * heat)
            for axis in row:
                axis.set(xlim=(-0.5, sample.width - 0.5), ylim=(sample.height - 0.5, -0.5))
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
        for axis, epoch in zip(axes[0, 1:], chosen, strict=True):
            axis.set_title(f"epoch {epoch}", fontsize=9)
        bar = figure.colorbar(ScalarMappable(cmap=COLORS), ax=axes, aspect=15 * rows, pad=0.01)
        bar.ax.tick_params(labelsize=8)
        bar.set_label("probability", fontsize=9)
        with replace_file(self.folder / "heatmaps.png") as temporary:
            figure.savefig(temporary, dpi=110, format="png")
