"""From an image, whatever holds it, to the tensor that a model expects."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from pylon_zoo.data.readers import image_to_tensor, read_image
from pylon_zoo.data.sample import Sample
from pylon_zoo.data.transforms import (
    AUGMENTATIONS,
    Change,
    adjust,
    change,
    change_and_resize,
    resize,
    sampling,
    warp,
)
from pylon_zoo.errors import InvalidInputError, RangeWarning, unknown_name
from pylon_zoo.spec import Preprocessing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pylon_zoo.architectures import LocalizationModel

__all__ = ["ImageLike", "Transform", "as_tensor", "create_transform", "to_unit_range"]

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor"

#: ITU-R BT.601 luma, as Pillow's and OpenCV's gray conversions.
LUMA = (0.299, 0.587, 0.114)


def create_transform(
    model: LocalizationModel | Preprocessing, train: bool = False, augmentation: str = "light"
) -> Transform:
    """The transform that makes a model's input.

    Args:
        model: a model of the zoo, or its preprocessing.
        train: also change images at random, as ``augmentation`` says.
        augmentation: ``"light"`` (flip, brightness, contrast), ``"dihedral"`` (and quarter turns),
            ``"paper"`` (any rotation, crops) or ``"none"``; used with ``train`` only.

    Returns:
        A callable that takes a path, a PIL image, an array (H, W) or (H, W, C), or a tensor
        (C, H, W), and returns a float32 tensor (C, H, W); or takes a :class:`Sample` and returns
        one, its boxes, points and masks moved along.
    """
    preprocessing = model if isinstance(model, Preprocessing) else model.spec.preprocessing
    return Transform(preprocessing, augmentation if train else "none")


class Transform:
    """Scale to [0, 1], convert channels, augment, resize and normalize.

    Called, it does all of it. Training can also prepare images in a worker process, draw what is
    to become of them there, and have a batch of them augmented and normalized on its own device.
    """

    def __init__(self, preprocessing: Preprocessing, augmentation: str = "none") -> None:
        """See :func:`create_transform`."""
        if augmentation not in AUGMENTATIONS:
            raise unknown_name("augmentation", augmentation, AUGMENTATIONS)
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        squash = preprocessing.resize == "squash"
        self._size = preprocessing.input_size[1:] if squash else None
        self._mean = torch.tensor(preprocessing.mean)[:, None, None]
        self._std = torch.tensor(preprocessing.std)[:, None, None]

    def __repr__(self) -> str:
        return f"Transform({self.preprocessing}, augmentation={self.augmentation!r})"

    def __call__(self, image: ImageLike | Sample, generator: Generator | None = None) -> Any:
        """Transform one image.

        Args:
            image: 8 or 16 bits over the whole range of the type, or floats in [0, 1]; gray or RGB.
            generator: decides random changes; None takes torch's default one.

        Raises:
            ImageReadError: the file cannot be read.
            InvalidInputError: the array's shape, dtype or values are not accepted.
        """
        if isinstance(image, Sample):
            return self._sample(image, generator)
        name = str(image) if isinstance(image, (str, os.PathLike)) else "the image"
        return self._sample(Sample(as_tensor(image), torch.zeros(0), source=name), generator).image

    def prepare(self, sample: Sample) -> Sample:
        """A sample as :meth:`draw` and :meth:`finish` take it: channels, [0, 1], resized."""
        sample = self._unit(sample)
        if self._size is not None:
            sample = resize(sample, *self._size, self.preprocessing.interpolation)
        return sample

    def draw(self, sample: Sample, generator: Generator) -> Tensor:
        """Numbers (8,) that tell :meth:`finish` how to change a prepared sample's image."""
        drawn = AUGMENTATIONS[self.augmentation](sample.width, sample.height, generator)
        size = sample.width, sample.height
        place = sampling(drawn.matrix(*size, *size), size, size)
        return torch.cat([place.flatten(), torch.tensor([drawn.brightness, drawn.contrast])])

    def finish(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Augment and normalize a batch of prepared images, on their device.

        Args:
            images: (B, C, H, W) float32 in [0, 1].
            drawn: (B, 8) of :meth:`draw`.
        """
        height, width = images.shape[-2:]
        images = warp(images, drawn[:, :6].reshape(-1, 2, 3), height, width)
        images = adjust(images, drawn[:, 6], drawn[:, 7])
        return (images - self._mean.to(images)) / self._std.to(images)

    def _unit(self, sample: Sample) -> Sample:
        return self._channels(replace(sample, image=to_unit_range(sample.image, sample.source)))

    def _channels(self, sample: Sample) -> Sample:
        channels = self.preprocessing.input_size[0]
        if sample.image.shape[0] == channels:
            return sample
        return replace(sample, image=_match_channels(sample.image, channels, sample.source))

    def _sample(self, sample: Sample, generator: Generator | None) -> Sample:
        drawn = Change()
        if self.augmentation != "none":
            generator = torch.default_generator if generator is None else generator
            drawn = AUGMENTATIONS[self.augmentation](sample.width, sample.height, generator)
        if drawn.warps and self._size is not None:
            if sample.image.dtype != torch.uint8:
                sample = self._unit(sample)
            sample = self._channels(change_and_resize(sample, drawn, *self._size))
        else:
            sample = change(self._unit(sample), drawn)
            if self._size is not None:
                sample = resize(sample, *self._size, self.preprocessing.interpolation)
        return replace(sample, image=(sample.image - self._mean) / self._std)


def as_tensor(image: ImageLike) -> Tensor:
    """Pixels of a path, a PIL image, an array (H, W) or (H, W, C) or a tensor, as (C, H, W).

    Raises:
        ImageReadError: the file cannot be read.
        InvalidInputError: the array's shape or type is not accepted.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, Image.Image):
        return image_to_tensor(image)
    if isinstance(image, np.ndarray):
        dtype = image.dtype
        if image.ndim == 2:
            image = image[None]
        elif image.ndim == 3 and image.shape[-1] in (1, 3):
            image = image.transpose(2, 0, 1)
        else:
            raise InvalidInputError(
                f"An array image is (H, W), (H, W, 1) or (H, W, 3); got shape {image.shape}."
            )
        try:
            return torch.from_numpy(np.ascontiguousarray(image))
        except TypeError as error:
            raise InvalidInputError(f"Arrays of dtype {dtype} are not accepted.") from error
    if not isinstance(image, Tensor):
        raise InvalidInputError(
            f"An image is a path, a PIL image, an array or a tensor; got {type(image).__name__}."
        )
    return image[None] if image.ndim == 2 else image


def to_unit_range(image: Tensor, source: str = "the image") -> Tensor:
    """Scale uint8 and uint16 to float32 in [0, 1]; check that floats are there already.

    Raises:
        InvalidInputError: another dtype, NaN, infinity, or floats outside [0, 1].

    Warns:
        RangeWarning: 16 bits or floats of which only the lowest sixteenth of the range is used;
            once a process.
    """
    if image.dtype == torch.uint8:
        return image.to(torch.float32) / 255
    if image.dtype == torch.uint16:
        scaled = image.to(torch.float32) / 65535
        _warn_of_dark(scaled, source)
        return scaled
    if not image.dtype.is_floating_point:
        raise InvalidInputError(
            f"{source}: pixels must be uint8, uint16 or floats in [0, 1]; got {image.dtype}."
        )
    if not bool(image.isfinite().all()):
        raise InvalidInputError(f"{source}: pixels must be finite; got NaN or infinity.")
    low, high = (float(v) for v in image.aminmax())
    if low < 0 or high > 1:
        raise InvalidInputError(
            f"{source}: float pixels must lie in [0, 1]; got {low:g} to {high:g}. Divide by the "
            f"largest value that the format can hold (255 for 8 bits)."
        )
    _warn_of_dark(image, source)
    return image.to(torch.float32)


_warned_of_dark = False


def _warn_of_dark(image: Tensor, source: str) -> None:
    """Warn, once a process, of values that fill only the lowest sixteenth of the range.

    12 bits stored in 16, or 8 bits divided by 65535: to a model, an image that is nearly black.
    """
    global _warned_of_dark  # noqa: PLW0603
    if _warned_of_dark or not image.numel():
        return
    low, high = (float(v) for v in image.aminmax())
    if low < high < 1 / 16:
        _warned_of_dark = True
        warnings.warn(
            f"{source}: the brightest pixel is {high:.4f} on a scale of 0 to 1. Models are trained "
            f"on images that fill that scale; this one looks nearly black to them. If only the "
            f"lower bits of its type are used (12 of 16), multiply accordingly. Further images are "
            f"not warned of.",
            RangeWarning,
            stacklevel=2,
        )


def _match_channels(image: Tensor, channels: int, source: str) -> Tensor:
    have = image.shape[0]
    if have == 3 and channels == 1:
        return (image * torch.tensor(LUMA)[:, None, None]).sum(dim=0, keepdim=True)
    if have == 1:
        return image.expand(channels, -1, -1)
    raise InvalidInputError(
        f"{source} has {have} channels, the model takes {channels}; gray and RGB are converted "
        f"into each other, anything else is for you to arrange."
    )
