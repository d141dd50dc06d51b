"""Where the cells of a class map lie in the image.

A map of stride s has one value for each s x s pixels, but *which* pixels depends on the network.
Resizing a map with ``align_corners=False`` puts cell i's centre at ``(i + 0.5) * s - 0.5``. That
is right for patchifying stems; a padded strided convolution, however, looks at ``i * s``, half a
cell further up and left. At stride 32 that is 16 pixels: enough to miss a small finding.

Coordinates here are pixel indices: 0 is the centre of the first pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pylon_zoo.architectures import Encoder, LocalizationModel
from pylon_zoo.errors import InvalidOptionError, unknown_name
from pylon_zoo.heatmaps.capture import full_precision, run

__all__ = ["ALIGNMENTS", "receptive_field_offset", "resize_layer_maps", "resize_maps"]

ALIGNMENTS = ("corners_false", "receptive_field")


def resize_maps(
    maps: Tensor,
    model: LocalizationModel,
    image_size: tuple[int, int],
    size: tuple[int, int],
    alignment: str = "corners_false",
) -> Tensor:
    """Interpolate maps linearly to the pixels of an image.

    Args:
        maps: (B, K, h, w), as ``model`` returned them.
        model: the model; ``"receptive_field"`` asks where its cells look.
        image_size: (H, W) of the images that the model saw.
        size: (H', W') of the result: the same field of view in other pixels.
        alignment: ``"corners_false"``, the usual resizing (and the PYLON paper's), or
            ``"receptive_field"``, which puts each cell at the centre of what it sees.

    Returns:
        (B, K, H', W'), of the dtype of ``maps``.
    """
    if alignment not in ALIGNMENTS:
        raise unknown_name("alignment", alignment, ALIGNMENTS)
    if alignment == "corners_false":
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    encoder = model.encoder
    # A stride that is no level of the encoder is a map in pixels already.
    offset = (
        receptive_field_offset(encoder.name, model.map_stride, encoder.img_size)
        if model.map_stride in encoder.channels
        else 0.0
    )
    return _place(maps, offset, model.map_steps(image_size), image_size, size)


def resize_layer_maps(
    maps: Tensor,
    network: nn.Module,
    layer: nn.Module,
    images: Tensor,
    *,
    size: tuple[int, int],
    alignment: str,
) -> Tensor:
    """Interpolate maps that lie on the cells of any layer linearly to the pixels of an image.

    For ``"receptive_field"`` the layer's stride is the power of two that makes as many cells of the
    image, or the images' side divided by the cells where none does. Where its first cell looks is
    known for the encoder of a model of the zoo (:func:`receptive_field_offset`), and measured in
    the same way on the network itself, weights as they are, for any other layer: a forward and a
    backward pass of eight images of noise.

    Args:
        maps: (B, K, h, w).
        network: the classifier, in eval mode.
        layer: whose cells the maps lie on.
        images: (B, C, H, W), what the network saw.
        size: (H', W') of the result: the same field of view in other pixels.
        alignment: one of :data:`ALIGNMENTS`.

    Returns:
        (B, K, H', W'), of the dtype of ``maps``.

    Raises:
        InvalidOptionError: the gradient of the layer with respect to the image vanishes, or is not
            finite, so that nothing says where its cells look.
    """
    if alignment == "corners_false":
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    height, width = images.shape[-2:]
    if isinstance(layer, Encoder):
        stride = max(layer.channels)
        steps = float(stride), float(stride)
        offset = receptive_field_offset(layer.name, stride, layer.img_size)
    else:
        steps = _step(maps.shape[-2], height), _step(maps.shape[-1], width)

        def features(noise: Tensor) -> Tensor:
            return run(network, noise.to(images), layer, cut=False).features

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            offset = _measure(features, tuple(images.shape[1:]), steps)
    return _place(maps, offset, steps, (height, width), size)


def _step(cells: int, pixels: int) -> float:
    """Pixels from one cell to the next, by the number of cells along a side."""
    step = 2.0 ** round(math.log2(pixels / cells))
    return step if abs(pixels / step - cells) < 1 else pixels / cells


def _place(
    maps: Tensor,
    offset: float,
    steps: tuple[float, float],
    image_size: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    """Interpolate maps whose cell ``i`` lies at ``offset + i * step``."""
    down, across = (
        _interpolation(cells, offset, step, pixels, wanted).to(maps)
        for cells, step, pixels, wanted in zip(
            maps.shape[-2:], steps, image_size, size, strict=True
        )
    )
    with full_precision(maps):
        return down @ maps @ across.T


def _interpolation(cells: int, offset: float, step: float, pixels: int, wanted: int) -> Tensor:
    """(wanted, cells) weights of linear interpolation, constant beyond the outermost cells."""
    index = torch.arange(wanted, dtype=torch.float64)
    pixel = (index + 0.5) * (pixels / wanted) - 0.5
    position = ((pixel - offset) / step).clamp(0, cells - 1)
    return (1 - (position[:, None] - torch.arange(cells)).abs()).clamp(min=0)


@lru_cache(maxsize=64)
def receptive_field_offset(
    encoder_name: str, stride: int, img_size: tuple[int, int] | None = None
) -> float:
    """Measure where the first cell of an encoder's level looks, in pixels.

    The centroid of the squared gradient of single cells with respect to the image, on noise,
    averaged over eight images and both axes, for an encoder with random weights of a fixed seed;
    good to a few tenths of a pixel. Cell ``i`` then looks at ``offset + i * stride``: 0 for padded
    strided convolutions, ``(stride - 1) / 2`` for stems that cut the image into patches. It takes
    about a second and is measured once per encoder and level.

    Args:
        encoder_name: a timm model name.
        stride: of the level.
        img_size: (H, W) for encoders that are bound to one size.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(0)
        encoder = Encoder(encoder_name, in_chans=1, img_size=img_size).eval().requires_grad_(False)
        return _measure(
            lambda images: encoder(images)[stride],
            (1, *(img_size or (256, 256))),
            (stride, stride),
        )


def _measure(
    features: Callable[[Tensor], Tensor], shape: tuple[int, ...], steps: tuple[float, float]
) -> float:
    """The offset, given (8, C, H, W) noise -> (8, C', h, w) features of a network."""
    with torch.enable_grad():
        images = torch.randn(8, *shape, requires_grad=True)
        feature = features(images)
        batch, _, h, w = feature.shape
        # The two middle cells in turn, so that what the borders cut off cancels.
        rows = (h - 1 + torch.arange(batch) % 2) // 2
        columns = (w - 1 + torch.arange(batch) % 2) // 2
        # Random signs: a plain sum over channels may vanish behind a normalization.
        signs = torch.randint(0, 2, feature.shape[:2]).to(feature) * 2 - 1
        cells = feature[torch.arange(batch), :, rows, columns]
        (gradient,) = torch.autograd.grad((cells * signs).sum(), images)
    energy = gradient.double().square().sum(dim=1)
    energy = energy / energy.sum(dim=(1, 2), keepdim=True)
    y = (energy.sum(dim=2) * torch.arange(shape[1])).sum(dim=1) - rows * steps[0]
    x = (energy.sum(dim=1) * torch.arange(shape[2])).sum(dim=1) - columns * steps[1]
    offset = float((y.mean() + x.mean()) / 2)
    if not math.isfinite(offset):
        raise InvalidOptionError(
            "Where the cells of this layer look could not be measured: the gradient of its "
            "features with respect to the image vanishes or is not finite. Take "
            'alignment="corners_false".'
        )
    return offset
