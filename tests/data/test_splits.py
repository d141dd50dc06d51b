"""Which image is in which split: the command, and the committed lists of the benchmark's data."""

import csv
from pathlib import Path

import fake_chexlocalize
import fake_nih14
import fake_own
import pytest

from pylon_zoo.cli import main as cli
from pylon_zoo.data import NIH14, TASKS, open_task
from pylon_zoo.data.splits import SplitRow, split_rows
from pylon_zoo.errors import DatasetError

LISTS = Path(__file__).resolve().parents[2] / "benchmarks" / "splits"
COMMITTED = {"bccd": {"fit", "select", "val"}, "nih14": {"train", "val", "test"}}


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["data", "splits", *map(str, arguments)])
    assert not stopped.value.code


def read(path: Path) -> list[SplitRow]:
    with path.open(newline="", encoding="utf-8") as file:
        return [SplitRow(**row) for row in csv.DictReader(file)]


def test_every_image_is_listed_with_its_patient(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fake_nih14.write(tmp_path / "nih14", folders=True)
    run("nih14", root)
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "image,split,group"
    assert lines == sorted(lines)
    rows = {row.image: row for row in split_rows(open_task("nih14", str(root)))}
    assert lines == [f"{row.image},{row.split},{row.group}" for row in rows.values()]
    assert {name: row.group for name, row in rows.items()} == {
        name: str(patient) for name, _, patient in fake_nih14.IMAGES
    }
    for split in ("train", "val", "test"):
        names = {record.path.name for record in NIH14(root, split).records}
        assert names == {name for name, row in rows.items() if row.split == split}

    run("nih14", root, "--output", tmp_path / "splits.csv")
    assert read(tmp_path / "splits.csv") == list(rows.values())


def test_names_that_two_images_have_are_told_apart(tmp_path: Path) -> None:
    root = fake_chexlocalize.write(tmp_path / "chexlocalize")
    rows = split_rows(open_task("chexlocalize", str(root)))
    assert len({row.image for row in rows}) == len(rows)
    assert len({Path(row.image).name for row in rows}) < len(rows)
    assert all("/" in row.image and not Path(row.image).is_absolute() for row in rows)
    # One's own data, where names do.
    own = fake_own.csv_table(tmp_path / "own")
    assert all("/" not in row.image for row in split_rows(open_task("csv", str(own))))


def test_a_damaged_list_is_no_missing_one(tmp_path: Path) -> None:
    root = fake_nih14.write(tmp_path / "nih14")
    (root / "test_list.txt").unlink()
    assert {row.split for row in split_rows(open_task("nih14", str(root)))} == {"train", "val"}
    (root / "test_list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match="test_list"):
        split_rows(open_task("nih14", str(root)))


@pytest.mark.parametrize("name", COMMITTED)
def test_no_image_and_no_patient_straddles_the_committed_splits(name: str) -> None:
    rows = read(LISTS / f"{name}.csv")
    assert {row.split for row in rows} == COMMITTED[name]
    assert {row.split for row in rows} <= set(TASKS[name].partition)
    assert rows == sorted(rows)
    assert len({row.image for row in rows}) == len(rows)
    splits_of: dict[str, set[str]] = {}
    for row in rows:
        assert row.group
        splits_of.setdefault(row.group, set()).add(row.split)
    assert {len(splits) for splits in splits_of.values()} == {1}


@pytest.mark.parametrize("name", COMMITTED)
def test_the_committed_lists_are_those_of_the_data(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(f"{name}_root")
    run(name, root, "--output", tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (LISTS / f"{name}.csv").read_bytes()
