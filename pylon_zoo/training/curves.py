"""Learning curves as a picture."""

from __future__ import annotations

from pathlib import Path

from pylon_zoo.errors import MissingExtraError

__all__ = ["plot_learning_curve"]


def plot_learning_curve(rows: list[dict[str, float]], path: Path, best_epoch: int) -> None:
    """Plot training and validation loss by epoch, the saved epoch marked, and write a PNG."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise MissingExtraError("matplotlib", "viz", "Plotting") from error
    # A Figure of its own: pyplot would keep global state and pick a window toolkit.
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [row["epoch"] for row in rows]
    axes.plot(epochs, [row["train_loss"] for row in rows], marker=".", label="training")
    axes.plot(epochs, [row["validation_loss"] for row in rows], marker=".", label="validation")
    axes.axvline(best_epoch, color="gray", linestyle=":", label=f"saved (epoch {best_epoch})")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="binary cross-entropy")
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.legend()
    figure.savefig(path, dpi=120)
