"""Every recipe on a few made-up images in its dataset's official layout, for two steps."""

import dataclasses
import importlib
import json
import re
from pathlib import Path

import pytest
import torch

from pylon_zoo.data import BCCD, Cached, LocalizationDataset, Phantom, tasks
from pylon_zoo.recipes import list_recipes, load_recipe
from pylon_zoo.training import train


def fake_root(data: str, folder: Path) -> str | None:
    """Made-up files of a dataset, by its own generator in tests/; None where it needs none."""
    if data not in tasks.TASKS:
        pytest.skip(f"{data} is not among the datasets yet: {', '.join(tasks.TASKS)}")
    if data == "phantom":
        return None
    # Parts of a dataset are named after it.
    name = re.sub(r"_\d+$", "", data)
    return str(importlib.import_module(f"fake_{name}").write(folder))


def few(task: tasks.Task) -> tuple[LocalizationDataset, LocalizationDataset]:
    if task.name == "phantom":
        return Phantom("train", size=64, length=5), Phantom("val", size=64, length=2)
    if task.name == "bccd":
        images = BCCD(str(task.root), "train")
        tiles = tasks.Tiles(Cached(images), 64, positions="random", length=5)
        return tiles, tasks.Tiles(Cached(images), 64, positions="random", length=2)
    return tasks.TASKS[task.name].training(task), tasks.TASKS[task.name].selection(task)


@pytest.mark.parametrize("name", list_recipes())
def test_dry_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(name)
    root = fake_root(recipe.data, tmp_path / "data")
    task = tasks.open_task(recipe.data, root)
    training, selection = few(task)
    monkeypatch.setattr(type(task), "training", lambda _: training)
    monkeypatch.setattr(type(task), "selection", lambda _: selection)
    config = dataclasses.replace(
        recipe,
        model=recipe.model.partition("_")[0] + "_test_efficientnet",
        root=root,
        epochs=1,
        batch_size=len(training) // (1 if recipe.also else 2),
        tile=0,
        tiles_per_epoch=0,
        image_size=64,
        # What needs a network, a GPU or an earlier run.
        encoder_pretrained=False,
        weights=None,
        precision="no" if recipe.precision == "fp16" else recipe.precision,
        workers=0,
    )
    if config.freeze:
        # Both phases.
        config = dataclasses.replace(config, epochs=2, frozen_epochs=1)
    train(config, tmp_path / "run", progress=False)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["steps"] == 2 * config.epochs
    (path,) = (tmp_path / "run" / "checkpoints").glob(f"step_0000000{run['steps']}.pt")
    state = torch.load(path, weights_only=True)["model"]
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_the_papers_table_is_there_at_both_sizes() -> None:
    for size in (256, 512):
        recipes = [load_recipe(n) for n in list_recipes() if n.endswith(f"_{size}")]
        runs = {(r.model, *r.options.items()) for r in recipes}
        assert runs == {
            ("pylon_resnet50",),
            ("cam_resnet50",),
            ("li2018_resnet50",),
            ("unet_resnet50",),
            ("fpn_resnet50", ("norm", "batch")),
            ("fpn_resnet50", ("norm", "group")),
            ("pan_resnet50", ("global_context", False)),
            ("pan_resnet50", ("global_context", True)),
            ("deeplabv3plus_resnet50", ("global_context", False)),
            ("deeplabv3plus_resnet50", ("global_context", True)),
        }
        for recipe in recipes:
            assert (recipe.image_size, recipe.data, recipe.augmentation) == (size, "nih14", "paper")
            assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (40, 64, 1e-4)


@pytest.mark.parametrize("name", list_recipes())
def test_each_states_hardware_and_score(name: str) -> None:
    text = importlib.import_module(f"pylon_zoo.recipes.{name}").__doc__ or ""
    assert f"\npylon-zoo train {name}" in text
    assert "\nHardware: " in text
    assert "\nExpected score: " in text
