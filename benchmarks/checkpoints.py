"""Make a checkpoint of finished runs, with its record, thresholds, gallery and card.

    python benchmarks/checkpoints.py add RECIPE --runs FOLDER... --split SPLIT [--root DIR]
    python benchmarks/checkpoints.py gallery NAME [--root DIR] [--with-images]
    python benchmarks/checkpoints.py cards

``add`` takes finished runs of one recipe that differ in their seeds. The one with the lowest loss
on the selection data is stored as float16 and evaluated on the split as it is stored; thresholds
are chosen on the selection data. It writes ``checkpoints/NAME/`` (config, card, gallery and, unless
``--bundle`` puts them into the package, the weights) and the entry of ``weights_manifest.json``.
NAME is the recipe's model with the dataset as its tag, unless ``--tag`` says otherwise.

``cards`` writes the cards, and the pages in ``docs/checkpoints``, anew from the manifest alone.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import pylon_zoo
from pylon_zoo.architectures import LocalizationModel
from pylon_zoo.data import Cached, LocalizationDataset, Phantom, Sample, Task, Tiles, open_task
from pylon_zoo.data.files import FileDataset
from pylon_zoo.errors import InvalidOptionError
from pylon_zoo.files import copy_file, replace_file
from pylon_zoo.heatmaps.gallery import Case, Cell, choose_cases, draw_gallery
from pylon_zoo.prediction import predict
from pylon_zoo.preprocessing import create_transform
from pylon_zoo.progress import track
from pylon_zoo.recipes import load_recipe
from pylon_zoo.reproduction import metrics_of, thresholds_of
from pylon_zoo.training import TrainingConfig
from pylon_zoo.training.config import BYSTANDERS
from pylon_zoo.training.evaluation import evaluate
from pylon_zoo.weights import card
from pylon_zoo.weights.config import CONFIG_NAME, WEIGHTS_NAME, write_config
from pylon_zoo.weights.manifest import (
    BundledSource,
    DataRecord,
    Entry,
    HubSource,
    Metric,
    Precision,
    Record,
    RepositorySource,
    Source,
    add_entry,
    checkpoints_folder,
    load_manifest,
    manifest_path,
)
from pylon_zoo.weights.publishing import CARD_NAME

#: Of a gallery, in bytes; the largest panels that stay below it are drawn.
LIMIT = 500_000
#: Of a cell of one panel or two, in pixels.
WIDTHS = range(448, 160, -32)
#: A gallery that is not committed: its images are others'.
LOCAL_GALLERY = "gallery_with_images.png"
NOTE = "<!-- Made by `python benchmarks/checkpoints.py cards`; edit that, not this page. -->"


def folder_of(name: str) -> Path:
    """A checkpoint's folder in the repository."""
    return manifest_path().parent / "checkpoints" / name


def pages_folder() -> Path:
    """Where the pages of all checkpoints are."""
    return manifest_path().parent / "docs" / "checkpoints"


# ---- Add


def choose_run(recipe: TrainingConfig, folders: Sequence[Path]) -> tuple[Path, int]:
    """The run with the lowest loss on the selection data, and its seed.

    Raises:
        InvalidOptionError: a run is not finished, is not of the recipe, or a seed comes twice.
    """
    wanted: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    ignored = {"seed", "root", *BYSTANDERS}
    runs: dict[int, tuple[float, Path]] = {}
    for folder in folders:
        file = folder / "run.json"
        if not file.is_file():
            raise InvalidOptionError(f"{folder} holds no finished run: it has no run.json.")
        run = json.loads(file.read_text(encoding="utf-8"))
        config = run["config"]
        for key in (wanted.keys() & config.keys()) - ignored:
            if config[key] != wanted[key]:
                raise InvalidOptionError(
                    f"{folder} is no run of this recipe: its {key} is {config[key]!r}, the "
                    f"recipe's {wanted[key]!r}."
                )
        if config["seed"] in runs:
            raise InvalidOptionError(
                f"{folder} has the seed {config['seed']}, as {runs[config['seed']][1]} has; give "
                f"runs of different seeds."
            )
        runs[config["seed"]] = (run["best_validation_loss"], folder)
    seed = min(runs, key=lambda seed: runs[seed][0])
    return runs[seed][1], seed


def splits_of(task: Task, config: TrainingConfig, split: str) -> dict[str, str]:
    """What identifies the images that a run is trained, selected and measured on."""
    splits = {"training": identify(task.training())}
    if config.also:
        name, _, root = config.also.partition("=")
        splits["training, too"] = identify(open_task(name, root or None, seed=task.seed).images())
    return splits | {
        "selection": identify(task.selection()),
        "reported": identify(task.classification(split)),
    }


def identify(dataset: LocalizationDataset) -> str:
    """What identifies the images of a dataset, whatever is cut from them."""
    while isinstance(dataset, (Cached, Tiles)):
        dataset = dataset.dataset
    if isinstance(dataset, Phantom):
        return (
            f"Phantom({dataset.split!r}, size={dataset.size}, length={dataset.length}, "
            f"seed={dataset.seed})"
        )
    if isinstance(dataset, FileDataset):
        names = sorted(record.path.name for record in dataset.records)
    else:
        names = sorted(dataset.names)  # type: ignore[attr-defined]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    split = getattr(dataset, "split", "")
    return f"{split} split: {len(names)} images, sha256 of the sorted names {digest}".strip()


def largest_change(before: Sequence[Metric], after: Sequence[Metric], dtype: str) -> Precision:
    """How far the metrics of the stored weights are from those of the trained ones."""
    changes = {
        new.name: round(abs(new.value - old.value), 4)
        for old, new in zip(before, after, strict=True)
    }
    name = max(changes, key=changes.__getitem__)
    return Precision(dtype=dtype, largest_change=changes[name], metric=name)


def add(
    recipe: str,
    folders: Sequence[Path],
    root: str | None,
    split: str,
    *,
    bundle: bool,
    tag: str | None = None,
) -> Entry:
    """Choose, store, evaluate and list; see the module's docstring.

    Raises:
        InvalidOptionError: ``split`` is the one that selected the model; or as in
            :func:`choose_run`.
    """
    config = load_recipe(recipe)
    run, seed = choose_run(config, folders)
    task = open_task(config.data, root, seed=seed)
    if split == task.selection_split:
        raise InvalidOptionError(
            f"The {split} split of {task.name} selects models and thresholds, so that what is "
            f"measured on it looks too good; report another: {', '.join(task.splits)}."
        )
    name = f"{config.model}.{tag or task.name}"
    options = " --root DIR" if root else ""
    measure = (
        f"pylon-zoo evaluate {name} --data {task.name}{options} --split {split} "
        f"--threshold-split {task.selection_split}"
    )
    trained = pylon_zoo.load_pretrained(run)
    with tempfile.TemporaryDirectory() as temporary:
        stored = pylon_zoo.save_pretrained(trained, temporary, dtype=torch.float16)
        model = pylon_zoo.load_pretrained(stored)
        before, after = (
            evaluate(m, task, split, threshold_split=task.selection_split, progress=True)
            for m in (trained, model)
        )
        metrics = metrics_of(after, measure)
        settings = (" --set root=DIR" if root else "") + f" --set seed={seed}"
        record = Record(
            recipe=recipe,
            command=f"pylon-zoo train {recipe}{settings}",
            data=DataRecord(
                name=task.name,
                license=task.license,
                url=task.url,
                splits=splits_of(task, config, split),
            ),
            weights_license="Apache-2.0",
            metrics=metrics,
            thresholds=thresholds_of(after),
            thresholds_rule=f"Youden's J, the largest sensitivity + specificity - 1, on the "
            f"selection data of {task.name} (its {task.selection_split} split), of which nothing "
            f"is reported",
            precision=largest_change(metrics_of(before, measure), metrics, "float16"),
            project_version=pylon_zoo.__version__,
        )
        entry = add_entry(stored, name, record=record, bundle=bundle, repository=not bundle)
    # Of a checkpoint of this name that lay in the other place.
    other = folder_of(name) / WEIGHTS_NAME
    if not bundle:
        other = checkpoints_folder() / f"{name}.safetensors"
    other.unlink(missing_ok=True)
    return entry


# ---- Gallery


def boxed_images(model: LocalizationModel, task: Task, split: str) -> list[Sample]:
    """As the model sees them, so that a hit here is one of the published point localization."""
    prepare = create_transform(model).prepare
    images = task.localization(split)
    return [prepare(images[index]) for index in range(len(images))]


def find_cases(model: LocalizationModel, images: Sequence[Sample]) -> list[list[Case]]:
    """For each class what the model says of every image that has a box of it."""
    cases: list[list[Case]] = [[] for _ in model.spec.class_names or ()]
    for index, sample in enumerate(track(images, "gallery")):
        found = predict(model, sample)
        for k, finding in zip(found.classes, found.findings, strict=True):
            if finding.inside is not None:
                cases[k].append(Case(index, finding.probability, finding.inside))
    return cases


def gallery_rows(
    model: LocalizationModel, task: Task, split: str, *, with_images: bool
) -> list[tuple[str, list[Cell]]]:
    """A row for each class that has boxes, with the cases that the rule chooses."""
    images = boxed_images(model, task, split)
    rows = []
    for k, cases in enumerate(find_cases(model, images)):
        if not cases:
            continue
        cells = []
        for title, case in choose_cases(cases).items():
            if case is None:
                cells.append(Cell(f"no {title}"))
                continue
            sample = images[case.index]
            found = predict(model, sample)
            at = found.classes.index(k)
            cells.append(
                Cell(
                    f"{title}, probability {case.probability:.2f}",
                    found.probability_maps[at],
                    found.boxes_of(at),
                    (found.findings[at].x, found.findings[at].y),
                    sample.image if with_images else None,
                )
            )
        hits = sum(case.hit for case in cases)
        rows.append((f"{task.class_names[k]}: {hits} of {len(cases)} images hit", cells))
    return rows


def encode_gallery(rows: Sequence[tuple[str, Sequence[Cell]]]) -> bytes:
    """A PNG of at most :data:`LIMIT` bytes, with panels as large as that allows.

    Raises:
        InvalidOptionError: the smallest panels are too large.
    """
    panels = 2 if any(cell.image is not None for _, row in rows for cell in row) else 1
    for width in WIDTHS:
        # Colors that cover all of the map's, however much of the picture is gray.
        picture = draw_gallery(rows, width // panels).quantize(
            256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        file = io.BytesIO()
        picture.save(file, "png", optimize=True)
        if file.tell() <= LIMIT:
            return file.getvalue()
    raise InvalidOptionError(
        f"A gallery of {len(rows)} classes with cells of {WIDTHS[-1]} px has {file.tell():,} "
        f"bytes; at most {LIMIT:,} are allowed. Draw it without images."
    )


def write_gallery(entry: Entry, root: str | None, *, with_images: bool) -> Path:
    """Draw a checkpoint's gallery, of its own weights and the split that is reported."""
    model = pylon_zoo.load_pretrained(entry.name)
    task = open_task(entry.data.name, root)
    local = with_images and not entry.data.drawn
    rows = gallery_rows(
        model, task, entry.metrics[0].split, with_images=with_images or entry.data.drawn
    )
    path = folder_of(entry.name) / (LOCAL_GALLERY if local else card.GALLERY_NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        temporary.write_bytes(encode_gallery(rows))
    return path


# ---- Cards and pages


def load_name(entry: Entry) -> str:
    """What the card gives to ``load_pretrained``."""
    first = entry.sources[0]
    return first.folder if isinstance(first, RepositorySource) else entry.name


def render_card(entry: Entry) -> str:
    """The card in the checkpoint's folder."""
    has_gallery = (folder_of(entry.name) / card.GALLERY_NAME).is_file()
    return card.model_card(
        entry.spec,
        entry.to_record(),
        load=load_name(entry),
        sha256=entry.sha256,
        size=entry.bytes,
        pictures=[card.GALLERY_NAME] if has_gallery else [],
    )


def where(source: Source) -> str:
    """A source, in words."""
    if isinstance(source, BundledSource):
        return "comes with the package"
    if isinstance(source, HubSource):
        return f"`hf-hub:{source.repo_id}@{source.revision[:7]}`"
    return f"`{source.path}` in the repository, not on the Hub yet"


def render_page(entry: Entry) -> str:
    """The page in docs/."""
    spec, record = entry.spec, entry.to_record()
    look = spec.preprocessing
    facts = {
        "classes": ", ".join(spec.class_names or (str(spec.num_classes),)),
        "input": f"{look.input_size[0]} channel(s), {look.input_size[1]} x {look.input_size[2]} px"
        + (", or any size" if look.resize == "native" else ""),
        "weights": f"{entry.bytes:,} bytes, {entry.weights_license}; "
        + ", ".join(map(where, entry.sources)),
        "sha256": f"`{entry.sha256}`",
        "loaded by": f'`pylon_zoo.load_pretrained("{load_name(entry)}")`',
    }
    blocks = [
        NOTE,
        f"# {entry.name}",
        "\n".join(f"- **{key}:** {text}" for key, text in facts.items()),
    ]
    if (folder_of(entry.name) / card.GALLERY_NAME).is_file():
        blocks.append(f"![Hits and misses of {entry.name}]({entry.name}.png)")
        blocks.append(card.caption(record, entry.name))
    blocks += [
        *card.results(record),
        card.training(record),
        card.commands(spec, record, 'sh { data-test="parse" }'),
        "## Intended use",
        card.intended_use(record),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def write_cards() -> None:
    """Write configs, cards and pages of all checkpoints, and drop pages of those that are gone."""
    pages = pages_folder()
    pages.mkdir(parents=True, exist_ok=True)
    entries = load_manifest().checkpoints
    for entry in entries:
        folder = folder_of(entry.name)
        folder.mkdir(parents=True, exist_ok=True)
        write_config(
            folder / CONFIG_NAME,
            entry.spec,
            sha256=entry.sha256,
            size=entry.bytes,
            record=entry.to_record(),
        )
        (folder / CARD_NAME).write_text(render_card(entry), encoding="utf-8")
        (pages / f"{entry.name}.md").write_text(render_page(entry), encoding="utf-8")
        gallery = folder / card.GALLERY_NAME
        if gallery.is_file():
            copy_file(gallery, pages / f"{entry.name}.png")
    for page in pages.iterdir():
        if page.stem not in {entry.name for entry in entries}:
            page.unlink()


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add", help="make a checkpoint of finished runs")
    adding.add_argument("recipe")
    adding.add_argument("--runs", type=Path, nargs="+", required=True, metavar="FOLDER")
    adding.add_argument("--split", required=True, help="that is reported; not the selecting one")
    adding.add_argument("--tag", help="of the name, where it is not the dataset's")
    adding.add_argument("--bundle", action="store_true", help="put the weights into the package")
    drawing = commands.add_parser("gallery", help="draw a checkpoint's gallery")
    drawing.add_argument("name")
    for command in (adding, drawing):
        command.add_argument("--root", help="folder of the dataset, where it has files")
        command.add_argument(
            "--with-images",
            action="store_true",
            help=f"also draw images that are others', to {LOCAL_GALLERY}, which is not committed",
        )
    commands.add_parser("cards", help="write cards and pages anew from the manifest")
    arguments = parser.parse_args(words)
    if arguments.command == "add":
        entry = add(
            arguments.recipe,
            arguments.runs,
            arguments.root,
            arguments.split,
            bundle=arguments.bundle,
            tag=arguments.tag,
        )
        print(f"{entry.name}: {entry.command}, {entry.bytes:,} bytes, sha256 {entry.sha256}")
        write_gallery(entry, arguments.root, with_images=False)
    if arguments.command == "gallery" or (arguments.command == "add" and arguments.with_images):
        name = entry.name if arguments.command == "add" else arguments.name
        found = load_manifest().find(name)
        print(write_gallery(found, arguments.root, with_images=arguments.with_images))
    write_cards()


if __name__ == "__main__":
    main()
