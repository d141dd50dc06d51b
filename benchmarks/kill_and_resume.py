"""Kill a training run at random moments, go on, and compare the weights bit for bit.

    python benchmarks/kill_and_resume.py --kills 20

Every run has dropout, a moving average, a cosine schedule and a checkpoint after every step,
on 64-px phantoms. Odd runs die by SIGKILL at a random time; even ones in the middle of
writing a checkpoint: half a file written, or before or after any of its flushes. Each is then
started again and must end with the weights of the run that nobody killed. Exits with 1 if not.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pylon_zoo.data import LocalizationDataset, Phantom, tasks
from pylon_zoo.training import TrainingConfig, train
from pylon_zoo.weights.files import hash_file

CONFIG = TrainingConfig(
    model="deeplabv3plus_test_efficientnet",
    data="kill_and_resume",
    epochs=2,
    batch_size=2,
    optimizer="adamw",
    learning_rate=1e-3,
    schedule="cosine",
    ema_decay=0.9,
    clip_norm=1.0,
    checkpoint_steps=1,
)
#: Two files a checkpoint, each flushed itself and by its folder, after every step and epoch.
WRITES = 4 * (2 * 3 + 2)


class KillTask(tasks.PhantomTask):
    """Six phantoms of 64 px to train on, two to select by."""

    name = "kill_and_resume"
    preprocessing = tasks.Preprocessing.default(1, size=64)

    def training(self) -> LocalizationDataset:
        """Three steps an epoch."""
        return Phantom("train", size=64, length=6, seed=self.seed)

    def selection(self) -> LocalizationDataset:
        """One batch."""
        return Phantom("val", size=64, length=2)


tasks.TASKS["kill_and_resume"] = KillTask


def die_while_writing(at: int, torn: bool) -> None:
    """Have this process killed at its ``at``-th flush; ``torn``: amid the write before it."""
    flush, write, count = os.fsync, Path.write_bytes, 0

    def dying_flush(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == at and not torn:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(descriptor)

    def dying_write(path: Path, data: Any) -> int:
        if torn and count >= at:
            write(path, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, data)

    os.fsync = dying_flush
    Path.write_bytes = dying_write  # type: ignore[method-assign, assignment]


def start(folder: Path, *, die_at_write: int = 0, torn: bool = False) -> int:
    """Train in a child process and return its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        if die_at_write:
            die_while_writing(die_at_write, torn)
        train(CONFIG, folder, progress=False)
        code = 0
    finally:
        os._exit(code)


def finish(child: int) -> str:
    """Wait for a child: ``"finished"``, ``"killed"`` or ``"failed"``."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return "failed" if os.WEXITSTATUS(status) else "finished"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    counts = {"identical": 0, "different": 0, "killed": 0}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        began = time.perf_counter()
        if finish(start(folder / "whole")) != "finished":
            raise SystemExit("the run that nobody kills failed")
        seconds = time.perf_counter() - began
        expected = hash_file(folder / "whole" / "model.safetensors")
        print(f"uninterrupted: sha256 {expected[0][:16]}", flush=True)
        for number in range(arguments.kills):
            run = folder / str(number)
            if number % 2:
                torn, at = rng.random() < 0.5, rng.randint(1, WRITES)
                moment = f"{'half-written file after' if torn else 'at'} flush {at}"
                outcome = finish(start(run, die_at_write=at, torn=torn))
            else:
                delay = rng.uniform(0, seconds)
                moment = f"after {delay / seconds:.0%} of the time"
                child = start(run)
                time.sleep(delay)
                os.kill(child, signal.SIGKILL)
                outcome = finish(child)
            kept = len(list((run / "checkpoints").glob("step_*.json")))
            again = finish(start(run))
            model = run / "model.safetensors"
            same = again == "finished" and hash_file(model) == expected
            counts["identical" if same else "different"] += 1
            counts["killed"] += outcome == "killed"
            print(
                f"{number + 1:3}: {outcome} {moment}, {kept} checkpoint(s) left, then {again}: "
                f"{'identical' if same else 'DIFFERENT'}",
                flush=True,
            )
    print(", ".join(f"{value} {name}" for name, value in counts.items()))
    return int(counts["different"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
