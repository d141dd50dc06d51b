"""Import of checkpoints that the PYLON authors' own code has written.

Their state dicts name no architecture: it is read off the keys and shapes, with its options and
its encoder, and every tensor then finds its place in ours or the file is refused.
"""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pylon_zoo.architectures import (
    CAM,
    FPN,
    PAN,
    PYLON,
    Encoder,
    Li2018,
    LocalizationModel,
    UNet,
)
from pylon_zoo.errors import CheckpointError, StateDictError, WeightsNotFoundError
from pylon_zoo.registry import build_model
from pylon_zoo.spec import ModelSpec, Preprocessing

__all__ = ["ENCODERS", "load_upstream"]

#: Encoders that the authors' code stores under the keys of torchvision's ResNet, by timm's names.
ENCODERS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x4d",
    "resnext101_32x8d",
    "resnext101_32x16d",
    "resnext101_32x32d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)

Shapes = dict[str, tuple[int, ...]]
#: (pattern, replacement) pairs: the first pattern that begins a key renames it.
Renaming = list[tuple[str, str]]
#: An architecture, the options that its keys and shapes tell, and how its keys become ours.
Layout = tuple[type[LocalizationModel], dict[str, Any], Renaming]


def load_upstream(
    source: str | PathLike[str] | Mapping[str, Tensor],
    *,
    pooling: str | None = None,
    class_names: tuple[str, ...] | None = None,
) -> LocalizationModel:
    """A model of this zoo with the weights of a checkpoint of the authors' code, in eval mode.

    Args:
        source: a state dict, or a file that ``torch.save`` wrote of one. Architecture, options,
            encoder, classes and channels are inferred from it; its dtype is kept.
        pooling: the one thing a state dict does not tell; None means the architecture's default.
            A ``cam`` trained as the classic CAM needs ``"avg"``.
        class_names: K names that the model shall carry.

    Raises:
        WeightsNotFoundError: there is no such file.
        CheckpointError: the file is no state dict. A whole pickled model is refused, never run.
        StateDictError: the tensors are not one of the authors' networks; names what is amiss.
    """
    state = _plain(_read(source) if isinstance(source, (str, PathLike)) else source)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    cls, options, renaming = _infer_layout(shapes)
    defaults = inspect.signature(cls).parameters
    options = {k: v for k, v in options.items() if v != defaults[k].default}
    renamed = {_rename(key, renaming): tensor for key, tensor in state.items()}
    encoder = {k: tuple(v.shape) for k, v in renamed.items() if k.startswith("encoder.model.")}
    stem, head = renamed.get("encoder.model.conv1.weight"), renamed.get("head.weight")
    if stem is None or head is None:
        raise StateDictError(
            f"This looks like the authors' {cls.architecture}, but its "
            f"{'head' if head is None else 'first convolution'} is missing; found {_some(state)}."
        )
    spec = ModelSpec(
        architecture=cls.architecture,
        encoder=_infer_encoder(encoder),
        num_classes=head.shape[0],
        in_chans=stem.shape[1],
        options={**options, **({"pooling": pooling} if pooling else {})},
        class_names=class_names,
        preprocessing=Preprocessing.default(stem.shape[1]),
    )
    model = build_model(spec).to(head.dtype)
    _check_keys(model.state_dict(), renamed, spec.name)
    model.load_state_dict(renamed)
    return model.eval()


def _read(source: str | PathLike[str]) -> Any:
    path = Path(source)
    if not path.is_file():
        raise WeightsNotFoundError(f"There is no file {str(path)!r}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} holds Python objects besides tensors, as torch.save(model) writes them: "
            f"reading it could run any code, so it is refused. In the authors' environment, save "
            f"torch.save(model.state_dict(), path) instead. ({str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path.name} cannot be read as a PyTorch checkpoint; it may be cut short or of "
            f"another format: {error}"
        ) from error


def _plain(state: Any) -> dict[str, Tensor]:
    """The state dict itself, without the wrappings that training code puts around it."""
    while isinstance(state, Mapping) and not any(isinstance(v, Tensor) for v in state.values()):
        inner = [state[key] for key in ("state_dict", "model", "net") if key in state]
        if len(inner) != 1:
            break
        state = inner[0]
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"Expected a state dict, i.e. names and tensors; got {type(state)}.")
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"Expected a state dict of tensors only; {_some(others)} hold something else."
        )
    # DistributedDataParallel writes its own name before every key.
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def _infer_layout(shapes: Shapes) -> Layout:
    for mark, infer in _LAYOUTS.items():
        if any(key.startswith(mark) for key in shapes):
            try:
                return infer(shapes)
            except (KeyError, IndexError) as error:
                raise StateDictError(
                    f"The keys that begin with {mark!r} are those of one of the authors' networks, "
                    f"but {error} is missing among them."
                ) from error
    raise StateDictError(
        f"This is none of the authors' networks (pylon, cam, li2018, unet, fpn, pan): found "
        f"{_some(shapes)}. A checkpoint of pylon_zoo's own is read by pylon_zoo.load_pretrained."
    )


def _infer_encoder(shapes: Shapes) -> str:
    for name in ENCODERS:
        with torch.device("meta"):
            candidate = Encoder(name, in_chans=shapes["encoder.model.conv1.weight"][1])
        known = {f"encoder.{k}": tuple(v.shape) for k, v in candidate.state_dict().items()}
        if known == shapes:
            return name
    raise StateDictError(
        f"The checkpoint's encoder ({len(shapes)} tensors) is none of those that can be imported: "
        f"{', '.join(ENCODERS)}."
    )


def _rename(key: str, renaming: Renaming) -> str:
    for pattern, replacement in renaming:
        renamed, count = re.subn(rf"\A{pattern}", replacement, key)
        if count:
            return renamed
    return key


def _check_keys(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], name: str) -> None:
    missing, left_over = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    reshaped = [k for k in ours.keys() & theirs.keys() if ours[k].shape != theirs[k].shape]
    problems = {"missing": missing, "left over": left_over, "of another shape": reshaped}
    if any(problems.values()):
        raise StateDictError(
            f"The checkpoint looks like the authors' {name}, but does not fit it: "
            + "; ".join(f"{what}: {_some(keys)}" for what, keys in problems.items() if keys)
            + " (names as in pylon_zoo)."
        )


def _some(keys: Iterable[str]) -> str:
    names = sorted(keys)
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if names[5:] else "")


def _pylon(shapes: Shapes) -> Layout:
    attention = "net.decoder.pa.down1.1.conv.weight" in shapes
    ups = {f"net.decoder.up{level}.conv1." for level in (3, 2, 1)}
    ups = {up for up in ups if any(key.startswith(up) for key in shapes)}
    two_layers = not ups or any(f"{up}0.conv.weight" in shapes for up in ups)
    layer = "0." if two_layers else ""
    options = {
        "decoder_channels": shapes["net.decoder.pa.mid.0.conv.weight"][0],
        "pyramid_attention": attention,
        "num_up": len(ups),
        "up_layers": 1 + two_layers,
        "head_kernel_size": shapes["net.segmentation_head.0.weight"][-1],
    }
    if ups:
        options["up_kernel_size"] = shapes[f"net.decoder.up3.conv1.{layer}conv.weight"][-1]
    renaming = [
        *_SEGMENTATION,
        (r"net\.decoder\.pa\.mid\.0\.", "attention.mid." if attention else "attention."),
        (r"net\.decoder\.pa\.down(\d)\.1\.", r"attention.down\1."),
        (r"net\.decoder\.pa\.conv(\d)\.", r"attention.up\1."),
        # Their up3 takes the skip at stride 16, as our first does.
        *(
            (rf"net\.decoder\.up{3 - i}\.conv1\.", f"ups.{i}.skip." + ("" if layer else "0."))
            for i in range(3)
        ),
    ]
    return PYLON, options, renaming


def _cam(shapes: Shapes) -> Layout:
    return CAM, {}, [(r"net\.", "encoder.model."), (r"out\.", "head.")]


def _li2018(shapes: Shapes) -> Layout:
    return (
        Li2018,
        {},
        [
            (r"net\.", "encoder.model."),
            (r"out\.1\.", "conv.conv."),
            (r"out\.2\.", "conv.bn."),
            (r"out\.4\.", "head."),
        ],
    )


def _unet(shapes: Shapes) -> Layout:
    return (
        UNet,
        {},
        [
            *_SEGMENTATION,
            (r"net\.decoder\.blocks\.(\d)\.conv(\d)\.0\.", r"blocks.\1.conv\2.conv."),
            (r"net\.decoder\.blocks\.(\d)\.conv(\d)\.1\.", r"blocks.\1.conv\2.bn."),
        ],
    )


def _fpn(shapes: Shapes) -> Layout:
    branch = r"net\.decoder\.seg_blocks\.(\d)\.block\.(\d)\.block\."
    batch_norm = "net.decoder.seg_blocks.0.block.0.block.1.running_mean" in shapes
    return (
        FPN,
        {"norm": "batch" if batch_norm else "group"},
        [
            *_SEGMENTATION,
            (r"net\.decoder\.p5\.", "laterals.0."),
            *((rf"net\.decoder\.p{5 - i}\.skip_conv\.", f"laterals.{i}.") for i in (1, 2, 3)),
            (branch + r"0\.", r"branches.\1.convs.\2.conv."),
            (branch + r"1\.", r"branches.\1.convs.\2.norm."),
        ],
    )


def _pan(shapes: Shapes) -> Layout:
    return (
        PAN,
        {"global_context": "net.decoder.fpa.branch1.1.conv.weight" in shapes},
        [
            *_SEGMENTATION,
            (r"net\.decoder\.fpa\.branch1\.1\.", "context."),
            (r"net\.decoder\.fpa\.mid\.0\.", "attention.mid."),
            # The second convolution at their coarsest scale is our first on the way back up.
            (r"net\.decoder\.fpa\.down3\.2\.", "attention.up3."),
            (r"net\.decoder\.fpa\.down(\d)\.1\.", r"attention.down\1."),
            (r"net\.decoder\.fpa\.conv(\d)\.", r"attention.up\1."),
            *((rf"net\.decoder\.gau{3 - i}\.conv1\.1\.", f"ups.{i}.context.") for i in range(3)),
            *((rf"net\.decoder\.gau{3 - i}\.conv2\.", f"ups.{i}.skip.") for i in range(3)),
        ],
    )


def _deeplabv3plus(shapes: Shapes) -> Layout:
    raise StateDictError(
        "This is the authors' deeplabv3plus. It cannot be imported: they dilate every convolution "
        "of the encoder's last stage, timm all but its first block's, so that the same weights "
        "would give other maps."
    )


_SEGMENTATION = (
    (r"net\.encoder\.", "encoder.model."),
    (r"net\.segmentation_head\.0\.", "head."),
)

#: By the beginning of a key that only this network has.
_LAYOUTS: dict[str, Callable[[Shapes], Layout]] = {
    "net.decoder.pa.": _pylon,
    "out.weight": _cam,
    "out.1.weight": _li2018,
    "net.decoder.blocks.": _unet,
    "net.decoder.seg_blocks.": _fpn,
    "net.decoder.fpa.": _pan,
    "net.decoder.aspp.": _deeplabv3plus,
}
