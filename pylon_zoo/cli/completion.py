"""Names that the shell completes; nothing here imports torch, for the shell does not wait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

__all__ = [
    "DATASETS",
    "complete_checkpoints",
    "complete_datasets",
    "complete_list_of_models",
    "complete_names",
    "complete_recipes",
    "one_of",
]

#: The keys of :data:`pylon_zoo.data.TASKS`, which imports torch.
DATASETS = (
    "phantom",
    "bccd",
    "nih14",
    "vindr_cxr",
    "vindr_cxr_50",
    "vindr_cxr_10",
    "voc2012",
    "chexlocalize",
    "csv",
    "coco",
    "image_folder",
)


def one_of(*names: str) -> Callable[[str], list[str]]:
    """A completion of fixed names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


complete_datasets = one_of(*DATASETS)


def complete_recipes(incomplete: str) -> list[str]:
    """Names of recipes."""
    from pylon_zoo.recipes import list_recipes

    return one_of(*list_recipes())(incomplete)


def complete_checkpoints(incomplete: str) -> list[str]:
    """Names of checkpoints, and folders that hold one."""
    from pylon_zoo.registry import list_models

    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    configs = folder.glob("*/config.json")
    return one_of(*list_models(pretrained=True), *(str(c.parent) for c in configs))(incomplete)


def complete_names(incomplete: str) -> list[str]:
    """Names of checkpoints, models and encoders."""
    from pylon_zoo.registry import list_encoders, list_models

    names = [*complete_checkpoints(incomplete), *list_models(), *list_encoders()]
    return one_of(*names)(incomplete)


def complete_list_of_models(incomplete: str) -> list[str]:
    """Names of models, the last of several that commas separate."""
    from pylon_zoo.registry import list_models

    earlier, comma, last = incomplete.rpartition(",")
    return [f"{earlier}{comma}{name}" for name in one_of(*list_models())(last)]
