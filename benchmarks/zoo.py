"""Every architecture of the paper on every dataset at hand: the zoo's benchmark.

    python benchmarks/zoo.py train bccd --root DIR            # what is not in the results yet
    python benchmarks/zoo.py train phantom
    python benchmarks/zoo.py train phantom_tiles --seeds 0
    python benchmarks/zoo.py train nih14 --root DIR           # starts from the runs before it
    python benchmarks/zoo.py claims                           # tables, verdicts and plots

``train`` adds one row per run (variant, dataset, seed) to ``results/zoo_{profile}_{dataset}.csv``;
a run that has its row is not repeated, and one that was interrupted goes on from its checkpoint,
so that the grid can be trained piece by piece, by several processes at a time. Every run of a
dataset has the same budget of images, the same optimizer and the same seeds; a run's best epoch is
chosen by its loss on the selection data, and the reported split is read once, after that.

Two profiles. ``cpu``: small encoders from scratch on small tiles, which a laptop trains.
``gpu``: ResNet-50 from scratch at 256 px. Radiographs, which are too few to begin with, start from
phantoms, and phantoms go on taking turns with them; two controls tell what that is good for. With
``cpu``, what they start from was trained on phantoms for longer than the grid's own phantoms, by
the recipe ``phantom_tiles``, once for each variant.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import zoo_plots
import zoo_report

from pylon_zoo.benchmark import ResultsTable, Run, run_grid
from pylon_zoo.data import (
    BCCD,
    TASKS,
    Cached,
    LocalizationDataset,
    Phantom,
    Tiles,
)
from pylon_zoo.data.tasks import BCCDTask, PhantomTask
from pylon_zoo.errors import TrainingStopped
from pylon_zoo.recipes import phantom_tiles
from pylon_zoo.training import TrainingConfig

RESULTS = Path(__file__).parent / "results"

#: Variant: architecture and options; the first column of every table, in this order.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pylon": ("pylon", {}),
    "cam max": ("cam", {"pooling": "max"}),
    "cam avg": ("cam", {"pooling": "avg"}),
    "li2018": ("li2018", {}),
    "pan": ("pan", {"global_context": False}),
    "pan global": ("pan", {"global_context": True}),
    "fpn batch": ("fpn", {"norm": "batch"}),
    "fpn group": ("fpn", {"norm": "group"}),
    "deeplabv3plus": ("deeplabv3plus", {"global_context": False}),
    "deeplabv3plus global": ("deeplabv3plus", {"global_context": True}),
    "unet": ("unet", {}),
    # Of radiographs only, in as many images: from phantoms but not beside them; from scratch.
    "pylon without phantoms": ("pylon", {}),
    "pylon from scratch": ("pylon", {}),
}
CONTROLS = ("pylon without phantoms", "pylon from scratch")


def variants_of(dataset: str) -> list[str]:
    """What is trained on a dataset."""
    return [v for v in VARIANTS if dataset == "nih14" or v not in CONTROLS]


class SmallTileBCCD(BCCDTask):
    """BCCD, trained and classified on tiles of 128 px.

    At 192 px nearly every tile holds a red cell, which leaves little to learn from its label: in
    the same number of images PAN learned to classify there, but not to localize.
    """

    name = "bccd_128"
    TILE = 128
    preprocessing = replace(BCCDTask.preprocessing, input_size=(3, 128, 128))

    def classification(self, split: str) -> LocalizationDataset:
        """A fixed grid of tiles."""
        return Tiles(Cached(BCCD(self.folder, split)), self.TILE)


class SmallTilePhantoms(PhantomTask):
    """Phantoms of 256 px, trained, selected and measured on tiles of 128 px.

    After so few images, what was trained on tiles may go astray on whole images: the coarse levels
    of PYLON and PAN have then seen little but padding around their centres.
    """

    name = "phantom_128"
    TILE = 128
    TILES_PER_EPOCH = 2048
    preprocessing = replace(PhantomTask.preprocessing, input_size=(1, 128, 128))

    def selection(self) -> LocalizationDataset:
        """The four quarters of 100 images of the val split."""
        return self._quarters("val", 100)

    def classification(self, split: str) -> LocalizationDataset:
        """The four quarters of 250 images."""
        return self._quarters(split, 250)

    def _quarters(self, split: str, images: int) -> LocalizationDataset:
        return Tiles(Cached(Phantom(split, length=images)), self.TILE)


TASKS |= {task.name: task for task in (SmallTileBCCD, SmallTilePhantoms)}


@dataclass(frozen=True)
class Profile:
    """With which encoder the grid runs on each dataset, and the budget of its runs.

    Attributes:
        encoders: by dataset.
        configs: by dataset, what its runs have in common.
        options: by encoder and architecture, what the one asks of the other.
        start: which of the datasets radiographs start from, each from its variant's run there.
        start_seed: of those runs; None for the same seed.
        published: by variant, the checkpoint that is such a run.
    """

    encoders: dict[str, str]
    configs: dict[str, dict[str, Any]]
    options: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    start: str = "phantom"
    start_seed: int | None = None
    published: dict[str, str] = field(default_factory=dict)

    def seed_of_start(self, seed: int) -> int:
        """Which run's weights a run on radiographs starts from, by its own seed."""
        return seed if self.start_seed is None else self.start_seed


#: Phantoms for longer, which no claim is tested on: what radiographs start from.
STARTS = "phantom_tiles"
#: The split each dataset is reported on; no run is selected by it.
SPLITS = {"phantom": "test", STARTS: "test", "bccd": "val", "nih14": "test"}

COMMON = {
    "batch_size": 16,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "schedule": "cosine",
    "ema_decay": 0.99,
    "clip_norm": 1.0,
    "precision": "bf16",
}

PROFILES = {
    "cpu": Profile(
        # In this budget RegNetX-002 learns no nodules, whatever stands on it.
        {"phantom": "dla46_c", "bccd": "regnetx_002", STARTS: "dla46_c", "nih14": "dla46_c"},
        {
            "phantom": {
                "data": "phantom_128",
                "epochs": 3,
                "batch_size": 8,
                "learning_rate": 2e-3,
            },
            "bccd": {
                "data": "bccd_128",
                "augmentation": "dihedral",
                "epochs": 4,
                "learning_rate": 2e-3,
            },
            STARTS: {
                name: value
                for name, value in phantom_tiles.RECIPE.to_dict().items()
                if name not in ("model", "options", "seed")
            },
            "nih14": {
                "data": "nih14",
                "also": "phantom",
                "image_size": 192,
                "epochs": 4,
                "learning_rate": 5e-4,
            },
        },
        # DLA-46c cannot be dilated.
        options={("dla46_c", "deeplabv3plus"): {"output_stride": 32}},
        # From the grid's own phantoms, three epochs, PYLON stays at chance on radiographs.
        start=STARTS,
        start_seed=0,
        published={"pylon": "pylon_dla46_c.phantom_tiles"},
    ),
    "gpu": Profile(
        dict.fromkeys(SPLITS, "resnet50"),
        {
            "phantom": {"data": "phantom", "epochs": 6, "learning_rate": 1e-3},
            "bccd": {
                "data": "bccd",
                "augmentation": "dihedral",
                "epochs": 12,
                "learning_rate": 1e-3,
            },
            "nih14": {"data": "nih14", "also": "phantom", "epochs": 20, "learning_rate": 3e-4},
        },
    ),
}


def config_of(profile: str, dataset: str, variant: str, seed: int, runs: Path) -> TrainingConfig:
    """The run's configuration; radiographs start from phantoms, and two controls do not."""
    architecture, options = VARIANTS[variant]
    grid = PROFILES[profile]
    encoder = grid.encoders[dataset]
    options = options | grid.options.get((encoder, architecture), {})
    settings = COMMON | grid.configs[dataset]
    if dataset == "nih14":
        if variant in CONTROLS:
            settings |= {"also": "", "epochs": 2 * settings["epochs"]}
        if variant != "pylon from scratch":
            same = "pylon" if variant in CONTROLS else variant
            run = str(folder_of(runs, profile, grid.start, same, grid.seed_of_start(seed)))
            settings["weights"] = grid.published.get(same, run)
            options = {}  # those weights have theirs
    return TrainingConfig(
        model=f"{architecture}_{encoder}",
        options=options,
        seed=seed,
        **settings,
    )


def folder_of(runs: Path, profile: str, dataset: str, variant: str, seed: int) -> Path:
    """Where a run is kept."""
    return runs / profile / dataset / f"{variant.replace(' ', '_')}_{seed}"


def results_file(profile: str, dataset: str) -> Path:
    """Where a dataset's rows are."""
    return RESULTS / f"zoo_{profile}_{dataset}.csv"


def results_of(profile: str, dataset: str) -> ResultsTable:
    """A dataset's rows, in the order of variants and seeds."""
    return ResultsTable(
        results_file(profile, dataset),
        key=("variant", "seed"),
        order=lambda row: (list(VARIANTS).index(row["variant"]), int(row["seed"])),
    )


def train_grid(arguments: argparse.Namespace) -> None:
    """Train and evaluate every run of one dataset that has no row yet."""
    table = results_of(arguments.profile, arguments.dataset)
    for run in run_grid(runs_of(arguments, table), table, progress=arguments.progress):
        print(*run.key.values(), run.folder, flush=True)


def runs_of(arguments: argparse.Namespace, table: ResultsTable) -> Iterator[Run]:
    """The grid of one dataset, as far as what it starts from is trained."""
    profile, dataset, runs = arguments.profile, arguments.dataset, arguments.runs
    grid = PROFILES[profile]
    for seed in arguments.seeds:
        for variant in arguments.variants or variants_of(dataset):
            config = config_of(profile, dataset, variant, seed, runs)
            run = Run(
                key={"variant": variant, "seed": seed},
                config=replace(config, root=arguments.root),
                folder=folder_of(runs, profile, dataset, variant, seed),
                split=SPLITS[dataset],
            )
            start = None if config.weights in grid.published.values() else config.weights
            # A folder that is under way has the best epoch so far, which would load.
            if start and not Path(start, "run.json").exists() and table.find(run) is None:
                sys.exit(
                    f"{variant} of {dataset} starts from {start}, which is not trained yet. Do "
                    f"that first: python benchmarks/zoo.py train {grid.start} --profile {profile} "
                    f"--seeds {grid.seed_of_start(seed)}"
                )
            yield run


def read_tables(profile: str) -> dict[str, list[dict[str, str]]]:
    """The rows of every dataset that has some and that claims are tested on."""
    return {
        dataset: rows
        for dataset in SPLITS
        if dataset != STARTS and (rows := results_of(profile, dataset).read())
    }


def read_starts(profile: str) -> dict[str, list[dict[str, str]]]:
    """The rows of what radiographs start from, if it is none of the other datasets."""
    rows = results_of(profile, STARTS).read()
    return {STARTS: rows} if rows else {}


def reported_config(profile: str) -> Callable[[str, str], TrainingConfig]:
    """From a dataset and a variant to the configuration of its first run."""
    return lambda dataset, variant: config_of(profile, dataset, variant, 0, Path("runs"))


def write_claims(profile: str) -> None:
    """Write the page and the plots of a profile from its rows, and print the page."""
    tables = read_tables(profile)
    if not tables:
        sys.exit(f"No run of the profile {profile} has a row in {RESULTS} yet; train some.")
    page = zoo_report.render(tables, reported_config(profile), read_starts(profile))
    (RESULTS / f"zoo_{profile}.md").write_text(page, encoding="utf-8")
    zoo_plots.draw(tables, list(VARIANTS), profile)
    print(page)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train what has no row yet")
    training.add_argument("dataset", choices=sorted(SPLITS))
    training.add_argument("--root")
    training.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    training.add_argument("--variants", nargs="+", choices=list(VARIANTS))
    training.add_argument("--runs", type=Path, default=Path("runs/zoo"))
    training.add_argument("--progress", action="store_true")
    claims = commands.add_parser("claims", help="write the tables and plots of what was trained")
    for command in (training, claims):
        command.add_argument("--profile", choices=sorted(PROFILES), default="cpu")
    arguments = parser.parse_args()
    if arguments.command == "train":
        if arguments.dataset not in PROFILES[arguments.profile].configs:
            parser.error(f"The profile {arguments.profile} does not train {arguments.dataset}.")
        train_grid(arguments)
    else:
        write_claims(arguments.profile)


if __name__ == "__main__":
    try:
        main()
    except (TrainingStopped, KeyboardInterrupt) as stopped:
        sys.exit(str(stopped) or "Interrupted.")
