"""CheXlocalize (Saporta et al., Nature Machine Intelligence 2022): masks of ten findings.

Two radiologists drew them on the 234 validation and 668 test images of CheXpert (Irvin et al.,
AAAI 2019), wherever these have the finding.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pylon_zoo.data.files import FileDataset, Record, read_table
from pylon_zoo.data.own import parse_label
from pylon_zoo.data.rle import Runs, decode_runs, mask_of_runs
from pylon_zoo.errors import DatasetError, unknown_name

__all__ = ["CheXlocalize"]

#: Names that files use for the findings, beside their own.
ALIASES = {"Airspace Opacity": "Lung Opacity"}

#: (height, width), and the class and runs of each mask that is not empty.
Drawn = tuple[tuple[int, int], list[tuple[int, Runs]]]


class CheXlocalize(FileDataset):
    """Images of CheXpert with masks; the group of an image is its patient.

    Labels that are blank (not mentioned) or -1 (uncertain), both of which only the training images
    have, are unknown.
    """

    #: ``val`` and ``test`` are CheXpert's, with masks. ``train`` is CheXpert's, without any, and
    #: there only where it was put beside them.
    SPLITS = ("train", "val", "test")
    CLASS_NAMES = (
        "Enlarged Cardiomediastinum",
        "Cardiomegaly",
        "Lung Opacity",
        "Lung Lesion",
        "Edema",
        "Consolidation",
        "Atelectasis",
        "Pneumothorax",
        "Pleural Effusion",
        "Support Devices",
    )
    download_page = (
        "https://stanfordaimi.azurewebsites.net/datasets/23c56a0d-15de-405b-87c8-99c30138950c"
    )
    license = "Stanford University Dataset Research Use Agreement"

    def __init__(self, root: str | os.PathLike[str], split: str = "val") -> None:
        """Read labels and masks.

        Args:
            root: the folder that holds ``CheXpert/val_labels.csv``, ``CheXpert/val/``,
                ``CheXlocalize/gt_segmentations_val.json`` and the same of ``test``; for the split
                ``train`` also ``CheXpert/train.csv`` and ``CheXpert/train/``. Images may have been
                resized; masks follow.
            split: one of :attr:`SPLITS`.

        Raises:
            UnknownNameError: no such split.
            DatasetError: files are missing or damaged; says which and where to get them.
        """
        if split not in self.SPLITS:
            raise unknown_name("split of chexlocalize,", split, self.SPLITS)
        self.root, self.split = Path(root), split
        remedy = (
            f"chexlocalize needs the folder that holds CheXpert and CheXlocalize; get them from "
            f"{self.download_page} and give its path as root."
        )
        if split == "train":
            remedy += " CheXpert's training images are a release of their own."
        super().__init__(self.CLASS_NAMES, [], remedy)
        name = "train.csv" if split == "train" else f"{split}_labels.csv"
        table = self.root / "CheXpert" / name
        masks = {} if split == "train" else self._masks()
        for number, row in enumerate(read_table(table, ("Path",), remedy), start=2):
            self.records.append(self._record(row, masks, f"{table}, row {number}"))
        if masks:
            raise DatasetError(f"{table} has no row for {next(iter(masks))}, which has masks.")

    @staticmethod
    def has_training_images(root: str | os.PathLike[str]) -> bool:
        """Whether CheXpert's training images were put beside those with masks."""
        return (Path(root) / "CheXpert" / "train.csv").is_file()

    def _record(
        self,
        row: dict[str, str],
        masks: dict[str, Drawn],
        where: str,
    ) -> Record:
        # .../patient64541/study1/view1_frontal.jpg; what comes before differs between the tables.
        parts = Path(row["Path"]).parts[-3:]
        if len(parts) != 3:
            raise DatasetError(f"{where}: {row['Path']!r} is no path of an image of CheXpert.")
        names = {ALIASES.get(column, column): column for column in row}
        labels = []
        for name in self.CLASS_NAMES:
            label = parse_label(row[names[name]]) if name in names else None
            if label is None:
                raise DatasetError(f"{where}: there is no label 1, 0, -1 or blank for {name!r}.")
            labels.append(label)
        drawn = masks.pop("_".join(parts).rpartition(".")[0], None)
        return Record(
            self.root / "CheXpert" / self.split / Path(*parts),
            torch.tensor(labels, dtype=torch.float32),
            group=parts[0],
            masks=None if drawn is None or not drawn[1] else partial(_draw, *drawn),
        )

    def _masks(self) -> dict[str, Drawn]:
        """What is drawn in each image."""
        path = self.root / "CheXlocalize" / f"gt_segmentations_{self.split}.json"
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DatasetError(
                f"{path} cannot be read ({error.strerror}). {self.remedy}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path} is no JSON file ({error}). {self.remedy}") from error
        if not isinstance(content, dict):
            raise DatasetError(f"{path} does not map images to masks. {self.remedy}")
        return {image: _parse(masks, f"{path}, {image}") for image, masks in content.items()}


def _parse(masks: Any, where: str) -> Drawn:
    drawn, sizes = [], set()
    try:
        for finding, mask in masks.items():
            kind = CheXlocalize.CLASS_NAMES.index(ALIASES.get(finding, finding))
            height, width = (int(side) for side in mask["size"])
            runs = decode_runs(mask["counts"], height, width)
            sizes.add((height, width))
            if runs[1::2].any():
                drawn.append((kind, runs))
        (size,) = sizes
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{where}: the masks are damaged ({type(error).__name__}: {error})."
        ) from error
    return size, drawn


def _draw(size: tuple[int, int], drawn: list[tuple[int, Runs]]) -> tuple[Tensor, Tensor]:
    masks = torch.stack([mask_of_runs(runs, *size) for _, runs in drawn])
    return masks, torch.tensor([kind for kind, _ in drawn])
