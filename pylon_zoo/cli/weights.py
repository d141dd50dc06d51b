"""``pylon-zoo weights``: what is published, whether it is intact, and how to publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pylon_zoo.errors import IntegrityError, WeightsNotFoundError
from pylon_zoo.weights.manifest import BundledSource, Entry, load_manifest
from pylon_zoo.weights.schema import encode

__all__ = ["app"]

app = typer.Typer(help="List, verify, download and publish checkpoints.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all published checkpoints."""
    entries = load_manifest().checkpoints
    if as_json:
        _print_json(encode(entries))
        return
    table = Table("checkpoint", "MB", "where", "data", "licence")
    for entry in entries:
        table.add_row(
            entry.name,
            f"{entry.bytes / 1e6:.1f}",
            ", ".join(_where(entry)),
            entry.data.name,
            entry.weights_license,
        )
    Console().print(table)


def _where(entry: Entry) -> list[str]:
    return [
        "bundled"
        if isinstance(source, BundledSource)
        else f"{source.repo_id}@{source.revision[:7]}"
        for source in entry.sources
    ]


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="A checkpoint, e.g. pylon_regnetx_002.phantom")],
    as_json: AsJson = False,
) -> None:
    """Show all that is known about a checkpoint."""
    entry = load_manifest().find(name)
    if as_json:
        _print_json(encode(entry))
        return
    spec = entry.spec
    table = Table(title=entry.name, show_header=False)
    for field, value in {
        "classes": ", ".join(spec.class_names or ()) or spec.num_classes,
        "input": f"{spec.in_chans} x {spec.preprocessing.input_size[1]} x "
        f"{spec.preprocessing.input_size[2]}",
        "options": json.dumps(spec.options),
        "data": f"{entry.data.name} ({entry.data.license}), {entry.data.url}",
        "splits": "\n".join(f"{split}: {ids}" for split, ids in entry.data.splits.items()),
        "recipe": f"{entry.recipe}, pylon_zoo {entry.project_version}",
        "command": entry.command,
        "licence of the weights": entry.weights_license,
        "metrics": "\n".join(
            f"{m.name} {m.value:.3f} [{m.interval[0]:.3f}, {m.interval[1]:.3f}] "
            f"({m.dataset}, {m.split})"
            for m in entry.metrics
        ),
        "thresholds": json.dumps(entry.thresholds) if entry.thresholds else "",
        "sources": "\n".join(_where(entry)),
        "bytes": f"{entry.bytes:,}",
        "sha256": entry.sha256,
    }.items():
        table.add_row(field, str(value))
    Console().print(table)


@app.command()
def verify(
    name: Annotated[
        str | None,
        typer.Argument(help="A checkpoint, a folder, or hf-hub:org/repo@revision."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All checkpoints of the manifest.")] = False,
    file: Annotated[
        Path | None,
        typer.Option(help="Any weights file: by its config.json, or else by the manifest."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the copies on this machine with the sha256 they were published with.

    Nothing is downloaded. Exits with 1 if any copy differs.
    """
    from pylon_zoo.weights.locate import identify, local_copies, verify_copy

    if sum([name is not None, every, file is not None]) != 1:
        raise typer.BadParameter("give one of NAME, --all and --file")
    if file is not None:
        copies = {str(file): [identify(file)]}
    elif name is not None:
        copies = {name: list(local_copies(name))}
        if not copies[name]:
            raise WeightsNotFoundError(
                f"{name} is not on this machine. Get it with `pylon-zoo weights download {name}`."
            )
    else:
        copies = {known: list(local_copies(known)) for known in load_manifest().names}
    rows = []
    for label, found in copies.items():
        rows += [(label, "not on this machine", "")] if not found else []
        for copy in found:
            try:
                verify_copy(copy)
                rows.append((label, "intact", str(copy.weights)))
            except IntegrityError as error:
                rows.append((label, "damaged", str(error)))
    if as_json:
        _print_json([{"name": n, "state": s, "detail": d} for n, s, d in rows])
    else:
        for label, state, detail in rows:
            typer.echo(f"{label}: {state}" + (f" ({detail})" if detail else ""))
    if any(state == "damaged" for _, state, _ in rows):
        raise typer.Exit(1)


@app.command()
def download(
    names: Annotated[list[str], typer.Argument(help="Checkpoints, or hf-hub:org/repo@revision.")],
    to: Annotated[
        Path | None,
        typer.Option(help="Folder that gets one folder per checkpoint, to be loaded by path."),
    ] = None,
    refresh: Annotated[
        bool, typer.Option(help="Ask the Hub anew what a branch or tag is.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring checkpoints to this machine, and verify them."""
    from pylon_zoo.weights.locate import download, folder_name

    paths = {}
    for name in names:
        folder = to / folder_name(name) if to else None
        paths[name] = str(download(name, folder, refresh=refresh))
        if not as_json:
            typer.echo(f"{name}: {paths[name]}")
    if as_json:
        _print_json(paths)


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="What pylon_zoo.save_pretrained wrote.")],
    *,
    repo_id: Annotated[str, typer.Option(help="org/repo on the Hub; created if need be.")],
    name: Annotated[
        str | None,
        typer.Option(help="architecture_encoder.tag; by default the one in the config."),
    ] = None,
    private: Annotated[bool, typer.Option(help="Create the repository private.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show every file and the card; send none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a checkpoint with its card in one commit, compare it, and list it in the manifest."""
    from pylon_zoo.weights import publishing

    if not dry_run:
        entry = publishing.publish(folder, repo_id, name=name, private=private)
        if as_json:
            _print_json(encode(entry))
        else:
            typer.echo(f"{entry.name}: published and compared, {', '.join(_where(entry))}")
        return
    with publishing.prepare(folder, repo_id, name=name) as publication:
        sizes = {path: file.stat().st_size for path, file in publication.files.items()}
        if as_json:
            _print_json({"repo_id": repo_id, "files": sizes, "card": publication.card})
            return
        typer.echo(f"Would publish {publication.name} to {repo_id}, in one commit:")
        for path, size in sizes.items():
            typer.echo(f"  {path} ({size:,} bytes)")
        typer.echo(f"\nREADME.md:\n\n{publication.card}")


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="A checkpoint of the manifest.")],
    *,
    root: Annotated[str | None, typer.Option(help="The dataset's folder.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the run; runs/NAME if not given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a checkpoint again by its recipe and compare it with what was published.

    Exits with 1 if a metric lies outside its published interval.
    """
    from pylon_zoo.reproduction import reproduce as run

    result = run(name, output or Path("runs") / name, root=root, progress=not as_json)
    if as_json:
        rows = [
            encode(comparison.published)
            | {
                "again": comparison.value,
                "difference": round(comparison.difference, 4),
                "inside": comparison.inside,
            }
            for comparison in result.comparisons
        ]
        _print_json({"name": name, "identical": result.identical, "metrics": rows})
    else:
        table = Table("metric", "published", "again", "difference", "")
        for comparison in result.comparisons:
            metric = comparison.published
            table.add_row(
                metric.name,
                f"{metric.value:.3f} [{metric.interval[0]:.2f}, {metric.interval[1]:.2f}]",
                f"{comparison.value:.3f}",
                f"{comparison.difference:+.3f}",
                "inside" if comparison.inside else "[bold red]OUTSIDE[/bold red]",
            )
        Console().print(table)
        same = "are the published ones, bit for bit" if result.identical else "differ"
        typer.echo(f"The weights {same}. They are in {result.folder}.")
    if not result.succeeded:
        raise typer.Exit(1)
