"""A task that trains in seconds; ``python tests/tiny_task.py OUTPUT key=value ...`` does so."""

import sys
from pathlib import Path

import torch

from pylon_zoo.data import LocalizationDataset, Phantom, tasks
from pylon_zoo.errors import PylonZooError, TrainingStopped
from pylon_zoo.training import TrainingConfig

CONFIG = TrainingConfig(
    model="pylon_test_efficientnet",
    data="tiny",
    epochs=2,
    batch_size=4,
    optimizer="adamw",
    learning_rate=1e-3,
    schedule="cosine",
    ema_decay=0.9,
    clip_norm=1.0,
)


class TinyTask(tasks.PhantomTask):
    name = "tiny"
    preprocessing = tasks.Preprocessing.default(1, size=64)

    def training(self) -> LocalizationDataset:
        return Phantom("train", size=64, length=10, seed=self.seed)

    def selection(self) -> LocalizationDataset:
        return Phantom("val", size=64, length=7)


if __name__ == "__main__":
    from pylon_zoo.cli import main as cli
    from pylon_zoo.training import train

    torch.set_num_threads(1)
    tasks.TASKS["tiny"] = TinyTask
    try:
        train(CONFIG.override(sys.argv[2:]), Path(sys.argv[1]), progress=False)
    except PylonZooError as error:
        print(error, file=sys.stderr)
        sys.exit(cli.STOPPED if isinstance(error, TrainingStopped) else 1)
