"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from pylon_zoo.cli.completion import complete_checkpoints, complete_datasets
from pylon_zoo.errors import InvalidOptionError

__all__ = [
    "DEFAULT_MODEL",
    "Checkpoint",
    "Dataset",
    "Device",
    "Fresh",
    "Root",
    "Settings",
    "SkipBad",
    "usable_device",
]

DEFAULT_MODEL = "pylon_dla46_c.phantom"

Checkpoint = Annotated[
    str,
    typer.Argument(
        help="Checkpoint: a name, a folder, or hf-hub:org/repo@revision.",
        autocompletion=complete_checkpoints,
        show_default=False,
    ),
]
Dataset = Annotated[
    str,
    typer.Argument(
        help="Name of a dataset; pylon-zoo list --datasets has them all.",
        autocompletion=complete_datasets,
        show_default=False,
    ),
]
Root = Annotated[
    str | None,
    typer.Option(help="The dataset's folder or file, where it has one.", show_default=False),
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps, ...")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting; may come often. pylon-zoo train RECIPE --show has them all.",
        show_default=False,
    ),
]
SkipBad = Annotated[
    int | None,
    typer.Option(
        help="Go on without so many images that cannot be read, and list them.",
        show_default=False,
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Delete this folder's checkpoints and start over.")
]


def usable_device(name: str) -> str:
    """The device's name, if this machine has it.

    Raises:
        InvalidOptionError: it has not, or there is no such device.
    """
    import torch

    try:
        torch.empty(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        usable = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        usable += ["mps"] if torch.backends.mps.is_available() else []
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InvalidOptionError(
            f"The device {name!r} cannot be used here: {reason}. Give --device "
            f"{' or '.join(usable)}."
        ) from error
    return name
