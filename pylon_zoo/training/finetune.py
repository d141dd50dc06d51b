"""A checkpoint taught classes of one's own, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.data import Task, open_task
from pylon_zoo.errors import DatasetError
from pylon_zoo.training.config import TrainingConfig
from pylon_zoo.training.evaluation import evaluate
from pylon_zoo.training.loop import TrainingResult, train
from pylon_zoo.training.record import write_json

__all__ = ["Finetuned", "default_config", "finetune", "task_name"]

#: Optimizer steps that the defaults aim at, and what bounds the epochs that make them.
STEPS, LEAST_EPOCHS, MOST_EPOCHS = 800, 4, 40
#: With fewer images than this, a batch's statistics are worse than the checkpoint's.
FEW_IMAGES = 500


@dataclass(frozen=True)
class Finetuned:
    """What :func:`finetune` made.

    Attributes:
        model: the best epoch's, in eval mode.
        report: see :func:`pylon_zoo.training.evaluation.evaluate`.
        training: how the run went; its folder holds the model and ``evaluation.json``.
    """

    model: LocalizationModel
    report: dict[str, Any]
    training: TrainingResult


def finetune(
    data: str | Path,
    output: str | Path,
    *,
    weights: str = "pylon_dla46_c.phantom",
    settings: Sequence[str] = (),
    progress: bool = True,
    resume: bool = True,
) -> Finetuned:
    """Fine-tune a checkpoint on images of one's own, measure it, and save it.

    Class names and splits are the data's; the head is made anew for them, but for classes that
    the checkpoint knows by name. What else is not said in ``settings`` follows from the number of
    images (:func:`default_config`).

    Args:
        data: a CSV file, a COCO file (``.json``), a folder that holds ``labels.csv`` or a
            COCO file, or one that holds a folder of images for each class; see
            :mod:`pylon_zoo.data`.
        output: folder for what :func:`pylon_zoo.training.train` writes and ``evaluation.json``.
        weights: the checkpoint to start from, by name or folder.
        settings: ``key=value`` changes of the configuration.
        progress: show progress bars.
        resume: go on with an earlier run in ``output``.

    Raises:
        DatasetError: the data cannot be used, or no image is left to measure on.
        TrainingError: see :func:`pylon_zoo.training.train`.
    """
    name = task_name(data)
    task = open_task(name, str(data))
    config = default_config(len(task.training()), name, str(data), weights).override(settings)
    result = train(config, output, progress=progress, resume=resume)

    from pylon_zoo.weights import load_pretrained

    model = load_pretrained(result.folder)
    report = evaluate(model, task, _measured_split(task), progress=progress)
    write_json(result.folder / "evaluation.json", report)
    return Finetuned(model, report, result)


def task_name(data: str | Path) -> str:
    """``"image_folder"``, ``"csv"`` or ``"coco"``, by what ``data`` is.

    Raises:
        DatasetError: it does not exist, or is another kind of file.
    """
    path = Path(data)
    if path.is_dir():
        if (path / "labels.csv").is_file():
            return "csv"
        coco = any([*path.glob("*.json"), *path.glob("annotations/*.json")])
        return "coco" if coco else "image_folder"
    names = {".csv": "csv", ".json": "coco"}
    if not path.is_file() or path.suffix.lower() not in names:
        what = "is none of these" if path.exists() else "does not exist"
        raise DatasetError(
            f"Data to fine-tune on is a CSV file, a COCO file (.json), or a folder that holds a "
            f"folder of images for each class; {path} {what}."
        )
    return names[path.suffix.lower()]


def default_config(images: int, data: str, root: str, weights: str) -> TrainingConfig:
    """A configuration for so many training images: about 800 steps, in 4 to 40 epochs.

    Batches hold 16 images, or a quarter of fewer than 64. With fewer than 500 images BatchNorm
    keeps the statistics of the checkpoint.
    """
    import torch

    from pylon_zoo.weights import load_pretrained

    spec = load_pretrained(weights).spec
    batch_size = min(16, max(images // 4, 1))
    epochs = round(STEPS * batch_size / max(images, 1))
    return TrainingConfig(
        model=f"{spec.architecture}_{spec.encoder}",
        weights=weights,
        data=data,
        root=root,
        epochs=min(max(epochs, LEAST_EPOCHS), MOST_EPOCHS),
        batch_size=batch_size,
        optimizer="adamw",
        learning_rate=3e-4,
        weight_decay=0.05,
        schedule="cosine",
        ema_decay=0.99,
        clip_norm=1.0,
        batch_norm="frozen" if images < FEW_IMAGES else "local",
        precision="bf16" if torch.cuda.is_available() else "no",
    )


def _measured_split(task: Task) -> str:
    """The test split, or, where the data have none, the one that the epoch was selected on."""
    for split in ("test", "val"):
        try:
            if split in task.splits and len(task.classification(split)):
                return split
        except DatasetError:
            continue
    raise DatasetError(
        f"No image of {task.root} is in its test or val split, so that nothing can be measured. "
        f"Add images, or name a split for each."
    )
