"""One's own images, listed in a CSV file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pylon_zoo.data.files import is_file, make_record, read_table
from pylon_zoo.data.own import OwnDataset, parse_box, parse_label, split_of
from pylon_zoo.errors import DatasetError

__all__ = ["CSVTable"]

PATH_COLUMNS = ("path", "image", "image_path", "file", "filename", "file_name", "image index")
GROUP_COLUMNS = ("patient", "patient_id", "patient id", "subject", "subject_id", "group")
LABEL_COLUMNS = ("label", "labels", "finding labels", "findings")
CLASS_COLUMNS = ("class", "class_name", "label", "finding", "finding label")
#: Columns of a box, and whether the last two are its sides.
BOX_COLUMNS = (
    (("x0", "y0", "x1", "y1"), False),
    (("xmin", "ymin", "xmax", "ymax"), False),
    (("x_min", "y_min", "x_max", "y_max"), False),
    (("x", "y", "w", "h"), True),
    (("x", "y", "width", "height"), True),
)
NO_FINDING = ("no finding", "normal")
REMEDY = (
    "The csv dataset needs a CSV file, or a folder with labels.csv: a column 'path' (relative to "
    "the file or to images/ beside it), and either one column per class with 1, 0 or nothing, or "
    "a column 'label' with names separated by |; optional columns 'patient' and 'split' (train, "
    "val, test); optional boxes.csv with path, class, x0, y0, x1, y1 in pixels."
)


class CSVTable(OwnDataset):
    """Images and labels of a CSV file, and boxes of another.

    Columns are found by their usual names, in any case: see the constants of this module. Labels
    that are blank, -1 or NaN are unknown: neither trained on nor measured.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "all",
        *,
        class_names: Sequence[str] | None = None,
        boxes: str | os.PathLike[str] | None = None,
    ) -> None:
        """Read the tables.

        Args:
            root: the CSV file, or a folder with ``labels.csv``.
            split: ``train``, ``val``, ``test`` or ``all``; see :class:`OwnDataset`.
            class_names: None takes every column that is not the path, patient or split, or every
                name that occurs in the label column.
            boxes: the table of boxes; None takes ``boxes.csv`` beside the first one if it exists.

        Raises:
            UnknownNameError: no such split.
            DatasetError: a file is missing, or says what is not understood; names the row.
        """
        table = Path(root)
        table = table / "labels.csv" if table.is_dir() else table
        folder = table.parent
        rows = read_table(table, (), REMEDY)
        if not rows:
            raise DatasetError(f"{table} has a header but no row. {REMEDY}")
        path_column = _column(rows[0], PATH_COLUMNS)
        if path_column is None:
            raise DatasetError(f"{table} has no column 'path'; it has {list(rows[0])}. {REMEDY}")
        group_column = _column(rows[0], GROUP_COLUMNS)
        split_column = _column(rows[0], ("split",))
        label_column = _column(rows[0], LABEL_COLUMNS)
        taken = (path_column, group_column, split_column)
        if class_names is not None:
            names = tuple(class_names)
        elif label_column is not None:
            found = {name for row in rows for name in _findings(row[label_column])}
            names = tuple(sorted(n for n in found if n.lower() not in NO_FINDING))
        else:
            names = tuple(column for column in rows[0] if column not in taken)

        table_of_boxes = folder / "boxes.csv" if boxes is None else Path(boxes)
        marked = (
            _boxes(table_of_boxes, names) if boxes is not None or table_of_boxes.is_file() else {}
        )
        records, given = [], []
        for number, row in enumerate(rows, start=2):
            where = f"{table}, row {number}"
            image = row[path_column].strip()
            if label_column is not None and not set(names) <= set(row):
                labels = _listed(row[label_column], names, where)
            else:
                labels = [_cell(row, name, where) for name in names]
            group = row[group_column].strip() if group_column else ""
            records.append(
                make_record(_locate(folder, image), labels, marked.pop(image, ()), group or image)
            )
            word = split_of(row[split_column]) if split_column else None
            if split_column and word is None:
                raise DatasetError(
                    f"{where}: a split is train, val or test; got {row[split_column]!r}."
                )
            given.append(word)
        if marked:
            raise DatasetError(
                f"{table_of_boxes} has boxes of {next(iter(marked))!r}, which {table} lists not "
                f"at all or twice."
            )
        super().__init__(names, records, given, split, REMEDY)


def _column(row: dict[str, str], known: Sequence[str]) -> str | None:
    by_name = {column.strip().lower(): column for column in row}
    return next((by_name[name] for name in known if name in by_name), None)


def _findings(cell: str) -> list[str]:
    return [name for part in re.split(r"[|;,]", cell) if (name := part.strip())]


def _listed(cell: str, names: Sequence[str], where: str) -> list[float]:
    """Labels of a cell that names the classes present; blank: all unknown."""
    findings = _findings(cell)
    for name in findings:
        if name not in names and name.lower() not in NO_FINDING:
            raise DatasetError(f"{where}: {name!r} is none of the classes {list(names)}.")
    if not findings:
        return [float("nan")] * len(names)
    return [float(name in findings) for name in names]


def _cell(row: dict[str, str], name: str, where: str) -> float:
    if name not in row:
        raise DatasetError(f"{where}: there is no column {name!r}; there are {list(row)}.")
    label = parse_label(row[name])
    if label is None:
        raise DatasetError(
            f"{where}: {name!r} is {row[name]!r}; a label is 1, 0, or blank, -1 or NaN for "
            f"unknown. Where the column is no class, remove it or give class_names."
        )
    return label


def _locate(folder: Path, image: str) -> Path:
    inner = folder / "images" / image
    return inner if is_file(inner) else folder / image


def _boxes(table: Path, names: Sequence[str]) -> dict[str, list[tuple[int, list[float]]]]:
    found: dict[str, list[tuple[int, list[float]]]] = {}
    for number, row in enumerate(read_table(table, (), REMEDY), start=2):
        where = f"{table}, row {number}"
        image, kind = _column(row, PATH_COLUMNS), _column(row, CLASS_COLUMNS)
        corners = next(
            (
                ([str(_column(row, (name,))) for name in wanted], sides)
                for wanted, sides in BOX_COLUMNS
                if all(_column(row, (name,)) for name in wanted)
            ),
            None,
        )
        if image is None or kind is None or corners is None:
            raise DatasetError(
                f"{table} needs the columns path, class, x0, y0, x1, y1; it has {list(row)}."
            )
        if row[kind].strip() not in names:
            raise DatasetError(f"{where}: {row[kind]!r} is none of the classes {list(names)}.")
        columns, sides = corners
        box = parse_box([row[column] for column in columns], where, sides=sides)
        found.setdefault(row[image].strip(), []).append((names.index(row[kind].strip()), box))
    return found
