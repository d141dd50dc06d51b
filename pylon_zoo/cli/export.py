"""``pylon-zoo export``: a checkpoint as one file for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export"]


def export(
    model: Annotated[str, typer.Argument(help="Name or folder of a checkpoint.")],
    path: Annotated[Path, typer.Argument(help="File to write, e.g. model.onnx or model.pt2.")],
    kind: Annotated[str, typer.Option("--format", help="onnx or torch_export.")] = "onnx",
    image_size: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Height and width; the checkpoint's by default.", show_default=False),
    ] = None,
    dynamic_size: Annotated[
        bool | None,
        typer.Option(
            "--dynamic-size/--fixed-size",
            help="Take images of any size; by default where the encoder can.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a checkpoint as ONNX or torch.export, compared with the model before it is written."""
    from pylon_zoo.export import export as write
    from pylon_zoo.weights import load_pretrained

    report = write(
        load_pretrained(model), path, kind, image_size=image_size, dynamic_size=dynamic_size
    )
    height, width = report.compared[0][2:]
    differences = ", ".join(f"{k} {v:.1e}" for k, v in report.max_relative_difference.items())
    typer.echo(
        f"{path}: {height} x {width} px{' and other sizes' if report.dynamic_size else ' only'}, "
        f"any batch. Largest relative difference from the model: {differences}."
    )
