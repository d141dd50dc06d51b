"""Every architecture of the paper on every dataset at hand: the zoo's benchmark.

    python benchmarks/zoo.py train bccd --root DIR            # what is not in the results yet
    python benchmarks/zoo.py train phantom
    python benchmarks/zoo.py train nih14 --root DIR           # after phantom: starts from its runs
    python benchmarks/zoo.py claims                           # the tables and verdicts

``train`` adds one row per run (variant, dataset, seed) to ``results/zoo_{profile}_{dataset}.csv``;
a run that has its row is not repeated, and one that was interrupted goes on from its checkpoint,
so that the grid can be trained piece by piece, by several processes at a time. Every run of a
dataset has the same budget of images, the same optimizer and the same seeds; a run's best epoch is
chosen by its loss on the selection data, and the reported split is read once, after that.

Two profiles. ``cpu``: small encoders from scratch on small tiles, which a laptop trains.
``gpu``: ResNet-50 from scratch at 256 px. Radiographs, which are too few to begin with, start from
the same variant's phantoms, and phantoms go on taking turns with them.
"""

from __future__ import annotations

import argparse
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, variance
from typing import Any

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
    return [variant for variant in VARIANTS if dataset == "nih14" or variant not in CONTROLS]


class SmallTileBCCD(BCCDTask):
    """BCCD, trained and classified on tiles of 128 px.

    At 192 px nearly every tile holds a red cell, which leaves little to learn from its label: in
    the same number of images PAN learned to classify there, but not to localize.
    """

    name = "bccd_128"
    TILE = 128
    preprocessing = replace(BCCDTask.preprocessing, input_size=(3, 128, 128))

    def training(self) -> LocalizationDataset:
        """Random tiles of the fit split."""
        images = Cached(BCCD(self.folder, "fit"))
        length = self.TILES_PER_EPOCH
        return Tiles(images, self.TILE, positions="random", length=length, seed=self.seed)

    def classification(self, split: str) -> LocalizationDataset:
        """A fixed grid of tiles."""
        return Tiles(Cached(BCCD(self.folder, split)), self.TILE)


class SmallTilePhantoms(PhantomTask):
    """Phantoms of 256 px, trained on tiles of 128 px."""

    name = "phantom_128"
    TILE = 128
    TILES_PER_EPOCH = 2048

    def selection(self) -> LocalizationDataset:
        """200 images of the val split."""
        return Cached(Phantom("val", length=200))


TASKS |= {task.name: task for task in (SmallTileBCCD, SmallTilePhantoms)}


@dataclass(frozen=True)
class Profile:
    """With which encoder the grid runs on each dataset, and the budget of its runs."""

    encoders: dict[str, str]
    configs: dict[str, dict[str, Any]]


#: The split each dataset is reported on; no run is selected by it.
SPLITS = {"phantom": "test", "bccd": "val", "nih14": "test"}

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
        {"phantom": "dla46_c", "bccd": "regnetx_002", "nih14": "dla46_c"},
        {
            "phantom": {"data": "phantom_128", "epochs": 3, "learning_rate": 2e-3},
            "bccd": {
                "data": "bccd_128",
                "augmentation": "dihedral",
                "epochs": 4,
                "learning_rate": 2e-3,
            },
            "nih14": {
                "data": "nih14",
                "also": "phantom",
                "image_size": 128,
                "epochs": 4,
                "learning_rate": 5e-4,
            },
        },
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
    """The run's configuration; radiographs start from the same variant's and seed's phantoms."""
    architecture, options = VARIANTS[variant]
    grid = PROFILES[profile]
    settings = COMMON | grid.configs[dataset]
    if dataset == "nih14":
        if variant in CONTROLS:
            settings |= {"also": "", "epochs": 2 * settings["epochs"]}
        if variant != "pylon from scratch":
            phantoms = "pylon" if variant in CONTROLS else variant
            settings["weights"] = str(folder_of(runs, profile, "phantom", phantoms, seed))
            options = {}  # those weights have theirs
    return TrainingConfig(
        model=f"{architecture}_{grid.encoders[dataset]}",
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


def read_rows(profile: str, dataset: str) -> list[dict[str, str]]:
    """The rows that are there."""
    return results_of(profile, dataset).read()


def train_grid(arguments: argparse.Namespace) -> None:
    """Train and evaluate every run of one dataset that has no row yet."""
    profile, dataset, runs = arguments.profile, arguments.dataset, arguments.runs
    grid = [
        Run(
            key={"variant": variant, "seed": seed},
            config=replace(config_of(profile, dataset, variant, seed, runs), root=arguments.root),
            folder=folder_of(runs, profile, dataset, variant, seed),
            split=SPLITS[dataset],
        )
        for seed in arguments.seeds
        for variant in arguments.variants or variants_of(dataset)
    ]
    for run in run_grid(grid, results_of(profile, dataset), progress=arguments.progress):
        print(*run.key.values(), run.folder, flush=True)


@dataclass(frozen=True)
class Claim:
    """A finding of the paper as a difference of two variants' measures.

    Attributes:
        text: the claim.
        better: the variant that it says is better.
        worse: than which.
        metric: ``"localization"``, ``"small"`` (the class of the smallest boxes) or ``"AUROC"``.
        margin: how far below zero still counts as no loss.
    """

    text: str
    better: str
    worse: str
    metric: str = "localization"
    margin: float = 0.0


CLAIMS = (
    Claim("PYLON localizes better than CAM", "pylon", "cam max"),
    Claim("PYLON localizes small objects better than CAM", "pylon", "cam max", "small"),
    Claim("AUROC does not suffer (margin 0.02)", "pylon", "cam max", "AUROC", 0.02),
    Claim("PAN without global average pooling localizes better", "pan", "pan global"),
    Claim(
        "DeepLabV3+ without global average pooling localizes better",
        "deeplabv3plus",
        "deeplabv3plus global",
    ),
    Claim("FPN with batch norm localizes better than with group norm", "fpn batch", "fpn group"),
    Claim("Phantoms beside the radiographs help to localize", "pylon", "pylon without phantoms"),
    Claim(
        "To start from phantoms helps to localize", "pylon without phantoms", "pylon from scratch"
    ),
    Claim("Max pooling localizes better than average pooling", "cam max", "cam avg"),
)

#: Of each dataset, the class with the smallest boxes.
SMALL = {"phantom": "nodule", "bccd": "Platelets", "nih14": "Nodule"}
ALIGNMENTS = ("corners_false", "receptive_field")

Row = dict[str, str]


def column(dataset: str, metric: str, alignment: str) -> str:
    """The columns of a measure start with this."""
    if metric == "AUROC":
        return "AUROC|macro"
    of = SMALL[dataset] if metric == "small" else "micro"
    return f"point localization ({alignment})|{of}"


def effect(better: list[Row], worse: list[Row], key: str) -> tuple[float, float, float, int]:
    """The mean difference over the seeds that both have, its 95 % interval, and their number.

    The interval is a normal one. Its variance adds that of the mean over seeds, and that over
    images of both runs, from their bootstrap intervals; seeds do not average the latter away, since
    all are measured on the same images, and leaving out their covariance makes it wider than need
    be. One seed has no variance over seeds, which makes it too narrow.
    """
    by_seed = {row["seed"]: row for row in worse}
    pairs = [(row, by_seed[row["seed"]]) for row in better if row["seed"] in by_seed]
    differences = [float(a[f"{key}|value"]) - float(b[f"{key}|value"]) for a, b in pairs]
    images = fmean(
        ((float(row[f"{key}|high"]) - float(row[f"{key}|low"])) / 3.92) ** 2
        for pair in pairs
        for row in pair
    )
    seeds = variance(differences) / len(pairs) if len(pairs) > 1 else 0.0
    half = 1.96 * math.sqrt(seeds + 2 * images)
    mean = fmean(differences)
    return mean, mean - half, mean + half, len(pairs)


def verdict(claim: Claim, low: float, high: float, above_chance: bool) -> str:
    """What an interval of the difference says of a claim."""
    if not above_chance:
        return "cannot tell here (chance level)"
    if low > -claim.margin:
        return "holds"
    return "does not hold" if high < -claim.margin else "cannot tell here"


def claims_table(profile: str) -> list[str]:
    """Every claim on every dataset that has both variants, with either alignment of the maps."""
    lines = [
        "| claim | dataset | alignment | effect [95 %] | seeds | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for claim in CLAIMS:
        for dataset in SPLITS:
            rows = read_rows(profile, dataset)
            better, worse = (
                [row for row in rows if row["variant"] == variant]
                for variant in (claim.better, claim.worse)
            )
            if not {row["seed"] for row in better} & {row["seed"] for row in worse}:
                continue
            for alignment in ALIGNMENTS if claim.metric != "AUROC" else ("",):
                key = column(dataset, claim.metric, alignment)
                mean, low, high, seeds = effect(better, worse, key)
                above = any(
                    float(row[f"{key}|low"]) > float(row[f"{key}|chance"]) for row in better + worse
                )
                lines.append(
                    f"| {claim.text} | {dataset} | {alignment.replace('_', ' ')} "
                    f"| {mean:+.3f} [{low:+.2f}, {high:+.2f}] | {seeds} "
                    f"| {verdict(claim, low, high, above)} |"
                )
    return lines


def results_table(profile: str, dataset: str) -> list[str]:
    """A dataset's variants: the mean over seeds, and the hull of the seeds' intervals."""
    rows = read_rows(profile, dataset)
    small = SMALL[dataset]
    measures = {
        "AUROC": column(dataset, "AUROC", ""),
        "localization, corners false": column(dataset, "localization", "corners_false"),
        "localization, receptive field": column(dataset, "localization", "receptive_field"),
        f"{small}, corners false": column(dataset, "small", "corners_false"),
        f"{small}, receptive field": column(dataset, "small", "receptive_field"),
    }
    lines = [
        f"| variant | seeds | {' | '.join(measures)} |",
        "|---|---|" + "---|" * len(measures),
    ]
    for variant in VARIANTS:
        runs = [row for row in rows if row["variant"] == variant]
        if not runs:
            continue
        cells = []
        for key in measures.values():
            mean = fmean(float(row[f"{key}|value"]) for row in runs)
            low = min(float(row[f"{key}|low"]) for row in runs)
            high = max(float(row[f"{key}|high"]) for row in runs)
            cells.append(f"{mean:.3f} [{low:.2f}, {high:.2f}]")
        lines.append(f"| {variant} | {len(runs)} | {' | '.join(cells)} |")
    chance = [f"{float(rows[0][f'{key}|chance']):.3f}" for key in measures.values()]
    return [*lines, f"| chance | | {' | '.join(chance)} |"]


def render(profile: str) -> str:
    """The page of a profile: a table for each dataset, then the claims."""
    grid = PROFILES[profile]
    lines = [
        "Point localization (micro) and AUROC (macro);",
        "in brackets the lowest lower and the highest upper bound of the seeds' 95 % intervals.",
        "",
    ]
    for dataset, settings in grid.configs.items():
        if rows := read_rows(profile, dataset):
            items = (
                f"{settings['epochs']} epochs of {settings['data']}, seen on {rows[0]['device']}, "
                f"encoder {grid.encoders[dataset]}"
            )
            lines += [f"**{dataset}**, {SPLITS[dataset]} split; {items}.", ""]
            lines += [*results_table(profile, dataset), ""]
    lines += ["**The paper's claims.** Effect: the difference of the means over seeds.", ""]
    return "\n".join([*lines, *claims_table(profile), ""])


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
    claims = commands.add_parser("claims", help="write the tables of what was trained")
    for command in (training, claims):
        command.add_argument("--profile", choices=sorted(PROFILES), default="cpu")
    arguments = parser.parse_args()
    if arguments.command == "train":
        train_grid(arguments)
    else:
        page = render(arguments.profile)
        (RESULTS / f"zoo_{arguments.profile}.md").write_text(page, encoding="utf-8")
        print(page)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
