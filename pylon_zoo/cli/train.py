"""``pylon-zoo train`` and ``finetune``: make a checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pylon_zoo.cli.completion import complete_checkpoints, complete_recipes
from pylon_zoo.cli.evaluate import print_report
from pylon_zoo.cli.options import DEFAULT_MODEL, Fresh, Settings, SkipBad
from pylon_zoo.cli.terminal import AsJson, make_table, note, out, print_json

if TYPE_CHECKING:
    from pylon_zoo.training import TrainingResult

__all__ = ["FINETUNE_EXAMPLES", "TRAIN_EXAMPLES", "finetune", "train"]

TRAIN_EXAMPLES = (
    "pylon-zoo train phantom",
    "pylon-zoo train phantom --show",
    "pylon-zoo train bccd --set root=BCCD --set seed=1 --output runs/bccd_1",
    "accelerate launch -m pylon_zoo.cli.main train nih14_pylon_256 \\",
    "    --set root=NIH14 --set precision=bf16 --set workers=8",
)
FINETUNE_EXAMPLES = (
    "pylon-zoo finetune my_images.csv",
    "pylon-zoo finetune my_folder --weights pylon_dla46_c.bccd -o my_model",
    "pylon-zoo finetune my_images.csv --set epochs=20 --set seed=1",
)


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Name of a recipe; pylon-zoo list --recipes has them all.",
            autocompletion=complete_recipes,
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder; runs/RECIPE if not given."),
    ] = None,
    settings: Settings = None,
    show: Annotated[
        bool, typer.Option("--show", help="Show the recipe and its settings; train nothing.")
    ] = False,
    skip_bad: SkipBad = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Train a model by a recipe; the folder that it writes loads with load_pretrained.

    The same command goes on with a run that was killed or stopped. SIGTERM and Ctrl-C finish the
    step, save and exit with 75.
    """
    from pylon_zoo.recipes import load_recipe
    from pylon_zoo.training import train as run

    config = load_recipe(recipe).override(_with_skip_bad(settings, skip_bad))
    if show:
        _print_settings(recipe, config.to_dict(), as_json)
        return
    result = run(config, output or Path("runs") / recipe, resume=not fresh)
    _print_training(result, as_json)


def finetune(
    data: Annotated[
        Path,
        typer.Argument(
            help="A CSV file, a COCO file, or a folder with a folder for each class.",
            show_default=False,
        ),
    ],
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            "-w",
            help="Checkpoint to start from: a name or a folder.",
            autocompletion=complete_checkpoints,
        ),
    ] = DEFAULT_MODEL,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("finetuned"),
    settings: Settings = None,
    skip_bad: SkipBad = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Teach a checkpoint the classes of your own images, measure it, and save it.

    Settings follow from the number of images; class names and splits are the data's. The same
    command goes on with a run that was killed or stopped.
    """
    from pylon_zoo.training import finetune as run

    changes = _with_skip_bad(settings, skip_bad)
    result = run(data, output, weights=weights, settings=changes, resume=not fresh)
    if not as_json:
        split = result.report["split"]
        print_report(result.report, f"{weights} fine-tuned on {data}, {split} split")
    _print_training(result.training, as_json, evaluation=result.report)


def _with_skip_bad(settings: list[str] | None, skip_bad: int | None) -> list[str]:
    return (settings or []) + ([] if skip_bad is None else [f"skip_bad={skip_bad}"])


def _print_settings(recipe: str, settings: dict[str, Any], as_json: bool) -> None:
    import importlib

    if as_json:
        print_json(settings)
        return
    out.print(importlib.import_module(f"pylon_zoo.recipes.{recipe}").__doc__, markup=False)
    table = make_table("setting", "value")
    for key, value in settings.items():
        table.add_row(key, str(value))
    out.print(table, markup=False)


def _print_training(result: TrainingResult, as_json: bool, **more: Any) -> None:
    for problem in result.bad_images:
        note(f"skipped {problem}", "yellow")
    if as_json:
        print_json({**asdict(result), "folder": str(result.folder), **more})
        return
    out.print(
        f"Best epoch {result.best_epoch}, validation loss {result.best_loss:.4f}, "
        f"{result.seconds:.0f} s. Load it with pylon_zoo.load_pretrained({str(result.folder)!r}).",
        markup=False,
        soft_wrap=True,
    )
