"""Progress bars: on standard error, for standard output is for results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

__all__ = ["create_bar", "track"]

Item = TypeVar("Item")


def create_bar(*more: ProgressColumn, enabled: bool = True, transient: bool = True) -> Progress:
    """A bar that counts, and tells the time that has passed and the time that remains.

    Args:
        more: columns beside the count.
        enabled: False shows nothing.
        transient: the bar vanishes at its end.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        *more,
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=transient,
        disable=not enabled,
    )


def track(
    items: Iterable[Item], title: str, *, total: int | None = None, enabled: bool = True
) -> Iterator[Item]:
    """Go through items with a progress bar.

    Args:
        items: any.
        title: of the bar.
        total: how many items there are, where they have no length.
        enabled: False shows nothing.
    """
    with create_bar(enabled=enabled) as bar:
        yield from bar.track(items, total=total, description=title)
