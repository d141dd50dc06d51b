"""``pylon-zoo data``: is a dataset fit for use, and how is it read fast?"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pylon_zoo.cli.options import Dataset
from pylon_zoo.cli.terminal import (
    FAILED,
    AsJson,
    Command,
    Group,
    examples,
    make_table,
    out,
    print_json,
)
from pylon_zoo.files import replace_file

if TYPE_CHECKING:
    from pylon_zoo.data.check import CheckReport

__all__ = ["app"]

app = typer.Typer(cls=Group, help="Check and cache datasets.", no_args_is_help=True)
SHOWN = 20


Root = Annotated[str, typer.Argument(help="The dataset's folder or file.", show_default=False)]
Workers = Annotated[int, typer.Option(min=1, help="Threads that read images.")]


@app.command(
    cls=Command,
    epilog=examples(
        "pylon-zoo data check csv my_images.csv",
        "pylon-zoo data check nih14 NIH14 --workers 8 --json > report.json",
    ),
)
def check(
    dataset: Dataset,
    root: Root,
    workers: Workers = 4,
    as_json: AsJson = False,
) -> None:
    """Look for damaged files, label conflicts, duplicates and leaks between splits.

    Errors make training or its numbers wrong; notes are worth knowing. Exits with 1 on errors.
    """
    from pylon_zoo.data import open_task
    from pylon_zoo.data.check import check_task

    report = check_task(open_task(dataset, root), workers=workers, progress=True)
    if as_json:
        print_json(report.to_dict())
    else:
        if report.problems:
            table = make_table("severity", "problem", "what", "where")
            for problem in (*report.errors, *report.notes)[:SHOWN]:
                where = "\n".join(problem.items[:4])
                table.add_row(problem.severity, problem.kind, problem.message, where)
            out.print(table, markup=False)
        print(_summary(dataset, report))
    if not report.passes:
        raise typer.Exit(FAILED)


def _summary(dataset: str, report: CheckReport) -> str:
    """One line, e.g. ``bccd passes: 240 fit, 52 select images; 1 note (1 missing split).``"""
    images = ", ".join(f"{count} {split}" for split, count in report.images.items())
    found = []
    for name, problems in (("error", report.errors), ("note", report.notes)):
        if problems:
            kinds = Counter(problem.kind for problem in problems)
            listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            plural = "s" if len(problems) > 1 else ""
            found.append(f"{len(problems)} {name}{plural} ({listed})")
    result = "passes" if report.passes else "does not pass"
    return f"{dataset} {result}: {images or 'no'} images; {'; '.join(found) or 'nothing amiss'}."


@app.command(
    cls=Command,
    epilog=examples(
        "pylon-zoo data splits nih14 NIH14 --output nih14_splits.csv",
        "pylon-zoo data splits csv my_images.csv > splits.csv",
    ),
)
def splits(
    dataset: Dataset,
    root: Annotated[
        str | None,
        typer.Argument(help="The dataset's folder or file, where it has one.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="CSV file to write instead.", show_default=False),
    ] = None,
) -> None:
    """Print as CSV which image is in which split, and its group, e.g. the patient.

    The splits are those that share no image and no group; a list that this copy of the dataset
    has not is left out.
    """
    from pylon_zoo.data import open_task
    from pylon_zoo.data.splits import as_csv, split_rows

    task = open_task(dataset, root)
    rows = split_rows(task)
    if output is None:
        print(as_csv(rows), end="")
    else:
        with replace_file(output) as temporary:
            temporary.write_text(as_csv(rows), encoding="utf-8", newline="\n")
        counts = Counter(row.split for row in rows)
        named = ", ".join(f"{counts[split]} {split}" for split in task.partition if counts[split])
        print(f"{output}: {named} images.")


@app.command(
    cls=Command,
    epilog=examples(
        "pylon-zoo data cache nih14 NIH14 --size 256 --output nih14_256",
        "pylon-zoo train nih14_pylon_256 --set root=NIH14 --set cache=nih14_256",
        "pylon-zoo data cache nih14 NIH14 --output nih14_256 --verify",
    ),
)
def cache(
    dataset: Dataset,
    root: Root,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the cache.", show_default=False)
    ],
    splits: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            help="May come often; by default the two that training reads.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int, typer.Option(min=0, help="Side to resize images to; 0 keeps their own size.")
    ] = 0,
    workers: Workers = 4,
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing; compare all of a cache with its data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Decode and resize images once, for training to read: train ... --set cache=DIR.

    The same command goes on with what a killed one left, and writes anew only what has changed.
    Exits with 1 where images cannot be read.
    """
    from pylon_zoo.data import CachedShards, open_task
    from pylon_zoo.data.shards import write_cache
    from pylon_zoo.data.tasks import files_task

    task = files_task(open_task(dataset, root))
    reports: dict[str, dict[str, Any]] = {}
    unreadable: list[str] = []
    for split in splits or [task.training_split, task.selection_split]:
        images = task.dataset(split)
        if verify:
            cached = CachedShards(output / split, images)
            cached.verify()
            reports[split] = {"images": len(cached), "intact": True}
            line = f"{split}: {len(cached)} images, intact."
        else:
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
            reports[split] = asdict(report)
            line = (
                f"{split}: {report.images} images, {report.nbytes / 1e6:,.1f} MB; shards: "
                f"{report.written} written, {report.kept} kept."
            )
        if not as_json:
            print(line)
    if as_json:
        print_json(reports)
    elif unreadable:
        for problem in unreadable[:SHOWN]:
            print(f"unreadable: {problem}")
        print(f"{len(unreadable)} images cannot be read.")
    if unreadable:
        raise typer.Exit(FAILED)
