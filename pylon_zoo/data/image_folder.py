"""One's own images, sorted into a folder for each class."""

from __future__ import annotations

import os
from pathlib import Path

from pylon_zoo.data.files import make_record
from pylon_zoo.data.own import OwnDataset, split_of
from pylon_zoo.data.readers import IMAGE_SUFFIXES
from pylon_zoo.errors import DatasetError

__all__ = ["ImageFolder"]

REMEDY = (
    "The image_folder dataset needs a folder with one folder of images for each class, or with "
    "train/, val/ and test/ that each hold these."
)


class ImageFolder(OwnDataset):
    """``root/{class}/image.png`` or ``root/{split}/{class}/image.png``; one class an image."""

    def __init__(self, root: str | os.PathLike[str], split: str = "all") -> None:
        """List the images.

        Args:
            root: the folder.
            split: ``train``, ``val``, ``test`` or ``all``; see :class:`OwnDataset`.

        Raises:
            UnknownNameError: no such split.
            DatasetError: there is no such folder, or it holds no class folder.
        """
        top = _folders(Path(root))
        words = [split_of(folder.name) for folder in top]
        if top and all(words):
            found = [
                (word, inner)
                for word, folder in zip(words, top, strict=True)
                for inner in _folders(folder)
            ]
        else:
            found = [(None, folder) for folder in top]
        names = tuple(sorted({folder.name for _, folder in found}))
        records, given = [], []
        for word, folder in found:
            labels = [float(name == folder.name) for name in names]
            for path in sorted(folder.rglob("*")):
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    records.append(make_record(path, labels, group=path.name))
                    given.append(word)
        super().__init__(names, records, given, split, REMEDY)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read ({error.strerror}). {REMEDY}") from error
