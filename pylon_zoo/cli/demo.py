"""``pylon-zoo demo``: try checkpoints in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["EXAMPLES", "demo"]

EXAMPLES = (
    "pylon-zoo demo",
    "pylon-zoo demo my_model --port 8000 --no-browser",
)


def demo(
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names or folders of checkpoints to offer beside the bundled ones.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port on 127.0.0.1; the first free one from 7860.", show_default=False),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Show a page in the browser: drop images or DICOM, see scores and heatmaps.

    It serves this machine alone, works offline, and keeps no file. Ctrl-C ends it.
    """
    from pylon_zoo.demo.page import serve

    def ready(address: str) -> None:
        typer.echo(f"{address}  (Ctrl-C ends it. Not for clinical use.)", err=True)

    serve(checkpoints or [], port=port, browser=browser, ready=ready)
