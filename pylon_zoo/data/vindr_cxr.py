"""VinDr-CXR (Nguyen et al., Scientific Data 2022): 18,000 radiographs read by radiologists.

Three radiologists read each of the 15,000 training images by themselves and drew boxes; five came
to one reading of each of the 3,000 test images.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from pylon_zoo.data.dicom import DICOM_SUFFIXES
from pylon_zoo.data.files import FileDataset, group_part, make_record, read_table
from pylon_zoo.data.own import parse_box, parse_label
from pylon_zoo.data.readers import IMAGE_SUFFIXES
from pylon_zoo.errors import DatasetError, InvalidOptionError, unknown_name

__all__ = ["VinDrCXR"]

#: Findings that the release on PhysioNet has a class for and the competition on Kaggle has not.
OTHER_LESIONS = (
    "Clavicle fracture",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Rib fracture",
)
#: Diseases that the release on PhysioNet says of whole images; they are left out.
DISEASES = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "Other disease")
NO_FINDING = "No finding"

Box = tuple[int, list[float]]


class VinDrCXR(FileDataset):
    """Images of VinDr-CXR; the group of an image is itself, since patients are not told.

    The classes are those of the competition: 14 findings and ``No finding``. An image has a class
    if any of its readers said so, and the boxes of all readers, unmerged (Preechakul et al., arXiv
    2010.11475). Findings that only PhysioNet's release tells apart count as ``Other lesion``,
    which is this package's choice. ``No finding`` is nowhere: of tiles it says nothing.
    """

    #: ``test`` is the official one, whose labels are in the release on PhysioNet only;
    #: ``official_train`` is all official training images, and the other three a partition of it by
    #: the hash of the image's name: see :attr:`PARTS`.
    SPLITS = ("train", "val", "held_out", "test", "official_train")
    #: Percentages of ``train``, ``val`` and ``held_out``, by the first: the three that the PYLON
    #: paper's authors divided the training images into, at random; the images are not theirs. The
    #: smaller ``train`` is part of the larger, the smaller ``held_out`` too.
    PARTS = ((70, 10, 20), (50, 20, 30), (10, 20, 70))
    CLASS_NAMES = (
        "Aortic enlargement",
        "Atelectasis",
        "Calcification",
        "Cardiomegaly",
        "Consolidation",
        "ILD",
        "Infiltration",
        "Lung Opacity",
        "Nodule/Mass",
        "Other lesion",
        "Pleural effusion",
        "Pleural thickening",
        "Pneumothorax",
        "Pulmonary fibrosis",
        NO_FINDING,
    )
    download_page = "https://physionet.org/content/vindr-cxr/"
    license = "PhysioNet Credentialed Health Data License 1.5.0"

    def __init__(
        self, root: str | os.PathLike[str], split: str = "train", *, train_percent: int = 70
    ) -> None:
        """Read the tables.

        Args:
            root: the folder of the release on PhysioNet, with ``annotations/``, ``train/`` and
                ``test/``, or of the competition on Kaggle, with ``train.csv`` and ``train/``.
                Images are DICOM, or copies of another format and the same stem. Boxes are in
                pixels of the DICOM images; to follow copies, which are usually resized, they need
                ``train_meta.csv`` (``test_meta.csv``) in ``root``, with ``image_id``, ``dim0``
                (height) and ``dim1`` (width) of the originals.
            split: one of :attr:`SPLITS`.
            train_percent: of the training images that are ``train``; the first of a row of
                :attr:`PARTS`.

        Raises:
            UnknownNameError: no such split.
            InvalidOptionError: no such ``train_percent``.
            DatasetError: files are missing or damaged, or a copy's original size is not known;
                says which and what to do.
        """
        if split not in self.SPLITS:
            raise unknown_name("split of vindr_cxr,", split, self.SPLITS)
        parts = {part[0]: part for part in self.PARTS}
        if train_percent not in parts:
            raise InvalidOptionError(
                f"train_percent is one of {', '.join(map(str, parts))}; got {train_percent}."
            )
        self.root, self.split = Path(root), split
        remedy = (
            f"vindr_cxr needs the folder of the release, with annotations/ or train.csv; get it "
            f"from {self.download_page} or "
            f"https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection and give its "
            f"path as root."
        )
        super().__init__(self.CLASS_NAMES, [], remedy)
        self._folder = "test" if split == "test" else "train"
        train, val, _ = parts[train_percent]
        labels, boxes = self._physionet() if self.is_physionet(root) else self._kaggle()
        images, sizes = self._images(), self._sizes()
        unknown = []
        for image, own in labels.items():
            if self._is_of_split(group_part(image, 100), train, val):
                path = images.get(image, self.root / self._folder / f"{image}.dicom")
                original = None
                if path.suffix.lower() not in DICOM_SUFFIXES:
                    original = sizes.get(image)
                    if image in boxes and original is None:
                        unknown.append(path)
                self.records.append(make_record(path, own, boxes.get(image, ()), image, original))
        if unknown:
            raise DatasetError(
                f"The boxes of {len(unknown)} images, first {unknown[0]}, are in pixels of their "
                f"DICOM originals, whose size is not known. Put {self._folder}_meta.csv with the "
                f"columns image_id, dim0 (height) and dim1 (width) of the originals into "
                f"{self.root}, or use the DICOM images."
            )

    @staticmethod
    def is_physionet(root: str | os.PathLike[str]) -> bool:
        """Whether the folder is the release on PhysioNet, whose test images have labels."""
        return (Path(root) / "annotations").is_dir()

    def _is_of_split(self, part: int, train: int, val: int) -> bool:
        own = "train" if part < train else "val" if part < train + val else "held_out"
        return self.split in (own, "test", "official_train")

    def _physionet(self) -> tuple[dict[str, list[float]], dict[str, list[Box]]]:
        folder = self.root / "annotations"
        table = folder / f"image_labels_{self._folder}.csv"
        columns = ("image_id", *self.CLASS_NAMES)
        labels: dict[str, list[float]] = {}
        for number, row in enumerate(read_table(table, columns, self.remedy), start=2):
            own = labels.setdefault(row["image_id"], [0.0] * len(self.CLASS_NAMES))
            for name, word in row.items():
                if name in self.CLASS_NAMES or name in OTHER_LESIONS:
                    label = parse_label(word)
                    if label is None:
                        raise DatasetError(
                            f"{table}, row {number}: {name!r} is {word!r}; a label is 1, 0, or "
                            f"blank, -1 or NaN for unknown."
                        )
                    k = self._class(name, table)
                    # One reader's yes outweighs another's silence, and that another's no.
                    own[k] = 1.0 if 1.0 in (own[k], label) else own[k] + label
        table = folder / f"annotations_{self._folder}.csv"
        _, boxes = self._annotations(table)
        strays = sorted(boxes.keys() - labels.keys())
        if strays:
            raise DatasetError(f"{table}: {strays[0]} has boxes, but no row of labels.")
        return labels, boxes

    def _kaggle(self) -> tuple[dict[str, list[float]], dict[str, list[Box]]]:
        if self.split == "test":
            raise DatasetError(
                f"The competition's test images have no labels; measure on held_out, or get the "
                f"release on PhysioNet ({self.download_page})."
            )
        said, boxes = self._annotations(self.root / "train.csv")
        classes = range(len(self.CLASS_NAMES))
        return {image: [float(k in own) for k in classes] for image, own in said.items()}, boxes

    def _annotations(self, table: Path) -> tuple[dict[str, set[int]], dict[str, list[Box]]]:
        """The classes that each image is said to have, and its boxes."""
        corners = ("x_min", "y_min", "x_max", "y_max")
        said: defaultdict[str, set[int]] = defaultdict(set)
        boxes: defaultdict[str, list[Box]] = defaultdict(list)
        rows = read_table(table, ("image_id", "class_name", *corners), self.remedy)
        for number, row in enumerate(rows, start=2):
            image, name = row["image_id"], row["class_name"]
            if name in DISEASES:
                continue
            k = self._class(name, table)
            said[image].add(k)
            if name != NO_FINDING:
                box = parse_box([row[c] for c in corners], f"{table}, row {number}")
                boxes[image].append((k, box))
        return said, boxes

    def _class(self, name: str, table: Path) -> int:
        name = "Other lesion" if name in OTHER_LESIONS else name
        if name not in self.CLASS_NAMES:
            raise DatasetError(f"{table}: {name!r} is no class of vindr_cxr. {self.remedy}")
        return self.CLASS_NAMES.index(name)

    def _images(self) -> dict[str, Path]:
        """Each image's file by its stem; the DICOM one where there are several."""
        folder = self.root / self._folder
        paths = [p for p in folder.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES]
        paths.sort(key=lambda path: path.suffix.lower() in DICOM_SUFFIXES)
        return {path.stem: path for path in paths}

    def _sizes(self) -> dict[str, tuple[int, int]]:
        """(width, height) of originals, as far as they are known."""
        table = self.root / f"{self._folder}_meta.csv"
        if not table.is_file():
            return {}
        sizes = {}
        for row in read_table(table, ("image_id", "dim0", "dim1"), self.remedy):
            try:
                height, width = int(row["dim0"]), int(row["dim1"])
            except ValueError:
                height = width = 0
            if min(height, width) < 1:
                raise DatasetError(f"{table}: {row} has no height and width in pixels.")
            sizes[row["image_id"]] = (width, height)
        return sizes
