"""A timm model as a feature pyramid: one feature map per stride, always (B, C, H, W)."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from pylon_zoo.errors import InvalidOptionError, unknown_name

__all__ = ["STRIDES", "Encoder"]

#: Strides that every architecture may rely on.
STRIDES = (4, 8, 16, 32)


class Encoder(nn.Module):
    """A timm feature extractor whose levels are chosen by stride, never by index.

    Attributes:
        name: the timm model's name, without a pretrained tag.
        in_chans: channels of an input image.
        img_size: (H, W) that the parameters were made for, or None for any size.
        channels: channels by stride, e.g. ``{2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048}``.
    """

    def __init__(
        self,
        name: str,
        *,
        in_chans: int = 1,
        pretrained: bool | str = False,
        img_size: int | tuple[int, int] | None = None,
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
                hint="Encoders are timm's models; timm.list_models() lists them.",
            )
        options: dict[str, Any] = {}
        if img_size is not None:
            options["img_size"] = img_size
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
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.in_chans = in_chans

        reductions: list[int] = self.model.feature_info.reduction()
        channels: list[int] = self.model.feature_info.channels()
        # Where a stride comes twice, the deeper feature has seen more.
        self._index = {stride: index for index, stride in enumerate(reductions)}
        self.channels = {stride: channels[index] for stride, index in self._index.items()}
        needed = STRIDES if output_stride == 32 else tuple(s for s in STRIDES if s <= output_stride)
        if not set(needed) <= set(self.channels):
            raise InvalidOptionError(
                f"Encoder {name!r} gives features at strides {sorted(self.channels)}; the "
                f"architectures need {list(needed)}. Choose one with a feature pyramid, e.g. "
                f"resnet18, regnetx_002, convnext_atto or densenet121."
            )
        # Swin, mambaout and their like compute in (B, H, W, C).
        self._channels_last = str(getattr(self.model, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """(B, C, H, W) -> features by stride s, each (B, channels[s], ceil(H/s), ceil(W/s))."""
        features = self.model(images)
        if self._channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        return {stride: features[index] for stride, index in self._index.items()}
