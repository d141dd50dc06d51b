"""From a name, a Hub repository or a folder to a model that computes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.errors import CheckpointError, InvalidOptionError, PylonZooError
from pylon_zoo.registry import build_model
from pylon_zoo.spec import ModelSpec, match_classes
from pylon_zoo.weights.config import Checkpoint
from pylon_zoo.weights.locate import use_checkpoint
from pylon_zoo.weights.reader import read_tensors

__all__ = ["adapt_model", "load_pretrained"]

logger = logging.getLogger("pylon_zoo")


def load_pretrained(
    name_or_path: str | Path, *, device: str | torch.device = "cpu", refresh: bool = False
) -> LocalizationModel:
    """Load a model with its weights, in eval mode, carrying its ``spec``.

    The sha256 of the weights and of their config is verified every time, wherever they come from.

    Args:
        name_or_path: the name of a checkpoint (``"pylon_dla46_c.phantom"``; without the tag,
            the first one listed for that model), ``"hf-hub:org/repo"`` or
            ``"hf-hub:org/repo@revision"``, ``"local-dir:/path"``, or the path of a folder that
            :func:`pylon_zoo.save_pretrained` wrote or of its ``.safetensors`` file.
        device: where the model goes.
        refresh: ask the Hub what the branch or tag is now. Otherwise a checkpoint that is in the
            cache is taken from there without any request.

    Raises:
        UnknownNameError: no checkpoint has that name; suggests the nearest.
        WeightsNotFoundError: a file, repository or revision does not exist.
        HubAccessError: the Hub wants a token.
        DownloadError: the Hub cannot be reached or does not answer properly.
        IntegrityError: the bytes are not those that were published; a file from the Hub has then
            been downloaded twice.
        CheckpointError: the file is damaged or of another format.
        StateDictError: its tensors do not fit the model that its config describes.
    """
    return use_checkpoint(name_or_path, load_checkpoint, refresh=refresh).to(device)


def load_checkpoint(checkpoint: Checkpoint) -> LocalizationModel:
    """Build the model of a checkpoint on the CPU and read its weights into place."""
    model = _build_unfilled(checkpoint.spec)
    read_tensors(
        checkpoint.weights, model.state_dict(), sha256=checkpoint.sha256, size=checkpoint.bytes
    )
    return model.eval()


class _SkipRandomFills(TorchFunctionMode):
    """Leaves the memory of new parameters as the allocator gave it: no random numbers, no copy.

    Only parameters are passed over. Whatever else is computed while a model is built stays right,
    such as swin's table of relative positions, and so do loops that draw until a draw fits.
    """

    FILLS = (
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
        nn.init.normal_,
        nn.init.uniform_,
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
    )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.FILLS:
            tensor = args[0] if args else kwargs["tensor"]
            if isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **kwargs)


def _build_unfilled(spec: ModelSpec) -> LocalizationModel:
    """Build a model on the CPU whose parameters are uninitialized; all random states stay."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), _SkipRandomFills():
            return build_model(spec)
    except PylonZooError as error:
        raise CheckpointError(f"The model {spec.name} cannot be built: {error}") from error
    except (RuntimeError, MemoryError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The model {spec.name} cannot be built from its config: {error}"
        ) from error


def adapt_model(
    model: LocalizationModel,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Give a trained model other classes or other input channels, in place, and log it.

    Args:
        model: carries a ``spec``.
        num_classes: other than the model's: the head is made anew.
        in_chans: other than the model's: the stem's filters are summed (to 1 channel), or repeated
            in turn and scaled so that their response keeps its size, as timm does it.
        class_names: other than the model's names, even if as many: the head is made anew. A class
            that the model knows by that name, in upper or lower case, keeps its weights; others
            begin with random ones.

    Raises:
        InvalidOptionError: a number is not positive, they contradict each other, or this encoder's
            stem cannot be adapted.
    """
    spec = model.spec
    names = tuple(class_names) if class_names is not None else None
    classes = num_classes if num_classes is not None else len(names or ()) or spec.num_classes
    if classes != spec.num_classes or (names and spec.class_names and names != spec.class_names):
        if names and len(names) != classes:
            raise InvalidOptionError(
                f"num_classes is {classes}, but class_names has {len(names)} names."
            )
        old = model.head
        model.reset_classifier(classes, names)
        kept = _keep_classes(model.head, old, names or (), spec.class_names or ())
        if kept < classes:
            logger.warning(
                "%s: the head for %d classes was replaced by one for %d, of which %s; train it "
                "before use.",
                spec.name,
                spec.num_classes,
                classes,
                f"{kept} kept their weights by their names" if kept else "all are random",
            )
    elif names:
        model.spec = replace(spec, class_names=names)
    if in_chans is not None and in_chans != spec.in_chans:
        if in_chans < 1:
            raise InvalidOptionError(f"in_chans must be at least 1; got {in_chans}.")
        _adapt_stem(model, in_chans)
        logger.warning(
            "%s: the stem for %d input channel(s) was adapted to %d.",
            spec.name,
            spec.in_chans,
            in_chans,
        )


@torch.no_grad()
def _keep_classes(
    new: nn.Conv2d, old: nn.Conv2d, new_names: Sequence[str], old_names: Sequence[str]
) -> int:
    """Copy the filters of classes with the same name from one head to another; their number."""
    found = enumerate(match_classes(new_names, old_names))
    places = [(to, origin) for to, origin in found if origin >= 0]
    for parameter, source in zip(new.parameters(), old.parameters(), strict=True):
        for to, origin in places:
            parameter[to] = source[origin]
    return len(places)


def _adapt_stem(model: LocalizationModel, in_chans: int) -> None:
    old = model.spec
    look = old.preprocessing

    def adapt(values: tuple[float, ...]) -> tuple[float, ...]:
        if in_chans == 1:
            return (sum(values) / len(values),)
        return tuple(values[i % len(values)] for i in range(in_chans))

    spec = replace(
        old,
        in_chans=in_chans,
        tag="",
        preprocessing=replace(
            look,
            input_size=(in_chans, *look.input_size[1:]),
            mean=adapt(look.mean),
            std=adapt(look.std),
        ),
    )
    encoder = _build_unfilled(spec).encoder
    shapes = encoder.state_dict()
    weights = {}
    for name, tensor in model.encoder.state_dict().items():
        shape = shapes[name].shape
        weights[name] = (
            tensor if tensor.shape == shape else _adapt_filters(tensor, old.in_chans, in_chans)
        )
        if weights[name].shape != shape:
            raise InvalidOptionError(
                f"Encoder {spec.encoder!r} cannot be adapted from {old.in_chans} to {in_chans} "
                f"input channels: {name} is {tuple(tensor.shape)}, and would have to become "
                f"{tuple(shape)}. Train it with in_chans={in_chans} from the start."
            )
    encoder.load_state_dict(weights, assign=True)
    model.encoder = encoder.to(model.head.weight.device).train(model.encoder.training)
    model.spec = spec


def _adapt_filters(filters: Tensor, old: int, new: int) -> Tensor:
    """Filters (O, I, h, w) over ``old`` channels -> over ``new``; I is a multiple of ``old``."""
    if filters.ndim != 4 or filters.shape[1] % old:
        return filters
    outputs, inputs, height, width = filters.shape
    # More than one group: a stem that first moves pixels into channels (space-to-depth).
    grouped = filters.reshape(outputs, inputs // old, old, height, width)
    if new == 1:
        adapted = grouped.sum(dim=2, keepdim=True)
    else:
        adapted = grouped[:, :, [i % old for i in range(new)]] * (old / new)
    return adapted.reshape(outputs, -1, height, width)
