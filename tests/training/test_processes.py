"""How the processes of a run part."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: What is registered first comes last at exit.
SCRIPT = """
import atexit, os
from pathlib import Path

def report(when):
    names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    found = sorted(name for name in names if "gloo" in name)
    # In one go, that the lines of two processes do not mix.
    os.write(1, f"{when} {distributed.is_initialized()} {found}\\n".encode())

atexit.register(report, "at exit")

import torch
from torch import distributed, nn
from pylon_zoo.training import TrainingConfig
from pylon_zoo.training.setup import create_accelerator

def work():
    accelerator = create_accelerator(TrainingConfig(model="pylon_test_resnet", data="tiny"), ".")
    model = accelerator.prepare(nn.Linear(2, 2))
    model.itself = [model]  # only the garbage collector frees a cycle
    accelerator.backward(model(torch.ones(1, 2)).sum())
    report("working")

for _ in range(2):
    work()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="names of threads are Linux's")
def test_no_thread_of_gloo_outlives_python(tmp_path: Path) -> None:
    """One that does may abort the process (a collective's tensors need Python's lock to go)."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    two = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            script,
        ],
        capture_output=True,
        check=False,
        text=True,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    assert two.returncode == 0, two.stderr
    lines = two.stdout.splitlines()
    working = [line for line in lines if line.startswith("working True [")]
    assert len(working) == 4
    # They are what this looks for, while they are there.
    assert all("gloo" in line for line in working)
    assert [line for line in lines if line.startswith("at exit")] == ["at exit False []"] * 2
