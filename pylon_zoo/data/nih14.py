"""NIH Chest X-ray 14 (Wang et al., CVPR 2017): 112,120 frontal radiographs of 30,805 patients.

Fourteen findings that were read off the radiologists' reports by software, and 984 boxes on 880
of the test images, drawn by a radiologist, of eight of the findings.
"""

from __future__ import annotations

import os
from pathlib import Path

from pylon_zoo.data.files import FileDataset, Record, group_part, make_record, read_rows, read_table
from pylon_zoo.errors import DatasetError, unknown_name

__all__ = ["NIH14"]


class NIH14(FileDataset):
    """Images of NIH Chest X-ray 14; the group of an image is its patient."""

    #: ``train_val`` and ``test`` are the official lists; ``val`` is the patients of ``train_val``
    #: whose number's hash falls into one part of ten, ``train`` the others.
    SPLITS = ("train", "val", "test", "train_val")
    CLASS_NAMES = (
        "Atelectasis",
        "Cardiomegaly",
        "Effusion",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pneumonia",
        "Pneumothorax",
        "Consolidation",
        "Edema",
        "Emphysema",
        "Fibrosis",
        "Pleural_Thickening",
        "Hernia",
    )
    download_page = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
    license = "unrestricted use, with attribution to the NIH Clinical Center"
    #: Side of the released images, in whose pixels boxes are given.
    RELEASED_SIZE = 1024
    TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")

    def __init__(self, root: str | os.PathLike[str], split: str = "train") -> None:
        """Read the tables and lists.

        Args:
            root: the folder that holds ``Data_Entry_2017_v2020.csv`` (or ``Data_Entry_2017.csv``),
                ``BBox_List_2017.csv``, ``train_val_list.txt``, ``test_list.txt``, and the images in
                ``images/`` or as they are unpacked, in ``images_001/images/`` and so on. Images may
                have been resized; boxes follow.
            split: one of :attr:`SPLITS`.

        Raises:
            UnknownNameError: no such split.
            DatasetError: files are missing or damaged; says which and where to get them.
        """
        if split not in self.SPLITS:
            raise unknown_name("split of nih14,", split, self.SPLITS)
        self.root, self.split = Path(root), split
        remedy = (
            f"nih14 needs the folder of the official release; get it from {self.download_page} "
            f"and give its path as root."
        )
        super().__init__(self.CLASS_NAMES, [], remedy)
        name = next((n for n in self.TABLES if (self.root / n).is_file()), self.TABLES[0])
        table = self.root / name
        rows = {
            row["Image Index"]: row
            for row in read_table(table, ("Image Index", "Finding Labels", "Patient ID"), remedy)
        }
        boxes = self._boxes()
        folders = self._folders()
        for image in self._list():
            if image not in rows:
                raise DatasetError(f"{table} has no row for {image} of the list. {remedy}")
            self.records += self._record(image, rows[image], boxes.get(image, []), folders, table)

    def _record(
        self,
        image: str,
        row: dict[str, str],
        boxes: list[tuple[int, list[float]]],
        folders: dict[str, Path],
        table: Path,
    ) -> list[Record]:
        """The image's record, where it is of the split."""
        patient = row["Patient ID"]
        if self.split in ("train", "val") and (group_part(patient) == 0) != (self.split == "val"):
            return []
        labels = [0.0] * len(self.CLASS_NAMES)
        for finding in row["Finding Labels"].split("|"):
            if finding != "No Finding":
                labels[self._class(finding, table)] = 1.0
        path = folders.get(image, self.root / "images" / image)
        side = self.RELEASED_SIZE
        return [make_record(path, labels, boxes, patient, (side, side))]

    def _class(self, finding: str, table: Path) -> int:
        # The table of boxes has a word of its own for it.
        finding = "Infiltration" if finding == "Infiltrate" else finding
        if finding not in self.CLASS_NAMES:
            raise DatasetError(f"{table}: {finding!r} is no finding of nih14. {self.remedy}")
        return self.CLASS_NAMES.index(finding)

    def _boxes(self) -> dict[str, list[tuple[int, list[float]]]]:
        table = self.root / "BBox_List_2017.csv"
        found: dict[str, list[tuple[int, list[float]]]] = {}
        # The header names four numbers in one column and leaves three columns without a name.
        for row in read_rows(table, self.remedy)[1:]:
            try:
                image, finding = row[:2]
                x, y, width, height = (float(number) for number in row[2:6])
            except ValueError:
                raise DatasetError(f"{table}: a row is damaged: {row}.") from None
            box = [x, y, x + width, y + height]
            found.setdefault(image, []).append((self._class(finding, table), box))
        return found

    def _list(self) -> list[str]:
        path = self.root / ("test_list.txt" if self.split == "test" else "train_val_list.txt")
        try:
            return path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{path} cannot be read ({error}). {self.remedy}") from error

    def _folders(self) -> dict[str, Path]:
        """Where each image is that is not in ``images/``."""
        return {
            path.name: path
            for folder in sorted(self.root.glob("images_*"))
            for path in folder.rglob("*.png")
        }
