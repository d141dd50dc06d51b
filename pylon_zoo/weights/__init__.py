"""Checkpoints: what is published, where it is had, and that it is what it says."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pylon_zoo.weights.load import adapt_model, load_pretrained
    from pylon_zoo.weights.locate import download
    from pylon_zoo.weights.manifest import (
        DataRecord,
        Entry,
        HubSource,
        Manifest,
        Metric,
        Precision,
        Record,
        RepositorySource,
        add_entry,
        load_manifest,
    )
    from pylon_zoo.weights.publishing import from_pretrained, publish, push_to_hub
    from pylon_zoo.weights.save import save_pretrained
    from pylon_zoo.weights.upstream import load_upstream

_HOME = {
    "DataRecord": "manifest",
    "Entry": "manifest",
    "HubSource": "manifest",
    "Manifest": "manifest",
    "Metric": "manifest",
    "Precision": "manifest",
    "Record": "manifest",
    "RepositorySource": "manifest",
    "adapt_model": "load",
    "add_entry": "manifest",
    "download": "locate",
    "from_pretrained": "publishing",
    "load_manifest": "manifest",
    "load_pretrained": "load",
    "load_upstream": "upstream",
    "publish": "publishing",
    "push_to_hub": "publishing",
    "save_pretrained": "save",
}

__all__ = [
    "DataRecord",
    "Entry",
    "HubSource",
    "Manifest",
    "Metric",
    "Precision",
    "Record",
    "RepositorySource",
    "adapt_model",
    "add_entry",
    "download",
    "from_pretrained",
    "load_manifest",
    "load_pretrained",
    "load_upstream",
    "publish",
    "push_to_hub",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
