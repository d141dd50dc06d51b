"""One file for each published training run; its docstring states command, cost and score."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from pylon_zoo.errors import unknown_name

if TYPE_CHECKING:
    from pylon_zoo.training.config import TrainingConfig

__all__ = ["list_recipes", "load_recipe"]


def list_recipes() -> list[str]:
    """Names that :func:`load_recipe` takes, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_recipe(name: str) -> TrainingConfig:
    """The configuration of a recipe; :class:`UnknownNameError` suggests the nearest."""
    if name not in list_recipes():
        raise unknown_name("recipe", name, list_recipes())
    recipe: TrainingConfig = importlib.import_module(f"{__name__}.{name}").RECIPE
    return recipe
