"""What a configuration names, made: model, optimizer and schedule."""

from __future__ import annotations

import atexit
import logging
import math
from dataclasses import replace
from typing import Any

import torch

from pylon_zoo import registry
from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.data import Task
from pylon_zoo.errors import InvalidOptionError, MissingExtraError
from pylon_zoo.spec import ModelSpec, split_model_name
from pylon_zoo.training.batches import with_image_size
from pylon_zoo.training.config import TrainingConfig
from pylon_zoo.training.processes import leave_gloo

__all__ = ["create_accelerator", "create_initial_model", "create_schedule"]

logger = logging.getLogger("pylon_zoo")


def create_accelerator(config: TrainingConfig, folder: str) -> Any:
    """An Accelerator for this configuration, whatever one an earlier run in this process had.

    Raises:
        MissingExtraError: Accelerate, or the tracker's package, is not installed.
        InvalidOptionError: Accelerate knows no such tracker.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.state import AcceleratorState
        from accelerate.tracking import get_available_trackers
        from accelerate.utils import LoggerType
    except ImportError as error:
        raise MissingExtraError(
            (error.name or "accelerate").split(".")[0], "train", "Training"
        ) from error
    if config.tracker:
        known = [str(kind.value) for kind in LoggerType if kind != LoggerType.ALL]
        if config.tracker not in known:
            raise InvalidOptionError(
                f"Accelerate knows no tracker {config.tracker!r}; it knows {', '.join(known)}."
            )
        if config.tracker not in map(str, get_available_trackers()):
            extra = "trackers" if config.tracker == "tensorboard" else None
            raise MissingExtraError(config.tracker, extra, f"tracker={config.tracker}")
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulation,
        log_with=config.tracker or None,
        project_dir=folder,
        # What is frozen in the first epochs and trains later has no gradient at first.
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=config.frozen_epochs > 0)
        ],
    )
    if accelerator.num_processes > 1:
        # Not when training ends: the script may go on with these processes.
        atexit.unregister(leave_gloo)
        atexit.register(leave_gloo)
    if config.precision == "fp16" and accelerator.scaler is None:
        logger.warning("precision=fp16 needs a GPU; on the %s it is float32.", accelerator.device)
    return accelerator


def create_initial_model(config: TrainingConfig, task: Task) -> LocalizationModel:
    """The model as training begins, on the CPU; its spec holds the preprocessing to train with.

    That is the task's, or with ``weights`` the checkpoint's, which its filters are used to, unless
    only one of the two resizes images; at ``image_size`` where that is given.

    Raises:
        InvalidOptionError: ``model`` is not what ``weights`` holds.
    """
    architecture, encoder, _tag = split_model_name(config.model, tuple(registry.ARCHITECTURES))
    in_chans = task.preprocessing.input_size[0]
    if not config.weights:
        preprocessing = with_image_size(task.preprocessing, config.image_size)
        return registry.build_model(
            ModelSpec(
                architecture=architecture,
                encoder=encoder,
                num_classes=len(task.class_names),
                in_chans=in_chans,
                options=config.options,
                class_names=task.class_names,
                preprocessing=preprocessing,
            ),
            encoder_pretrained=config.encoder_pretrained,
        )

    from pylon_zoo.weights import adapt_model, load_pretrained

    model = load_pretrained(config.weights)
    if (model.spec.architecture, model.spec.encoder) != (architecture, encoder):
        raise InvalidOptionError(
            f"weights={config.weights} holds a {model.spec.architecture}_{model.spec.encoder}; "
            f"set model to that instead of {config.model}."
        )
    if config.options:
        raise InvalidOptionError(
            f"With weights={config.weights} the options are the checkpoint's; leave out "
            f"{config.options}."
        )
    adapt_model(model, in_chans=in_chans, class_names=task.class_names)
    preprocessing = model.spec.preprocessing
    if preprocessing.resize != task.preprocessing.resize:
        preprocessing = task.preprocessing
    preprocessing = with_image_size(preprocessing, config.image_size)
    model.spec = replace(model.spec, preprocessing=preprocessing, tag="")
    return model


def create_schedule(
    config: TrainingConfig, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate's course over so many steps, as the configuration describes it."""
    if config.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=1)
    warmup = max(steps // 20, 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
