"""BCCD: blood cells on stained smears (https://github.com/Shenggan/BCCD_Dataset, MIT licence).

364 images of 640 x 480 px in Pascal VOC layout, with boxes of red cells, white cells and
platelets. Nearly every whole image holds all three, so the weakly supervised task is on tiles
(:class:`pylon_zoo.data.Tiles`).
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import torch

from pylon_zoo.data.readers import read_image
from pylon_zoo.data.sample import Sample
from pylon_zoo.data.voc import read_names, read_objects
from pylon_zoo.errors import unknown_name

__all__ = ["BCCD"]


class BCCD:
    """Whole images of BCCD.

    Attributes:
        class_names: ``("RBC", "WBC", "Platelets")``.
    """

    #: ``train``, ``val`` and ``test`` are the official lists. ``fit`` and ``select`` are a fixed
    #: partition of ``train`` (5 : 1), so that a model can be selected without touching ``val``.
    SPLITS = ("train", "val", "test", "fit", "select")
    class_names = ("RBC", "WBC", "Platelets")
    download_page = "https://github.com/Shenggan/BCCD_Dataset"
    license = "MIT"

    def __init__(self, root: str | os.PathLike[str], split: str = "train") -> None:
        """Read the split's list and annotations.

        Args:
            root: the folder that holds ``JPEGImages``, ``Annotations`` and ``ImageSets``.
            split: one of :attr:`SPLITS`.

        Raises:
            UnknownNameError: no such split.
            DatasetError: files are missing or damaged; says which and where to get them.
        """
        if split not in self.SPLITS:
            raise unknown_name("split of bccd,", split, self.SPLITS)
        self.root = Path(root)
        self.split = split
        official = "train" if split in ("fit", "select") else split
        list_file = self.root / "ImageSets" / "Main" / f"{official}.txt"
        remedy = (
            f"bccd needs the folder that holds JPEGImages, Annotations and ImageSets; get it from "
            f"{self.download_page} and give its path as root."
        )
        names = read_names(list_file, remedy)
        if split in ("fit", "select"):
            names = [n for n in names if (zlib.crc32(n.encode()) % 6 == 0) == (split == "select")]
        self.names = names
        self._annotations = [
            read_objects(self.root / "Annotations" / f"{name}.xml", self.class_names, remedy)
            for name in names
        ]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        path = self.root / "JPEGImages" / f"{self.names[index]}.jpg"
        found = self._annotations[index]
        labels = torch.zeros(len(self.class_names))
        labels[found.classes] = 1
        return Sample(
            image=read_image(path),
            labels=labels,
            boxes=found.boxes,
            box_classes=found.classes,
            source=str(path),
            group=self.names[index],
        )
