"""Prediction of many images: found by any of several sources, shared out, resumable.

Under ``accelerate launch`` or ``torchrun`` process r of N takes every N-th image from r on and
writes ``predictions.part{r}.csv``. Whole images of whatever parts there are, those of killed
processes included, become ``predictions.csv`` at the end or when the run is resumed.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pylon_zoo.data import Sample, count_frames, find_images, read_image
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

__all__ = [
    "Frame",
    "PredictionTable",
    "Processes",
    "find_frames",
    "find_sources",
    "image_names",
    "predict_files",
    "save_maps",
]

COLUMNS = ("image", "class", "probability", "x", "y", "inside")
#: Names that the column of image files may have in a list.
PATH_COLUMNS = ("path", "image", "file", "filename", "image_path")


@dataclass(frozen=True)
class Frame:
    """One image of a file.

    Attributes:
        path: the file.
        index: of its frame, from 0.
        marked: whether the index is part of its name.
    """

    path: Path
    index: int = 0
    marked: bool = False

    @property
    def source(self) -> str:
        """Its name in tables: the path, and where ``marked`` ``#`` and the index."""
        return f"{self.path}#{self.index}" if self.marked else str(self.path)


@dataclass
class Processes:
    """The processes that share the work, of which this is one.

    Attributes:
        rank: of this one, from 0; 0 writes what is common to all.
        count: of all.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[Processes]:
        """All that ``accelerate launch`` or ``torchrun`` started, or this one alone."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            yield cls()
            return
        from torch import distributed

        # One process may wait long for another's last images.
        distributed.init_process_group("gloo", timeout=timedelta(days=30))
        try:
            yield cls(distributed.get_rank(), count)
        finally:
            distributed.destroy_process_group()

    def tell(self, value: Any) -> Any:
        """What the first process gives; all others wait for it."""
        if self.count == 1:
            return value
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, items: list[Any]) -> list[Any]:
        """Everybody's items, once all have come here."""
        if self.count == 1:
            return items
        from torch import distributed

        everything: list[Any] = [None] * self.count
        distributed.all_gather_object(everything, items)
        return [item for part in everything for item in part]


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


def find_frames(sources: Iterable[str], frames: str = "0") -> list[Frame]:
    """The images that files, folders, patterns and lists mean; see :func:`find_sources`.

    Args:
        sources: see there.
        frames: the index from 0 of the frame to take of every file, or ``"all"``.

    Raises:
        ImageReadError: see there.
        InvalidOptionError: ``frames`` is neither.
    """
    files = find_sources(sources)
    if frames.isdecimal():
        return [Frame(path, int(frames)) for path in files]
    if frames != "all":
        raise InvalidOptionError(f"frames is an index from 0, or 'all'; got {frames!r}.")
    counts = [(path, count_frames(path)) for path in files]
    return [Frame(path, i, marked=count > 1) for path, count in counts for i in range(count)]


def image_names(frames: Sequence[Frame]) -> list[str]:
    """A name for each image's own files: its stem, with its folders where stems are not unique.

    The suffix belongs to it where it tells files apart; so does the index of a marked frame.
    """
    files = list(dict.fromkeys(frame.path for frame in frames))
    absolute = [path.absolute() for path in files]
    common = Path(os.path.commonpath([path.parent for path in absolute] or [Path()]))
    inner = [path.relative_to(common) if path.is_relative_to(common) else path for path in absolute]
    for names in (
        [path.stem for path in files],
        ["_".join(path.with_suffix("").parts) for path in inner],
        ["_".join(path.parts) for path in inner],
    ):
        if len(set(names)) == len(names):
            break
    of = dict(zip(files, names, strict=True))
    return [of[f.path] + (f"_{f.index}" if f.marked else "") for f in frames]


class _Frames(Dataset[Any]):
    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample | ImageReadError:
        frame = self.frames[index]
        try:
            image = read_image(frame.path, frame.index)
        except ImageReadError as error:
            return error
        return Sample(image=image, labels=torch.zeros(0), source=frame.source)


def predict_files(
    model: LocalizationModel,
    frames: Sequence[Frame],
    *,
    alignment: str = "corners_false",
    workers: int = 0,
) -> Iterator[Prediction | ImageReadError | InvalidInputError]:
    """Predict images in order; for one that cannot be predicted comes its error.

    Args:
        model: a model of the zoo.
        frames: see :func:`find_frames`.
        alignment: of the maps, see :func:`pylon_zoo.get_cam`.
        workers: processes that read images while the model computes.
    """
    for sample in DataLoader(_Frames(frames), batch_size=None, num_workers=workers):
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

    def __init__(
        self,
        folder: Path,
        run: dict[str, Any],
        *,
        classes: int,
        resume: bool = False,
        processes: Processes | None = None,
    ) -> None:
        """Begin a table, or take up the one that is there, with its parts.

        Args:
            folder: made where it does not exist; all processes must see it.
            run: what the predictions depend on, e.g. the model; kept in ``predictions.json``.
            classes: rows of each image.
            resume: go on with the images that an earlier table lacks.
            processes: that fill it together; None for this one alone.

        Raises:
            InvalidOptionError: the earlier table is of another ``run``.
        """
        self.path, self.classes = folder / "predictions.csv", classes
        self.processes = processes or Processes()
        done = self._begin(run, resume) if self.processes.rank == 0 else None
        self.done: set[str] = self.processes.tell(done)
        several = self.processes.count > 1
        self._own = self._part(str(self.processes.rank)) if several else self.path

    def _begin(self, run: dict[str, Any], resume: bool) -> set[str]:
        described = self.path.with_suffix(".json")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if resume and described.exists():
            earlier = json.loads(described.read_text(encoding="utf-8"))
            if earlier != run:
                raise InvalidOptionError(
                    f"{self.path} was made with {earlier}, not with {run}; give another output "
                    f"folder, or leave out --resume to start over."
                )
        else:
            for path in self._files():
                path.unlink()
        with replace_file(described) as temporary:
            temporary.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        return self._merge({})

    def _part(self, name: str) -> Path:
        return self.path.with_suffix(f".part{name}.csv")

    def _files(self) -> list[Path]:
        """The table and its parts, as far as they exist."""
        parts = sorted(self.path.parent.glob(self._part("*").name))
        return ([self.path] if self.path.exists() else []) + parts

    def _merge(self, place: dict[str, int]) -> set[str]:
        """Put the whole images of all parts into one table, each once; return their names."""
        files = self._files()
        images: dict[str, list[list[str]]] = {}
        for path in files:
            rows: dict[str, list[list[str]]] = {}
            # What follows the last line's end is half a row.
            with path.open(newline="", encoding="utf-8") as file:
                text = io.StringIO(file.read().rpartition("\n")[0], newline="")
            for row in csv.reader(text):
                rows.setdefault(row[0], []).append(row)
            rows.pop(COLUMNS[0], None)
            images = {k: v for k, v in rows.items() if len(v) == self.classes} | images
        with (
            replace_file(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for name in sorted(images, key=lambda name: place.get(name, -1)):
                writer.writerows(images[name])
        # A crash before this leaves copies, which count once.
        for path in files:
            if path != self.path:
                path.unlink()
        return set(images)

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
        with self._own.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)

    def finish(self, order: Sequence[str]) -> None:
        """Make one table of all parts, images in this order; to be called when all are done."""
        if self.processes.rank == 0:
            self._merge({name: number for number, name in enumerate(order)})

    def read(self) -> list[dict[str, Any]]:
        """The rows of the table, numbers as numbers and ``inside`` as True, False or None."""
        kinds: tuple[Any, ...] = (str, str, float, int, int, {"yes": True, "no": False}.get)
        with self.path.open(newline="", encoding="utf-8") as file:
            return [
                {name: kind(row[name]) for name, kind in zip(COLUMNS, kinds, strict=True)}
                for row in csv.DictReader(file)
            ]

    def write_parquet(self) -> Path:
        """The table once more as ``predictions.parquet``, ``inside`` as true, false or null.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        require_pyarrow()
        import pyarrow
        from pyarrow import csv as arrow_csv
        from pyarrow import parquet

        text, number = pyarrow.string(), pyarrow.int64()
        types = (text, text, pyarrow.float64(), number, number, pyarrow.bool_())
        options = arrow_csv.ConvertOptions(
            column_types=dict(zip(COLUMNS, types, strict=True)),
            true_values=["yes"],
            false_values=["no"],
        )
        path = self.path.with_suffix(".parquet")
        with replace_file(path) as temporary:
            table = arrow_csv.read_csv(self.path, convert_options=options)
            parquet.write_table(table, temporary)
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
