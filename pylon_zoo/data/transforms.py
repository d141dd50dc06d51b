"""Random changes to training images, boxes, points and masks moving along.

Every transform takes and returns a :class:`Sample` whose image is float32 in [0, 1], and draws
its randomness from the generator it is given, so that what happens to a training image depends
on (seed, epoch, index) alone and not on which worker process happens to load it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor

from pylon_zoo.data.sample import Sample, resize_masks

__all__ = [
    "AUGMENTATIONS",
    "brightness_contrast",
    "flip",
    "quarter_turn",
    "random_crop",
    "resize",
    "rotate",
]

Transform = Callable[[Sample, Generator], Sample]


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
    for _ in range(10):
        area = _uniform(0.7, 1.0, generator) * sample.width * sample.height
        ratio = math.exp(_uniform(math.log(3 / 4), math.log(4 / 3), generator))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if width <= sample.width and height <= sample.height:
            room = (sample.width - width, sample.height - height)
            x, y = (int(torch.randint(r + 1, (), generator=generator)) for r in room)
            return _cut(sample, x, y, width, height)
    return sample


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


def _light(sample: Sample, generator: Generator) -> Sample:
    """Flip (p 0.5), brightness within 0.1 and contrast within 20 %."""
    if _uniform(0, 1, generator) < 0.5:
        sample = flip(sample)
    brightness, contrast = _uniform(-0.1, 0.1, generator), _uniform(0.8, 1.2, generator)
    return replace(sample, image=brightness_contrast(sample.image, brightness, contrast))


def _dihedral(sample: Sample, generator: Generator) -> Sample:
    """``light`` after a random quarter turn: for images without an up, such as smears."""
    turns = int(torch.randint(4, (), generator=generator))
    return _light(quarter_turn(sample, turns), generator)


def _paper(sample: Sample, generator: Generator) -> Sample:
    """What PYLON was trained with (arXiv 2010.11475), before the resize to the input's size.

    Rotation within 90 degrees (p 0.5), random crop, flip (p 0.5), brightness within 0.5 and
    contrast within 50 % (p 0.5).
    """
    if _uniform(0, 1, generator) < 0.5:
        sample = rotate(sample, _uniform(-90, 90, generator))
    sample = random_crop(sample, generator)
    if _uniform(0, 1, generator) < 0.5:
        sample = flip(sample)
    if _uniform(0, 1, generator) < 0.5:
        brightness, contrast = _uniform(-0.5, 0.5, generator), _uniform(0.5, 1.5, generator)
        image = brightness_contrast(sample.image, brightness, contrast)
        sample = replace(sample, image=image)
    return sample


#: What ``augmentation`` of a training config names.
AUGMENTATIONS: dict[str, Transform] = {
    "none": lambda sample, _generator: sample,
    "light": _light,
    "dihedral": _dihedral,
    "paper": _paper,
}
