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
    "schedule": ("plateau", "cosine"),
    "precision": ("no", "bf16", "fp16"),
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run. Defaults are the PYLON paper's (arXiv 2010.11475, section 4).

    Attributes:
        model: ``{architecture}_{encoder}``.
        options: of the architecture.
        encoder_pretrained: start the encoder from timm's weights.
        data: the task's name (:mod:`pylon_zoo.data.tasks`).
        root: the dataset's folder, where it has files.
        augmentation: ``"none"``, ``"light"`` or ``"dihedral"``.
        epochs: at most.
        batch_size: images a step, on all devices together.
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
        seed: of the weights, the order, the augmentation and the drawn data.
        workers: processes that load data; 0 loads in the training process.
    """

    model: str
    data: str
    options: dict[str, Any] = field(default_factory=dict)
    encoder_pretrained: bool = False
    root: str | None = None
    augmentation: str = "light"
    epochs: int = 40
    batch_size: int = 64
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: str = "plateau"
    ema_decay: float = 0.0
    clip_norm: float = 0.0
    precision: str = "no"
    channels_last: bool = True
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        for name, accepted in CHOICES.items():
            if getattr(self, name) not in accepted:
                raise unknown_name(f"value of {name},", str(getattr(self, name)), accepted)
        for name in ("epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise InvalidOptionError(f"{name} must be positive; got {getattr(self, name)}.")
        if not 0 <= self.ema_decay < 1:
            raise InvalidOptionError(f"ema_decay must lie in [0, 1); got {self.ema_decay}.")

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return dataclasses.asdict(self)

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
