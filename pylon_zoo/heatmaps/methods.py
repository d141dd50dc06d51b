"""Class activation maps from a layer's features and the gradients of the class scores.

Shapes: B images, K classes, C channels and h x w cells of the layer. Where a published formula
leaves a division by zero open, the small constants are those of the ``grad-cam`` package, so that
the maps agree. Maps are as the formulas give them; :func:`pylon_zoo.get_cam` clips them at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pylon_zoo.errors import InvalidOptionError
from pylon_zoo.heatmaps.capture import full_precision

__all__ = [
    "GRADIENT_METHODS",
    "METHODS",
    "eigencam",
    "gradcam",
    "gradcam_plus_plus",
    "gradient_maps",
    "layercam",
    "scorecam",
    "xgradcam",
]

#: Numbers that the gradients of several classes at once may take up (64 MiB in float32).
GRADIENT_BUDGET = 1 << 24


def gradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by their mean gradient.

    Grad-CAM, Selvaraju et al., ICCV 2017, equations 1 and 2.

    Args:
        features: (B, C, h, w).
        gradients: (K, B, C, h, w), of each class score with respect to ``features``.

    Returns:
        (K, B, h, w).
    """
    return _weighted(gradients.mean((-2, -1)), features)


def gradcam_plus_plus(features: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by their positive gradients, each cell as much as it matters.

    Grad-CAM++, Chattopadhay et al., WACV 2018, equations 11, 15 and 19 (second and third
    derivatives of the exponential of the score).

    Args:
        features: (B, C, h, w).
        gradients: (K, B, C, h, w).

    Returns:
        (K, B, h, w).
    """
    squares = gradients.square()
    total = features.sum((-2, -1), keepdim=True)
    alpha = squares / (2 * squares + total * squares * gradients + 1e-6)
    return _weighted((gradients.relu() * alpha).sum((-2, -1)), features)


def xgradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by their mean gradient, each cell's in proportion to its activation.

    XGrad-CAM, Fu et al., BMVC 2020, equation 8.

    Args:
        features: (B, C, h, w).
        gradients: (K, B, C, h, w).

    Returns:
        (K, B, h, w).
    """
    total = features.sum((-2, -1)) + 1e-7
    return _weighted((gradients * features).sum((-2, -1)) / total, features)


def layercam(features: Tensor, gradients: Tensor) -> Tensor:
    """Every cell of every channel weighted by its own positive gradient.

    LayerCAM, Jiang et al., IEEE TIP 2021, equations 4 to 6.

    Args:
        features: (B, C, h, w).
        gradients: (K, B, C, h, w).

    Returns:
        (K, B, h, w).
    """
    return _einsum("kbchw,bchw->kbhw", gradients.relu(), features)


def _weighted(weights: Tensor, features: Tensor) -> Tensor:
    """(K, B, C) weights and (B, C, h, w) features -> (K, B, h, w)."""
    return _einsum("kbc,bchw->kbhw", weights, features)


def _einsum(equation: str, weights: Tensor, features: Tensor) -> Tensor:
    with full_precision(features):
        return torch.einsum(equation, weights, features)


#: Methods that need gradients, by name.
GRADIENT_METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "xgradcam": xgradcam,
    "layercam": layercam,
}

METHODS = ("native", *GRADIENT_METHODS, "eigencam", "scorecam")


def gradient_maps(method: str, logits: Tensor, features: Tensor, classes: Sequence[int]) -> Tensor:
    """Maps of a method of :data:`GRADIENT_METHODS`, without running the network again.

    Args:
        method: its name.
        logits: (B, N), computed from ``features``.
        features: (B, C, h, w), part of the graph of ``logits``.
        classes: K of the N.

    Returns:
        (B, K, h, w), float32 or wider.

    Raises:
        InvalidOptionError: the logits do not depend on the features.
    """
    activations = _widened(features.detach())
    maps = []
    # As many classes at a time as the budget allows.
    for some in torch.split(torch.tensor(classes), max(1, GRADIENT_BUDGET // features.numel())):
        gradients = _class_gradients(logits, features, some.to(logits.device))
        maps.append(GRADIENT_METHODS[method](activations, _widened(gradients)))
    return torch.cat(maps).transpose(0, 1)


def _class_gradients(logits: Tensor, features: Tensor, classes: Tensor) -> Tensor:
    """(K,) classes -> (K, B, C, h, w) gradients of their logits."""

    def gradient(wanted: Tensor, batched: bool) -> Tensor:
        result: Tensor | None = None
        if logits.requires_grad:
            (result,) = torch.autograd.grad(
                logits,
                features,
                wanted,
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=batched,
            )
        if result is None:
            raise InvalidOptionError(
                "The logits do not depend on this layer; choose one that lies on the way to them "
                "from the images."
            )
        return result

    # The logits of an image depend on this image alone, so that one pass serves the whole batch.
    wanted = F.one_hot(classes, logits.shape[1]).to(logits)[:, None].expand(-1, len(logits), -1)
    try:
        return gradient(wanted, batched=True)
    except RuntimeError:
        # Some operations know no batched backward pass, or memory is short: one by one.
        return torch.stack([gradient(one, batched=False) for one in wanted])


def eigencam(features: Tensor) -> Tensor:
    """The first principal component of the features over the cells, the same for every class.

    Eigen-CAM, Muhammad and Yeasin, IJCNN 2020, with the features centred as in the ``grad-cam``
    package. A principal component has no sign of its own: here its largest value is positive.

    Args:
        features: (B, C, h, w).

    Returns:
        (B, 1, h, w), float32 or wider.
    """
    cells = _widened(features).flatten(2).transpose(1, 2)
    u, s, _ = torch.linalg.svd(cells - cells.mean(1, keepdim=True), full_matrices=False)
    component: Tensor = u[..., 0] * s[..., :1]
    largest = component.gather(1, component.abs().argmax(1, keepdim=True))
    return (component * largest.sign()).view(len(features), 1, *features.shape[2:])


def scorecam(
    features: Tensor, images: Tensor, score: Callable[[Tensor], Tensor], batch_size: int
) -> Tensor:
    """Channels weighted by the score of the image that they mask.

    Score-CAM, Wang et al., CVPR Workshops 2020, algorithm 1, as the ``grad-cam`` package has it:
    masks are the channels resized to the image (``align_corners=True``) and stretched to [0, 1];
    weights are the softmax over channels of the scores, without a baseline image.

    Args:
        features: (B, C, h, w).
        images: (B, C', H, W).
        score: (b, C', H, W) -> (b, K), the class scores of masked images.
        batch_size: masked images to score at once.

    Returns:
        (B, K, h, w), float32 or wider.
    """
    activations = _widened(features)
    batch, channels = features.shape[:2]
    scores = []
    for some in torch.split(torch.arange(batch * channels, device=features.device), batch_size):
        image, channel = some // channels, some % channels
        masks = F.interpolate(
            activations[image, channel, None],
            size=images.shape[-2:],
            mode="bilinear",
            align_corners=True,
        )
        low, high = masks.amin((-2, -1), keepdim=True), masks.amax((-2, -1), keepdim=True)
        masks = (masks - low) / (high - low + 1e-8)
        scores.append(score(images[image] * masks.to(images)))
    weights = _widened(torch.cat(scores)).view(batch, channels, -1).softmax(1)
    return _einsum("bck,bchw->bkhw", weights, activations)


def _widened(tensor: Tensor) -> Tensor:
    """Sums over thousands of 16-bit values would lose what the maps differ by."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
