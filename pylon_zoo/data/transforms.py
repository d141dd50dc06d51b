"""Random changes to training images, boxes, points and masks moving along.

Every transform takes and returns a :class:`Sample` whose image is float32 in [0, 1], and draws
its randomness from the generator it is given, so that what happens to a training image depends
on (seed, epoch, index) alone and not on which worker process happens to load it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from pylon_zoo.data.sample import Sample, resize_masks

__all__ = [
    "AUGMENTATIONS",
    "Change",
    "adjust",
    "brightness_contrast",
    "change",
    "change_and_resize",
    "flip",
    "quarter_turn",
    "random_crop",
    "resize",
    "rotate",
    "sampling",
    "warp",
]


Array = NDArray[np.float64]


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def flip(sample: Sample) -> Sample:
    """Mirror left and right."""
    width = sample.width
    boxes, points = sample.boxes.clone(), sample.points.clone()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    points[:, 0] = width - sample.points[:, 0]
    return replace(
        sample,
        image=sample.image.flip(-1),
        boxes=boxes,
        points=points,
        masks=sample.masks.flip(-1),
    )


def quarter_turn(sample: Sample, turns: int) -> Sample:
    """Turn counterclockwise by ``turns`` times 90 degrees."""
    boxes, points, width = sample.boxes, sample.points, sample.width
    image, masks = (torch.rot90(t, turns, (-2, -1)) for t in (sample.image, sample.masks))
    for _ in range(turns % 4):
        boxes = torch.stack(
            [boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]], dim=1
        )
        points = torch.stack([points[:, 1], width - points[:, 0]], dim=1)
        width = sample.height if width == sample.width else sample.width
    return replace(sample, image=image, boxes=boxes, points=points, masks=masks)


def rotate(sample: Sample, degrees: float) -> Sample:
    """Turn counterclockwise about the middle, on black; boxes become those around the turned ones.

    The size stays: what leaves the image is cut off. Masks take the nearest pixel.
    """
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import rotate as rotate_image

    image = rotate_image(sample.image, degrees, interpolation=InterpolationMode.BILINEAR)
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = torch.tensor([sample.width / 2, sample.height / 2])
    corners = sample.boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2)
    corners = (corners - middle) @ turn + middle
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    points = (sample.points - middle) @ turn + middle
    masks = sample.masks
    if len(masks):
        masks = rotate_image(masks.byte(), degrees, interpolation=InterpolationMode.NEAREST).bool()
    turned = replace(sample, image=image, boxes=boxes, points=points, masks=masks)
    return _cut(turned, 0, 0, sample.width, sample.height)


def _cut(sample: Sample, x: int, y: int, width: int, height: int) -> Sample:
    """A part of the image; boxes and masks are clipped, and go where nothing is left of them.

    Labels stay, since they are the image's: training on parts of it always takes that risk.
    """
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    boxes = (sample.boxes - torch.tensor([x, y, x, y])).clamp(min=0).minimum(limits)
    points = sample.points - torch.tensor([x, y])
    left = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    inside = ((points >= 0) & (points < limits[:2])).all(dim=1)
    masks = sample.masks[:, y : y + height, x : x + width]
    seen = masks.flatten(1).any(dim=1)
    return replace(
        sample,
        image=sample.image[:, y : y + height, x : x + width],
        boxes=boxes[left],
        box_classes=sample.box_classes[left],
        points=points[inside],
        point_classes=sample.point_classes[inside],
        masks=masks[seen],
        mask_classes=sample.mask_classes[seen],
    )


def random_crop(sample: Sample, generator: Generator) -> Sample:
    """Cut 70 to 100 % of the area, its sides in a ratio of 3/4 to 4/3 (log-uniform).

    Ten tries, then the whole image; the preprocessing resizes it.
    """
    return change(sample, Change(crop=_draw_crop(sample.width, sample.height, generator)))


def _draw_crop(width: int, height: int, generator: Generator) -> tuple[int, int, int, int] | None:
    for _ in range(10):
        area = _uniform(0.7, 1.0, generator) * width * height
        ratio = math.exp(_uniform(math.log(3 / 4), math.log(4 / 3), generator))
        sides = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if sides[0] <= width and sides[1] <= height:
            room = (width - sides[0], height - sides[1])
            x, y = (int(torch.randint(r + 1, (), generator=generator)) for r in room)
            return (x, y, *sides)
    return None


def resize(sample: Sample, height: int, width: int, interpolation: str = "bicubic") -> Sample:
    """Resize to (height, width) without keeping the aspect, anti-aliased.

    Args:
        sample: its image in float32 in [0, 1], and so the result's.
        height: in pixels.
        width: in pixels.
        interpolation: ``"nearest"``, ``"bilinear"`` or ``"bicubic"``.
    """
    if (sample.height, sample.width) == (height, width):
        return sample
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resize as resize_image

    image = resize_image(
        sample.image,
        [height, width],
        interpolation=InterpolationMode(interpolation),
        antialias=True,
    )
    scale = torch.tensor([width / sample.width, height / sample.height])
    return replace(
        sample,
        # Bicubic overshoots at sharp edges.
        image=image.clamp(0, 1),
        boxes=sample.boxes * scale.repeat(2),
        points=sample.points * scale,
        masks=resize_masks(sample.masks, height, width),
    )


def brightness_contrast(image: Tensor, brightness: float, contrast: float) -> Tensor:
    """Scale a [0, 1] image about its mean by ``contrast`` and add ``brightness``, clipped."""
    mean = image.mean()
    return ((image - mean) * contrast + mean + brightness).clamp_(0, 1)


@dataclass(frozen=True)
class Change:
    """What becomes of an image, in this order; the defaults change nothing.

    Attributes:
        turns: quarter turns counterclockwise.
        degrees: of a rotation counterclockwise, on black.
        crop: (x, y, width, height) of the part that is kept; None keeps all.
        mirrored: left and right.
        brightness: added.
        contrast: factor about the mean.
    """

    turns: int = 0
    degrees: float = 0.0
    crop: tuple[int, int, int, int] | None = None
    mirrored: bool = False
    brightness: float = 0.0
    contrast: float = 1.0

    @property
    def adjusts(self) -> bool:
        """Whether brightness or contrast change."""
        return (self.brightness, self.contrast) != (0.0, 1.0)

    @property
    def warps(self) -> bool:
        """Whether it rotates or crops."""
        return bool(self.degrees) or self.crop is not None

    def matrix(self, width: int, height: int, new_width: int, new_height: int) -> Array:
        """(3, 3) float64: where (x, y, 1) of an image goes when the result is resized.

        Points are in pixels, edges between them.
        """
        matrix = np.eye(3)
        for _ in range(self.turns % 4):
            matrix = np.array([[0, 1, 0], [-1, 0, width], [0, 0, 1]]) @ matrix
            width, height = height, width
        if self.degrees:
            angle, x, y = math.radians(self.degrees), width / 2, height / 2
            cos, sin = math.cos(angle), math.sin(angle)
            rows = [[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y]]
            matrix = np.array([*rows, [0, 0, 1]]) @ matrix
        if self.crop is not None:
            x, y, width, height = self.crop
            matrix[:2, 2] -= x, y
        if self.mirrored:
            matrix[0] = width * matrix[2] - matrix[0]
        return np.diag([new_width / width, new_height / height, 1]) @ matrix


def change(sample: Sample, by: Change) -> Sample:
    """Apply a change pixel by pixel, one step after another."""
    if by.turns:
        sample = quarter_turn(sample, by.turns)
    if by.degrees:
        sample = rotate(sample, by.degrees)
    if by.crop is not None:
        sample = _cut(sample, *by.crop)
    if by.mirrored:
        sample = flip(sample)
    if by.adjusts:
        image = brightness_contrast(sample.image, by.brightness, by.contrast)
        sample = replace(sample, image=image)
    return sample


def change_and_resize(sample: Sample, by: Change, height: int, width: int) -> Sample:
    """Apply a change and resize to (height, width) in one step, by :func:`warp`.

    An image that shrinks to less than half is averaged first, over squares of as many pixels as
    fit into one of the result.

    Args:
        sample: its image in uint8, or in float32 in [0, 1]; the result's is in float32.
        by: the change.
        height: of the result.
        width: of the result.
    """
    matrix = by.matrix(sample.width, sample.height, width, height)
    # A row for each side of the result: turned, they keep their lengths.
    step = max(int(1 / max(math.hypot(a, b) for a, b, _ in matrix[:2].tolist())), 1)
    image = _means(sample.image, step)[None]
    extent = image.shape[-1] * step, image.shape[-2] * step
    image = warp(image, sampling(matrix, extent, (width, height)), height, width)
    if by.adjusts:
        image = adjust(image, *torch.tensor([[by.brightness], [by.contrast]]))
    if not len(sample.boxes) + len(sample.points) + len(sample.masks):
        return replace(sample, image=image[0])

    affine = torch.from_numpy(matrix[:2].astype(np.float32))
    linear, offset = affine[:, :2], affine[:, 2:]
    corners = sample.boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2)
    corners = corners @ linear.T + offset.T
    place = sampling(matrix, (sample.width, sample.height), (width, height))
    moved = replace(
        sample,
        image=image[0],
        boxes=torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1),
        points=sample.points @ linear.T + offset.T,
        masks=warp(sample.masks[None].float(), place, height, width, mode="nearest")[0] > 0,
    )
    return _cut(moved, 0, 0, width, height)


def sampling(matrix: Array, extent: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(1, 2, 3) float32 for :func:`warp`, from :meth:`Change.matrix`.

    Args:
        matrix: where points of the image go.
        extent: (width, height) that the image covers, in the matrix' pixels.
        size: (width, height) of the result.
    """
    # Both sides counted from -1 to 1, as grid_sample does.
    source = np.array([[2 / extent[0], 0, -1], [0, 2 / extent[1], -1], [0, 0, 1]])
    target = np.array([[size[0] / 2, 0, size[0] / 2], [0, size[1] / 2, size[1] / 2], [0, 0, 1]])
    back = source @ np.linalg.inv(matrix) @ target
    return torch.from_numpy(back[None, :2].astype(np.float32))


def warp(images: Tensor, places: Tensor, height: int, width: int, mode: str = "bilinear") -> Tensor:
    """Take each pixel from its place in the image, interpolated, on black.

    Args:
        images: (B, C, H, W) float.
        places: (B, 2, 3) of :func:`sampling`.
        height: of the result.
        width: of the result.
        mode: ``"bilinear"`` or ``"nearest"``.

    Returns:
        (B, C, height, width), on the images' device.
    """
    x = (2 * torch.arange(width, device=images.device) + 1) / width - 1
    y = (2 * torch.arange(height, device=images.device)[:, None] + 1) / height - 1
    a = places[..., None, None]
    # affine_grid makes the same, ten times slower.
    grid = torch.stack([a[:, k, 0] * x + (a[:, k, 1] * y + a[:, k, 2]) for k in (0, 1)])
    grid = grid.permute(1, 2, 3, 0)
    return F.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)


def adjust(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """:func:`brightness_contrast` of (B, C, H, W) images, by (B,) values; on any device."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    shift = mean * (1 - contrast[:, None, None, None]) + brightness[:, None, None, None]
    return torch.addcmul(shift, images, contrast[:, None, None, None]).clamp_(0, 1)


def _means(image: Tensor, step: int) -> Tensor:
    """Means of squares of ``step`` x ``step`` pixels, in float32 in [0, 1]; of what the edge holds.

    Bytes are added up as integers: a large image is never held in floats.
    """
    top = 255 if image.dtype == torch.uint8 else 1
    if step == 1:
        return image.to(torch.float32) / top
    exact = torch.int16 if step * 255 < 2**15 else torch.int32
    sums = image[:, ::step].to(exact if top == 255 else torch.float32, copy=True)
    for offset in range(1, step):
        part = image[:, offset::step]
        sums[:, : part.shape[1]] += part
    means = sums[..., ::step].to(torch.float32, copy=True)
    for offset in range(1, step):
        part = sums[..., offset::step]
        means[..., : part.shape[2]] += part
    means /= step**2 * top
    if left := image.shape[1] % step:
        means[:, -1] *= step / left
    if left := image.shape[2] % step:
        means[..., -1] *= step / left
    return means


def _draw_none(_width: int, _height: int, _generator: Generator) -> Change:
    """Nothing."""
    return Change()


def _draw_light(_width: int, _height: int, generator: Generator) -> Change:
    """Flip (p 0.5), brightness within 0.1 and contrast within 20 %."""
    return Change(
        mirrored=_uniform(0, 1, generator) < 0.5,
        brightness=_uniform(-0.1, 0.1, generator),
        contrast=_uniform(0.8, 1.2, generator),
    )


def _draw_dihedral(width: int, height: int, generator: Generator) -> Change:
    """``light`` after a random quarter turn: for images without an up, such as smears."""
    turns = int(torch.randint(4, (), generator=generator))
    return replace(_draw_light(width, height, generator), turns=turns)


def _draw_paper(width: int, height: int, generator: Generator) -> Change:
    """What PYLON was trained with (arXiv 2010.11475), before the resize to the input's size.

    Rotation within 90 degrees (p 0.5), random crop, flip (p 0.5), brightness within 0.5 and
    contrast within 50 % (p 0.5).
    """
    turned = _uniform(0, 1, generator) < 0.5
    degrees = _uniform(-90, 90, generator) if turned else 0.0
    crop = _draw_crop(width, height, generator)
    mirrored = _uniform(0, 1, generator) < 0.5
    drawn = Change(degrees=degrees, crop=crop, mirrored=mirrored)
    if _uniform(0, 1, generator) < 0.5:
        brightness, contrast = _uniform(-0.5, 0.5, generator), _uniform(0.5, 1.5, generator)
        drawn = replace(drawn, brightness=brightness, contrast=contrast)
    return drawn


#: What ``augmentation`` of a training config names: draws a change for an image of (width, height).
AUGMENTATIONS: dict[str, Callable[[int, int, Generator], Change]] = {
    "none": _draw_none,
    "light": _draw_light,
    "dihedral": _draw_dihedral,
    "paper": _draw_paper,
}
