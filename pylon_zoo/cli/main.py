"""The command line: ``pylon-zoo COMMAND``.

Exit codes: 0 done; 1 an error that the message explains; 2 wrong usage; 75 a training run was
stopped by SIGTERM or SIGINT after it saved its state, and the same command goes on with it (75 is
``EX_TEMPFAIL`` of sysexits.h: try again); 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pylon_zoo.cli import convert, data, export, weights
from pylon_zoo.errors import PylonZooError, TrainingStopped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pylon_zoo.prediction import Prediction
    from pylon_zoo.training import TrainingResult

app = typer.Typer(
    name="pylon-zoo",
    help="Where in a medical image does a classifier see what it says? Not for clinical use.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
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
        list[str] | None,
        typer.Argument(
            help="Image files, folders and DICOM trees, patterns in quotes ('scans/**/*.png'), or "
            "CSV files that list them.",
            show_default=False,
        ),
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
    overlays: Annotated[bool, typer.Option(help="Draw pictures.")] = True,
    maps: Annotated[
        bool, typer.Option("--maps", help="Write each image's maps to maps/*.npz.")
    ] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write predictions.parquet as well.")
    ] = False,
    frames: Annotated[
        str, typer.Option(help="Which frame of DICOM and TIFF files: an index from 0, or all.")
    ] = "0",
    workers: Annotated[int, typer.Option(help="Processes that read images.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the images that the table lacks.")
    ] = False,
) -> None:
    """Say what is in images and where: a table, predictions.csv, and an overlay per finding.

    Under accelerate launch or torchrun, the processes share the images and fill one table.
    """
    from rich.progress import track

    from pylon_zoo import bulk
    from pylon_zoo.data import Phantom
    from pylon_zoo.prediction import Prediction
    from pylon_zoo.prediction import predict as predict_one
    from pylon_zoo.weights import load_pretrained

    if bool(sources) == (phantom is not None):
        raise typer.BadParameter("give image files, folders, patterns or lists, or --phantom N.")
    if parquet:
        bulk.require_pyarrow()
    images = bulk.find_frames(sources or [], frames)
    names = {f.source: name for f, name in zip(images, bulk.image_names(images), strict=True)}
    with bulk.Processes.joined() as processes:
        rank, first = processes.rank, processes.rank == 0
        if device == "cuda" and processes.count > 1:
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        loaded = load_pretrained(model, device=device)
        table = bulk.PredictionTable(
            output,
            {"model": model, "alignment": alignment, "frames": frames},
            classes=loaded.spec.num_classes,
            resume=resume,
            processes=processes,
        )
        todo = [f for f in images[rank :: processes.count] if f.source not in table.done]
        results: Iterable[Prediction | PylonZooError]
        results = bulk.predict_files(loaded, todo, alignment=alignment, workers=workers)
        if phantom is not None:
            results = [predict_one(loaded, Phantom("test")[phantom], alignment)] if first else []
        count = len(todo) + (phantom is not None)
        failures: list[str] = []
        pictures = 0
        for result in track(
            results, "predicting", total=count, console=err, transient=True, disable=not first
        ):
            if not isinstance(result, Prediction):
                failures.append(str(result))
                continue
            source = result.sample.source
            name = names.get(source, source)
            # Rows last: with them the image counts as done.
            if maps:
                bulk.save_maps(result, output / "maps" / f"{name}.npz")
            if overlays:
                pictures += _draw_findings(result, output, name, threshold)
            table.add(result)
            if len(images) <= 1:
                _print_findings(result)
        failures = processes.gather(failures)
        pictures, count = (sum(processes.gather([n])) for n in (pictures, count))
        table.finish(list(names))
    if not first:
        return
    if parquet:
        table.write_parquet()
    earlier = f" and {len(images) - count} earlier" if len(images) > count else ""
    err.print(
        f"{count - len(failures)} image(s){earlier}: {table.path} and {pictures} overlay(s) "
        f"in {output}. Not for clinical use.",
        highlight=False,
        soft_wrap=True,
    )
    if failures:
        for failure in failures:
            err.print(f"[red]skipped[/red] {_plain(failure)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _draw_findings(prediction: Prediction, output: Path, name: str, threshold: float) -> int:
    drawn = 0
    for finding in prediction.findings:
        # Always the most probable class, so that there is a picture to look at.
        if drawn and finding.probability < threshold:
            break
        picture = prediction.plot([finding.class_name])
        picture.save(output / f"{name}_{finding.class_name.replace(' ', '_')}.png")
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
    threshold_split: Annotated[
        str | None,
        typer.Option(
            help="Split on which thresholds are chosen [default: the measured one, marked so]."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for report.json, report.md (every metric), roc.png and localization.png.",
        ),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write the report to this file.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Measure classification and localization, with chance levels and 95 % intervals.

    Under torchrun each process measures a share of the images.
    """
    from pylon_zoo.data import open_task
    from pylon_zoo.training import evaluation, evaluation_plots
    from pylon_zoo.training.processes import process_group
    from pylon_zoo.weights import load_pretrained

    if output is not None:
        evaluation_plots.require_matplotlib()
    task = open_task(data, root)
    with process_group(device) as (own_device, is_main):
        report = evaluation.evaluate(
            load_pretrained(model, device=own_device),
            task,
            split,
            threshold_split=threshold_split,
            progress=True,
        )
    if not is_main:
        return
    _print_report(report, f"{model} on {data} {split}")
    report["command"] = f"pylon-zoo evaluate {model} --data {data} --split {split}"
    report["command"] += " --root DIR" if root else ""
    report["command"] += f" --threshold-split {threshold_split}" if threshold_split else ""
    text = json.dumps(report, indent=2) + "\n"
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(text, encoding="utf-8")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "report.json").write_text(text, encoding="utf-8")
        (output / "report.md").write_text(evaluation.markdown_report(report), encoding="utf-8")
        evaluation_plots.plot_roc(report, output / "roc.png")
        evaluation_plots.plot_localization(report, output / "localization.png")
        err.print(f"Every metric: {output / 'report.md'}", highlight=False, soft_wrap=True)


def _print_report(report: dict[str, Any], title: str) -> None:
    from pylon_zoo.training.evaluation import format_chance, format_estimate, summary_rows

    table = Table("metric", "class", "value [95 %]", "chance", "n", title=title)
    previous = ""
    for metric, name, estimate in summary_rows(report):
        if previous not in ("", metric):
            table.add_section()
        label = "" if metric == previous else metric
        value, chance = format_estimate(estimate), format_chance(estimate)
        table.add_row(label, name, value, chance, str(estimate["support"]))
        previous = metric
    out.print(table)


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

    config = load_recipe(recipe).override(_with_skip_bad(settings, skip_bad))
    folder = output or Path("runs") / recipe
    _print_training(run(config, folder, resume=not fresh))


@app.command()
def finetune(
    data: Annotated[
        Path,
        typer.Argument(help="A CSV file, a COCO file, or a folder with a folder for each class."),
    ],
    weights: Annotated[
        str, typer.Option("--weights", "-w", help="Checkpoint to start from: name or folder.")
    ] = DEFAULT_MODEL,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("finetuned"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the defaults: key=value; may come often."),
    ] = None,
    skip_bad: SkipBad = None,
    fresh: Fresh = False,
) -> None:
    """Teach a checkpoint the classes of your own images, measure it, and save it.

    Defaults follow from the number of images; class names and splits are the data's. The same
    command goes on with a run that was killed or stopped.
    """
    from pylon_zoo.training import finetune as run

    changes = _with_skip_bad(settings, skip_bad)
    result = run(data, output, weights=weights, settings=changes, resume=not fresh)
    _print_report(result.report, f"{weights} fine-tuned on {data}, {result.report['split']} split")
    _print_training(result.training)


def _with_skip_bad(settings: list[str] | None, skip_bad: int | None) -> list[str]:
    return (settings or []) + ([] if skip_bad is None else [f"skip_bad={skip_bad}"])


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
