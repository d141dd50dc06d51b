"""Class maps in image pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.architectures.output import check_images
from pylon_zoo.errors import InvalidInputError, InvalidOptionError, unknown_name
from pylon_zoo.heatmaps.alignment import ALIGNMENTS, resize_layer_maps, resize_maps
from pylon_zoo.heatmaps.capture import as_logits, evaluation_mode, find_layer, run
from pylon_zoo.heatmaps.methods import METHODS, eigencam, gradient_maps, scorecam

__all__ = ["class_indices", "get_cam"]


def get_cam(
    model: nn.Module,
    images: Tensor,
    classes: Sequence[int | str] | None = None,
    size: str | tuple[int, int] = "input",
    alignment: str = "corners_false",
    *,
    method: str = "native",
    layer: nn.Module | str | None = None,
    normalize: bool = False,
    batch_size: int = 16,
) -> Tensor:
    """Score of each class at each pixel.

    The model computes in eval mode and is left as it was found, also after an exception: modes,
    gradients, ``requires_grad`` flags and hooks. It runs once for all classes, but for
    ``"scorecam"``, and once more on a single image where a plain classifier's layer is to be found.

    Args:
        model: any model of the zoo; with another method than ``"native"`` any classifier that
            returns (B, K) logits or an object that holds them as ``.logits``.
        images: (B, C, H, W), floating point, preprocessed; H and W >= 64 for a model of the zoo.
        classes: indices or names of the K classes wanted, in that order; None means all.
        size: ``"input"`` for the pixels of ``images``; (H', W') for others of the same field of
            view, e.g. those of the file before it was resized; ``"map"`` for the map as it is.
        alignment: ``"corners_false"``, the usual resizing of maps (the paper's), or
            ``"receptive_field"``, which places each cell where it looks
            (:mod:`pylon_zoo.heatmaps.alignment`).
        method: ``"native"``, the maps that the model makes itself, or a method that explains the
            logits by a layer's features (:mod:`pylon_zoo.heatmaps.methods`): ``"gradcam"``,
            ``"gradcam++"``, ``"xgradcam"``, ``"layercam"``, ``"eigencam"`` (one map for all
            classes) or ``"scorecam"`` (runs the model once per channel of the layer).
        layer: the layer to explain, a module of the model or its dotted name; it gives (B, C, h, w)
            or (B, h, w, C). None means the deepest features of the encoder of a model of the zoo;
            of any other classifier the last module that gives a map of more than one cell.
        normalize: stretch each map to [0, 1]; a constant one becomes 0.
        batch_size: masked images that ``"scorecam"`` scores at once.

    Returns:
        (B, K, H, W), float32 (float64 for a float64 model). ``"native"``: raw scores, a sigmoid
        away from probabilities; with max pooling, their maximum is close to the logit. Any other
        method: evidence in units of its own, >= 0.

    Raises:
        InvalidInputError: wrong shape, dtype or channels, an empty batch, NaN or infinity; or a
            model that does not return logits.
        InvalidOptionError: ``size`` or ``layer`` does not fit, or the model has no maps of its own.
        UnknownNameError: no such class, method, layer or alignment; suggests the nearest.
    """
    # torch.compile's wrapper runs a graph that knows nothing of hooks.
    network = getattr(model, "_orig_mod", model)
    zoo = network if isinstance(network, LocalizationModel) else None
    check_images(images, zoo.encoder.in_chans if zoo else None)
    if not bool(images.isfinite().all()):
        bad = (~images.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
        raise InvalidInputError(
            f"Images must be finite; images {bad} of the batch hold NaN or infinity. Find them "
            f"with torch.isfinite, or read the files anew with pylon_zoo.create_transform(model)."
        )
    if alignment not in ALIGNMENTS:
        raise unknown_name("alignment", alignment, ALIGNMENTS)
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    image_size = images.shape[-2], images.shape[-1]
    pixels = _pixels(size, image_size)
    if batch_size < 1:
        raise InvalidOptionError(f"batch_size must be at least 1; got {batch_size!r}.")

    with torch.inference_mode(False), torch.no_grad(), evaluation_mode(network):
        # What was made in inference mode cannot take part in a backward pass.
        images = images.clone() if images.is_inference() else images.detach()
        if method == "native":
            if zoo is None or layer is not None:
                what = "a layer" if zoo else f"a {type(network).__name__}"
                raise InvalidOptionError(
                    f"The native maps are those that a model of the zoo makes itself; for {what} "
                    f"take one of the methods {', '.join(METHODS[1:])}."
                )
            maps: Tensor = model(images).maps
            if classes is not None:
                maps = maps[:, class_indices(network, classes, maps.shape[1])]
            if pixels:
                maps = resize_maps(maps, zoo, image_size, pixels, alignment)
        else:
            module = find_layer(network, layer, images)
            logits, features = run(network, images, module)
            wanted = class_indices(network, classes, logits.shape[1])
            if method == "eigencam":
                maps = eigencam(features).expand(-1, len(wanted), -1, -1)
            elif method == "scorecam":
                maps = scorecam(
                    features,
                    images,
                    lambda masked: as_logits(model(masked), len(masked))[:, wanted],
                    batch_size,
                )
            else:
                maps = gradient_maps(method, logits, features, wanted)
            maps = maps.relu()
            if pixels:
                maps = resize_layer_maps(
                    maps, network, module, images, size=pixels, alignment=alignment
                )
        return _normalized(maps) if normalize else maps


def _pixels(size: str | tuple[int, int], image_size: tuple[int, int]) -> tuple[int, int] | None:
    """The (height, width) to resize maps to; None leaves them as they are."""
    if size == "map":
        return None
    if size == "input":
        return image_size
    if isinstance(size, str) or len(size) != 2 or min(size) < 1:
        raise InvalidOptionError(f'size is "input", "map" or (height, width); got {size!r}.')
    return size


def _normalized(maps: Tensor) -> Tensor:
    """Each map stretched to [0, 1]; a constant one becomes 0."""
    low = maps.amin((-2, -1), keepdim=True)
    span = maps.amax((-2, -1), keepdim=True) - low
    return (maps - low) / span.where(span > 0, 1)


def class_indices(model: nn.Module, classes: Sequence[int | str] | None, count: int) -> list[int]:
    """Indices of the classes that are named by index or by name; all ``count`` of them for None."""
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
