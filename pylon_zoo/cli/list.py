"""``pylon-zoo list``: all names that other commands and functions take."""

from __future__ import annotations

import ast
import fnmatch
import importlib.util
import re
from typing import Annotated, Any

import typer

from pylon_zoo.cli.terminal import AsJson, make_table, out, print_json

__all__ = ["EXAMPLES", "list"]

EXAMPLES = (
    "pylon-zoo list 'pylon_resnet*'",
    "pylon-zoo list --pretrained",
    "pylon-zoo list --encoders '*convnext*'",
    "pylon-zoo list --recipes",
    "pylon-zoo list --datasets --json",
)


def list(  # noqa: A001 - the name of the command
    pattern: Annotated[str, typer.Argument(help="Shell pattern, in quotes.")] = "*",
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only checkpoints.")] = False,
    encoders: Annotated[
        bool, typer.Option("--encoders", help="The encoders that models are built on.")
    ] = False,
    recipes: Annotated[
        bool, typer.Option("--recipes", help="The training runs that train knows.")
    ] = False,
    datasets: Annotated[
        bool, typer.Option("--datasets", help="The datasets, their splits and licences.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List models, checkpoints, encoders, recipes or datasets.

    A model's name is {architecture}_{encoder}, a checkpoint's has a .tag behind it.
    """
    from pylon_zoo.registry import list_encoders, list_models

    if pretrained + encoders + recipes + datasets > 1:
        raise typer.BadParameter("give one of --pretrained, --encoders, --recipes, --datasets.")
    if recipes or datasets:
        _list_recipes(pattern, as_json) if recipes else _list_datasets(pattern, as_json)
        return
    names = list_encoders(pattern) if encoders else list_models(pattern, pretrained)
    if as_json:
        print_json(names)
    else:
        for name in names:
            print(name)


def _list_recipes(pattern: str, as_json: bool) -> None:
    from pylon_zoo.recipes import list_recipes

    summaries = {name: _summary(name) for name in fnmatch.filter(list_recipes(), pattern)}
    if as_json:
        print_json(summaries)
        return
    table = make_table("recipe", "what it trains")
    for name, summary in summaries.items():
        table.add_row(name, summary)
    out.print(table)


def _summary(recipe: str) -> str:
    """The first line of a recipe's docstring, read without running it."""
    spec = importlib.util.find_spec(f"pylon_zoo.recipes.{recipe}")
    source = getattr(spec.loader, "get_source")(spec.name) if spec else ""  # noqa: B009
    summary = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0].rstrip(".")
    # Of a role, such as :mod:`pylon_zoo.recipes.bccd`, the last name.
    return re.sub(r":\w+:`(?:[\w.]*\.)?(\w+)`", r"\1", summary)


def _list_datasets(pattern: str, as_json: bool) -> None:
    from pylon_zoo.data import TASKS

    rows: Any = [
        {"name": task.name, "splits": task.splits, "license": task.license, "url": task.url}
        for task in TASKS.values()
        if fnmatch.fnmatch(task.name, pattern)
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print(row["name"])
        print(f"    splits   {', '.join(row['splits'])}")
        print(f"    licence  {row['license']}")
        print(f"    from     {row['url']}")
