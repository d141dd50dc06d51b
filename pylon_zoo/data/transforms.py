"""Random changes to training images, boxes and points moving along.

Every transform takes and returns a :class:`Sample` whose image is float32 in [0, 1], and draws
its randomness from the generator it is given, so that what happens to a training image depends
on (seed, epoch, index) alone and not on which worker process happens to load it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor

from pylon_zoo.data.sample import Sample

__all__ = ["AUGMENTATIONS", "brightness_contrast", "flip", "quarter_turn"]

Transform = Callable[[Sample, Generator], Sample]


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def flip(sample: Sample) -> Sample:
    """Mirror left and right."""
    width = sample.width
    boxes, points = sample.boxes.clone(), sample.points.clone()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    points[:, 0] = width - sample.points[:, 0]
    return replace(sample, image=sample.image.flip(-1), boxes=boxes, points=points)


def quarter_turn(sample: Sample, turns: int) -> Sample:
    """Turn counterclockwise by ``turns`` times 90 degrees."""
    boxes, points, width = sample.boxes, sample.points, sample.width
    image = torch.rot90(sample.image, turns, (-2, -1))
    for _ in range(turns % 4):
        boxes = torch.stack(
            [boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]], dim=1
        )
        points = torch.stack([points[:, 1], width - points[:, 0]], dim=1)
        width = sample.height if width == sample.width else sample.width
    return replace(sample, image=image, boxes=boxes, points=points)


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


#: What ``augmentation`` of a training config names.
AUGMENTATIONS: dict[str, Transform] = {
    "none": lambda sample, _generator: sample,
    "light": _light,
    "dihedral": _dihedral,
}
