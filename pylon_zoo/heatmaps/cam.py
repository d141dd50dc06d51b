"""Class maps in image pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.architectures.output import check_images
from pylon_zoo.errors import InvalidInputError, InvalidOptionError, unknown_name
from pylon_zoo.heatmaps.alignment import ALIGNMENTS, resize_maps

__all__ = ["class_indices", "get_cam"]


def get_cam(
    model: LocalizationModel,
    images: Tensor,
    classes: Sequence[int | str] | None = None,
    size: str | tuple[int, int] = "input",
    alignment: str = "corners_false",
) -> Tensor:
    """Score of each class at each pixel.

    The model computes in eval mode without gradients and is left in the mode it was in.

    Args:
        model: any model of the zoo.
        images: (B, C, H, W), floating point, preprocessed, H and W >= 64.
        classes: indices or names of the K classes wanted, in that order; None means all.
        size: ``"input"`` for the pixels of ``images``; (H', W') for others of the same field of
            view, e.g. those of the file before it was resized; ``"map"`` for the map as it is.
        alignment: ``"corners_false"``, the usual resizing of maps (the paper's), or
            ``"receptive_field"``, which places each cell where it looks
            (:mod:`pylon_zoo.heatmaps.alignment`).

    Returns:
        (B, K, H, W), float32 (float64 for a float64 model): raw scores, a sigmoid away from
        probabilities. With max pooling, their maximum is close to the logit.

    Raises:
        InvalidInputError: wrong shape, dtype or channels, an empty batch, NaN or infinity.
        UnknownNameError: no such class or alignment; suggests the nearest.
    """
    check_images(images, model.encoder.in_chans)
    if not bool(images.isfinite().all()):
        bad = (~images.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
        raise InvalidInputError(
            f"Images must be finite; images {bad} of the batch hold NaN or infinity. Find them "
            f"with torch.isfinite, or read the files anew with pylon_zoo.create_transform(model)."
        )
    if alignment not in ALIGNMENTS:
        raise unknown_name("alignment", alignment, ALIGNMENTS)
    wanted = class_indices(model, classes)
    height, width = images.shape[-2:]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            maps: Tensor = model(images).maps
    finally:
        model.train(was_training)
    if classes is not None:
        maps = maps[:, wanted]
    if size == "map":
        return maps
    if size == "input":
        size = (height, width)
    if isinstance(size, str) or len(size) != 2 or min(size) < 1:
        raise InvalidOptionError(f'size is "input", "map" or (height, width); got {size!r}.')
    return resize_maps(maps, model, (height, width), size, alignment)


def class_indices(model: LocalizationModel, classes: Sequence[int | str] | None) -> list[int]:
    """Indices of the classes that are named by index or by name; all of them for None."""
    count = model.num_classes
    if classes is None:
        return list(range(count))
    if isinstance(classes, (str, int)):
        classes = [classes]
    if len(classes) == 0:
        raise InvalidInputError("No class was asked for; give at least one, or None for all.")
    names = getattr(getattr(model, "spec", None), "class_names", None) or ()
    indices = []
    for wanted in classes:
        if isinstance(wanted, str):
            if wanted not in names:
                hint = "" if names else f"This model's {count} classes have no names; use indices."
                raise unknown_name("class", wanted, names, hint=hint)
            indices.append(names.index(wanted))
        elif -count <= wanted < count:
            indices.append(int(wanted) % count)
        else:
            raise unknown_name(
                "class index", str(wanted), [], hint=f"The model has {count} classes, from 0."
            )
    return indices
