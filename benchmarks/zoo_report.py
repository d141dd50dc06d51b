"""What the rows of the zoo's benchmark say: effects with intervals, verdicts, tables.

Reads rows only; :mod:`zoo` trains them and knows their variants, :mod:`zoo_plots` draws them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import covariance, fmean, median

from scipy.stats import t as student

from pylon_zoo.data import TASKS
from pylon_zoo.data.tasks import FilesTask, TiledTask
from pylon_zoo.training import TrainingConfig

Row = dict[str, str]

SPLIT_LISTS = Path(__file__).parent / "splits"
#: Of each dataset, the class with the smallest boxes.
SMALL = {
    "phantom": "nodule",
    "phantom_tiles": "nodule",
    "bccd": "Platelets",
    "nih14": "Nodule",
}
#: How maps are laid over images: by the paper's resizing, or by where their cells look.
ALIGNMENTS = {"corners_false": "paper's resizing", "receptive_field": "receptive field"}
CANNOT_TELL = "cannot tell here"


@dataclass(frozen=True)
class Claim:
    """A finding of the paper as a difference of two variants' measures.

    Attributes:
        text: the claim.
        better: the variant that it says is better.
        worse: than which.
        metric: ``"localization"``, ``"small"`` (the class of the smallest boxes) or ``"AUROC"``.
        margin: how far below zero still counts as no loss.
        only: the dataset that it is about; empty for all.
    """

    text: str
    better: str
    worse: str
    metric: str = "localization"
    margin: float = 0.0
    only: str = ""


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
    Claim("Max pooling localizes better than average pooling", "cam max", "cam avg"),
    # Not the paper's, but this grid's own.
    Claim(
        "Phantoms beside the radiographs help to localize",
        "pylon",
        "pylon without phantoms",
        only="nih14",
    ),
    Claim(
        "To start from phantoms helps to localize",
        "pylon without phantoms",
        "pylon from scratch",
        only="nih14",
    ),
    Claim(
        "Phantoms before and beside the radiographs help",
        "pylon",
        "pylon from scratch",
        only="nih14",
    ),
)


def column(dataset: str, metric: str, alignment: str) -> str:
    """The columns of a measure start with this."""
    if metric == "AUROC":
        return "AUROC|macro"
    of = SMALL[dataset] if metric == "small" else "micro"
    return f"point localization ({alignment})|{of}"


def number(row: Row, key: str, part: str = "value") -> float:
    """A number of a row."""
    return float(row[f"{key}|{part}"])


def variants_in(rows: Sequence[Row]) -> list[str]:
    """In the order of the rows."""
    return list(dict.fromkeys(row["variant"] for row in rows))


def rows_of(rows: Sequence[Row], variant: str) -> list[Row]:
    """A variant's rows."""
    return [row for row in rows if row["variant"] == variant]


# ---- Statistics


@dataclass(frozen=True)
class Measured:
    """A measure, or a difference of two, seed by seed.

    Both seeds and images are samples: another seed, and other images of the same kind, would give
    another number. For n seeds with the standard deviation s, the 95 % interval of the mean is

        mean +- sqrt((t s / sqrt(n))^2 + images^2),

    t being Student's 97.5 % quantile for n - 1 degrees of freedom (4.3 for three seeds, where a
    normal interval would take 1.96 and cover four cases of five only). The half-widths of the two
    independent parts add up as squares (Zou and Donner 2008). Seeds do not average the images' part
    away, since all are measured on the same ones.

    Attributes:
        by_seed: one value a seed.
        images: half-width of the 95 % interval over images alone.
    """

    by_seed: tuple[float, ...]
    images: float

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.by_seed)

    def product(self, other: Measured) -> float:
        """The seeds' part of the squared half-width, or between two measures of the same runs."""
        n = len(self.by_seed)
        t = float(student.ppf(0.975, n - 1))
        return t**2 * covariance(self.by_seed, other.by_seed) / n

    def interval(self) -> tuple[float, float]:
        """Low and high end, between -1 and 1; all of that for one seed, which tells of no other."""
        if len(self.by_seed) < 2:
            return -1.0, 1.0
        half = math.sqrt(self.product(self) + self.images**2)
        return max(self.mean - half, -1.0), min(self.mean + half, 1.0)


def measure(rows: Sequence[Row], key: str) -> Measured:
    """A variant's measure."""
    squares = [((number(row, key, "high") - number(row, key, "low")) / 2) ** 2 for row in rows]
    return Measured(tuple(number(row, key) for row in rows), math.sqrt(fmean(squares)))


def difference(
    better: Sequence[Row], worse: Sequence[Row], key: str, worse_key: str | None = None
) -> Measured:
    """Of the seeds that both have, in their order.

    The images' part takes the two runs for independent. They are measured on the same images, so
    that it is wider than need be.

    Args:
        better: rows of the one variant.
        worse: of the other.
        key: start of the measure's columns.
        worse_key: for the other variant, where it is another.
    """
    of_other = {row["seed"]: row for row in worse}
    shared = sorted(
        (row for row in better if row["seed"] in of_other), key=lambda r: int(r["seed"])
    )
    first = measure(shared, key)
    second = measure([of_other[row["seed"]] for row in shared], worse_key or key)
    values = (a - b for a, b in zip(first.by_seed, second.by_seed, strict=True))
    return Measured(tuple(values), math.hypot(first.images, second.images))


def share_explained(paper: Measured, placed: Measured) -> tuple[float, float, float] | None:
    """Which part of a deficit goes when cells are put where they look: 1 - placed / paper.

    The 95 % interval of the ratio is Fieller's, which the delta method approximates: all ratios r
    for which ``placed - r paper``, with the interval of :class:`Measured`, may be zero. It pairs
    the two deficits by seed; resampling three seeds would have ten outcomes only. The images' parts
    of the two deficits are taken for independent, which makes it wider than need be below 100 %.

    Args:
        paper: the deficit with the paper's resizing.
        placed: with cells at their receptive fields' centres; the same seeds.

    Returns:
        Share, low and high end; None where the first deficit's interval includes zero, so that
        there may be nothing to explain.
    """
    if paper.interval()[0] <= 0:
        return None
    a = paper.mean**2 - paper.product(paper) - paper.images**2
    b = paper.mean * placed.mean - paper.product(placed)
    c = placed.mean**2 - placed.product(placed) - placed.images**2
    root = math.sqrt(b**2 - a * c)
    return 1 - placed.mean / paper.mean, 1 - (b + root) / a, 1 - (b - root) / a


def above_chance(rows: Sequence[Row], key: str) -> bool:
    """Whether more than half of a variant's runs are, by the lower ends of their intervals."""
    return median(number(row, key, "low") for row in rows) > number(rows[0], key, "chance")


def verdict(claim: Claim, low: float, high: float, above: bool) -> str:
    """What an interval of the difference says of a claim; nothing where neither is above chance."""
    if not above:
        return f"{CANNOT_TELL} (chance level)"
    if low > -claim.margin:
        return "holds"
    return "does not hold" if high < -claim.margin else CANNOT_TELL


@dataclass(frozen=True)
class Finding:
    """A claim on a dataset with one alignment of the maps.

    Attributes:
        claim: what is claimed.
        dataset: where.
        alignment: a key of :data:`ALIGNMENTS`; empty for a measure without maps.
        effect: the difference.
        verdict: what it says.
    """

    claim: Claim
    dataset: str
    alignment: str
    effect: Measured
    verdict: str


def findings(tables: dict[str, list[Row]]) -> Iterator[Finding]:
    """Every claim on every dataset that has both variants with a seed in common."""
    for claim in CLAIMS:
        for dataset, rows in tables.items():
            better, worse = rows_of(rows, claim.better), rows_of(rows, claim.worse)
            if not {row["seed"] for row in better} & {row["seed"] for row in worse}:
                continue
            for alignment in ALIGNMENTS if claim.metric != "AUROC" else ("",):
                key = column(dataset, claim.metric, alignment)
                effect = difference(better, worse, key)
                above = above_chance(better, key) or above_chance(worse, key)
                found = verdict(claim, *effect.interval(), above)
                yield Finding(claim, dataset, alignment, effect, found)


# ---- Tables


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """In Markdown."""
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]


def training_table(
    tables: dict[str, list[Row]], config_of: Callable[[str, str], TrainingConfig]
) -> list[str]:
    """What the runs of a dataset were trained on, and for how long; a line for each way."""
    header = (
        "dataset",
        "variants",
        "encoder",
        "starts from",
        "trained on",
        "epochs",
        "images a run",
        "reported on",
        "device",
        "seconds a run, median (least, most)",
    )
    lines = []
    for dataset, rows in tables.items():
        ways: dict[tuple[str, ...], list[str]] = {}
        for variant in variants_in(rows):
            ways.setdefault(way_of(config_of(dataset, variant), variant), []).append(variant)
        usual = max(ways.values(), key=len)
        for way, variants in ways.items():
            runs = [row for row in rows if row["variant"] in variants]
            seconds = [float(row["seconds"]) for row in runs]
            boxed = rows[0][f"{column(dataset, 'localization', 'corners_false')}|support"]
            all_of_them = "all" if len(ways) == 1 else "all others"
            lines.append(
                (
                    dataset,
                    all_of_them if variants is usual else ", ".join(variants),
                    *way,
                    f"{rows[0]['split']}, {boxed} pairs of item and class",
                    ", ".join(sorted({row["device"] for row in runs})),
                    f"{median(seconds):,.0f} ({min(seconds):,.0f}, {max(seconds):,.0f})",
                )
            )
    return table(header, lines)


def way_of(config: TrainingConfig, variant: str) -> tuple[str, ...]:
    """Encoder, beginning, items, epochs and number of images of a variant's runs."""
    start = "random weights"
    folder = Path(config.weights or "")
    if config.weights == folder.name:
        start = f"the checkpoint {config.weights}"
    elif config.weights:
        # A run's folder is named by its variant and seed, and lies in that of its dataset.
        other = folder.name.rpartition("_")[0].replace("_", " ")
        start = f"{'its own' if other == variant else other} on {folder.parent.name}"
    items, images = epoch_of(config)
    encoder = config.model.partition("_")[2]
    return encoder, start, items, str(config.epochs), f"{config.epochs * images:,}"


def epoch_of(config: TrainingConfig) -> tuple[str, int]:
    """What an epoch takes, and how many items that is."""
    kind = TASKS[config.data]
    if issubclass(kind, TiledTask):
        tiles = config.tiles_per_epoch or kind.TILES_PER_EPOCH
        return f"tiles of {config.tile or kind.TILE} px", tiles
    assert issubclass(kind, FilesTask)
    with (SPLIT_LISTS / f"{config.data}.csv").open(newline="", encoding="utf-8") as file:
        count = sum(row["split"] == kind.training_split for row in csv.DictReader(file))
    items = f"{count} images of {config.image_size or kind.preprocessing.input_size[1]} px"
    if config.also:
        return f"{items}, in turns with images of {config.also}", 2 * count
    return items, count


def results_table(dataset: str, rows: Sequence[Row]) -> list[str]:
    """A dataset's variants: means over seeds with their intervals, and chance."""
    small = SMALL[dataset]
    measures = {
        "AUROC": column(dataset, "AUROC", ""),
        **{
            f"{of or 'all classes'}, {name}": column(dataset, metric, alignment)
            for metric, of in (("localization", ""), ("small", small))
            for alignment, name in ALIGNMENTS.items()
        },
    }
    lines = []
    for variant in variants_in(rows):
        runs = rows_of(rows, variant)
        cells = []
        for key in measures.values():
            measured = measure(runs, key)
            low, high = measured.interval()
            ends = f"{max(low, 0):.2f}, {high:.2f}" if len(runs) > 1 else "one seed"
            cells.append(f"{measured.mean:.3f} [{ends}]")
        lines.append((variant, str(len(runs)), *cells))
    chance = [f"{number(rows[0], key, 'chance'):.3f}" for key in measures.values()]
    return table(("variant", "seeds", *measures), [*lines, ("chance", "", *chance)])


def verdicts_table(tables: dict[str, list[Row]]) -> list[str]:
    """A line for each claim, a column for each dataset."""
    said: dict[tuple[str, str], dict[str, str]] = {}
    for found in findings(tables):
        said.setdefault((found.claim.text, found.dataset), {})[found.alignment] = found.verdict
    lines = []
    for claim in CLAIMS:
        cells = (
            joined(said.get((claim.text, dataset), {"": "not trained"}))
            if claim.only in ("", dataset)
            else ""
            for dataset in tables
        )
        lines.append([claim.text, *cells])
    return table(("claim", *tables), lines)


def joined(verdicts: dict[str, str]) -> str:
    """One verdict where all alignments agree."""
    if len(set(verdicts.values())) == 1:
        return next(iter(verdicts.values()))
    return "; ".join(f"{ALIGNMENTS[alignment]}: {said}" for alignment, said in verdicts.items())


def effects_table(tables: dict[str, list[Row]]) -> list[str]:
    """The effect behind every verdict."""
    lines = []
    for found in findings(tables):
        lines.append(
            (
                found.claim.text,
                found.dataset,
                ALIGNMENTS.get(found.alignment, "no map"),
                signed(found.effect),
                str(len(found.effect.by_seed)),
                found.verdict,
            )
        )
    return table(("claim", "dataset", "alignment", "effect [95 %]", "seeds", "verdict"), lines)


def alignment_table(tables: dict[str, list[Row]]) -> list[str]:
    """How far CAM is behind PYLON, and how much of that is where its cells were put."""
    header = (
        "dataset",
        "classes",
        "CAM",
        "deficit, paper's resizing",
        "deficit, receptive field",
        "deficit, each at its best",
        "share that alignment explains",
    )
    lines = []
    for dataset, rows in tables.items():
        pylon = rows_of(rows, "pylon")
        for metric, of in (("localization", "all"), ("small", SMALL[dataset])):
            paper_key, placed_key = (column(dataset, metric, name) for name in ALIGNMENTS)
            for variant in ("cam max", "cam avg"):
                cam = rows_of(rows, variant)
                if not {row["seed"] for row in pylon} & {row["seed"] for row in cam}:
                    continue
                paper = difference(pylon, cam, paper_key)
                placed = difference(pylon, cam, placed_key)
                best = (
                    max((paper_key, placed_key), key=lambda key: measure(runs, key).mean)
                    for runs in (pylon, cam)
                )
                deficits = (paper, placed, difference(pylon, cam, *best))
                share = share_explained(paper, placed)
                lines.append((dataset, of, variant, *map(signed, deficits), percent(share)))
    return table(header, lines)


def signed(measured: Measured) -> str:
    """A difference with its interval."""
    low, high = measured.interval()
    ends = f"{low:+.2f}, {high:+.2f}" if len(measured.by_seed) > 1 else "one seed"
    return f"{measured.mean:+.3f} [{ends}]"


def percent(share: tuple[float, float, float] | None) -> str:
    """A share with its interval."""
    if share is None:
        return "none given"
    value, low, high = (f"{100 * part:.0f}" for part in share)
    return f"{value} % [{low}, {high}]"


def section(name: str, lines: Sequence[str]) -> list[str]:
    """Marked, so that a page can include it alone."""
    marks = (f"<!-- --8<-- [{end}:{name}] -->" for end in ("start", "end"))
    return [next(marks), "", *lines, "", next(marks), ""]


def results_tables(tables: dict[str, list[Row]]) -> Iterator[str]:
    """The table of each dataset under its name."""
    for position, (dataset, rows) in enumerate(tables.items()):
        if position:
            yield ""
        yield f"**{dataset}**, {rows[0]['split']} split"
        yield ""
        yield from results_table(dataset, rows)


def render(
    tables: dict[str, list[Row]],
    config_of: Callable[[str, str], TrainingConfig],
    starts: dict[str, list[Row]],
) -> str:
    """The page of a profile.

    Args:
        tables: rows of each dataset that has some, by variant and seed.
        config_of: from dataset and variant to the configuration of a run.
        starts: rows of what other datasets start from, if it is none of them.
    """
    sections = {
        "training": training_table(starts | tables, config_of),
        "verdicts": verdicts_table(tables),
        "effects": effects_table(tables),
        "alignment": alignment_table(tables),
        "results": [*results_tables(tables)],
    }
    if starts:
        sections["starts"] = [*results_tables(starts)]
    return "\n".join(line for name, lines in sections.items() for line in section(name, lines))
