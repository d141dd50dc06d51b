"""Write zoo.md and errors.md: what the manifest, the recipes and the errors say of themselves.

    python docs/generate.py

A test compares the committed pages with what this writes.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from pylon_zoo import architectures, create_model, errors, preprocessing
from pylon_zoo.cli.terminal import EXIT_CODES
from pylon_zoo.recipes import list_recipes
from pylon_zoo.registry import ARCHITECTURES
from pylon_zoo.weights.manifest import Entry, HubSource, Source, load_manifest

DOCS = Path(__file__).parent
NOTE = "<!-- Made by `python docs/generate.py`; edit that, not this page. -->"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def first_paragraph(docstring: str | None) -> str:
    """In one line, without the markup of roles."""
    text = " ".join(inspect.cleandoc(docstring or "").partition("\n\n")[0].split())
    return text.replace("``", "`").replace(":mod:", "").replace(":func:", "")


# ---- The zoo


def zoo_page() -> str:
    """Published checkpoints, architectures and recipes."""
    entries = load_manifest().checkpoints
    return (
        "\n\n".join(
            [
                NOTE,
                "# Model zoo",
                "A name is `{architecture}_{encoder}`, and with `.tag` a checkpoint. The table is "
                "made from `weights_manifest.json`, which also says where every number comes from.",
                "## Checkpoints",
                "AUROC and point localization are means over classes, in brackets their 95 % "
                "bootstrap intervals. **Not for clinical use:** these checkpoints were trained on "
                "drawings, blood smears and a few radiographs, and say nothing about patients.",
                table(
                    ["checkpoint", "AUROC", "point localization", "MB", "in", "trained on"],
                    [
                        [
                            f"[`{e.name}`](checkpoints/{e.name}.md)",
                            estimate(e, "auroc_macro"),
                            estimate(e, "point_localization_corners_false_macro"),
                            f"{e.bytes / 1e6:.1f}",
                            ", ".join(map(place, e.sources)),
                            e.data.name,
                        ]
                        for e in entries
                    ],
                ),
                "Each has a page with what was measured for every class, its calibration, its "
                "operating thresholds, and a gallery of hits and misses.",
                "## Architectures",
                "All of them run on any of [these encoders](encoders.md). Cells are those of the "
                "class map of an image of 256 x 256 px.",
                architecture_table(),
                "## Recipes",
                "`pylon-zoo train RECIPE` trains it; a recipe's file states its command and its "
                "cost.",
                table(
                    ["recipe", "what it trains"],
                    [[f"`{name}`", recipe_line(name)] for name in list_recipes()],
                ),
            ]
        )
        + "\n"
    )


def estimate(entry: Entry, name: str) -> str:
    """A metric's value and interval."""
    metric = next((m for m in entry.metrics if m.name == name), None)
    if metric is None:
        return "not measured"
    return f"{metric.value:.3f} [{metric.interval[0]:.2f}, {metric.interval[1]:.2f}]"


def place(source: Source) -> str:
    """Where a file is had, in a word."""
    if isinstance(source, HubSource):
        return f"`hf-hub:{source.repo_id}`"
    return {"bundled": "the package", "repository": "the repository"}[source.type]


def architecture_table() -> str:
    """Name, cells and source of each architecture."""
    rows = []
    for name, cls in ARCHITECTURES.items():
        model = create_model(f"{name}_test_resnet").eval()
        with torch.no_grad():
            cells = model(torch.zeros(1, 1, 256, 256)).maps.shape
        module = importlib.import_module(getattr(architectures, cls).__module__)
        rows.append([f"`{name}`", f"{cells[2]} x {cells[3]}", first_paragraph(module.__doc__)])
    return table(["name", "cells", "what it is"], rows)


def recipe_line(name: str) -> str:
    """The first line of a recipe, read without importing it."""
    module = importlib.util.find_spec(f"pylon_zoo.recipes.{name}")
    assert module is not None
    assert module.origin is not None
    return first_paragraph(ast.get_docstring(ast.parse(Path(module.origin).read_text())))


# ---- The errors

#: For each error a block that raises it, where one can be shown, and what to do.
EXAMPLES: dict[str, tuple[str, str]] = {
    "UnknownNameError": (
        'pylon_zoo.create_model("pylon_resnet5O")',
        "Take one of the names in the message; `suggestions` holds them.",
    ),
    "InvalidOptionError": (
        'pylon_zoo.create_model("pylon_resnet18", num_up=4)',
        "Give a value that the message accepts.",
    ),
    "InvalidInputError": (
        'model = pylon_zoo.load_pretrained("pylon_dla46_c.phantom")\n'
        "model(torch.zeros(1, 3, 256, 256))",
        "Make inputs with `create_transform(model)`, which fits channels, size and range.",
    ),
    "RangeWarning": (
        'model = pylon_zoo.load_pretrained("pylon_dla46_c.phantom")\n'
        "twelve_bits = (torch.arange(256 * 256).reshape(1, 256, 256) % 4096).to(torch.uint16)\n"
        "pylon_zoo.create_transform(model)(twelve_bits)",
        "It is a warning. Multiply pixels so that they fill their type's range; 12 bits by 16.",
    ),
    "ImageReadError": (
        'pylon_zoo.read_image("nowhere.png")',
        "Look at the file that is named. In long runs, `--skip-bad N` lets N such images pass.",
    ),
    "DatasetError": (
        'pylon_zoo.data.open_task("bccd")',
        "Get the files from the place in the message, or bring the table into the shape it wants.",
    ),
    "CacheError": (
        'pylon_zoo.data.open_task("csv", "my_images.csv", cache="nowhere").training()',
        "Run `pylon-zoo data cache` again; it writes anew only what is not as it must be.",
    ),
    "ManifestError": (
        "from pylon_zoo.weights import load_manifest\n\n"
        'Path("weights_manifest.json").write_text(\'{"manifest_version": 2}\')\n'
        'load_manifest(Path("weights_manifest.json"))',
        "Mend the field that is named; the package's own manifest comes back by reinstalling.",
    ),
    "WeightsNotFoundError": (
        'pylon_zoo.load_pretrained("runs/nothing_here")',
        "Check the path, or take a name of `list_models(pretrained=True)`.",
    ),
    "CheckpointError": (
        'model = pylon_zoo.create_model("pylon_test_resnet")\n'
        'folder = pylon_zoo.save_pretrained(model, "mine")\n'
        '(folder / "config.json").write_text("{}")\n'
        "pylon_zoo.load_pretrained(folder)",
        "Copy or download the checkpoint again, config and weights together.",
    ),
    "IntegrityError": (
        'model = pylon_zoo.create_model("pylon_test_resnet")\n'
        'folder = pylon_zoo.save_pretrained(model, "mine")\n'
        'weights = folder / "model.safetensors"\n'
        "weights.write_bytes(weights.read_bytes()[:-1])\n"
        "pylon_zoo.load_pretrained(folder)",
        "Copy or download the file again. What the Hub sends is tried twice before this is raised.",
    ),
    "StateDictError": (
        'torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "theirs.pt")\n'
        'pylon_zoo.load_upstream("theirs.pt")',
        "Load the checkpoint into the model that it was saved from.",
    ),
    "DownloadError": (
        "import os\n\n"
        'os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody answers there\n'
        'pylon_zoo.load_pretrained("hf-hub:org/repo")',
        "Try again when the network is there; `weights download --to DIR` on another machine "
        "makes a folder that is loaded by its path.",
    ),
    "HubAccessError": (
        "",
        "Log in with `hf auth login`, or set `HF_TOKEN` to a token that may read the repository.",
    ),
    "TrainingError": (
        "from pylon_zoo.training import TrainingConfig, train\n\n"
        'config = TrainingConfig(model="pylon_test_resnet", data="phantom", batch_size=2, '
        "learning_rate=1e30)\n"
        'train(config, "runs/too_fast", progress=False)',
        "Do as the message says, then run the same command: the last checkpoint is whole.",
    ),
    "TrainingStopped": ("", "Run the same command again: it goes on after the last step."),
    "ReproductionError": (
        "from pylon_zoo.reproduction import reproduce\n\n"
        'reproduce("pylon_dla46_c.bccd", "runs/again")',
        "Give the dataset's folder, or run the recipe by hand.",
    ),
    "ExportError": (
        "from pylon_zoo.export import export\n\n"
        'model = pylon_zoo.create_model("pylon_test_coatnet")\n'
        'export(model, "model.pt2", "torch_export", dynamic_size=True)',
        "Fix the size of the images, or take the other format.",
    ),
    "MissingExtraError": (
        "# what reading DICOM does where pydicom is not installed\n"
        'raise pylon_zoo.errors.MissingExtraError("pydicom", "dicom", "Reading DICOM")',
        "Run the `pip install` of the message.",
    ),
}
IMPORTS = "from pathlib import Path\n\nimport torch\n\nimport pylon_zoo\n"


def public_errors() -> list[type[Exception]]:
    """In the order in which errors.py defines them, the base first."""
    found = [getattr(errors, name) for name in errors.__all__]
    classes = [e for e in found if isinstance(e, type) and issubclass(e, Exception)]
    return sorted(classes, key=lambda cls: inspect.getsourcelines(cls)[1])


def errors_page() -> str:
    """Every error: when it is raised, what it says and what to do; and what faults lead to."""
    classes = [cls for cls in public_errors() if cls is not errors.PylonZooError]
    template = (DOCS / "errors.md.in").read_text(encoding="utf-8")
    rows = [
        [f"[`{cls.__name__}`](#{cls.__name__.lower()})", bases(cls), first_paragraph(cls.__doc__)]
        for cls in classes
    ]
    return template.format(
        note=NOTE,
        table=table(["error", "also a", "when"], rows),
        exit_codes=table(["code", "meaning"], [[str(k), v] for k, v in EXIT_CODES.items()]),
        imports=f"```python\n{IMPORTS}```",
        sections="\n\n".join(map(error_section, classes)),
    )


def bases(cls: type[Exception]) -> str:
    """The built-in or public classes that it derives from, but for the base of all."""
    return ", ".join(f"`{b.__name__}`" for b in cls.__bases__ if b is not errors.PylonZooError)


def error_section(cls: type[Exception]) -> str:
    """When, an example with its message, and the remedy."""
    code, remedy = EXAMPLES[cls.__name__]
    parts = [f"### {cls.__name__}", first_paragraph(cls.__doc__)]
    if code:
        test = f'{{ data-test="raises {cls.__name__}" }}'
        message = raised(cls, code)
        parts += [f"```python {test}\n{code}\n```", f"```text\n{message}\n```"]
    return "\n\n".join([*parts, f"**What to do:** {remedy}"])


def raised(cls: type[Exception], code: str) -> str:
    """The message of the error that a block of code raises in an empty folder."""
    namespace: dict[str, Any] = {}
    preprocessing._warned_of_dark = False  # it warns once a process
    # Clients wait between their attempts; there is nothing to wait for.
    quiet = mock.patch("time.sleep"), mock.patch.dict(os.environ, {"NO_PROXY": "127.0.0.1"})
    with empty_folder(), warnings.catch_warnings(), quiet[0], quiet[1]:
        warnings.simplefilter("error", errors.RangeWarning)
        Path("my_images.csv").write_text("path,cyst\n1.png,1\n", encoding="utf-8")
        exec(IMPORTS, namespace)
        try:
            exec(code, namespace)
        except cls as error:
            # Of random weights.
            return re.sub("[0-9a-f]{64}", "...", str(error))
    raise RuntimeError(f"{cls.__name__} was not raised by:\n{code}")


@contextmanager
def empty_folder() -> Iterator[None]:
    """Be there."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


PAGES: dict[str, Callable[[], str]] = {"zoo.md": zoo_page, "errors.md": errors_page}


def main() -> None:
    """Write the pages."""
    for name, render in PAGES.items():
        (DOCS / name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
