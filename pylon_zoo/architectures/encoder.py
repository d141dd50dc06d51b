"""A timm model as a feature pyramid: one feature map per stride, always (B, C, H, W)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import timm
import torch
from timm.models import FeatureDictNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from pylon_zoo.encoders import similar_encoders, survey
from pylon_zoo.errors import InvalidInputError, InvalidOptionError, unknown_name

__all__ = ["MIN_SIZE", "STRIDES", "Encoder", "describe", "size_limits", "takes_size"]

#: Strides that every architecture may rely on.
STRIDES = (4, 8, 16, 32)

#: Smallest side, in pixels, of an image that a model accepts: two cells at stride 32.
MIN_SIZE = 64


class Encoder(nn.Module):
    """A timm feature extractor whose levels are chosen by stride, never by index.

    Attributes:
        name: the timm model's name, without a pretrained tag.
        in_chans: channels of an input image.
        channels: channels by stride, e.g. ``{1: 1, 2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048}``.
        img_size: (H, W), the only size of image that the encoder takes, or None.
        multiple: what both sides of an image must be multiples of; 1 for most encoders.
        recompute: see :meth:`pylon_zoo.LocalizationModel.set_grad_checkpointing`.
    """

    recompute = False

    def __init__(
        self,
        name: str,
        *,
        in_chans: int = 1,
        pretrained: bool | str = False,
        img_size: int | Sequence[int] | None = None,
        output_stride: int = 32,
    ) -> None:
        """Build the encoder.

        Args:
            name: a timm model name, e.g. ``"resnet50"``.
            in_chans: channels of an input image; with pretrained weights timm adapts the first
                convolution (for one channel it sums the filters of R, G and B).
            pretrained: True for timm's default ImageNet weights, a tag such as ``"a1_in1k"`` for
                others, False for random ones.
            img_size: (H, W) or one side, for families whose parameters depend on it (swin,
                maxvit, ...); the model then takes images of exactly this size.
            output_stride: 32, or 16 to dilate the last stage instead of striding it.

        Raises:
            UnknownNameError: timm has no such model.
            InvalidOptionError: it gives no features at strides 4, 8, 16 and 32, or it does not
                take ``img_size`` or ``output_stride``.
        """
        super().__init__()
        if "." in name or not timm.is_model(name):
            raise unknown_name(
                "encoder",
                name,
                timm.list_models(),
                hint="Encoders are timm's models; pylon_zoo.list_encoders() lists those that work.",
            )
        record = survey()["encoders"].get(name)
        if name in survey()["refused"]:
            raise _no_pyramid(name, survey()["refused"][name])
        if output_stride != 32 and record and not record["dilates"]:
            raise _no_dilation(name, output_stride, record)
        options: dict[str, Any] = {}
        if img_size is not None:
            options["img_size"] = _height_width(img_size)
        if output_stride != 32:
            options["output_stride"] = output_stride
        full_name = f"{name}.{pretrained}" if isinstance(pretrained, str) else name
        try:
            self.model = timm.create_model(
                full_name,
                pretrained=bool(pretrained),
                features_only=True,
                in_chans=in_chans,
                **options,
            )
        except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
            what = f" with {options}" if options else ""
            raise InvalidOptionError(
                f"timm cannot build {full_name!r} as a feature extractor{what}: {error}"
            ) from error
        self.name = name
        self.in_chans = in_chans
        info = self.model.feature_info
        self.channels = {
            1: in_chans,
            **dict(zip(info.reduction(), info.channels(), strict=True)),
        }
        if not {stride for stride in STRIDES if stride <= output_stride} <= set(self.channels):
            raise _no_pyramid(name, describe(name, self.model))
        if max(self.channels) > output_stride:
            raise _no_dilation(name, output_stride, describe(name, self.model))
        if record is None:  # newer than the survey
            record = size_limits(self.model, in_chans, options.get("img_size"))
        elif "img_size" in options and record.keys() & {"img_size", "multiple"}:
            trial = copy.deepcopy(self.model).to("meta").eval()
            fits = takes_size(trial, in_chans, *options["img_size"])
            record = {"img_size": options["img_size"]} if fits else None
        if record is None:
            raise InvalidOptionError(
                f"Encoder {name!r} does not work with img_size={img_size}. Take sides that are "
                f"multiples of 32, or of its default size."
            )
        self.multiple: int = record.get("multiple", 1)
        self.img_size: tuple[int, int] | None = (
            tuple(record["img_size"]) if "img_size" in record else None
        )

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """(B, C, H, W) -> features by stride s, each (B, channels[s], H/s, W/s).

        A side that is no multiple of s is rounded up or, by families that cut the image into
        patches, down. Stride 1 is the image itself, unless the encoder (vgg) has features there.
        """
        recompute = self.recompute and self.training and torch.is_grad_enabled()
        run = self._recomputed if recompute else self.model
        return {1: images, **feature_pyramid(self.model, images, run)}

    def _recomputed(self, images: Tensor) -> list[Tensor]:
        """What the feature extractor gives; shallow features are computed anew for gradients."""
        features: list[Tensor] = []
        stages: list[nn.Module] = []
        for name, stage in self.model.items():
            stages.append(stage)
            if name in self.model.return_layers:
                part = nn.Sequential(*stages)
                stages = []
                below = features[-1] if features else images
                if self.model.feature_info.reduction()[len(features)] <= 8:
                    feature = checkpoint(
                        part,
                        below,
                        use_reentrant=False,
                        context_fn=partial(_both_runs, part),
                    )
                else:
                    feature = part(below)
                features.append(feature)
        return features

    def set_recompute(self, enable: bool) -> None:
        """Whether to compute features of strides 2 to 8 anew in the backward pass.

        Raises:
            InvalidOptionError: the encoder is no sequence of stages.
        """
        if enable and not isinstance(self.model, FeatureDictNet):
            raise InvalidOptionError(
                f"Encoder {self.name!r} computes its features in one piece "
                f"({type(self.model).__name__}), so that none can be computed anew. Train in "
                f"smaller pieces (accumulation) instead, or take another encoder, e.g. a resnet."
            )
        self.recompute = enable

    def nearest_size(self, height: int, width: int) -> tuple[int, int]:
        """The size that the encoder takes and that is nearest to this one."""
        if self.img_size:
            return self.img_size
        m = self.multiple
        return max(1, round(height / m)) * m, max(1, round(width / m)) * m

    def check_size(self, height: int, width: int) -> None:
        """Raise :class:`InvalidInputError` unless the encoder takes images of this size."""
        valid = self.nearest_size(height, width)
        if (height, width) == valid:
            return
        accepted = f"images of exactly {valid[0]} x {valid[1]} (height x width)"
        if not self.img_size:
            accepted = (
                f"images whose sides are multiples of {self.multiple}, e.g. {valid[0]} x "
                f"{valid[1]} (height x width)"
            )
        remedy = "Resize them, e.g. with pylon_zoo.create_transform(model)"
        if survey()["encoders"].get(self.name, {}).get("adjustable", True):
            remedy += f", or create the model with img_size=({height}, {width})"
        raise InvalidInputError(
            f"Encoder {self.name!r} takes {accepted}; got {height} x {width}. {remedy}."
        )


def feature_pyramid(
    model: Any, images: Tensor, run: Callable[[Tensor], list[Tensor]] | None = None
) -> dict[int, Tensor]:
    """The features of a timm feature extractor by stride, (B, C, H, W).

    Where a stride comes twice, the deeper feature is taken: it has seen more. ``run`` is another
    way to compute what the model computes.
    """
    features = (run or model)(images)
    # Swin, mambaout and their like compute in (B, H, W, C).
    if str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC"):
        features = [feature.permute(0, 3, 1, 2) for feature in features]
    return dict(zip(model.feature_info.reduction(), features, strict=True))


def _both_runs(
    part: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _still_statistics(part)


@contextmanager
def _still_statistics(part: nn.Module) -> Iterator[None]:
    """Batch norms keep account of what they see on copies, which are dropped."""
    norms = [module for module in part.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers()]
    for norm, name, buffer in kept:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in kept:
            setattr(norm, name, buffer)


def takes_size(model: Any, in_chans: int, height: int, width: int) -> bool:
    """Whether a timm feature extractor, in eval mode, takes images of this size.

    Its features must also lie on the grid of their strides: H/s x W/s cells, give or take one. On
    the meta device nothing is computed, but an index out of range does not show there either.
    """
    try:
        with torch.no_grad():
            device = next(model.parameters()).device
            images = torch.zeros(1, in_chans, height, width, device=device)
            features = feature_pyramid(model, images)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError):
        return False
    channels = dict(zip(model.feature_info.reduction(), model.feature_info.channels(), strict=True))
    return all(
        feature.shape[1] == channels[stride]
        and abs(feature.shape[2] - height / stride) <= 1
        and abs(feature.shape[3] - width / stride) <= 1
        for stride, feature in features.items()
    )


def size_limits(
    model: Any, in_chans: int, img_size: tuple[int, int] | None = None
) -> dict[str, Any] | None:
    """What sizes of image a timm feature extractor takes, found by trying.

    Args:
        model: the feature extractor; if it is on the meta device, tables of positions that are too
            small for an image stay unnoticed.
        in_chans: channels of an image.
        img_size: (H, W) that it was built for; None means its default.

    Returns:
        ``{}`` for any size of 64 px or more, ``{"multiple": m}`` or ``{"img_size": (H, W)}``; None
        if it takes no size that was tried.
    """
    default = img_size or tuple(model.pretrained_cfg["input_size"][1:])
    trial = copy.deepcopy(model).to("meta").eval()

    def takes(*sizes: tuple[int, int]) -> bool:
        return all(takes_size(trial, in_chans, *size) for size in sizes)

    limits = {}
    if not takes((64, 64), (97, 65), (225, 310)):
        for m in (32, 64, 128, 256, *default[:1]):
            least = max(m, MIN_SIZE)
            if takes((least, least), (least + m, least), (3 * m, 5 * m)):
                limits = {"multiple": m}
                break
        else:
            return {"img_size": default} if takes(default) else None
    # With values, at a size beyond the default: this shows tables that are too small.
    m = limits.get("multiple", 1)
    beyond = [(side * 5 // 4 // m + 1) * m for side in default]
    training = model.training
    fits = takes_size(model.eval(), in_chans, *beyond)
    model.train(training)
    return limits if fits else {"img_size": default}


def describe(name: str, model: Any) -> dict[str, Any]:
    """A timm feature extractor's family, parameters and strides, as the survey records them."""
    return {
        "family": timm.model_entrypoint(name).__module__.rpartition(".")[2],
        "params": sum(p.numel() for p in model.parameters()),
        "strides": list(model.feature_info.reduction()),
    }


def _no_pyramid(name: str, record: dict[str, Any]) -> InvalidOptionError:
    strides = sorted(set(record["strides"]))
    return InvalidOptionError(
        f"Encoder {name!r} gives features at strides {strides or 'that do not divide the image'}; "
        f"the architectures need {list(STRIDES)}. Similar ones that work: "
        f"{_similar(name, record)}. pylon_zoo.list_encoders() lists all."
    )


def _no_dilation(name: str, stride: int, record: dict[str, Any]) -> InvalidOptionError:
    return InvalidOptionError(
        f"Encoder {name!r} cannot be dilated to output_stride={stride}. Take output_stride=32, or "
        f"a similar encoder that can: {_similar(name, record, dilates=True)}."
    )


def _similar(name: str, record: dict[str, Any], *, dilates: bool = False) -> str:
    return ", ".join(similar_encoders(name, record["family"], record["params"], dilates=dilates))


def _height_width(img_size: Any) -> tuple[int, int]:
    sides = [img_size, img_size] if isinstance(img_size, int) else img_size
    if (
        not isinstance(sides, (list, tuple))
        or len(sides) != 2
        or not all(isinstance(side, int) and side >= MIN_SIZE for side in sides)
    ):
        raise InvalidOptionError(
            f"img_size must be a side or (height, width) of at least {MIN_SIZE} px; "
            f"got {img_size!r}."
        )
    return sides[0], sides[1]
