"""What all measures have in common: a row of numbers per image, added up over batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pylon_zoo.errors import InvalidInputError
from pylon_zoo.metrics.bootstrap import Floats

__all__ = ["Accumulator"]


class Accumulator:
    """Collects a row per image; what the rows of several processes add up to is theirs joined.

    A row holds a few numbers per class, never a map, so that memory grows slowly::

        state = meter.state()  # in each process: arrays, ready to be sent
        meter.extend(other)  # with the states of the others, in the order of their images

    Attributes:
        COLUMNS: for each array of a row its shape behind (K,).
    """

    COLUMNS: ClassVar[dict[str, tuple[int, ...]]]

    def __init__(self, class_names: Sequence[str]) -> None:
        """Start empty; K class names."""
        self.class_names = tuple(class_names)
        self._groups: list[str] = []
        self._rows: dict[str, list[NDArray[Any]]] = {name: [] for name in self.COLUMNS}

    def __len__(self) -> int:
        """Number of images (or tiles) so far."""
        return len(self._groups)

    def state(self) -> dict[str, Any]:
        """All rows so far: ``groups``, a list, and (N, K, ...) arrays by the names of COLUMNS."""
        columns = {name: self._column(name, dtype=None) for name in self.COLUMNS}
        return {"groups": list(self._groups), **columns}

    def extend(self, state: dict[str, Any]) -> None:
        """Add the rows of another accumulator of this kind, behind those so far.

        Raises:
            InvalidInputError: they are another kind's, or of other classes.
        """
        count = len(state["groups"])
        for name, inner in self.COLUMNS.items():
            expected = (count, len(self.class_names), *inner)
            found = np.shape(state[name]) if name in state else None
            if found != expected:
                raise InvalidInputError(
                    f"Expected a state with {name} {expected}; got {found}. Only states of the "
                    f"same measure and classes can be joined."
                )
        self._groups += state["groups"]
        for name in self.COLUMNS:
            self._rows[name] += list(state[name])

    def clear(self) -> None:
        """Forget all rows."""
        self._groups.clear()
        for rows in self._rows.values():
            rows.clear()

    def _add(self, group: str, **rows: NDArray[Any]) -> None:
        self._groups.append(group)
        for name in self.COLUMNS:
            self._rows[name].append(rows[name])

    def _column(self, name: str, dtype: Any = np.float64) -> Floats:
        """(N, K, ...) array of a column."""
        shape = (len(self), len(self.class_names), *self.COLUMNS[name])
        return np.array(self._rows[name], dtype=dtype).reshape(shape)

    @property
    def groups(self) -> list[str]:
        """What is resampled as one; an image without a group is one of its own."""
        return [group or f"image {index}" for index, group in enumerate(self._groups)]
