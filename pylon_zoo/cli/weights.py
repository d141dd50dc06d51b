"""``pylon-zoo weights``: what is published, whether it is intact, and how to publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pylon_zoo.cli.completion import complete_checkpoints
from pylon_zoo.cli.options import Checkpoint, Root
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
from pylon_zoo.errors import IntegrityError, WeightsNotFoundError

if TYPE_CHECKING:
    from pylon_zoo.weights.manifest import Entry

__all__ = ["app"]

app = typer.Typer(
    cls=Group,
    help="List, verify, download, publish and reproduce checkpoints.",
    no_args_is_help=True,
)


@app.command(
    "list", cls=Command, epilog=examples("pylon-zoo weights list", "pylon-zoo weights list --json")
)
def list_(as_json: AsJson = False) -> None:
    """List all published checkpoints."""
    from pylon_zoo.weights.manifest import load_manifest
    from pylon_zoo.weights.schema import encode

    entries = load_manifest().checkpoints
    if as_json:
        print_json(encode(entries))
        return
    table = make_table("checkpoint", "MB", "where", "data", "licence", right=["MB"])
    for entry in entries:
        table.add_row(
            entry.name,
            f"{entry.bytes / 1e6:.1f}",
            ", ".join(_where(entry)),
            entry.data.name,
            entry.weights_license,
        )
    out.print(table, markup=False)


def _where(entry: Entry) -> list[str]:
    from pylon_zoo.weights.manifest import HubSource

    return [
        f"{source.repo_id}@{source.revision[:7]}" if isinstance(source, HubSource) else source.type
        for source in entry.sources
    ]


@app.command(cls=Command, epilog=examples("pylon-zoo weights info pylon_dla46_c.phantom"))
def info(
    name: Annotated[
        str,
        typer.Argument(
            help="A published checkpoint.",
            autocompletion=complete_checkpoints,
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show how a checkpoint was made, on what, how good it is, and where its file is."""
    from pylon_zoo.weights.manifest import load_manifest
    from pylon_zoo.weights.schema import encode

    entry = load_manifest().find(name)
    if as_json:
        print_json(encode(entry))
        return
    spec = entry.spec
    table = make_table("", "", title=entry.name)
    table.show_header = False
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
        "chosen by": entry.thresholds_rule or "",
        "precision": f"{entry.precision.dtype}, which changes no metric by more than "
        f"{entry.precision.largest_change:.4f}"
        if entry.precision
        else "",
        "sources": "\n".join(_where(entry)),
        "bytes": f"{entry.bytes:,}",
        "sha256": entry.sha256,
    }.items():
        table.add_row(field, str(value))
    out.print(table, markup=False)


@app.command(
    cls=Command,
    epilog=examples(
        "pylon-zoo weights verify --all",
        "pylon-zoo weights verify pylon_dla46_c.phantom",
        "pylon-zoo weights verify --file model.safetensors --json",
    ),
)
def verify(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Checkpoint: a name, a folder, or hf-hub:org/repo@revision.",
            autocompletion=complete_checkpoints,
            show_default=False,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All checkpoints of the manifest.")] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            help="Any weights file: by its config.json, or else by the manifest.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the copies on this machine with the sha256 they were published with.

    Nothing is downloaded. Exits with 1 if any copy differs.
    """
    from pylon_zoo.weights.locate import identify, local_copies, verify_copy
    from pylon_zoo.weights.manifest import load_manifest

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
        print_json([{"name": n, "state": s, "detail": d} for n, s, d in rows])
    else:
        for label, state, detail in rows:
            typer.echo(f"{label}: {state}" + (f" ({detail})" if detail else ""))
    if any(state == "damaged" for _, state, _ in rows):
        raise typer.Exit(FAILED)


@app.command(
    cls=Command,
    epilog=examples(
        "pylon-zoo weights download pylon_dla46_c.phantom --to models",
        "pylon-zoo weights download hf-hub:org/repo@v1.0",
    ),
)
def download(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Checkpoints: names, or hf-hub:org/repo@revision.",
            autocompletion=complete_checkpoints,
            show_default=False,
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder that gets one folder per checkpoint, to be loaded by path.",
            show_default=False,
        ),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask the Hub anew what a branch or tag is.")
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
        print_json(paths)


@app.command(
    cls=Command,
    epilog=examples(
        "pylon-zoo weights publish my_model --repo-id org/repo --dry-run",
        "pylon-zoo weights publish my_model --repo-id org/repo",
    ),
)
def publish(
    folder: Annotated[
        Path,
        typer.Argument(help="What train, finetune or save_pretrained wrote.", show_default=False),
    ],
    *,
    repo_id: Annotated[
        str, typer.Option(help="org/repo on the Hub; created if need be.", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="architecture_encoder.tag; by default the one in the config.", show_default=False
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Create the repository private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every file and the card; send none.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a checkpoint with its card in one commit, compare it, and list it in the manifest."""
    from pylon_zoo.weights import publishing
    from pylon_zoo.weights.schema import encode

    if not dry_run:
        entry = publishing.publish(folder, repo_id, name=name, private=private)
        if as_json:
            print_json(encode(entry))
        else:
            typer.echo(f"{entry.name}: published and compared, {', '.join(_where(entry))}")
        return
    with publishing.prepare(folder, repo_id, name=name) as publication:
        sizes = {path: file.stat().st_size for path, file in publication.files.items()}
        if as_json:
            print_json({"repo_id": repo_id, "files": sizes, "card": publication.card})
            return
        typer.echo(f"Would publish {publication.name} to {repo_id}, in one commit:")
        for path, size in sizes.items():
            typer.echo(f"  {path} ({size:,} bytes)")
        typer.echo(f"\nREADME.md:\n\n{publication.card}")


@app.command(
    cls=Command,
    epilog=examples(
        "pylon-zoo weights reproduce pylon_dla46_c.phantom",
        "pylon-zoo weights reproduce pylon_dla46_c.bccd --root BCCD",
    ),
)
def reproduce(
    name: Checkpoint,
    *,
    root: Root = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of the run; runs/NAME if not given.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a checkpoint again by its recipe and compare it with what was published.

    Exits with 1 if a metric lies outside its published interval.
    """
    from pylon_zoo.reproduction import reproduce as run
    from pylon_zoo.weights.schema import encode

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
        print_json({"name": name, "identical": result.identical, "metrics": rows})
    else:
        numbers = ("again", "difference")
        table = make_table("metric", "published", *numbers, "published interval", right=numbers)
        for comparison in result.comparisons:
            metric = comparison.published
            table.add_row(
                metric.name,
                f"{metric.value:.3f} [{metric.interval[0]:.2f}, {metric.interval[1]:.2f}]",
                f"{comparison.value:.3f}",
                f"{comparison.difference:+.3f}",
                "inside" if comparison.inside else "OUTSIDE",
            )
        out.print(table, markup=False)
        same = "are the published ones, bit for bit" if result.identical else "differ"
        typer.echo(f"The weights {same}. They are in {result.folder}.")
    if not result.succeeded:
        raise typer.Exit(FAILED)
