"""``pylon-zoo export``: a checkpoint as one file for another runtime."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pylon_zoo.cli.completion import one_of
from pylon_zoo.cli.options import Checkpoint
from pylon_zoo.cli.terminal import AsJson, print_json

__all__ = ["EXAMPLES", "export"]

EXAMPLES = (
    "pylon-zoo export pylon_dla46_c.phantom model.onnx",
    "pylon-zoo export my_model model.pt2 --format torch_export",
    "pylon-zoo export my_model model.onnx --image-size 512 512 --fixed-size",
)


def export(
    model: Checkpoint,
    path: Annotated[
        Path,
        typer.Argument(help="File to write, e.g. model.onnx or model.pt2.", show_default=False),
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            help="onnx (extra export) or torch_export.",
            autocompletion=one_of("onnx", "torch_export"),
        ),
    ] = "onnx",
    image_size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="HEIGHT WIDTH", help="The checkpoint's by default.", show_default=False
        ),
    ] = None,
    dynamic_size: Annotated[
        bool | None,
        typer.Option(
            "--dynamic-size/--fixed-size",
            help="Take images of any size; by default where the encoder can.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint as ONNX or torch.export, compared with the model before it is written."""
    from pylon_zoo.export import export as write
    from pylon_zoo.weights import load_pretrained

    report = write(
        load_pretrained(model), path, kind, image_size=image_size, dynamic_size=dynamic_size
    )
    if as_json:
        print_json({"path": str(path), **asdict(report)})
        return
    height, width = report.compared[0][2:]
    differences = ", ".join(f"{k} {v:.1e}" for k, v in report.max_relative_difference.items())
    typer.echo(
        f"{path}: {height} x {width} px{' and other sizes' if report.dynamic_size else ' only'}, "
        f"any batch. Largest relative difference from the model: {differences}."
    )
