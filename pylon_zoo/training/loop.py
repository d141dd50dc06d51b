"""The reference training loop, to be read from top to bottom."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pylon_zoo import registry
from pylon_zoo.data import LocalizationDataset, open_task
from pylon_zoo.data.seeds import generator_for
from pylon_zoo.errors import MissingExtraError, TrainingError
from pylon_zoo.preprocessing import Transform
from pylon_zoo.spec import ModelSpec, split_model_name
from pylon_zoo.training.config import TrainingConfig

__all__ = ["TrainingResult", "clear_untrained", "masked_bce", "train"]


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind.

    Attributes:
        folder: holds ``model.safetensors`` and ``config.json``, ready for ``load_pretrained``.
        best_epoch: the epoch that they come from, from 1.
        best_loss: its validation loss.
        seconds: of training, validation included.
    """

    folder: Path
    best_epoch: int
    best_loss: float
    seconds: float


def train(config: TrainingConfig, output: str | Path, *, progress: bool = True) -> TrainingResult:
    """Train a model and save its best epoch by validation loss.

    Args:
        config: what to train, on what, and how.
        output: folder for the model, ``metrics.csv``, ``learning_curve.png`` and ``run.json``.
        progress: show a progress bar.

    Raises:
        MissingExtraError: the extra ``train`` is not installed.
        TrainingError: the loss became NaN or infinite.
    """
    try:
        from accelerate import Accelerator
        from accelerate.utils import set_seed
        from timm.optim import create_optimizer_v2
        from timm.utils.model_ema import ModelEmaV3
    except ImportError as error:
        raise MissingExtraError(error.name or "accelerate", "train", "Training") from error
    from pylon_zoo.training.curves import plot_learning_curve
    from pylon_zoo.weights import save_pretrained

    started = time.perf_counter()
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision=config.precision)
    set_seed(config.seed)

    # Data: items by (epoch, index), so that a run does not depend on how many workers load it.
    task = open_task(config.data, config.root, seed=config.seed)
    items = task.training()
    training = DataLoader(
        _Items(items, Transform(task.training_preprocessing, config.augmentation), config.seed),
        batch_size=max(config.batch_size // accelerator.num_processes, 1),
        sampler=(order := _EpochOrder(len(items), config.seed)),
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=torch.cuda.is_available(),
        drop_last=True,
    )
    selection_items = task.selection()
    selection = DataLoader(
        _Items(selection_items, Transform(task.preprocessing), config.seed),
        batch_size=config.batch_size,
        sampler=_EpochOrder(len(selection_items), seed=None),
        num_workers=config.workers,
        pin_memory=torch.cuda.is_available(),
    )

    # Model, its average, optimizer and schedule.
    architecture, encoder, _tag = split_model_name(config.model, tuple(registry.ARCHITECTURES))
    model = registry.build_model(
        ModelSpec(
            architecture=architecture,
            encoder=encoder,
            num_classes=len(task.class_names),
            in_chans=task.preprocessing.input_size[0],
            options=config.options,
            class_names=task.class_names,
            preprocessing=task.preprocessing,
        ),
        encoder_pretrained=config.encoder_pretrained,
    ).to(accelerator.device)
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    model = model.to(memory_format=memory_format)
    spec = model.spec
    average = (
        ModelEmaV3(model, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
    )
    optimizer = create_optimizer_v2(
        model, opt=config.optimizer, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    steps = config.epochs * len(training)
    schedule: Any
    if config.schedule == "cosine":
        warmup = max(steps // 20, 1)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    else:
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=1)
    model, optimizer, training, selection = accelerator.prepare(
        model, optimizer, training, selection
    )

    # Epochs.
    best_loss, best_epoch = math.inf, 0
    rows: list[dict[str, float]] = []
    bar = _progress(steps, config, enabled=progress and accelerator.is_local_main_process)
    with bar:
        for epoch in range(1, config.epochs + 1):
            order.epoch = epoch
            model.train()
            running = 0.0
            epoch_started = time.perf_counter()
            for images, labels in training:
                with accelerator.autocast():
                    logits = model(images.to(memory_format=memory_format)).logits
                loss = masked_bce(logits, labels)
                optimizer.zero_grad(set_to_none=True)
                accelerator.backward(loss)
                if config.clip_norm:
                    accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
                optimizer.step()
                if average is not None:
                    average.update(accelerator.unwrap_model(model), step=bar.step)
                if config.schedule == "cosine":
                    schedule.step()
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise TrainingError(
                        f"The loss became {value} in epoch {epoch}, step {bar.step} (learning "
                        f"rate {optimizer.param_groups[0]['lr']:.3g}). Lower the learning rate, "
                        f"set clip_norm=1, or train with precision=no."
                    )
                running += value
                bar.advance(f"epoch {epoch}/{config.epochs}  loss {value:.4f}")

            judged = accelerator.unwrap_model(model) if average is None else average.module
            validation_loss = _validate(judged, selection, accelerator, memory_format)
            rows.append(
                {
                    "epoch": epoch,
                    "train_loss": running / len(training),
                    "validation_loss": validation_loss,
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "images_per_second": len(training)
                    * config.batch_size
                    / (time.perf_counter() - epoch_started),
                }
            )
            if accelerator.is_main_process:
                _write_csv(folder / "metrics.csv", rows)
                if validation_loss < best_loss:
                    judged.spec = spec
                    clear_untrained(accelerator.unwrap_model(model), judged, optimizer)
                    save_pretrained(judged, folder)
            if validation_loss < best_loss:
                best_loss, best_epoch = validation_loss, epoch
            bar.note(
                f"epoch {epoch}: training {rows[-1]['train_loss']:.4f}, validation "
                f"{validation_loss:.4f}" + (" (best)" if best_epoch == epoch else "")
            )
            if config.schedule == "plateau":
                schedule.step(validation_loss)
                if optimizer.param_groups[0]["lr"] <= 1e-6:
                    break

    seconds = time.perf_counter() - started
    result = TrainingResult(folder, best_epoch, best_loss, seconds)
    if accelerator.is_main_process:
        plot_learning_curve(rows, folder / "learning_curve.png", best_epoch)
        (folder / "run.json").write_text(
            json.dumps(
                {
                    "config": config.to_dict(),
                    "best_epoch": best_epoch,
                    "best_validation_loss": best_loss,
                    "seconds": round(seconds, 1),
                    "versions": _versions(),
                    "device": str(accelerator.device),
                    "threads": torch.get_num_threads(),
                },
                indent=2,
            )
            + "\n",
            encoding="utf-8",
        )
    return result


def masked_bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy of (B, K) logits over the labels that are known (not NaN).

    Computed in float32 at least; 0 where no label of the batch is known.
    """
    known = ~labels.isnan()
    losses = F.binary_cross_entropy_with_logits(
        logits, labels.nan_to_num(0.0).to(logits.dtype), reduction="none"
    )
    return (losses * known).sum() / known.sum().clamp(min=1)


@torch.no_grad()
def clear_untrained(
    trained: torch.nn.Module, judged: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Set to zero, in ``judged``, every weight that has never had a gradient; return their number.

    At 256 px the coarsest convolution of PYLON's attention sees one cell: all of its kernel but
    the centre meets zero padding only. Those weights do nothing at that size, so they never
    train; on a larger image their random initial values would drown the map. Zeroing them
    changes no output at the size of training.

    Args:
        trained: the module that ``optimizer`` has trained.
        judged: the same module or a moving average of it.
        optimizer: Adam or AdamW, whose second moment is zero where no gradient ever came.
    """
    cleared = 0
    copies = dict(judged.named_parameters())
    for name, parameter in trained.named_parameters():
        moment = optimizer.state.get(parameter, {}).get("exp_avg_sq")
        if moment is not None:
            untrained = moment == 0
            copies[name][untrained] = 0
            cleared += int(untrained.sum())
    return cleared


class _Items(Dataset[tuple[Tensor, Tensor]]):
    """(epoch, index) -> image and labels, the augmentation drawn from (seed, epoch, index)."""

    def __init__(self, dataset: LocalizationDataset, transform: Transform, seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        sample = self.dataset[epoch * len(self.dataset) + index]
        sample = self.transform(sample, generator_for(self.seed, epoch, index))
        return sample.image, sample.labels


class _EpochOrder(Sampler[tuple[int, int]]):
    """All indices of an epoch, shuffled by (seed, epoch); in order and in epoch 0 for seed None."""

    def __init__(self, length: int, seed: int | None) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self.seed is None:
            order = list(range(self.length))
        else:
            generator = generator_for(self.seed, self.epoch)
            order = torch.randperm(self.length, generator=generator).tolist()
        return iter([(self.epoch, index) for index in order])


def _validate(
    model: torch.nn.Module, loader: Any, accelerator: Any, memory_format: torch.memory_format
) -> float:
    """Mean loss over all known labels; each sample counts once, on however many processes."""
    was_training = model.training
    model.eval()
    logits, labels = [], []
    with torch.no_grad(), accelerator.autocast():
        for images, batch_labels in loader:
            output = model(images.to(memory_format=memory_format))
            gathered = accelerator.gather_for_metrics((output.logits.float(), batch_labels))
            logits.append(gathered[0])
            labels.append(gathered[1])
    model.train(was_training)
    return float(masked_bce(torch.cat(logits), torch.cat(labels)))


def _write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from pylon_zoo import __version__

    return {name: version(name) for name in ("torch", "timm", "accelerate")} | {
        "pylon_zoo": __version__
    }


class _progress:  # noqa: N801 - a context manager, used like a function
    """A rich progress bar that counts steps and prints a line an epoch."""

    def __init__(self, steps: int, config: TrainingConfig, *, enabled: bool) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.step = 0
        self._enabled = enabled
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            disable=not enabled,
        )
        self._task = self._bar.add_task(f"{config.model} on {config.data}", total=steps)

    def __enter__(self) -> _progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, description: str) -> None:
        self.step += 1
        self._bar.update(self._task, advance=1, description=description)

    def note(self, line: str) -> None:
        if self._enabled:
            self._bar.console.print(line)
