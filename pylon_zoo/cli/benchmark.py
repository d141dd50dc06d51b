"""``pylon-zoo benchmark``: train and measure any models on any dataset, with several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pylon_zoo.cli.completion import complete_list_of_models, complete_recipes
from pylon_zoo.cli.options import Dataset, Root, Settings
from pylon_zoo.cli.terminal import AsJson, make_table, note, out, print_json

__all__ = ["EXAMPLES", "benchmark"]

EXAMPLES = (
    "pylon-zoo benchmark phantom --recipe phantom --seeds 0,1,2 \\",
    "    --models pylon_regnetx_002,cam_regnetx_002",
    "pylon-zoo benchmark csv --root my_images.csv --recipe phantom \\",
    "    --models 'cam_resnet18,cam_resnet18 options.pooling=avg' -o pooling.csv",
)


def benchmark(
    dataset: Dataset,
    models: Annotated[
        str,
        typer.Option(
            help="Names of models, separated by commas; behind a name may stand settings of its "
            "own, e.g. 'cam_resnet18 options.pooling=avg'.",
            autocompletion=complete_list_of_models,
            show_default=False,
        ),
    ],
    seeds: Annotated[str, typer.Option(help="Numbers, separated by commas.")] = "0,1,2",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe whose budget and optimizer all runs take; the PYLON paper's if not given.",
            autocompletion=complete_recipes,
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    root: Root = None,
    split: Annotated[
        str,
        typer.Option(help="Split to measure on; not the one by which epochs are selected."),
    ] = "test",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Table with one row for each run.")
    ] = Path("results.csv"),
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/benchmark"),
    as_json: AsJson = False,
) -> None:
    """Train models with several seeds on one dataset, measure them, one row each.

    All runs have the same data, budget and optimizer. A run that has its row is not repeated; one
    that was interrupted goes on when the same command comes again. Several processes may run the
    same command at a time and share the runs.
    """
    from dataclasses import replace

    from pylon_zoo.benchmark import KEY, ResultsTable, grid_of, run_grid
    from pylon_zoo.data import open_task
    from pylon_zoo.errors import unknown_name
    from pylon_zoo.recipes import load_recipe
    from pylon_zoo.training import TrainingConfig

    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--seeds takes numbers such as 0,1,2; got {seeds!r}.") from error
    task = open_task(dataset, root)
    if split not in task.splits:
        raise unknown_name(f"split of {dataset},", split, task.splits)
    base = load_recipe(recipe) if recipe else TrainingConfig(model="", data=dataset)
    base = replace(base, data=dataset, root=root).override(settings or [])
    variants = [name.strip() for name in models.split(",")]
    grid = grid_of(variants, numbers, base, split=split, folder=runs / dataset)
    table = ResultsTable(output, KEY)
    for run in run_grid(grid, table, progress=True):
        note(f"{run.key['variant']}, seed {run.key['seed']}: {run.folder}")
    rows = [row for run in grid if (row := table.find(run)) is not None]
    if as_json:
        print_json(rows)
    else:
        _print_rows(rows)
    elsewhere = len(grid) - len(rows)
    note(
        f"{output}: {len(rows)} of {len(grid)} runs"
        + (f"; {elsewhere} under way in other processes." if elsewhere else ".")
    )


def _print_rows(rows: list[dict[str, str]]) -> None:
    measures = {
        "AUROC macro": "AUROC|macro",
        "localization, corners_false": "point localization (corners_false)|micro",
        "localization, receptive_field": "point localization (receptive_field)|micro",
    }
    table = make_table("variant", "seed", *measures, "s", right=("seed", *measures, "s"))
    for row in rows:
        values = [row.get(f"{column}|value", "") for column in measures.values()]
        cells = [f"{float(value):.3f}" if value else "n/a" for value in values]
        table.add_row(row["variant"], row["seed"], *cells, f"{float(row['seconds']):.0f}")
    out.print(table, markup=False)
