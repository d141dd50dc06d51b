"""``pylon-zoo info``: what a checkpoint, a model or an encoder is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pylon_zoo.cli.completion import complete_names
from pylon_zoo.cli.options import DEFAULT_MODEL
from pylon_zoo.cli.terminal import AsJson, make_table, out, print_json

__all__ = ["EXAMPLES", "info"]

EXAMPLES = (
    "pylon-zoo info pylon_dla46_c.phantom",
    "pylon-zoo info my_model --json",
    "pylon-zoo info pylon_resnet50",
    "pylon-zoo info convnext_tiny",
)


def info(
    name: Annotated[
        str,
        typer.Argument(
            help="Checkpoint (name or folder), model or encoder.", autocompletion=complete_names
        ),
    ] = DEFAULT_MODEL,
    as_json: AsJson = False,
) -> None:
    """Show what a checkpoint, a model or an encoder is."""
    from pylon_zoo.encoders import survey
    from pylon_zoo.registry import list_models

    encoders = survey()["encoders"]
    if name in encoders and not Path(name).exists():
        facts: dict[str, Any] = {"encoder": name, **encoders[name]}
        rows = _encoder_rows(facts)
    elif name in list_models(name) and not Path(name).exists() and not _has_weights(name):
        architecture, _, encoder = name.partition("_")
        facts = {"architecture": architecture, "encoder": encoder, "weights": None}
        facts |= {f"encoder_{key}": value for key, value in encoders[encoder].items()}
        rows = {"model": name, "architecture": architecture}
        rows |= _encoder_rows({"encoder": encoder, **encoders[encoder]})
        rows["weights"] = "none published; pylon_zoo.create_model makes it with random ones"
    else:
        facts, rows = _describe_checkpoint(name)
    if as_json:
        print_json(facts)
        return
    table = make_table("", "")
    table.show_header = False
    table.box = None
    for key, value in rows.items():
        table.add_row(key, value)
    out.print(table, markup=False)


def _has_weights(name: str) -> bool:
    from pylon_zoo.registry import list_models

    return any(known.split(".")[0] == name for known in list_models(pretrained=True))


def _encoder_rows(record: dict[str, Any]) -> dict[str, str]:
    if size := record.get("img_size"):
        sizes = f"{size[0]} x {size[1]} px" if isinstance(size, list) else f"{size} x {size} px"
        sizes += ", others by img_size=" if record.get("adjustable") else " only"
    elif multiple := record.get("multiple"):
        sizes = f"both sides multiples of {multiple} px"
    else:
        sizes = "any of 64 px or more"
    return {
        "encoder": record["encoder"],
        "family": f"timm.models.{record['family']}",
        "parameters": f"{record['params']:,} in the encoder, with one input channel",
        "strides": ", ".join(map(str, record["strides"])),
        "image size": sizes,
        "dilates": "yes (deeplabv3plus takes it)" if record["dilates"] else "no",
    }


def _describe_checkpoint(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    from pylon_zoo.weights import load_pretrained

    model = load_pretrained(name)
    spec, parameters = model.spec, sum(p.numel() for p in model.parameters())
    (channels, height, width), pre = spec.preprocessing.input_size, spec.preprocessing
    rows = {
        "model": spec.name,
        "options": ", ".join(f"{k}={v}" for k, v in spec.options.items()) or "defaults",
        "parameters": f"{parameters:,}",
        "classes": ", ".join(spec.class_names or (f"{spec.num_classes} without names",)),
        "input": f"{channels} channel(s), {height} x {width} px, resize: {pre.resize}",
        "mean, std": f"{pre.mean}, {pre.std}",
    }
    return {**spec.to_config(), "parameters": parameters}, rows
