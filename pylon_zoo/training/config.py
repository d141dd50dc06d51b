"""What a training run is: plain data, read from a recipe and changed by ``--set``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from pylon_zoo.errors import InvalidOptionError, unknown_name

__all__ = ["TrainingConfig"]

CHOICES = {
    "optimizer": ("adam", "adamw"),
    "augment_on": ("worker", "device"),
    "schedule": ("plateau", "cosine"),
    "precision": ("no", "bf16", "fp16"),
    "batch_norm": ("local", "sync", "frozen"),
    "class_weights": ("none", "balanced"),
}

#: Fields that change how a run is computed, watched and saved, but no number of it.
BYSTANDERS = (
    "workers",
    "skip_bad",
    "recompute",
    "checkpoint_steps",
    "checkpoint_minutes",
    "tracker",
    "heatmaps",
)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run. Defaults are the PYLON paper's (arXiv 2010.11475, section 4).

    Attributes:
        model: ``{architecture}_{encoder}``.
        options: of the architecture.
        encoder_pretrained: start the encoder from timm's weights.
        weights: checkpoint to start from, by name or folder; ``model`` must be its architecture
            and encoder. Of the head, classes of the same name stay, others are made anew.
        data: the task's name (:mod:`pylon_zoo.data.tasks`).
        root: the dataset's folder, where it has files.
        cache: folder that ``pylon-zoo data cache`` wrote, to read images from instead.
        also: another task, ``NAME`` or ``NAME=DIR``, whose whole images take turns with the data's;
            they are labelled in the classes of the same name, and unknown in the others.
        tile: side in pixels of the tiles that tasks like ``phantom`` and ``bccd`` are trained on; 0
            for the task's own.
        tiles_per_epoch: how many of them an epoch takes; 0 for the task's own number.
        image_size: side that images are resized to; 0 for the task's (or the checkpoint's) own.
        augmentation: ``"none"``, ``"light"``, ``"dihedral"`` or ``"paper"``.
        augment_on: where images are augmented: ``"worker"``, one by one and before they are
            resized, or ``"device"``, a batch at a time at the size of the model's input.
        epochs: at most.
        batch_size: images a step, on all devices together.
        accumulation: pieces that each batch is computed in, one after another, to save memory;
            gradients add up to the whole batch's (BatchNorm sees the pieces).
        optimizer: ``"adam"`` or ``"adamw"``.
        learning_rate: the highest.
        weight_decay: of the optimizer; biases and norms are spared.
        schedule: ``"plateau"`` (x 0.2 when the validation loss has not fallen for more than one
            epoch, stop at 1e-6) or ``"cosine"`` (5 % linear warm-up, then to zero).
        ema_decay: of a moving average of the weights, which is then what is validated and saved;
            0 for none.
        clip_norm: gradients are clipped to this norm; 0 for no clipping.
        precision: ``"no"`` (float32), ``"bf16"`` or ``"fp16"`` autocast.
        channels_last: memory format of the model and its images.
        compile: run the network through ``torch.compile``.
        recompute: compute shallow features a second time in the backward pass instead of keeping
            them, to save memory.
        class_weights: ``"none"``, or ``"balanced"``: positives of each class weigh negatives over
            positives of the training items, as ``pos_weight`` of the loss.
        label_smoothing: s moves the labels of training to y (1 - s) + s / 2.
        freeze: parts of the model that do not train, by their names and comma-separated, e.g.
            ``"encoder"``; their BatchNorm statistics stand still too.
        frozen_epochs: freeze in the first so many epochs only (two-phase training); 0: in all.
        batch_norm: statistics of each device by itself (``"local"``), of all devices
            (``"sync"``, CUDA only), or as they were at the start (``"frozen"``).
        seed: of the weights, the order, the augmentation and the drawn data.
        workers: processes that load data; 0 loads in the training process.
        skip_bad: images that may turn out unreadable before the run stops.
        checkpoint_steps: save the run's state every so many steps; 0 for not by steps.
        checkpoint_minutes: and after so many minutes; 0 for not by time. An epoch's end is always
            saved.
        heatmaps: images of the selection data whose heatmaps ``heatmaps.png`` shows, epoch by
            epoch; 0 for no page.
        tracker: also log to this tracker of Accelerate's, e.g. ``"tensorboard"``.
    """

    model: str
    data: str
    options: dict[str, Any] = field(default_factory=dict)
    encoder_pretrained: bool = False
    weights: str | None = None
    root: str | None = None
    cache: str | None = None
    also: str = ""
    tile: int = 0
    tiles_per_epoch: int = 0
    image_size: int = 0
    augmentation: str = "light"
    augment_on: str = "worker"
    epochs: int = 40
    batch_size: int = 64
    accumulation: int = 1
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: str = "plateau"
    ema_decay: float = 0.0
    clip_norm: float = 0.0
    precision: str = "no"
    channels_last: bool = True
    compile: bool = False
    recompute: bool = False
    class_weights: str = "none"
    label_smoothing: float = 0.0
    freeze: str = ""
    frozen_epochs: int = 0
    batch_norm: str = "local"
    seed: int = 0
    workers: int = 0
    skip_bad: int = 0
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 10.0
    heatmaps: int = 0
    tracker: str = ""

    def __post_init__(self) -> None:
        for name, accepted in CHOICES.items():
            if getattr(self, name) not in accepted:
                raise unknown_name(f"value of {name},", str(getattr(self, name)), accepted)
        for name in ("epochs", "batch_size", "learning_rate", "accumulation"):
            if getattr(self, name) <= 0:
                raise InvalidOptionError(f"{name} must be positive; got {getattr(self, name)}.")
        for name in ("image_size", "frozen_epochs", "skip_bad", "checkpoint_steps", "heatmaps"):
            if getattr(self, name) < 0:
                raise InvalidOptionError(f"{name} must not be negative; got {getattr(self, name)}.")
        for name in ("ema_decay", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidOptionError(f"{name} must lie in [0, 1); got {getattr(self, name)}.")
        if self.frozen_epochs and not self.freeze:
            raise InvalidOptionError(
                f"frozen_epochs={self.frozen_epochs} freezes nothing without freeze; set "
                f"freeze=encoder, or frozen_epochs=0."
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return dataclasses.asdict(self)

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Lines ``key: other's value -> this one's`` for every field that changes a result.

        Args:
            other: :meth:`to_dict` of another configuration; what it lacks counts as the default.
        """
        other = TrainingConfig(model="", data="").to_dict() | other
        return [
            f"{key}: {other[key]!r} -> {value!r}"
            for key, value in json.loads(json.dumps(self.to_dict())).items()
            if key not in BYSTANDERS and other[key] != value
        ]

    def override(self, settings: Sequence[str]) -> TrainingConfig:
        """Apply ``key=value`` settings; ``options.pooling=avg`` reaches into the options.

        Raises:
            UnknownNameError: no such key; suggests the nearest.
            InvalidOptionError: the value is of another type than the key's.
        """
        types = get_type_hints(type(self))
        changes: dict[str, Any] = {}
        options = dict(self.options)
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise InvalidOptionError(f"A setting is key=value; got {setting!r}.")
            if key.startswith("options."):
                options[key.removeprefix("options.")] = _parse(text)
            elif key not in types or key == "options":
                raise unknown_name("setting", key, [*types, "options.NAME"])
            else:
                changes[key] = _convert(key, text, types[key])
        return dataclasses.replace(self, options=options, **changes)


def _parse(text: str) -> Any:
    """JSON where it is JSON (numbers, true, null), else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _convert(key: str, text: str, wanted: Any) -> Any:
    if wanted is str or wanted == (str | None):
        return text
    value = _parse(text)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted:
        raise InvalidOptionError(f"{key} takes a value of type {wanted.__name__}; got {text!r}.")
    return value
