"""Where in a medical image does a classifier see what it says? A zoo of localization models.

>>> import pylon_zoo
>>> model = pylon_zoo.load_pretrained("pylon_dla46_c.phantom")
>>> transform = pylon_zoo.create_transform(model)

Importing this package imports neither torch nor timm: the public names are resolved when they
are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pylon_zoo.architectures import LocalizationModel, LocalizationOutput
    from pylon_zoo.data import Sample, read_image
    from pylon_zoo.errors import PylonZooError
    from pylon_zoo.heatmaps import find_peaks, get_cam, plot_cam
    from pylon_zoo.preprocessing import create_transform
    from pylon_zoo.registry import create_model, list_encoders, list_models
    from pylon_zoo.training.evaluation_plots import plot_report
    from pylon_zoo.weights import load_pretrained, load_upstream, save_pretrained

_HOME = {
    "LocalizationModel": "architectures",
    "LocalizationOutput": "architectures",
    "PylonZooError": "errors",
    "Sample": "data",
    "create_model": "registry",
    "create_transform": "preprocessing",
    "find_peaks": "heatmaps",
    "get_cam": "heatmaps",
    "list_encoders": "registry",
    "list_models": "registry",
    "load_pretrained": "weights",
    "load_upstream": "weights",
    "plot_cam": "heatmaps",
    "plot_report": "training.evaluation_plots",
    "read_image": "data",
    "save_pretrained": "weights",
}

__all__ = [
    "LocalizationModel",
    "LocalizationOutput",
    "PylonZooError",
    "Sample",
    "__version__",
    "create_model",
    "create_transform",
    "find_peaks",
    "get_cam",
    "list_encoders",
    "list_models",
    "load_pretrained",
    "load_upstream",
    "plot_cam",
    "plot_report",
    "read_image",
    "save_pretrained",
]


#: Reachable as ``pylon_zoo.data`` and so on without an import statement of their own.
_SUBPACKAGES = frozenset({"data", "heatmaps", "metrics", "prediction", "training", "weights"})


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
