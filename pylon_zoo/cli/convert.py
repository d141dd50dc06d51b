"""``pylon-zoo convert``: a checkpoint of the PYLON authors' own code becomes one of this zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pylon_zoo.cli.completion import one_of
from pylon_zoo.cli.terminal import AsJson, print_json

__all__ = ["EXAMPLES", "convert"]

EXAMPLES = (
    "pylon-zoo convert pylon_nih14.pkl converted",
    "pylon-zoo convert cam.pkl converted --pooling avg --class-names disc,ring",
)


def convert(
    source: Annotated[
        Path, typer.Argument(help="A state dict that the authors' code saved.", show_default=False)
    ],
    folder: Annotated[
        Path,
        typer.Argument(help="Where model.safetensors and config.json go.", show_default=False),
    ],
    pooling: Annotated[
        str | None,
        typer.Option(
            help="What the file does not tell: avg for a classic CAM.",
            autocompletion=one_of("avg", "max"),
            show_default=False,
        ),
    ] = None,
    class_names: Annotated[
        str | None,
        typer.Option(help="Names of the classes, separated by commas.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint of the PYLON authors' code; architecture and encoder are inferred."""
    from pylon_zoo.weights import save_pretrained
    from pylon_zoo.weights.upstream import load_upstream

    names = tuple(name.strip() for name in class_names.split(",")) if class_names else None
    model = load_upstream(source, pooling=pooling, class_names=names)
    save_pretrained(model, folder)
    if as_json:
        print_json({"folder": str(folder), **model.spec.to_config()})
        return
    options = ", ".join(f"{k}={v}" for k, v in model.spec.options.items()) or "default options"
    typer.echo(
        f"{model.spec.name} ({options}; {model.num_classes} classes, {model.spec.in_chans} "
        f"channel(s)). Load it with pylon_zoo.load_pretrained({str(folder)!r})."
    )
