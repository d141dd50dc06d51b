"""The command line: ``pylon-zoo COMMAND``.

Exit codes: 0 done; 1 an error that the message explains; 2 wrong usage; 75 a training run was
stopped by SIGTERM or SIGINT after it saved its state, and the same command goes on with it (75 is
``EX_TEMPFAIL`` of sysexits.h: try again); 130 interrupted.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pylon_zoo.cli import convert, export, weights
from pylon_zoo.errors import ImageReadError, InvalidInputError, PylonZooError, TrainingStopped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylon_zoo.data import Sample
    from pylon_zoo.prediction import Prediction
    from pylon_zoo.training import TrainingResult

app = typer.Typer(
    name="pylon-zoo",
    help="Where in a medical image does a classifier see what it says? Not for clinical use.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.add_typer(weights.app, name="weights")
app.command()(convert.convert)
app.command()(export.export)
out = Console()
err = Console(stderr=True)

#: EX_TEMPFAIL of sysexits.h.
STOPPED = 75

DEFAULT_MODEL = "pylon_regnetx_002.phantom"
Model = Annotated[
    str, typer.Option("--model", "-m", help="Name of a checkpoint, or the folder of one.")
]
SkipBad = Annotated[
    int | None,
    typer.Option(help="Go on without so many images that cannot be read, and list them."),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Delete this folder's checkpoints and start over.")
]


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, e.g. 'pylon_*'.")] = "*",
    pretrained: Annotated[bool, typer.Option(help="Only models with weights.")] = False,
) -> None:
    """List the names that create_model and load_pretrained take."""
    from pylon_zoo.registry import list_models

    for name in list_models(pattern, pretrained):
        print(name)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Name or folder of a checkpoint.")] = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a checkpoint is: architecture, classes, input, weights."""
    from pylon_zoo.weights import load_pretrained

    loaded = load_pretrained(model)
    config = loaded.spec.to_config()
    config["parameters"] = sum(p.numel() for p in loaded.parameters())
    if as_json:
        print(json.dumps(config, indent=2))
        return
    table = Table(show_header=False, box=None)
    spec = loaded.spec
    rows = {
        "model": spec.name,
        "options": ", ".join(f"{k}={v}" for k, v in spec.options.items()) or "defaults",
        "parameters": f"{config['parameters']:,}",
        "classes": ", ".join(spec.class_names or (f"{spec.num_classes} without names",)),
        "input": "{} channel(s), {} x {} px, resize: {}".format(
            *spec.preprocessing.input_size, spec.preprocessing.resize
        ),
        "mean, std": f"{spec.preprocessing.mean}, {spec.preprocessing.std}",
    }
    for key, value in rows.items():
        table.add_row(key, value)
    out.print(table)


@app.command()
def predict(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(help="Image files, or folders of them.", show_default=False),
    ] = None,
    model: Model = DEFAULT_MODEL,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for predictions.csv and pictures.")
    ] = Path("predictions"),
    phantom: Annotated[
        int | None,
        typer.Option(help="Predict a generated radiograph phantom of this number instead."),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Pictures are drawn of classes at least this probable.")
    ] = 0.5,
    alignment: Annotated[
        str, typer.Option(help="corners_false, or receptive_field for coarse maps.")
    ] = "corners_false",
) -> None:
    """Say what is in images and where: a table, predictions.csv, and an overlay per finding."""
    from rich.progress import track

    from pylon_zoo.prediction import predict as predict_one
    from pylon_zoo.weights import load_pretrained

    if bool(sources) == (phantom is not None):
        raise typer.BadParameter("give image files or folders, or --phantom NUMBER.")
    loaded = load_pretrained(model)
    files = _image_files(sources or [])
    samples = _samples(files) if phantom is None else _phantoms(phantom)
    count = len(files) or 1
    output.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    pictures = 0
    with (output / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "probability", "x", "y", "inside"])
        for sample in track(samples, "predicting", total=count, console=err, transient=True):
            try:
                if isinstance(sample, ImageReadError):
                    raise sample
                prediction = predict_one(loaded, sample, alignment)
            except (ImageReadError, InvalidInputError) as error:
                failures.append(str(error))
                continue
            for finding in prediction.findings:
                inside = {None: "", True: "yes", False: "no"}[finding.inside]
                writer.writerow(
                    [
                        sample.source,
                        finding.class_name,
                        f"{finding.probability:.4f}",
                        finding.x,
                        finding.y,
                        inside,
                    ]
                )
            pictures += _draw_findings(prediction, output, threshold)
            if count == 1:
                _print_findings(prediction)
    err.print(
        f"{count - len(failures)} image(s): {output / 'predictions.csv'} and {pictures} overlay(s) "
        f"in {output}. Not for clinical use.",
        highlight=False,
        soft_wrap=True,
    )
    if failures:
        for failure in failures:
            err.print(f"[red]skipped[/red] {failure}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _image_files(sources: list[Path]) -> list[Path]:
    from pylon_zoo.data import find_images

    files: list[Path] = []
    for source in sources:
        files += find_images(source) if source.is_dir() else [source]
    return files


def _samples(files: list[Path]) -> Iterator[Sample | ImageReadError]:
    import torch

    from pylon_zoo.data import Sample, read_image

    for path in files:
        try:
            yield Sample(image=read_image(path), labels=torch.zeros(0), source=str(path))
        except ImageReadError as error:
            yield error


def _phantoms(number: int) -> Iterator[Sample | ImageReadError]:
    from pylon_zoo.data import Phantom

    yield Phantom("test")[number]


def _draw_findings(prediction: Prediction, output: Path, threshold: float) -> int:
    from pylon_zoo.heatmaps.overlay import draw_overlay

    sample = prediction.sample
    drawn = 0
    for position, finding in enumerate(prediction.findings):
        # Always the most probable class, so that there is a picture to look at.
        if drawn and finding.probability < threshold:
            break
        picture = draw_overlay(
            sample.image,
            prediction.probability_maps[position],
            title=f"{finding.class_name}  {finding.probability:.2f}",
            peak=(finding.x, finding.y),
            boxes=prediction.boxes_of(position),
        )
        stem = Path(sample.source).stem
        picture.save(output / f"{stem}_{finding.class_name.replace(' ', '_')}.png")
        drawn += 1
    return drawn


def _print_findings(prediction: Prediction) -> None:
    table = Table("class", "probability", "peak x", "peak y", "inside its box")
    for column in (1, 2, 3):
        table.columns[column].justify = "right"
    for f in prediction.findings:
        inside = {None: "no box known", True: "yes", False: "no"}[f.inside]
        if f.inside is None and len(prediction.sample.boxes):
            inside = "not in the image"
        table.add_row(f.class_name, f"{f.probability:.3f}", str(f.x), str(f.y), inside)
    out.print(table)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Name or folder of a checkpoint.")],
    data: Annotated[str, typer.Option(help="Dataset: phantom, bccd, nih14, csv, coco, ...")],
    split: Annotated[str, typer.Option(help="Split, e.g. val or test.")] = "val",
    root: Annotated[str | None, typer.Option(help="The dataset's folder.")] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the report to this file.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Measure AUROC and point localization, with chance levels and 95 % intervals."""
    from pylon_zoo.data import open_task
    from pylon_zoo.training.evaluation import evaluate as measure
    from pylon_zoo.training.evaluation import format_estimate, summary_rows
    from pylon_zoo.weights import load_pretrained

    task = open_task(data, root)
    report = measure(load_pretrained(model, device=device), task, split, progress=True)
    table = Table(
        "metric", "class", "value [95 %]", "chance", "n", title=f"{model} on {data} {split}"
    )
    previous = ""
    for metric, name, estimate in summary_rows(report):
        if previous not in ("", metric):
            table.add_section()
        chance = "n/a" if estimate["chance"] is None else f"{estimate['chance']:.3f}"
        label = "" if metric == previous else metric
        table.add_row(label, name, format_estimate(estimate), chance, str(estimate["support"]))
        previous = metric
    out.print(table)
    if json_path is not None:
        report["command"] = f"pylon-zoo evaluate {model} --data {data} --split {split}" + (
            " --root DIR" if root else ""
        )
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, e.g. phantom.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the recipe: key=value; may come often."),
    ] = None,
    skip_bad: SkipBad = None,
    fresh: Fresh = False,
) -> None:
    """Train a model by a recipe; the folder that it writes loads with load_pretrained.

    The same command goes on with a run that was killed or stopped. SIGTERM and SIGINT finish the
    step, save and exit with 75.
    """
    from pylon_zoo.recipes import load_recipe
    from pylon_zoo.training import train as run

    changes = list(settings or [])
    if skip_bad is not None:
        changes.append(f"skip_bad={skip_bad}")
    config = load_recipe(recipe).override(changes)
    folder = output or Path("runs") / recipe
    _print_training(run(config, folder, resume=not fresh))


def _print_training(result: TrainingResult) -> None:
    for problem in result.bad_images:
        err.print(f"[yellow]skipped[/yellow] {_plain(problem)}", highlight=False, soft_wrap=True)
    out.print(
        f"Best epoch {result.best_epoch}, validation loss {result.best_loss:.4f}, "
        f"{result.seconds:.0f} s. Load it with pylon_zoo.load_pretrained({str(result.folder)!r}).",
        highlight=False,
        soft_wrap=True,
    )


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; errors of this package are one paragraph, not a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        app([a for a in arguments if a != "--debug"], standalone_mode=True)
    except TrainingStopped as stopped:
        err.print(_plain(str(stopped)), highlight=False, soft_wrap=True)
        sys.exit(STOPPED)
    except PylonZooError as error:
        if debug:
            raise
        err.print(
            f"[bold red]Error:[/bold red] {_plain(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(1)
    except BrokenPipeError:
        # The reader of a pipe went away, e.g. `| head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _plain(text: str) -> str:
    """Text in which rich sees no markup."""
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
