"""Every exception that pylon_zoo raises on purpose.

Each message says what was received, what is accepted and what to do. All derive from
:class:`PylonZooError`, so ``except PylonZooError`` catches them all; each also derives from the
built-in exception that a Python programmer would expect in its place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "CacheError",
    "CheckpointError",
    "DatasetError",
    "DownloadError",
    "ExportError",
    "HubAccessError",
    "ImageReadError",
    "IntegrityError",
    "InvalidInputError",
    "InvalidOptionError",
    "ManifestError",
    "MissingExtraError",
    "PylonZooError",
    "RangeWarning",
    "ReproductionError",
    "StateDictError",
    "TrainingError",
    "TrainingStopped",
    "UnknownNameError",
    "WeightsNotFoundError",
    "unknown_name",
]


class PylonZooError(Exception):
    """Base of all errors that pylon_zoo raises on purpose."""


class UnknownNameError(PylonZooError, LookupError):
    """A model, encoder, option, class, dataset or recipe of that name does not exist.

    Attributes:
        kind: what was looked up, e.g. ``"encoder"``.
        name: the name that was received.
        suggestions: the nearest known names, best first; may be empty.
    """

    def __init__(self, message: str, kind: str, name: str, suggestions: tuple[str, ...]) -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name
        self.suggestions = suggestions

    def __reduce__(self) -> tuple[Any, ...]:  # to leave a data loader's worker process
        return type(self), (str(self), self.kind, self.name, self.suggestions)


class InvalidOptionError(PylonZooError, ValueError):
    """An option exists but does not take the value it was given."""


class InvalidInputError(PylonZooError, ValueError):
    """An image, label or array has a wrong shape, dtype or value."""


class RangeWarning(UserWarning):
    """An image's values lie far outside the range that models are trained on."""


class ImageReadError(PylonZooError, OSError):
    """A file could not be read as an image."""


class DatasetError(PylonZooError, OSError):
    """A dataset's files are missing or do not follow the official layout."""


class CacheError(DatasetError):
    """A data cache is damaged, or of other data or another transform than it is asked for."""


class ManifestError(PylonZooError, ValueError):
    """``weights_manifest.json`` is damaged or does not follow its schema."""


class WeightsNotFoundError(PylonZooError, FileNotFoundError):
    """No weights exist under that name or path."""


class CheckpointError(PylonZooError, ValueError):
    """A weights file or its config is damaged or of another format."""


class IntegrityError(CheckpointError):
    """A file's bytes are not the ones that were published: its sha256 or size differs."""


class StateDictError(CheckpointError):
    """A checkpoint's tensors do not fit the model: names or shapes differ."""


class DownloadError(PylonZooError, OSError):
    """A file could not be fetched from a Hub or written to the cache: network, server or disk."""


class HubAccessError(DownloadError, PermissionError):
    """The Hub wants a token, or another one than it got."""


class TrainingError(PylonZooError, RuntimeError):
    """A training run cannot go on."""


class TrainingStopped(TrainingError):  # noqa: N818 - nothing went wrong
    """A signal ended a training run after it had saved its state; it can go on."""


class ReproductionError(PylonZooError, RuntimeError):
    """A checkpoint's recipe cannot be repeated as it stands."""


class ExportError(PylonZooError, RuntimeError):
    """A model cannot be written for another runtime, or would compute something else there."""


class MissingExtraError(PylonZooError, ImportError):
    """An optional package is needed; the message says what installs it: an extra, if one does."""

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. Install it with: "
            f"pip install " + (f"'pylon-zoo[{extra}]'" if extra else package)
        )
        self.fields = (package, extra, purpose)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.fields


def unknown_name(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> UnknownNameError:
    """Build the error for an unknown name, with the nearest known names in its message.

    Args:
        kind: what was looked up, e.g. ``"encoder"``.
        name: the name received.
        known: all names that would have been accepted.
        hint: a sentence that says where to find the whole list.
    """
    names = sorted(set(known))
    # ``difflib`` is case-sensitive; people are not.
    folded = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower(), list(folded), n=3, cutoff=0.5)
    suggestions = tuple(folded[match] for match in matches)
    message = f"Unknown {kind} {name!r}."
    if suggestions:
        message += " Did you mean " + " or ".join(repr(s) for s in suggestions) + "?"
    elif names and len(names) <= 20:
        message += " Known: " + ", ".join(names) + "."
    if hint:
        message += " " + hint
    return UnknownNameError(message, kind, name, suggestions)
