import csv
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_measures_every_mode_that_a_cpu_has(tmp_path: Path) -> None:
    sizes = {"--side": 64, "--file-side": 64, "--batch": 4, "--steps": 2, "--warmup": 1}
    options = {**sizes, "--model": "pylon_test_efficientnet", "--output": tmp_path}
    arguments = [str(word) for pair in options.items() for word in pair]
    modes = ["--modes", "fp32", "fp16", "bf16-channels_last"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "training_speed.py", *arguments, *modes],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "fp16: left out" in done.stdout
    with (tmp_path / "training_speed_cpu.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mode"] for row in rows] == ["fp32", "bf16-channels_last"]
    for row in rows:
        assert float(row["step images/s"]) > 0
        assert float(row["loop images/s"]) > 0
        assert row["peak memory GB"] == row["GPU utilization %"] == "n/a"
        assert f"| {' | '.join(row.values())} |" in done.stdout
    assert (tmp_path / "training_speed_cpu.md").read_text() in done.stdout
