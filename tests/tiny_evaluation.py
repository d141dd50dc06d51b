"""A task with every kind of annotation; as a script: ``pylon-zoo evaluate`` with that task."""

import sys
from dataclasses import replace

import torch

from pylon_zoo.data import LocalizationDataset, Phantom, Sample, tasks


class Marked:
    """Phantoms with a mask in every box but the first class's, and some unknown labels."""

    class_names = Phantom.class_names

    def __init__(self, split: str, length: int) -> None:
        self.images = Phantom(split, size=128, length=length)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        sample = self.images[index]
        masks = torch.zeros(len(sample.boxes), sample.height, sample.width, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, sample.boxes.int().tolist(), strict=True):
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
        outlined = sample.box_classes != 0
        labels = sample.labels.clone()
        present = torch.zeros(len(labels), dtype=torch.bool)
        present[sample.box_classes] = True
        labels[(torch.arange(len(labels)) == index % len(labels)) & ~present] = float("nan")
        return replace(
            sample,
            labels=labels,
            masks=masks[outlined],
            mask_classes=sample.box_classes[outlined],
            group="" if index % 3 else sample.group,
        )


class MarkedTask(tasks.PhantomTask):
    name = "marked"
    LENGTHS = (13, 7)

    def classification(self, split: str) -> LocalizationDataset:
        return Marked(split, self.LENGTHS[0])

    def localization(self, split: str) -> LocalizationDataset:
        return Marked(split, self.LENGTHS[1])


if __name__ == "__main__":
    from pylon_zoo.cli.main import main

    torch.set_num_threads(1)
    tasks.TASKS["marked"] = MarkedTask
    main(["evaluate", *sys.argv[1:], "--data", "marked"])
