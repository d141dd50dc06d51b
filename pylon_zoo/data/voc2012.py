"""Pascal VOC 2012 (Everingham et al., IJCV 2015): everyday photographs with 20 kinds of objects.

11,540 images with boxes, 2,913 of them with masks too. The images come from Flickr and are under
its terms of use.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pylon_zoo.data.files import FileDataset, Record, group_part
from pylon_zoo.data.voc import read_names, read_objects
from pylon_zoo.errors import ImageReadError, unknown_name

__all__ = ["VOC2012"]

#: In a segmentation, borders of objects and objects that are difficult.
VOID = 255


class VOC2012(FileDataset):
    """Images of Pascal VOC 2012.

    Objects that are marked as difficult are ignored, as in the challenge: they are no place to be
    found, and a class of which an image shows only such objects is unknown (NaN). Masks are those
    of ``SegmentationClass``, where an image has one.
    """

    #: ``train``, ``val`` and ``trainval`` are the official lists; labels of the official test
    #: images are not public. ``fit`` and ``select`` are a fixed partition of ``train`` (9 : 1), so
    #: that a model can be selected without touching ``val``.
    SPLITS = ("train", "val", "trainval", "fit", "select")
    CLASS_NAMES = (
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    )
    download_page = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
    license = "Flickr terms of use"

    def __init__(self, root: str | os.PathLike[str], split: str = "train") -> None:
        """Read the split's list and annotations.

        Args:
            root: the folder that holds ``JPEGImages``, ``Annotations``, ``ImageSets`` and
                ``SegmentationClass``, or one above it (``VOCdevkit``, or what holds that). Images
                may have been resized; boxes and masks follow.
            split: one of :attr:`SPLITS`.

        Raises:
            UnknownNameError: no such split.
            DatasetError: files are missing or damaged; says which and where to get them.
        """
        if split not in self.SPLITS:
            raise unknown_name("split of voc2012,", split, self.SPLITS)
        remedy = (
            f"voc2012 needs the folder that holds JPEGImages, Annotations and ImageSets; get it "
            f"from {self.download_page} and give its path as root."
        )
        super().__init__(self.CLASS_NAMES, [], remedy)
        given = Path(root)
        inner = (given, given / "VOC2012", given / "VOCdevkit" / "VOC2012")
        self.root = next((folder for folder in inner if (folder / "ImageSets").is_dir()), given)
        self.split = split
        official = "train" if split in ("fit", "select") else split
        names = read_names(self.root / "ImageSets" / "Main" / f"{official}.txt", remedy)
        if split in ("fit", "select"):
            names = [name for name in names if (group_part(name) == 0) == (split == "select")]
        masks = {path.stem: path for path in self.root.glob("SegmentationClass/*.png")}
        self.records = [self._record(name, masks.get(name)) for name in names]

    def _record(self, name: str, mask: Path | None) -> Record:
        annotation = self.root / "Annotations" / f"{name}.xml"
        found = read_objects(annotation, self.CLASS_NAMES, self.remedy)
        labels = torch.zeros(len(self.CLASS_NAMES))
        labels[found.classes[found.difficult]] = torch.nan
        labels[found.classes[~found.difficult]] = 1
        return Record(
            self.root / "JPEGImages" / f"{name}.jpg",
            labels,
            found.boxes[~found.difficult],
            found.classes[~found.difficult],
            group=name,
            reference=found.size,
            masks=None if mask is None else partial(read_class_masks, mask),
        )


def read_class_masks(path: Path) -> tuple[Tensor, Tensor]:
    """Masks of a palette image whose colors are 0 for background, then the classes in order.

    Returns:
        (M, H, W) bool, one mask for each class there is, and (M,) int64 classes from 0.

    Raises:
        ImageReadError: the file is missing, damaged, or no such image.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode, indices = image.mode, np.array(image)
    except Exception as error:
        raise ImageReadError(f"{path}: the segmentation cannot be read ({error}).") from error
    colors = np.unique(indices)
    colors = colors[(colors > 0) & (colors != VOID)]
    if mode not in ("P", "L") or (colors > len(VOC2012.CLASS_NAMES)).any():
        raise ImageReadError(
            f"{path} is no segmentation of voc2012: its pixels are palette indices 0 to "
            f"{len(VOC2012.CLASS_NAMES)}, or {VOID} for void; this is an image of mode {mode}."
        )
    masks = indices[None] == colors[:, None, None]
    return torch.from_numpy(masks), torch.from_numpy(colors.astype(np.int64) - 1)
