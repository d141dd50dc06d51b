"""What a model is, as plain data: enough to rebuild it and to feed it.

Nothing here imports torch, so that a manifest or a config can be read without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pylon_zoo.errors import CheckpointError, InvalidOptionError, unknown_name

__all__ = [
    "INTERPOLATIONS",
    "RESIZES",
    "ModelSpec",
    "Preprocessing",
    "match_classes",
    "split_model_name",
]

CONFIG_VERSION = 1
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
RESIZES = ("squash", "native")
#: Mean and standard deviation of NIH Chest X-Ray 14 on [0, 1] gray (arXiv 2010.11475, section 4).
NIH14_MEAN, NIH14_STD = 0.4984, 0.2483


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the tensor that a model expects.

    Attributes:
        input_size: (C, H, W) that the model was trained on.
        mean: per channel, on [0, 1].
        std: per channel, on [0, 1].
        interpolation: ``"nearest"``, ``"bilinear"`` or ``"bicubic"`` (anti-aliased).
        resize: ``"squash"`` resizes to exactly (H, W) without keeping the aspect (what the PYLON
            paper does); ``"native"`` leaves the image at its own size, for models trained on tiles.
    """

    input_size: tuple[int, int, int] = (1, 256, 256)
    mean: tuple[float, ...] = (NIH14_MEAN,)
    std: tuple[float, ...] = (NIH14_STD,)
    interpolation: str = "bicubic"
    resize: str = "squash"

    def __post_init__(self) -> None:
        if len(self.input_size) != 3 or min(self.input_size) < 1:
            raise InvalidOptionError(
                f"input_size must be three positive numbers (channels, height, width); "
                f"got {self.input_size!r}."
            )
        channels = self.input_size[0]
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != channels:
                raise InvalidOptionError(
                    f"{name} has {len(values)} values, but input_size says {channels} channels; "
                    f"give one value per channel."
                )
        if min(self.std) <= 0:
            raise InvalidOptionError(f"std must be positive; got {self.std!r}.")
        if self.interpolation not in INTERPOLATIONS:
            raise unknown_name("interpolation", self.interpolation, INTERPOLATIONS)
        if self.resize not in RESIZES:
            raise unknown_name("resize", self.resize, RESIZES)

    @classmethod
    def default(cls, in_chans: int, size: int = 256) -> Preprocessing:
        """The paper's preprocessing, its gray statistics repeated over ``in_chans`` channels."""
        return cls(
            input_size=(in_chans, size, size),
            mean=(NIH14_MEAN,) * in_chans,
            std=(NIH14_STD,) * in_chans,
        )

    def to_dict(self) -> dict[str, Any]:
        """As timm's ``pretrained_cfg`` names these fields (``resize`` is timm's ``crop_mode``)."""
        return {
            "input_size": list(self.input_size),
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "crop_pct": 1.0,
            # timm knows no "native": it says so by fixed_input_size, which stays false.
            "crop_mode": "squash",
            "fixed_input_size": False,
            "resize": self.resize,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """The reverse of :meth:`to_dict`; :class:`CheckpointError` where a field is amiss."""
        try:
            channels, height, width = (int(v) for v in data["input_size"])
            return cls(
                input_size=(channels, height, width),
                mean=tuple(float(v) for v in data["mean"]),
                std=tuple(float(v) for v in data["std"]),
                interpolation=str(data.get("interpolation", "bicubic")),
                resize=str(data.get("resize", "squash")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The preprocessing of this checkpoint is damaged: {error}"
            ) from error


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to rebuild a model (but for its weights) and to feed it.

    Attributes:
        architecture: e.g. ``"pylon"``.
        encoder: a timm model name, e.g. ``"regnetx_002"``.
        num_classes: K, the number of maps and logits.
        in_chans: C, the channels of an input image.
        options: the architecture's options that differ from its defaults; pairs such as a size are
            lists, as in JSON, so that an option read from a file equals the one given.
        class_names: K names, or None where nobody named them.
        preprocessing: what an input must look like.
        tag: names the checkpoint that the weights came from, or ``""``.
    """

    architecture: str
    encoder: str
    num_classes: int
    in_chans: int
    options: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    tag: str = ""

    def __post_init__(self) -> None:
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in self.options.items()}
        object.__setattr__(self, "options", plain)
        if self.num_classes < 1:
            raise InvalidOptionError(f"num_classes must be at least 1; got {self.num_classes}.")
        if self.in_chans < 1:
            raise InvalidOptionError(f"in_chans must be at least 1; got {self.in_chans}.")
        names = self.class_names
        if names is not None:
            if len(names) != self.num_classes:
                raise InvalidOptionError(
                    f"class_names has {len(names)} names, but num_classes is {self.num_classes}; "
                    f"give one name per class."
                )
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise InvalidOptionError(
                    f"class_names must differ from each other; twice: {twice}."
                )
        if self.preprocessing.input_size[0] != self.in_chans:
            raise InvalidOptionError(
                f"in_chans is {self.in_chans}, but the preprocessing makes "
                f"{self.preprocessing.input_size[0]} channels."
            )

    @property
    def name(self) -> str:
        """``{architecture}_{encoder}``, with ``.tag`` where there is one."""
        base = f"{self.architecture}_{self.encoder}"
        return f"{base}.{self.tag}" if self.tag else base

    def class_name(self, index: int) -> str:
        """The name of class ``index``, or ``"class 3"`` where classes have no names."""
        return self.class_names[index] if self.class_names else f"class {index}"

    def with_classes(self, num_classes: int, class_names: tuple[str, ...] | None) -> ModelSpec:
        """The same model with another head; its weights are then no published checkpoint's."""
        return replace(self, num_classes=num_classes, class_names=class_names, tag="")

    def to_config(self) -> dict[str, Any]:
        """The content of ``config.json``: timm's field names, ours under ``pylon_zoo``."""
        return {
            "architecture": f"{self.architecture}_{self.encoder}",
            "num_classes": self.num_classes,
            "label_names": list(self.class_names) if self.class_names else None,
            "pretrained_cfg": {
                "tag": self.tag,
                "num_classes": self.num_classes,
                **self.preprocessing.to_dict(),
            },
            "pylon_zoo": {
                "config_version": CONFIG_VERSION,
                "architecture": self.architecture,
                "encoder": self.encoder,
                "in_chans": self.in_chans,
                "architecture_options": dict(self.options),
            },
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelSpec:
        """The reverse of :meth:`to_config`; :class:`CheckpointError` names what is amiss."""
        try:
            ours = config["pylon_zoo"]
            if ours["config_version"] > CONFIG_VERSION:
                raise CheckpointError(
                    f"This checkpoint's config has version {ours['config_version']}; this "
                    f"pylon_zoo reads up to {CONFIG_VERSION}. Upgrade it: pip install -U pylon-zoo"
                )
            labels = config.get("label_names")
            return cls(
                architecture=str(ours["architecture"]),
                encoder=str(ours["encoder"]),
                num_classes=int(config["num_classes"]),
                in_chans=int(ours["in_chans"]),
                options=dict(ours["architecture_options"]),
                class_names=tuple(str(v) for v in labels) if labels else None,
                preprocessing=Preprocessing.from_dict(config["pretrained_cfg"]),
                tag=str(config["pretrained_cfg"].get("tag", "")),
            )
        except KeyError as error:
            raise CheckpointError(
                f"This is not a config of pylon_zoo: the field {error} is missing. It needs the "
                f"config.json that pylon_zoo.save_pretrained writes beside the weights."
            ) from error
        except (TypeError, AttributeError, InvalidOptionError) as error:
            raise CheckpointError(f"This checkpoint's config is damaged: {error}") from error


def match_classes(names: Sequence[str], among: Sequence[str]) -> list[int]:
    """Of each name its place among others, or -1; upper and lower case are the same."""
    places = {name.casefold(): k for k, name in enumerate(among)}
    return [places.get(name.casefold(), -1) for name in names]


def split_model_name(name: str, architectures: tuple[str, ...]) -> tuple[str, str, str]:
    """Split ``"{architecture}_{encoder}[.tag]"`` into its three parts (tag may be empty).

    Raises:
        UnknownNameError: no known architecture begins the name.
    """
    base, _, tag = name.partition(".")
    for architecture in sorted(architectures, key=len, reverse=True):
        if base.startswith(architecture + "_"):
            return architecture, base[len(architecture) + 1 :], tag
    prefix, _, encoder = base.partition("_")
    error = unknown_name(
        "architecture",
        prefix,
        architectures,
        hint="A model's name is {architecture}_{timm encoder}, e.g. pylon_resnet50; "
        "pylon_zoo.list_models() lists them.",
    )
    error.suggestions = tuple(f"{s}_{encoder}" if encoder else s for s in error.suggestions)
    raise error
