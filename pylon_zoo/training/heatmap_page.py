"""What a model looks at in a few fixed images, epoch by epoch, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.data import LocalizationDataset, Sample
from pylon_zoo.heatmaps import get_cam, plot_cam
from pylon_zoo.heatmaps.overlay import stack
from pylon_zoo.preprocessing import Transform
from pylon_zoo.weights.files import replace_file

__all__ = ["HeatmapPage"]

#: Epochs that fit on the page: the first, the last and evenly between.
COLUMNS = 10
#: Images that are looked at for each on the page, to find one of every class.
LOOKED_AT = 20
#: Longer side of each image, in pixels.
PANEL = 160


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
        chosen = sorted({round(e) for e in np.linspace(1, last, min(last, COLUMNS))})
        epochs = []
        for epoch in chosen:
            with np.load(self.folder / "heatmaps" / f"epoch_{epoch:04d}.npz") as maps:
                epochs.append([maps[str(number)] for number in range(len(self.samples))])
        rows = []
        for number, (sample, k) in enumerate(zip(self.samples, self.classes, strict=True)):
            row = plot_cam(
                sample.image,
                torch.from_numpy(np.stack([maps[number] for maps in epochs])) / 255,
                titles=[f"{self.class_names[k]}, epoch {epoch}" for epoch in chosen],
                boxes=[sample.boxes[sample.box_classes == k]] * len(chosen),
                size=PANEL,
                columns=1 + COLUMNS,
            )
            rows.append(row)
        with replace_file(self.folder / "heatmaps.png") as temporary:
            stack(rows).save(temporary, format="png")
