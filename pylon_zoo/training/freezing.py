"""Parts of a model that stand still while the rest trains."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pylon_zoo.errors import unknown_name

__all__ = ["set_train_mode"]


def set_train_mode(model: nn.Module, frozen: str = "", batch_norm: str = "local") -> None:
    """Put a model into train mode, but for what is frozen.

    A frozen part takes no gradient and is in eval mode: its BatchNorm uses and keeps the
    statistics it has, and its dropout passes everything. To be called again after every
    ``model.train()``.

    Args:
        model: not wrapped.
        frozen: names of submodules, comma-separated, e.g. ``"encoder"``; what was frozen before
            and is not named trains again.
        batch_norm: ``"frozen"`` keeps the statistics of every BatchNorm.

    Raises:
        UnknownNameError: the model has no such part; suggests the nearest.
    """
    model.train()
    model.requires_grad_(True)
    modules = dict(model.named_modules())
    for name in filter(None, (part.strip() for part in frozen.split(","))):
        if name not in modules:
            raise unknown_name("part of the model,", name, filter(None, modules))
        modules[name].requires_grad_(False).eval()
    if batch_norm == "frozen":
        for module in modules.values():
            if isinstance(module, _BatchNorm):
                module.eval()
