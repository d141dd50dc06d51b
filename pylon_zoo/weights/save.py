"""Writing a checkpoint: ``model.safetensors`` and ``config.json``."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.errors import CheckpointError, InvalidOptionError
from pylon_zoo.weights.config import CONFIG_NAME, WEIGHTS_NAME, write_config
from pylon_zoo.weights.files import hash_file, replace_file
from pylon_zoo.weights.manifest import Record

__all__ = ["save_pretrained"]


def save_pretrained(
    model: LocalizationModel,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    record: Record | None = None,
) -> Path:
    """Write ``model.safetensors`` and ``config.json``, which records the hashes of both.

    Each file is replaced atomically, the weights first: after a crash in between the old config
    does not fit the new weights, and :func:`pylon_zoo.load_pretrained` says so.

    Args:
        model: made by :func:`pylon_zoo.create_model` or :func:`pylon_zoo.load_pretrained`.
        folder: made where it does not exist.
        dtype: floating-point type to store, e.g. ``torch.float16`` for half the bytes; None
            keeps the model's.
        record: how the model came to be; a published checkpoint needs one.

    Returns:
        The folder.

    Raises:
        InvalidOptionError: the model has no spec, or its spec no longer describes it.
        CheckpointError: a weight is NaN or infinite, as it is or after conversion to ``dtype``.
    """
    spec = getattr(model, "spec", None)
    if spec is None:
        raise InvalidOptionError(
            "This model has no spec, so that nobody could rebuild it from its weights. Make it "
            "with pylon_zoo.create_model."
        )
    has = {"num_classes": model.num_classes, "in_chans": model.encoder.in_chans}
    for name, value in has.items():
        if getattr(spec, name) != value:
            raise InvalidOptionError(
                f"The model's {name} is {value}, but its spec says {getattr(spec, name)}. Change "
                f"the head with model.reset_classifier, which keeps them together."
            )
    if dtype is not None and not dtype.is_floating_point:
        raise InvalidOptionError(f"dtype must be a floating-point type; got {dtype}.")
    tensors = {}
    for name, tensor in model.state_dict().items():
        kind = dtype if dtype and tensor.is_floating_point() else tensor.dtype
        stored = tensor.detach().to("cpu", kind).contiguous()
        if stored.is_floating_point() and not stored.isfinite().all():
            raise CheckpointError(
                f"{name} has values that are NaN, infinite or beyond the range of {kind}; such "
                f"weights are not saved. Train again from an earlier state, or store float32."
            )
        tensors[name] = stored
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with replace_file(folder / WEIGHTS_NAME) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
        sha256, size = hash_file(temporary)
    write_config(folder / CONFIG_NAME, spec, sha256=sha256, size=size, record=record)
    return folder
