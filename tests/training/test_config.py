import dataclasses
import json

import pytest

from pylon_zoo.errors import InvalidOptionError, UnknownNameError
from pylon_zoo.recipes import list_recipes, load_recipe
from pylon_zoo.training import TrainingConfig

BASE = TrainingConfig(model="cam_regnetx_002", data="phantom")


def test_settings_are_typed() -> None:
    changed = BASE.override(
        [
            "epochs=3",
            "learning_rate=1",
            "precision=bf16",
            "root=12",
            "options.pooling=avg",
            "options.num_up=2",
            "channels_last=false",
        ]
    )
    assert (changed.epochs, changed.learning_rate, changed.root) == (3, 1.0, "12")
    assert changed.options == {"pooling": "avg", "num_up": 2}
    assert changed.channels_last is False
    assert BASE.options == {}
    assert TrainingConfig(**json.loads(json.dumps(changed.to_dict()))) == changed


@pytest.mark.parametrize(
    ("setting", "error", "match"),
    [
        ("epoch=3", UnknownNameError, "Did you mean 'epochs'"),
        ("epochs", InvalidOptionError, "key=value; got 'epochs'"),
        ("epochs=many", InvalidOptionError, "type int; got 'many'"),
        ("epochs=1.5", InvalidOptionError, "type int"),
        ("epochs=true", InvalidOptionError, "type int"),
        ("epochs=0", InvalidOptionError, "positive"),
        ("schedule=cosin", UnknownNameError, "Did you mean 'cosine'"),
        ("ema_decay=1", InvalidOptionError, r"\[0, 1\)"),
    ],
)
def test_bad_settings(setting: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        BASE.override([setting])


def test_the_defaults_are_the_papers() -> None:
    assert (BASE.optimizer, BASE.learning_rate, BASE.batch_size) == ("adam", 1e-4, 64)
    assert (BASE.schedule, BASE.epochs) == ("plateau", 40)


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_loads_and_states_its_command(name: str) -> None:
    import importlib

    assert isinstance(load_recipe(name), TrainingConfig)
    module = importlib.import_module(f"pylon_zoo.recipes.{name}")
    assert f"pylon-zoo train {name}" in (module.__doc__ or "")


def test_twins_differ_in_the_architecture_alone() -> None:
    for name in ("phantom", "bccd"):
        twin = load_recipe(f"{name}_cam")
        assert dataclasses.replace(twin, model=load_recipe(name).model) == load_recipe(name)
        assert twin.model == load_recipe(name).model.replace("pylon", "cam")


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'phantom'"):
        load_recipe("phantoms")
