"""Watching a run on the terminal."""

from __future__ import annotations

import time

from rich.progress import TextColumn

from pylon_zoo.progress import create_bar

__all__ = ["ProgressBar"]


class ProgressBar:
    """Counts steps, tells images a second and the time that remains; prints a line an epoch."""

    def __init__(self, title: str, *, steps: int, batch_size: int, enabled: bool) -> None:
        """Describe the bar; it shows within ``with``.

        Args:
            title: shown until the first step is done.
            steps: of the whole run.
            batch_size: images a step.
            enabled: False shows nothing.
        """
        self._enabled, self._batch_size = enabled, batch_size
        self._bar = create_bar(TextColumn("{task.fields[rate]}"), enabled=enabled, transient=False)
        self._task = self._bar.add_task(title, total=steps, rate="")
        self._rate, self._last = 0.0, time.perf_counter()

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start_epoch(self, step: int) -> None:
        """Validation and saving took time that no step is to blame for."""
        self._bar.update(self._task, completed=step)
        self._last = time.perf_counter()

    def advance(self, description: str) -> None:
        """A step is done."""
        now = time.perf_counter()
        rate = self._batch_size / max(now - self._last, 1e-9)
        self._rate = 0.9 * self._rate + 0.1 * rate if self._rate else rate
        self._last = now
        self._bar.update(
            self._task, advance=1, description=description, rate=f"{self._rate:.0f} images/s"
        )

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        if self._enabled:
            self._bar.console.print(line, highlight=False, markup=False)
