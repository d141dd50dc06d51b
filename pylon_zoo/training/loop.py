"""The reference training loop, to be read from top to bottom."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pylon_zoo.data import open_task
from pylon_zoo.errors import InvalidOptionError, MissingExtraError, TrainingError, TrainingStopped
from pylon_zoo.preprocessing import Transform
from pylon_zoo.training.batches import AugmentedBatches, BadImages, create_loaders
from pylon_zoo.training.checkpoint import (
    Checkpoints,
    get_random_states,
    report_full_disk,
    set_random_states,
)
from pylon_zoo.training.config import TrainingConfig
from pylon_zoo.training.freezing import set_train_mode
from pylon_zoo.training.heatmap_page import HeatmapPage
from pylon_zoo.training.losses import balanced_weights, masked_bce, smooth
from pylon_zoo.training.progress import ProgressBar
from pylon_zoo.training.record import environment, hash_weights, write_csv, write_json
from pylon_zoo.training.setup import create_accelerator, create_initial_model, create_schedule
from pylon_zoo.training.stop import StopSignal

__all__ = ["TrainingResult", "clear_untrained", "masked_bce", "train"]

logger = logging.getLogger("pylon_zoo")

#: The paper's stopping rule: the plateau schedule ends at this learning rate.
LOWEST_RATE = 1e-6


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind.

    Attributes:
        folder: holds ``model.safetensors`` and ``config.json``, ready for ``load_pretrained``.
        best_epoch: the epoch that they come from, from 1.
        best_loss: its validation loss.
        seconds: of training, validation included, in all sessions of the run together.
        bad_images: what was wrong with the images that could not be read.
    """

    folder: Path
    best_epoch: int
    best_loss: float
    seconds: float
    bad_images: tuple[str, ...] = ()


@dataclass
class RunState:
    """Where a run is: plain numbers, saved in every checkpoint.

    Attributes:
        epoch: that is under way, from 1.
        batch: steps of it that are done.
        step: steps of the run that are done.
        loss_sum: of the epoch's steps.
        best_epoch: 0 before the first validation.
        best_step: done when it ended.
        rows: of ``metrics.csv``.
        seconds: in earlier sessions.
        finished: nothing is left to do.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    best_step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    finished: bool = False


def train(
    config: TrainingConfig, output: str | Path, *, progress: bool = True, resume: bool = True
) -> TrainingResult:
    """Train a model and save its best epoch by validation loss.

    A run that was killed or stopped goes on where its last checkpoint was written, and ends with
    the very weights that it would have had: order and augmentation depend on (seed, epoch, index)
    alone, and everything else is in the checkpoint.

    Args:
        config: what to train, on what, and how.
        output: folder for the model, ``metrics.csv``, ``learning_curve.png``, ``run.json``,
            ``heatmaps.png`` where asked for, and ``checkpoints/``; all processes must see it.
        progress: show a progress bar.
        resume: go on with the checkpoints in ``output``; False deletes them first.

    Raises:
        MissingExtraError: the extra ``train`` is not installed.
        CheckpointError: ``output`` holds a run with another configuration; lists what differs.
        TrainingError: the loss became NaN or infinite, more than ``skip_bad`` images are bad, or
            the disk is full. The last checkpoint is whole.
        TrainingStopped: SIGTERM or SIGINT came; the step was finished and saved.
    """
    try:
        import matplotlib  # noqa: F401 - for the learning curve, at the end
        from accelerate.utils import broadcast, gather_object, set_seed
        from timm.layers import convert_sync_batchnorm
        from timm.optim import create_optimizer_v2
        from timm.utils.model_ema import ModelEmaV3
    except ImportError as error:
        raise MissingExtraError(
            (error.name or "accelerate").split(".")[0], "train", "Training"
        ) from error
    from pylon_zoo.training.curves import plot_learning_curve
    from pylon_zoo.weights import save_pretrained

    started = time.perf_counter()
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = create_accelerator(config, str(folder))
    set_seed(config.seed)

    # Data and model. The model's preprocessing is the one to train with.
    task = open_task(
        config.data,
        config.root,
        seed=config.seed,
        cache=config.cache,
        tile=config.tile,
        tiles_per_epoch=config.tiles_per_epoch,
    )
    model: Any = create_initial_model(config, task).to(accelerator.device)
    spec, initial_weights = model.spec, hash_weights(model)
    training, selection, order = create_loaders(
        config, task, spec.preprocessing, accelerator.num_processes
    )
    bad = BadImages(config.skip_bad)
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    model = model.to(memory_format=memory_format)
    if config.recompute:
        model.set_grad_checkpointing()
    pos_weight = None
    if config.class_weights == "balanced":
        pos_weight = balanced_weights(task.training()).to(accelerator.device)
    if config.batch_norm == "sync" and accelerator.num_processes > 1:
        if accelerator.device.type != "cuda":
            raise InvalidOptionError(
                "batch_norm=sync needs CUDA: torch synchronizes no BatchNorm on the CPU. Take "
                "local or frozen."
            )
        model = convert_sync_batchnorm(model)

    # Its moving average, optimizer and schedule.
    average = (
        ModelEmaV3(model, decay=config.ema_decay, use_warmup=True) if config.ema_decay else None
    )
    optimizer = create_optimizer_v2(
        model, opt=config.optimizer, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    steps_an_epoch = len(order) // config.batch_size
    schedule: Any = create_schedule(config, optimizer, config.epochs * steps_an_epoch)
    if config.compile:
        model.compile()
    if not config.frozen_epochs:
        set_train_mode(model, config.freeze, config.batch_norm)
    model, optimizer, training, selection = accelerator.prepare(
        model, optimizer, training, selection
    )
    batches = training
    if config.augment_on == "device":
        batches = AugmentedBatches(training, training.dataset.transform)
    network = accelerator.unwrap_model(model)
    if config.tracker:
        accelerator.init_trackers("pylon_zoo", {k: str(v) for k, v in config.to_dict().items()})

    page = None
    if config.heatmaps and accelerator.is_main_process:
        plain = Transform(spec.preprocessing)
        page = HeatmapPage(folder, task.selection(), plain, config.heatmaps)

    # Where an earlier session left off.
    state = RunState()
    parts = {"model": network, "optimizer": optimizer, "schedule": schedule}
    parts |= {"average": average.module} if average is not None else {}
    parts |= {"scaler": accelerator.scaler} if accelerator.scaler is not None else {}
    checkpoints = Checkpoints(folder / "checkpoints", config)
    if not resume and accelerator.is_main_process:
        checkpoints.clear()
    accelerator.wait_for_everyone()
    if (saved := checkpoints.load()) is not None:
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        state = RunState(**saved["run"])
        bad.problems = saved["bad_images"]
        if len(saved["random"]) == accelerator.num_processes:
            set_random_states(saved["random"][accelerator.process_index])
        logger.info("Going on after step %d, in epoch %d.", state.step, state.epoch)
    saved_at = time.perf_counter()

    def save() -> None:
        nonlocal saved_at
        random_states = gather_object([get_random_states()])
        if accelerator.is_main_process:
            run = asdict(state) | {"seconds": state.seconds + time.perf_counter() - started}
            checkpoints.save(
                {name: part.state_dict() for name, part in parts.items()}
                | {"run": run, "random": random_states, "bad_images": bad.problems},
                step=state.step,
                best_step=state.best_step,
            )
        accelerator.wait_for_everyone()
        saved_at = time.perf_counter()

    bar = ProgressBar(
        f"{config.model} on {config.data}",
        steps=config.epochs * steps_an_epoch,
        batch_size=config.batch_size,
        enabled=progress and accelerator.is_local_main_process,
    )
    with bar, StopSignal() as stop:
        while not state.finished:
            # An epoch, or what is left of it.
            order.epoch, order.done = state.epoch, state.batch * config.batch_size
            frozen = config.freeze if state.epoch <= (config.frozen_epochs or math.inf) else ""
            set_train_mode(network, frozen, config.batch_norm)
            epoch_started, batches_before = time.perf_counter(), state.batch
            bar.start_epoch(state.step)
            step_loss, names = torch.zeros((), device=accelerator.device), []
            for images, labels, sources, problems, _drawn in batches:
                bad.note(problems)
                names += sources
                with accelerator.accumulate(model):
                    with accelerator.autocast():
                        logits = model(images.to(memory_format=memory_format)).logits
                    targets = smooth(labels, config.label_smoothing)
                    loss = masked_bce(logits, targets, pos_weight)
                    accelerator.backward(loss)
                    step_loss += loss.detach() / config.accumulation
                    if not accelerator.sync_gradients:
                        continue

                    # What all processes must agree on travels in one message.
                    minutes = (time.perf_counter() - saved_at) / 60
                    due = 0 < config.checkpoint_minutes <= minutes
                    flags = torch.tensor([bool(stop.received), due], device=step_loss.device)
                    agreed = accelerator.reduce(torch.cat([step_loss[None], flags]), "mean")
                    value, stopping, due_for_any = agreed.tolist()
                    if not math.isfinite(value):
                        scaler = accelerator.scaler and accelerator.scaler.state_dict()
                        raise TrainingError(
                            f"The loss became {value} in epoch {state.epoch}, step {state.step} "
                            f"(learning rate {optimizer.param_groups[0]['lr']:.3g}, gradient "
                            f"scaler {scaler}). Lower the learning rate, set clip_norm=1, or "
                            f"train with precision=no. The weights before this step are in the "
                            f"last checkpoint. The batch: {', '.join(gather_object(names))}."
                        )
                    if config.clip_norm:
                        accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                if average is not None:
                    average.update(network, step=state.step)
                if config.schedule == "cosine":
                    schedule.step()
                state.step += 1
                state.batch += 1
                state.loss_sum += value
                step_loss, names = torch.zeros_like(step_loss), []
                bar.advance(f"epoch {state.epoch}/{config.epochs}  loss {value:.4f}")
                by_steps = config.checkpoint_steps and state.step % config.checkpoint_steps == 0
                if stopping or due_for_any or by_steps:
                    save()
                if stopping:
                    raise TrainingStopped(
                        f"{stop.received or 'A signal to another process'} stopped the run after "
                        f"step {state.step}, which is saved. The same command goes on from there."
                    )

            # Its validation.
            judged = network if average is None else average.module
            if accelerator.num_processes > 1:
                # Every process has seen other images; all judge by the first one's statistics.
                for buffer in judged.buffers():
                    buffer.copy_(broadcast(buffer))
            validation_loss = _validate(judged, selection, accelerator, memory_format, bad)
            row = {
                "epoch": state.epoch,
                "train_loss": state.loss_sum / steps_an_epoch,
                "validation_loss": validation_loss,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "images_per_second": (state.batch - batches_before)
                * config.batch_size
                / (time.perf_counter() - epoch_started),
            }
            state.rows.append(row)
            accelerator.log({k: v for k, v in row.items() if k != "epoch"}, step=state.step)
            if best := validation_loss < state.best_loss:
                state.best_loss, state.best_epoch = validation_loss, state.epoch
                state.best_step = state.step
                judged.spec = spec
                if not config.weights:
                    spare = "encoder." if config.encoder_pretrained else None
                    clear_untrained(network, judged, optimizer, spare=spare)
            if accelerator.is_main_process:
                with report_full_disk(folder):
                    write_csv(folder / "metrics.csv", state.rows)
                    if best:
                        save_pretrained(judged, folder)
                    if page is not None:
                        page.add(judged, state.epoch)
            bar.note(
                f"epoch {state.epoch}: training {row['train_loss']:.4f}, validation "
                f"{validation_loss:.4f}" + (" (best)" if best else "")
            )
            if config.schedule == "plateau":
                schedule.step(validation_loss)
                state.finished = optimizer.param_groups[0]["lr"] <= LOWEST_RATE
            state.finished = state.finished or state.epoch == config.epochs
            state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
            save()

    if config.tracker:
        accelerator.end_training()
    seconds = state.seconds + time.perf_counter() - started
    problems = sorted(set(gather_object(bad.problems)))
    if accelerator.is_main_process:
        plot_learning_curve(state.rows, folder / "learning_curve.png", state.best_epoch)
        write_json(
            folder / "run.json",
            {
                "config": config.to_dict(),
                "class_names": list(task.class_names),
                "training_items": order.items,
                "selection_items": len(selection.dataset),
                "initial_weights_sha256": initial_weights,
                "best_epoch": state.best_epoch,
                "best_validation_loss": state.best_loss,
                "steps": state.step,
                "seconds": round(seconds, 1),
                "bad_images": problems,
                **environment(accelerator.device, accelerator.num_processes),
            },
        )
    return TrainingResult(folder, state.best_epoch, state.best_loss, seconds, tuple(problems))


@torch.no_grad()
def clear_untrained(
    trained: torch.nn.Module,
    judged: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    spare: str | None = None,
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
        spare: leave alone the weights whose names begin so, since they were trained before.
    """
    cleared = 0
    copies = dict(judged.named_parameters())
    for name, parameter in trained.named_parameters():
        moment = optimizer.state.get(parameter, {}).get("exp_avg_sq")
        if moment is not None and not (spare and name.startswith(spare)):
            untrained = moment == 0
            copies[name][untrained] = 0
            cleared += int(untrained.sum())
    return cleared


def _validate(
    model: torch.nn.Module,
    loader: Any,
    accelerator: Any,
    memory_format: torch.memory_format,
    bad: BadImages,
) -> float:
    """Mean loss over all known labels; each sample counts once, on however many processes."""
    model.eval()
    logits, labels = [], []
    with torch.no_grad(), accelerator.autocast():
        for images, batch_labels, _sources, problems, _drawn in loader:
            bad.note(problems)
            output = model(images.to(memory_format=memory_format))
            gathered = accelerator.gather_for_metrics((output.logits.float(), batch_labels))
            logits.append(gathered[0])
            labels.append(gathered[1])
    return float(masked_bce(torch.cat(logits), torch.cat(labels)))
