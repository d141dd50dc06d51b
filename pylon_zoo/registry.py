"""Names of models, and the models of those names."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pylon_zoo.encoders import survey
from pylon_zoo.errors import InvalidOptionError, unknown_name
from pylon_zoo.spec import ModelSpec, Preprocessing, split_model_name

if TYPE_CHECKING:
    from pylon_zoo.architectures import LocalizationModel

__all__ = ["ARCHITECTURES", "build_model", "create_model", "list_encoders", "list_models"]

#: The class of each architecture in :mod:`pylon_zoo.architectures`, by the name that begins its
#: models' names. Names only: listing models must not import torch.
ARCHITECTURES = {
    "pylon": "PYLON",
    "cam": "CAM",
    "li2018": "Li2018",
    "unet": "UNet",
    "fpn": "FPN",
    "pan": "PAN",
    "deeplabv3plus": "DeepLabV3Plus",
}

#: Output strides that an architecture's encoder may be built with, the default first; others: 32.
OUTPUT_STRIDES = {"deeplabv3plus": (16, 32)}

#: Options that go to the encoder, not to the architecture.
ENCODER_OPTIONS = ("img_size", "output_stride")

#: What the PYLON paper trains: 14 findings on one-channel radiographs.
DEFAULT_NUM_CLASSES, DEFAULT_IN_CHANS = 14, 1


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    encoder_pretrained: bool | str = False,
    class_names: Sequence[str] | None = None,
    **architecture_options: Any,
) -> LocalizationModel:
    """Create a model, in train mode unless ``pretrained``.

    Args:
        name: ``{architecture}_{timm encoder}``, e.g. ``"pylon_resnet50"``, optionally with
            ``.tag`` naming a checkpoint, e.g. ``"pylon_dla46_c.phantom"``. With a tag, classes,
            channels and options are that checkpoint's.
        pretrained: load the checkpoint's weights (without a tag: the first one listed for this
            model). The model is then in eval mode.
        num_classes: K; None means the checkpoint's, else the number of ``class_names``, else 14
            (NIH Chest X-Ray 14). Other than the checkpoint's: the head is made anew, but for
            classes of the same name, and a log message says so.
        in_chans: channels of an input image; None means the checkpoint's, else 1. Other than the
            checkpoint's: the stem is adapted as timm does it, and a log message says so.
        encoder_pretrained: start the encoder from timm's weights (True, or a timm tag such as
            ``"a1_in1k"``); downloads them.
        class_names: K names that the model carries.
        **architecture_options: options of the architecture, e.g. ``pooling="avg"``, and
            ``img_size=(H, W)`` for encoders that are bound to one size.

    Raises:
        UnknownNameError: no such architecture, encoder, tag or option; suggests the nearest.
        InvalidOptionError: an option's value is not accepted.
    """
    architecture, encoder, tag = split_model_name(name, tuple(ARCHITECTURES))
    if not (tag or pretrained):
        names = tuple(class_names) if class_names is not None else None
        classes = num_classes or (len(names) if names else DEFAULT_NUM_CLASSES)
        if num_classes is not None and num_classes < 1:
            raise InvalidOptionError(f"num_classes must be at least 1; got {num_classes}.")
        channels = DEFAULT_IN_CHANS if in_chans is None else in_chans
        if channels < 1:
            raise InvalidOptionError(f"in_chans must be at least 1; got {in_chans}.")
        spec = ModelSpec(
            architecture=architecture,
            encoder=encoder,
            num_classes=classes,
            in_chans=channels,
            options=architecture_options,
            class_names=names,
            preprocessing=Preprocessing.default(channels),
        )
        model = build_model(spec, encoder_pretrained=encoder_pretrained)
        height, width = model.encoder.nearest_size(*spec.preprocessing.input_size[1:])
        preprocessing = replace(spec.preprocessing, input_size=(channels, height, width))
        model.spec = replace(spec, preprocessing=preprocessing)
        return model

    from pylon_zoo.weights.load import adapt_model, load_pretrained
    from pylon_zoo.weights.manifest import load_manifest

    entry = load_manifest().find(name)
    spec = entry.spec
    if architecture_options:
        _check_options(architecture, architecture_options)
        asked = replace(spec, options={**spec.options, **architecture_options})
        if pretrained:
            trained = _defaults(architecture) | spec.options
            different = {k: v for k, v in asked.options.items() if trained[k] != v}
            if different:
                raise InvalidOptionError(
                    f"{entry.name} was trained with {spec.options or 'the default options'}; its "
                    f"weights do not fit {different}. Leave these options out, or pretrained=True."
                )
        spec = asked
    if pretrained:
        model = load_pretrained(entry.name)
    else:
        model = build_model(replace(spec, tag=""), encoder_pretrained=encoder_pretrained)
    adapt_model(model, num_classes=num_classes, in_chans=in_chans, class_names=class_names)
    return model


def build_model(spec: ModelSpec, *, encoder_pretrained: bool | str = False) -> LocalizationModel:
    """Build the model that a spec describes, with random weights (but for the encoder's)."""
    from pylon_zoo import architectures

    _check_options(spec.architecture, spec.options)
    strides = OUTPUT_STRIDES.get(spec.architecture, (32,))
    options = {"output_stride": strides[0], **spec.options}
    if options["output_stride"] not in strides:
        raise InvalidOptionError(
            f"output_stride of {spec.architecture!r} must be one of {list(strides)}; "
            f"got {options['output_stride']!r}."
        )
    encoder_options = {k: options.pop(k) for k in ENCODER_OPTIONS if k in options}
    encoder = architectures.Encoder(
        spec.encoder, in_chans=spec.in_chans, pretrained=encoder_pretrained, **encoder_options
    )
    cls: Any = getattr(architectures, ARCHITECTURES[spec.architecture])
    try:
        model: LocalizationModel = cls(encoder, num_classes=spec.num_classes, **options)
    except TypeError as error:
        raise InvalidOptionError(
            f"The options {options} do not fit architecture {spec.architecture!r}: {error}"
        ) from error
    model.spec = spec
    return model


def _defaults(architecture: str) -> dict[str, Any]:
    """Every option that an architecture takes, or its encoder for it, with its default."""
    from pylon_zoo import architectures

    signature = inspect.signature(getattr(architectures, ARCHITECTURES[architecture]))
    own = {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in ("encoder", "num_classes")
    }
    strides = OUTPUT_STRIDES.get(architecture)
    return own | {"img_size": None} | ({"output_stride": strides[0]} if strides else {})


def _check_options(architecture: str, options: dict[str, Any]) -> None:
    known = _defaults(architecture)
    for option in options:
        if option not in known:
            raise unknown_name(
                f"option of architecture {architecture!r},",
                option,
                known,
                hint="It takes " + ", ".join(sorted(known)) + ".",
            )


def list_encoders(pattern: str = "*") -> list[str]:
    """Names of the timm encoders that give features at strides 4, 8, 16 and 32, sorted.

    They come from a survey of one timm version (``architectures/encoders.json`` says which); an
    encoder that a newer timm has added works all the same, by its name.
    """
    return sorted(fnmatch.filter(survey()["encoders"], pattern))


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Names that :func:`create_model` takes, sorted.

    Args:
        pattern: a shell pattern, e.g. ``"pylon_*"`` or ``"*resnet50*"``.
        pretrained: only names of checkpoints, with their tags.
    """
    if pretrained:
        from pylon_zoo.weights.manifest import load_manifest

        return sorted(fnmatch.filter(load_manifest().names, pattern))
    names = [
        f"{architecture}_{encoder}"
        for architecture in ARCHITECTURES
        for encoder, record in survey()["encoders"].items()
        if record["dilates"] or architecture not in OUTPUT_STRIDES
    ]
    return sorted(fnmatch.filter(names, pattern))
