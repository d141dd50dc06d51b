"""``pylon-zoo data``: is a dataset fit for use?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["app"]

app = typer.Typer(help="Check datasets.", no_args_is_help=True)
SHOWN = 20


@app.callback()
def _group() -> None:
    """Keep ``check`` a command of its own name, though it is the only one."""


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(help="nih14, bccd, csv, coco, image_folder, ...")],
    root: Annotated[str, typer.Argument(help="The dataset's folder or file.")],
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the report to this file.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read images.")] = 4,
) -> None:
    """Look for damaged files, label conflicts, duplicates and leaks between splits.

    Exits with 1 where anything is found.
    """
    from pylon_zoo.data import open_task
    from pylon_zoo.data.check import check_task

    report = check_task(open_task(dataset, root), workers=workers, progress=True)
    out = Console()
    if report.problems:
        table = Table("problem", "what", "where")
        for problem in report.problems[:SHOWN]:
            where = "\n".join(problem.items[:4])
            table.add_row(problem.kind, escape(problem.message), escape(where))
        out.print(table)
    images = ", ".join(f"{count} {split}" for split, count in report.images.items())
    found = ", ".join(f"{count} {kind}" for kind, count in report.counts().items())
    out.print(f"{dataset}: {images or 'no'} images; {found or 'nothing amiss'}.", highlight=False)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    if report.problems:
        raise typer.Exit(1)
