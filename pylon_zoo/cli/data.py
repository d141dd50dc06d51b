"""``pylon-zoo data``: is a dataset fit for use, and how is it read fast?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["app"]

app = typer.Typer(help="Check and cache datasets.", no_args_is_help=True)
SHOWN = 20


Dataset = Annotated[str, typer.Argument(help="nih14, bccd, csv, coco, image_folder, ...")]
Root = Annotated[str, typer.Argument(help="The dataset's folder or file.")]
Workers = Annotated[int, typer.Option(min=1, help="Threads that read images.")]


@app.command()
def check(
    dataset: Dataset,
    root: Root,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the report to this file.")
    ] = None,
    workers: Workers = 4,
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


@app.command()
def cache(
    dataset: Dataset,
    root: Root,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the cache.")],
    splits: Annotated[
        list[str] | None,
        typer.Option("--split", help="May come often; default: the two that training reads."),
    ] = None,
    size: Annotated[
        int, typer.Option(min=0, help="Side to resize images to; 0 keeps their own size.")
    ] = 0,
    workers: Workers = 4,
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing; compare all of a cache with its data.")
    ] = False,
) -> None:
    """Decode and resize images once, for training to read: train ... --set cache=DIR.

    The same command goes on with what a killed one left, and writes anew only what has changed.
    Exits with 1 where images cannot be read.
    """
    from pylon_zoo.data import CachedShards, open_task
    from pylon_zoo.data.shards import write_cache
    from pylon_zoo.data.tasks import files_task

    task = files_task(open_task(dataset, root))
    out = Console()
    unreadable: list[str] = []
    for split in splits or [task.training_split, task.selection_split]:
        images = task.dataset(split)
        if verify:
            cached = CachedShards(output / split, images)
            cached.verify()
            out.print(f"{split}: {len(cached)} images, intact.", highlight=False)
            continue
        report = write_cache(
            images,
            output / split,
            name=dataset,
            size=size,
            interpolation=task.preprocessing.interpolation,
            workers=workers,
            progress=f"{dataset} {split}",
        )
        unreadable += report.unreadable
        out.print(
            f"{split}: {report.images} images, {report.nbytes / 1e6:,.1f} MB; shards: "
            f"{report.written} written, {report.kept} kept.",
            highlight=False,
        )
    if unreadable:
        for problem in unreadable[:SHOWN]:
            out.print(f"unreadable: {escape(problem)}", highlight=False, soft_wrap=True)
        out.print(f"{len(unreadable)} images cannot be read.", highlight=False)
        raise typer.Exit(1)
