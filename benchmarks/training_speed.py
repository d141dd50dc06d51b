"""Speed, memory and GPU utilization of training, from plain float32 to bf16 with everything on.

    python benchmarks/training_speed.py --workers 12
    python benchmarks/training_speed.py --model pylon_test_efficientnet --side 64 --file-side 64 \
        --batch 4 --steps 2 --modes fp32 bf16-channels_last

Two numbers for each mode. ``step``: forward, loss, backward and optimizer on one batch that stays
on the device. ``loop``: :func:`pylon_zoo.training.train` itself on PNG files, reading, resizing and
augmentation included; where it is as fast as ``step``, the input pipeline keeps up. Both leave out
what comes before (compilation, tuning of kernels, start of the workers): ``--warmup`` steps, and
the loop's first epoch.

Prints the table, and writes it to ``results/training_speed_{device}.csv`` and ``.md``.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import ClassVar

import torch
from PIL import Image

from pylon_zoo import create_model
from pylon_zoo.data import LocalizationDataset, Phantom, Sample, tasks
from pylon_zoo.training import TrainingConfig, train
from pylon_zoo.training.losses import masked_bce

RESULTS = Path(__file__).parent / "results"
FILES = 64
FIELDS = ["mode", "step images/s", "loop images/s", "peak memory GB", "GPU utilization %"]


@dataclass(frozen=True)
class Mode:
    """How to compute: ``precision`` is a name that TrainingConfig takes."""

    precision: str = "no"
    channels_last: bool = False
    compile: bool = False


MODES = {
    "fp32": Mode(),
    "fp16": Mode("fp16"),
    "bf16": Mode("bf16"),
    "bf16-channels_last": Mode("bf16", channels_last=True),
    "bf16-channels_last-compile": Mode("bf16", channels_last=True, compile=True),
}


class Repeated:
    """A dataset as long as asked for."""

    def __init__(self, dataset: LocalizationDataset, length: int) -> None:
        self.dataset, self.length, self.class_names = dataset, length, dataset.class_names

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[index % len(self.dataset)]


class SpeedTask(tasks.CSVTask):
    """Drawn radiographs in PNG files."""

    name = "training_speed"
    length: ClassVar[int]

    def training(self) -> LocalizationDataset:
        """Enough for an epoch of so many steps."""
        return Repeated(self.dataset("all"), self.length)

    def selection(self) -> LocalizationDataset:
        """A few; validation is not measured."""
        return Repeated(self.dataset("all"), 4)


def write_files(folder: Path, side: int) -> None:
    """Gray PNG files and their labels, as the csv dataset reads them."""
    names = Phantom.class_names
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *names])
        for index in range(FILES):
            sample = Phantom("train")[index]
            picture = Image.fromarray(sample.image[0].numpy()).resize((side, side))
            picture.save(folder / f"{index}.png")
            writer.writerow([f"{index}.png", *map(int, sample.labels.tolist())])


@contextmanager
def gpu_utilization() -> Iterator[list[float]]:
    """Percent, every half second, as nvidia-smi says; empty where there is none."""
    readings: list[float] = []
    done = threading.Event()
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i"]

    def watch() -> None:
        while not done.wait(0.5):
            identity = str(torch.cuda.get_device_properties(0).uuid)
            identity = identity if identity.startswith("GPU-") else f"GPU-{identity}"
            answer = subprocess.run([*query, identity], capture_output=True, text=True, check=False)
            if answer.stdout.strip().isdecimal():
                readings.append(float(answer.stdout))

    watcher = threading.Thread(target=watch, daemon=True)
    if torch.cuda.is_available() and shutil.which("nvidia-smi"):
        watcher.start()
    try:
        yield readings
    finally:
        done.set()
        if watcher.ident:
            watcher.join()


def step_speed(mode: Mode, arguments: argparse.Namespace, device: torch.device) -> float:
    """Images a second of training steps on one batch."""
    torch.manual_seed(0)
    layout = torch.channels_last if mode.channels_last else torch.contiguous_format
    model = create_model(arguments.model, num_classes=14).to(device, memory_format=layout).train()
    if mode.compile:
        model.compile()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=mode.precision == "fp16")
    dtype = {"fp16": torch.float16}.get(mode.precision, torch.bfloat16)
    size = (arguments.batch, 1, arguments.side, arguments.side)
    images = torch.randn(size, device=device).to(memory_format=layout)
    labels = torch.rand(arguments.batch, 14, device=device).round()

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    started = wait()
    for step in range(arguments.warmup + arguments.steps):
        if step == arguments.warmup:
            started = wait()
        with torch.autocast(device.type, dtype=dtype, enabled=mode.precision != "no"):
            logits = model(images).logits
        scaler.scale(masked_bce(logits, labels)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
    return arguments.steps * arguments.batch / (wait() - started)


def loop_speed(
    mode: Mode, arguments: argparse.Namespace, data: Path, output: Path
) -> tuple[float, list[float]]:
    """Images a second of the loop's second epoch, and the GPU's utilization meanwhile."""
    SpeedTask.length = arguments.steps * arguments.batch
    config = TrainingConfig(
        model=arguments.model,
        data=SpeedTask.name,
        root=str(data),
        image_size=arguments.side,
        epochs=2,
        batch_size=arguments.batch,
        precision=mode.precision,
        channels_last=mode.channels_last,
        compile=mode.compile,
        workers=arguments.workers,
    )
    with gpu_utilization() as readings:
        train(config, output, progress=False)
    with (output / "metrics.csv").open(encoding="utf-8") as file:
        rate = float(list(csv.DictReader(file))[-1]["images_per_second"])
    # The second epoch is the last half of the time at least where nothing had to be compiled.
    return rate, readings[len(readings) // 2 :]


def measure(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, str]]:
    tasks.TASKS[SpeedTask.name] = SpeedTask
    cuda = device.type == "cuda"
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        data.mkdir()
        write_files(data, arguments.file_side)
        for name in arguments.modes:
            mode = MODES[name]
            if mode.precision == "fp16" and not cuda:
                print(f"{name}: left out, fp16 needs a GPU", flush=True)
                continue
            if cuda:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            step = step_speed(mode, arguments, device)
            loop, used = loop_speed(mode, arguments, data, Path(temporary) / name)
            peak = f"{torch.cuda.max_memory_allocated() / 1e9:.2f}" if cuda else "n/a"
            utilization = f"{fmean(used):.0f}" if used else "n/a"
            values = [name, f"{step:.1f}", f"{loop:.1f}", peak, utilization]
            rows.append(dict(zip(FIELDS, values, strict=True)))
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="pylon_resnet50")
    parser.add_argument("--side", type=int, default=256, help="of the images that are trained on")
    parser.add_argument("--file-side", type=int, default=1024, help="of the images in files")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50, help="that are measured")
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    title = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    rows = measure(arguments, device)
    lines = [f"| {' | '.join(row.values())} |" for row in rows]
    note = (
        f"{arguments.model}, {arguments.side} px from PNG files of {arguments.file_side} px, batch "
        f"{arguments.batch}, {arguments.steps} steps, {arguments.workers} worker(s), "
        f"{torch.get_num_threads()} thread(s), {title}, torch {torch.__version__}."
    )
    head = [f"| {' | '.join(FIELDS)} |", "|---" * len(FIELDS) + "|"]
    text = "\n".join([*head, *lines, "", note, ""])
    target = arguments.output / f"training_speed_{re.sub(r'[^a-z0-9]+', '_', title.lower())}.csv"
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    target.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
