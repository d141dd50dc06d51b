import importlib.util
from pathlib import Path

import pytest
import torch

from pylon_zoo.data import BCCD, CSVTable

ROOT = Path(__file__).resolve().parents[2]
specification = importlib.util.spec_from_file_location(
    "finetune_benchmark", ROOT / "benchmarks" / "finetune.py"
)
assert specification is not None
assert specification.loader is not None
benchmark = importlib.util.module_from_spec(specification)
specification.loader.exec_module(benchmark)


@pytest.mark.parametrize("task", list(benchmark.WEIGHTS))
def test_the_files_say_what_the_tiles_hold_and_no_smear_is_in_two_splits(
    task: str, bccd_root: Path, tmp_path: Path
) -> None:
    splits = benchmark.splits_of(task, bccd_root)
    few = {split: benchmark.Part(tiles, 9) for split, tiles in splits.items()}
    benchmark.write(tmp_path / "data", few)
    for split, tiles in few.items():
        read = CSVTable(tmp_path / "data", split)
        assert read.class_names == BCCD.class_names
        assert len(read) == len(tiles) == 9
        for index in range(9):
            expected, sample = tiles[index], read[index]
            assert torch.equal(sample.image, expected.image)
            assert torch.equal(sample.labels, expected.labels)
            assert torch.equal(sample.boxes, expected.boxes)
            assert torch.equal(sample.box_classes, expected.box_classes)
            assert sample.group == expected.group
    smears = {
        split: {tiles[index].group for index in range(0, len(tiles), 6)}
        for split, tiles in splits.items()
    }
    assert [len(smears[split]) for split in ("train", "val", "test")] == [20, 8, 40]
    assert len(set.union(*smears.values())) == 68
    if task == "new_smears":
        # Of what the checkpoint was made with, nothing.
        seen = set(BCCD(bccd_root, "train").names)
        assert not seen & set.union(*smears.values())


def test_the_table_pairs_the_seeds() -> None:
    rows = [
        {"task": "cells", "start": start, "seed": seed, "metric": "AUROC", "class": "macro"}
        | {"value": value, "low": value - 0.1, "high": value + 0.1, "chance": 0.5, "support": 7}
        for start, values in {"checkpoint": (0.8, 0.6), "scratch": (0.7, 0.65)}.items()
        for seed, value in enumerate(values)
    ]
    line = benchmark.table(rows, [0, 1]).splitlines()[2]
    assert line == (
        "| cells | AUROC | macro | 0.700 [0.50, 0.90] | 0.675 [0.55, 0.80] | +0.100, -0.050 "
        "| 0.500 | 7 |"
    )
