"""What one layer of a network computed, and a network left as it was found."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pylon_zoo.architectures import Encoder, LocalizationModel
from pylon_zoo.errors import InvalidInputError, InvalidOptionError, unknown_name

__all__ = ["Captured", "as_logits", "evaluation_mode", "find_layer", "full_precision", "run"]


class Captured(NamedTuple):
    """One forward pass.

    Attributes:
        logits: (B, K).
        features: (B, C, h, w), what the layer gave, whichever way its network lays it out.
    """

    logits: Tensor
    features: Tensor


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def full_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    """No autocast inside, on the tensor's device: maps are sums of what differs little."""
    device = tensor.device.type
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def run(network: nn.Module, images: Tensor, layer: nn.Module, *, cut: bool = True) -> Captured:
    """Run a network in its present mode and keep what a layer gave, ready for gradients.

    Neither ``.grad`` fields nor ``requires_grad`` flags play a part: the parameters stand in
    detached, so that the graph holds nothing but the way from the features to the logits. Whether
    the caller computes under ``no_grad`` or ``inference_mode`` makes no difference.

    Args:
        network: any classifier.
        images: (B, C, H, W), an ordinary tensor (not one made in inference mode).
        layer: one of its modules that gives a 4-D tensor; of the zoo's :class:`Encoder` the
            deepest features count, of a module that runs several times its last run.
        cut: make the features a leaf of the graph, which then begins there; False leaves them
            connected to ``images``.

    Raises:
        InvalidInputError: the network does not return (B, K) logits.
        InvalidOptionError: the layer does not run, or does not give a floating 4-D tensor.
    """
    captured: list[Tensor] = []

    def keep(module: nn.Module, _args: Any, output: Any) -> Any:
        level = max(output) if isinstance(module, Encoder) else None
        given = output if level is None else output[level]
        if not isinstance(given, Tensor) or given.ndim != 4 or not given.is_floating_point():
            what = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise InvalidOptionError(
                f"A CAM needs a layer that gives a floating (B, C, h, w) or (B, h, w, C) tensor; "
                f"this {type(module).__name__} gives {what}. Choose another one of "
                f"model.named_modules()."
            )
        last = _channels_last(network, given, images)
        features = given.permute(0, 3, 1, 2) if last else given
        if cut:
            features = features.detach().requires_grad_()
        captured.append(features)
        with torch.enable_grad():
            # A copy: what follows may compute in place, as ReLUs do.
            passed = (features.permute(0, 2, 3, 1) if last else features).clone()
        return passed if level is None else {**output, level: passed}

    stand_ins = {
        # Tensors made in inference mode cannot be saved for a backward pass.
        name: tensor.clone() if tensor.is_inference() else tensor.detach()
        for name, tensor in chain(network.named_parameters(), network.named_buffers())
    }
    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            output = functional_call(network, stand_ins, (images,))
    finally:
        handle.remove()
    if not captured:
        raise InvalidOptionError(
            f"The layer {type(layer).__name__} did not run when the model classified the images; "
            f"choose one that does."
        )
    return Captured(as_logits(output, len(images)), captured[-1])


def as_logits(output: Any, batch: int) -> Tensor:
    """The (B, K) logits of what a classifier returned: itself, or its ``logits``."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != batch:
        what = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits)
        raise InvalidInputError(
            f"A CAM explains a classifier that returns (B, K) logits, here ({batch}, K), or an "
            f"object that holds them as .logits; this model returned {what}. Wrap it in a module "
            f"that does."
        )
    return logits


def find_layer(network: nn.Module, layer: nn.Module | str | None, images: Tensor) -> nn.Module:
    """The module that was asked for.

    Args:
        network: the classifier.
        layer: one of its modules, the dotted name of one, or None for the encoder of a model of the
            zoo, and for any other classifier the last module that gives an image-like map of more
            than one cell, found by running it on the first image.
        images: (B, C, H, W).

    Raises:
        UnknownNameError: no module of that name; suggests the nearest.
        InvalidOptionError: the module is not the network's, or none gives a map.
    """
    if isinstance(layer, str):
        modules: dict[str, nn.Module] = dict(network.named_modules())
        if layer not in modules:
            hint = "model.named_modules() lists them all."
            raise unknown_name("layer", layer, filter(None, modules), hint=hint)
        return modules[layer]
    if layer is not None:
        if not any(module is layer for module in network.modules()):
            raise InvalidOptionError(
                f"The layer {type(layer).__name__} is no part of this {type(network).__name__}; "
                f"give one of its modules, or the name of one as model.named_modules() lists them."
            )
        return layer
    if isinstance(network, LocalizationModel):
        return network.encoder
    return _last_map(network, images[:1])


def _last_map(network: nn.Module, image: Tensor) -> nn.Module:
    """The last module that gives a map of more than one cell when the network sees the image."""
    mapping: list[nn.Module] = []

    def note(module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.is_floating_point():
            last = _channels_last(network, output, image)
            cells = output.shape[1:3] if last else output.shape[2:]
            # Attention's (B, heads, tokens, channels) is no map: one cell more or less on a side
            # must do to give it the image's proportions.
            (h, w), (height, width) = cells, image.shape[-2:]
            alike = (h - 1) * width <= (w + 1) * height and (w - 1) * height <= (h + 1) * width
            if h * w > 1 and alike:
                mapping.append(module)

    handles = [module.register_forward_hook(note) for module in network.modules()]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    if not mapping:
        raise InvalidOptionError(
            f"No module of this {type(network).__name__} gives a map of an image of "
            f"{image.shape[-2]} x {image.shape[-1]} px (height x width) to explain. Name one with "
            f"layer=, or give larger images."
        )
    return mapping[-1]


def _channels_last(network: nn.Module, features: Tensor, images: Tensor) -> bool:
    """Whether features lie as (B, h, w, C): whichever way has the image's proportions."""

    def mismatch(h: int, w: int) -> float:
        return abs(math.log(h * images.shape[-1] / (w * images.shape[-2])))

    _, a, b, c = features.shape
    first, last = mismatch(b, c), mismatch(a, b)
    if math.isclose(first, last, abs_tol=1e-9):
        # As many channels as cells along a side; timm's networks say which way they compute.
        return any(
            str(getattr(module, "output_fmt", "")).endswith("NHWC") for module in network.modules()
        )
    return last < first
