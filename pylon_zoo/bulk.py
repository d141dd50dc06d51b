"""Prediction of many images: found by any of several sources, resumable, written as they come."""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pylon_zoo.data import Sample, find_images, read_image
from pylon_zoo.errors import (
    ImageReadError,
    InvalidInputError,
    InvalidOptionError,
    MissingExtraError,
)
from pylon_zoo.prediction import Prediction, predict
from pylon_zoo.weights.files import replace_file

if TYPE_CHECKING:
    from pylon_zoo.architectures import LocalizationModel

__all__ = ["PredictionTable", "find_sources", "image_names", "predict_files", "save_maps"]

COLUMNS = ("image", "class", "probability", "x", "y", "inside")
#: Names that the column of image files may have in a list.
PATH_COLUMNS = ("path", "image", "file", "filename", "image_path")


def find_sources(sources: Iterable[str]) -> list[Path]:
    """Image files that are meant by files, folders, glob patterns and CSV lists, each once.

    Args:
        sources: a list (``.csv``) names its files in a column ``path``, ``image``, ``file``,
            ``filename`` or ``image_path``, or else in the first one; relative to the list.

    Raises:
        ImageReadError: a folder or pattern holds no image, or a list cannot be read.
    """
    files: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            files += find_images(path)
        elif path.suffix.lower() == ".csv":
            files += _listed(path)
        elif glob.has_magic(source) and not path.exists():
            found = [Path(name) for name in sorted(glob.glob(source, recursive=True))]  # noqa: PTH207
            if not found:
                raise ImageReadError(f"No file matches the pattern {source!r}.")
            files += [name for name in found if name.is_file()]
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def _listed(path: Path) -> list[Path]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImageReadError(f"{path}: the list of images cannot be read ({error}).") from error
    if not rows:
        raise ImageReadError(f"{path} lists no image; its first line names its columns.")
    names = {name.strip().lower(): name for name in rows[0] if name}
    column = next((names[c] for c in PATH_COLUMNS if c in names), next(iter(rows[0])))
    return [path.parent / row[column] for row in rows if row[column]]


def image_names(files: Sequence[Path]) -> list[str]:
    """A name for each image's own files: its stem, with its folders where stems are not unique."""
    if len({path.stem for path in files}) == len(files):
        return [path.stem for path in files]
    absolute = [path.absolute() for path in files]
    common = Path(os.path.commonpath([path.parent for path in absolute]))
    names = ["_".join(path.relative_to(common).with_suffix("").parts) for path in absolute]
    if len(set(names)) == len(names):
        return names
    # The same place and stem, other suffixes.
    return ["_".join(path.relative_to(common).parts) for path in absolute]


class _Files(Dataset[Any]):
    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample | ImageReadError:
        path = self.files[index]
        try:
            return Sample(image=read_image(path), labels=torch.zeros(0), source=str(path))
        except ImageReadError as error:
            return error


def predict_files(
    model: LocalizationModel,
    files: Sequence[Path],
    *,
    alignment: str = "corners_false",
    workers: int = 0,
) -> Iterator[Prediction | ImageReadError | InvalidInputError]:
    """Predict files in order; for one that cannot be predicted comes its error.

    Args:
        model: a model of the zoo.
        files: see :func:`find_sources`.
        alignment: of the maps, see :func:`pylon_zoo.get_cam`.
        workers: processes that read images while the model computes.
    """
    for sample in DataLoader(_Files(files), batch_size=None, num_workers=workers):
        if isinstance(sample, ImageReadError):
            yield sample
            continue
        try:
            yield predict(model, sample, alignment)
        except InvalidInputError as error:
            yield error


class PredictionTable:
    """``predictions.csv``, a row for each image and class, written image by image.

    Attributes:
        done: images whose rows were there when an earlier table was taken up.
    """

    def __init__(self, folder: Path, run: dict[str, Any], *, resume: bool = False) -> None:
        """Begin a table, or take up the one that is there.

        Args:
            folder: made where it does not exist.
            run: what the predictions depend on, e.g. the model; kept in ``predictions.json``.
            resume: go on with the images that an earlier table lacks.

        Raises:
            InvalidOptionError: the earlier table is of another ``run``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path, described = folder / "predictions.csv", folder / "predictions.json"
        rows: list[list[str]] = []
        if resume and self.path.exists() and described.exists():
            earlier = json.loads(described.read_text(encoding="utf-8"))
            if earlier != run:
                raise InvalidOptionError(
                    f"{self.path} was made with {earlier}, not with {run}; give another output "
                    f"folder, or leave out --resume to start over."
                )
            rows = self._whole_images()
        self.done = {row[0] for row in rows}
        with (
            replace_file(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows([COLUMNS, *rows])
        with replace_file(described) as temporary:
            temporary.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")

    def _whole_images(self) -> list[list[str]]:
        """Rows but for those of an image that a crash cut short: the last one's, if fewer."""
        text = self.path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
        rows = list(csv.reader(text.splitlines()))[1:]
        first = [row for row in rows if row[0] == rows[0][0]] if rows else []
        last = [row for row in rows if row[0] == rows[-1][0]] if rows else []
        return rows[: len(rows) - len(last)] if len(last) < len(first) else rows

    def add(self, prediction: Prediction) -> None:
        """Append an image's findings; they are in the file when this returns."""
        rows = [
            [
                prediction.sample.source,
                finding.class_name,
                f"{finding.probability:.4f}",
                finding.x,
                finding.y,
                {None: "", True: "yes", False: "no"}[finding.inside],
            ]
            for finding in prediction.findings
        ]
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    def write_parquet(self) -> Path:
        """The table once more as ``predictions.parquet``.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        require_pyarrow()
        from pyarrow import csv as arrow_csv
        from pyarrow import parquet

        path = self.path.with_suffix(".parquet")
        with replace_file(path) as temporary:
            parquet.write_table(arrow_csv.read_csv(self.path), temporary)
        return path


def require_pyarrow() -> None:
    """Raise :class:`MissingExtraError` unless pyarrow is installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "Writing Parquet") from error


def save_maps(prediction: Prediction, path: Path) -> None:
    """Write an image's probability maps (K, H, W) as float16, in the classes' own order."""
    order = np.argsort(prediction.classes)
    names = [prediction.findings[position].class_name for position in order]
    maps = prediction.probability_maps.numpy()[order].astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, maps=maps, classes=np.array(names))
