"""The zoo's benchmark: its statistics, and that page and pictures are what committed rows give."""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pylon_zoo import create_model, save_pretrained
from pylon_zoo.data import Phantom, open_task

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
#: Student's 97.5 % quantile for two degrees of freedom, which has a closed form.
T2 = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    from pylon_zoo.data import TASKS

    monkeypatch.syspath_prepend(BENCHMARKS)
    before = dict(TASKS)
    import zoo as module

    yield module
    for name in ("zoo", "zoo_report", "zoo_plots"):
        sys.modules.pop(name)
    TASKS.clear()
    TASKS.update(before)


@pytest.fixture
def report(zoo: ModuleType) -> Any:
    return zoo.zoo_report


# ---- What is committed


def test_page_and_pictures_are_what_the_committed_rows_give(zoo: ModuleType) -> None:
    pictures = ROOT / "docs" / "images"
    for profile in zoo.PROFILES:
        page = BENCHMARKS / "results" / f"zoo_{profile}.md"
        drawn = sorted(pictures.glob(f"zoo_{profile}_*.png"))
        tables = zoo.read_tables(profile)
        assert page.exists() == bool(tables)
        assert len(drawn) == (3 if tables else 0)
        if tables:
            config_of, starts = zoo.reported_config(profile), zoo.read_starts(profile)
            expected = zoo.zoo_report.render(tables, config_of, starts)
            assert page.read_text(encoding="utf-8") == expected
        for picture in drawn:
            shown = Image.open(picture).text[zoo.zoo_plots.ROWS]
            assert shown == zoo.zoo_plots.digest(tables), f"{picture.name} shows other rows"


def test_committed_rows_are_the_whole_grid_as_the_page_states_it(zoo: ModuleType) -> None:
    for profile in zoo.PROFILES:
        for dataset, rows in (zoo.read_tables(profile) | zoo.read_starts(profile)).items():
            seeds = {0} if dataset == zoo.STARTS else {0, 1, 2}
            for variant in zoo.variants_of(dataset):
                assert seeds <= {int(r["seed"]) for r in rows if r["variant"] == variant}
            assert set(zoo.zoo_report.variants_in(rows)) <= set(zoo.variants_of(dataset))
            for row in rows:
                config = zoo.reported_config(profile)(dataset, row["variant"])
                assert row["model"] == config.model
                found = (row["data"], row["epochs"], row["split"])
                assert found == (config.data, str(config.epochs), zoo.SPLITS[dataset])


def test_the_page_of_the_docs_shows_every_section_and_picture(zoo: ModuleType) -> None:
    page = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    for profile in zoo.PROFILES:
        for picture in (ROOT / "docs" / "images").glob(f"zoo_{profile}_*.png"):
            assert f"(images/{picture.name})" in page
        made = BENCHMARKS / "results" / f"zoo_{profile}.md"
        for line in made.read_text(encoding="utf-8").splitlines() if made.exists() else ():
            if "[start:" in line:
                name = line.partition("[start:")[2].partition("]")[0]
                assert page.count(f'--8<-- "benchmarks/results/zoo_{profile}.md:{name}"') == 1


# ---- What is trained


def test_every_variant_can_be_built_on_the_encoder_of_every_dataset(zoo: ModuleType) -> None:
    for profile, grid in zoo.PROFILES.items():
        for dataset in grid.configs:
            for variant in zoo.variants_of(dataset):
                config = zoo.reported_config(profile)(dataset, variant)
                # What starts from phantoms is built as its run there was.
                start = grid.start if config.weights else dataset
                same = "pylon" if variant in zoo.CONTROLS else variant
                options = zoo.reported_config(profile)(start, same).options
                with torch.device("meta"):
                    create_model(config.model, **options)


def test_radiographs_start_from_runs_of_the_recipe_or_of_their_seed(zoo: ModuleType) -> None:
    from pylon_zoo.recipes import phantom_tiles

    runs = Path("runs")
    # PYLON's is the checkpoint that this recipe gave.
    published = {"pylon": f"{phantom_tiles.RECIPE.model}.phantom_tiles"}
    for variant in zoo.variants_of(zoo.STARTS):
        start = zoo.config_of("cpu", zoo.STARTS, variant, 0, runs)
        same = replace(start, model=phantom_tiles.RECIPE.model, options={})
        assert same == phantom_tiles.RECIPE
        run = str(zoo.folder_of(runs, "cpu", zoo.STARTS, variant, 0))
        for seed in range(3):
            config = zoo.config_of("cpu", "nih14", variant, seed, runs)
            assert config.weights == published.get(variant, run)
    control = zoo.config_of("cpu", "nih14", "pylon without phantoms", 1, runs)
    assert control.weights == published["pylon"]
    weights = {zoo.config_of("gpu", "nih14", "fpn group", seed, runs).weights for seed in (0, 1)}
    assert weights == {f"runs/gpu/phantom/fpn_group_{seed}" for seed in (0, 1)}
    assert zoo.config_of("gpu", "nih14", "pylon from scratch", 1, runs).weights is None


def test_no_run_starts_from_one_that_is_under_way(
    zoo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "RESULTS", tmp_path)
    arguments = Namespace(
        profile="cpu", dataset="nih14", runs=tmp_path, root=None, seeds=[0], variants=["pan"]
    )
    table = zoo.results_of("cpu", "nih14")
    start = zoo.folder_of(tmp_path, "cpu", zoo.STARTS, "pan", 0)
    # As it is in the midst of training: it would load.
    save_pretrained(create_model("pan_test_resnet"), start)
    with pytest.raises(SystemExit, match=r"not trained yet.* train phantom_tiles .*--seeds 0"):
        list(zoo.runs_of(arguments, table))
    (start / "run.json").write_text("{}")
    assert [run.key["variant"] for run in zoo.runs_of(arguments, table)] == ["pan"]
    # What has its row needs no start any more.
    (start / "run.json").unlink()
    table.add({"variant": "pan", "seed": 0})
    assert len(list(zoo.runs_of(arguments, table))) == 1


def test_phantoms_of_the_small_grid_are_selected_and_measured_on_their_quarters(
    zoo: ModuleType,
) -> None:
    task = open_task("phantom_128")
    whole = Phantom("test", length=250)
    for items in (task.classification("test"), task.localization("test")):
        assert len(items) == 4 * 250
        upper, lower = (torch.cat([items[i].image, items[i + 1].image], 2) for i in (0, 2))
        joined = torch.cat([upper, lower], 1)
        torch.testing.assert_close(joined, whole[0].image)
        # Intervals resample images, not quarters.
        assert len({items[index].group for index in range(4)}) == 1
        assert items[4].group != items[0].group
    assert len(task.selection()) == 4 * 100
    assert task.preprocessing.input_size == (1, 128, 128)


# ---- The intervals


def row(seed: int, value: float, half: float = 0.0, **more: str) -> dict[str, str]:
    ends = {"value": value, "low": value - half, "high": value + half, "chance": 0.2}
    return {"seed": str(seed), **{f"m|{k}": str(v) for k, v in ends.items()}, **more}


def test_a_difference_pairs_seeds_and_adds_the_images_of_both(report: Any) -> None:
    better = [row(5, 0.1), row(0, 0.8, 0.03), row(1, 0.9, 0.03)]
    worse = [row(1, 0.6, 0.04), row(0, 0.7, 0.04), row(7, 0.9)]
    found = report.difference(better, worse, "m")
    assert found.by_seed == pytest.approx((0.1, 0.3))
    assert found.images == pytest.approx(0.05)
    # The other variant by another measure.
    others = [{**r, "n|value": "0.5", "n|low": "0.5", "n|high": "0.5"} for r in worse]
    found = report.difference(better, others, "m", "n")
    assert found.by_seed == pytest.approx((0.3, 0.4))
    assert found.images == pytest.approx(0.03)


def test_the_interval_is_students_over_seeds(report: Any) -> None:
    from scipy import stats

    values = (0.1, 0.3, 0.26, 0.15)
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert report.Measured(values, 0.0).interval() == pytest.approx(expected)
    # Three seeds, by the closed form; images add as squares.
    mean, error = 0.2, np.std((0.1, 0.2, 0.3), ddof=1) / math.sqrt(3)
    half = math.hypot(T2 * error, 0.12)
    measured = report.Measured((0.1, 0.2, 0.3), 0.12)
    assert measured.interval() == pytest.approx((mean - half, mean + half))


def test_one_seed_tells_nothing_of_others_and_nothing_leaves_what_can_be(report: Any) -> None:
    assert report.Measured((0.4,), 0.01).interval() == (-1.0, 1.0)
    low, high = report.Measured((0.2, 0.9), 0.0).interval()
    assert (low, high) == (-1.0, 1.0)


def simulate(
    rng: np.random.Generator, seeds: int, *, images: int, spread: float
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Runs of two variants whose hit rates are 0.7 and 0.5, plus what each seed and image adds."""
    difficulty = rng.normal(0, 0.15, images)
    variants = []
    for rate in (0.7, 0.5):
        rows = []
        for seed in range(seeds):
            chances = np.clip(rate + rng.normal(0, spread) + difficulty, 0, 1)
            hits = rng.random(images) < chances
            half = 1.96 * hits.std() / math.sqrt(images)
            rows.append(row(seed, hits.mean(), half))
        variants.append(rows)
    return variants[0], variants[1]


def test_intervals_cover_what_they_claim(report: Any) -> None:
    rng = np.random.default_rng(0)
    covered = {"seeds": 0, "both": 0, "normal": 0}
    trials = 1500
    for _ in range(trials):
        values = tuple(0.2 + rng.normal(0, 0.05, 3))
        measured = report.Measured(values, 0.0)
        low, high = measured.interval()
        covered["seeds"] += low <= 0.2 <= high
        covered["normal"] += abs(measured.mean - 0.2) <= 1.96 * (high - low) / (2 * T2)
        found = report.difference(*simulate(rng, 3, images=60, spread=0.04), "m")
        low, high = found.interval()
        covered["both"] += low <= 0.2 <= high
    share = {name: count / trials for name, count in covered.items()}
    assert 0.93 <= share["seeds"] <= 0.97
    assert share["both"] >= 0.94
    # What the usual 1.96 would have covered.
    assert share["normal"] < 0.86


# ---- The share that alignment explains


def test_the_share_and_its_ends_are_where_the_difference_may_be_zero(report: Any) -> None:
    paper = report.Measured((0.30, 0.36, 0.33), 0.05)
    placed = report.Measured((0.10, 0.14, 0.06), 0.04)
    share, low, high = report.share_explained(paper, placed)
    assert share == pytest.approx(1 - 0.10 / 0.33)
    assert low < share < high
    for end in (low, high):
        # Independently: at the ends, placed - ratio * paper is just significant.
        ratio = 1 - end
        values = np.array(placed.by_seed) - ratio * np.array(paper.by_seed)
        half = math.hypot(T2 * values.std(ddof=1) / math.sqrt(3), 0.04, ratio * 0.05)
        assert abs(values.mean()) == pytest.approx(half)


def test_no_share_where_there_may_be_no_deficit(report: Any) -> None:
    placed = report.Measured((0.1, 0.1, 0.1), 0.01)
    assert report.share_explained(report.Measured((0.1, 0.5, 0.3), 0.0), placed) is None
    assert report.share_explained(report.Measured((-0.3, -0.31, -0.3), 0.0), placed) is None
    assert report.share_explained(report.Measured((0.3,), 0.0), placed) is None
    share = report.share_explained(report.Measured((0.3, 0.31, 0.3), 0.0), placed)
    assert share is not None


def test_the_shares_interval_covers(report: Any) -> None:
    rng = np.random.default_rng(1)
    trials, covered, given = 1000, 0, 0
    for _ in range(trials):
        run = rng.normal(0, 0.02, 3)  # what a run adds to both
        paper = report.Measured(tuple(0.5 + run + rng.normal(0, 0.02, 3)), 0.0)
        placed = report.Measured(tuple(0.2 + run + rng.normal(0, 0.02, 3)), 0.0)
        if (found := report.share_explained(paper, placed)) is not None:
            given += 1
            covered += found[1] <= 0.6 <= found[2]
    assert given > 0.95 * trials
    assert 0.93 <= covered / given <= 0.97


# ---- Verdicts


def test_verdicts(report: Any) -> None:
    claim = report.CLAIMS[0]
    assert report.verdict(claim, 0.01, 0.2, True) == "holds"
    assert report.verdict(claim, -0.2, -0.01, True) == "does not hold"
    assert report.verdict(claim, -0.1, 0.1, True) == "cannot tell here"
    assert report.verdict(claim, 0.01, 0.2, False) == "cannot tell here (chance level)"
    auroc = next(c for c in report.CLAIMS if c.metric == "AUROC")
    assert report.verdict(auroc, -0.01, 0.1, True) == "holds"
    assert report.verdict(auroc, -0.1, -0.03, True) == "does not hold"
    assert report.verdict(auroc, -0.03, 0.1, True) == "cannot tell here"


def test_a_variant_is_above_chance_where_most_of_its_runs_are(report: Any) -> None:
    assert report.above_chance([row(0, 0.9, 0.1), row(1, 0.8, 0.1), row(2, 0.1)], "m")
    assert not report.above_chance([row(0, 0.9, 0.1), row(1, 0.25, 0.1), row(2, 0.1)], "m")


def full_row(report: Any, variant: str, seed: int, paper: float, placed: float) -> dict[str, str]:
    """A run on blood smears that localizes so well."""
    made = {"variant": variant, "seed": str(seed), "split": "val", "device": "cpu", "seconds": "9"}
    values = {report.column("bccd", "AUROC", ""): 0.9 + seed / 1000}
    for metric in ("localization", "small"):
        for alignment, value in (("corners_false", paper), ("receptive_field", placed)):
            values[report.column("bccd", metric, alignment)] = value
    for key, value in values.items():
        parts = {"value": value, "low": value - 0.02, "high": value + 0.02}
        parts |= {"chance": 0.5 if key.startswith("AUROC") else 0.1, "support": 45}
        made |= {f"{key}|{part}": str(number) for part, number in parts.items()}
    return made


@pytest.fixture
def rows(report: Any) -> list[dict[str, str]]:
    """Alignment is a third of CAM's deficit; PAN is at chance; U-Net has one seed."""
    made = []
    for seed in range(3):
        wobble = seed / 500
        made.append(full_row(report, "pylon", seed, 0.8 + wobble, 0.8 + wobble))
        made.append(full_row(report, "cam max", seed, 0.5, 0.6))
        made.append(full_row(report, "pan", seed, 0.1, 0.1))
        made.append(full_row(report, "pan global", seed, 0.05, 0.05))
    made.append(full_row(report, "unet", 0, 0.4, 0.3))
    return sorted(made, key=lambda r: r["variant"] != "pylon")


def test_the_tables_say_what_the_rows_do(report: Any, zoo: ModuleType, rows: Any) -> None:
    tables = {"bccd": rows}
    page = report.render(tables, zoo.reported_config("cpu"), {})
    lines = page.splitlines()
    assert "| PYLON localizes better than CAM | holds |" in lines
    assert "| AUROC does not suffer (margin 0.02) | cannot tell here |" in lines
    assert (
        "| PAN without global average pooling localizes better | cannot tell here (chance level) |"
    ) in lines
    assert "| Max pooling localizes better than average pooling | not trained |" in lines
    # Of radiographs alone.
    assert "| To start from phantoms helps to localize |  |" in lines
    (line,) = (x for x in lines if x.startswith("| bccd | Platelets | cam max |"))
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[3].startswith("+0.302 [")
    assert cells[4].startswith("+0.202 [")
    assert cells[6].startswith("33 % [")
    (line,) = (x for x in lines if x.startswith("| unet |"))
    assert line.count("[one seed]") == 5
    assert "0.400 [one seed]" in line
    (line,) = (x for x in lines if x.startswith("| bccd | all | regnetx_002 | random"))
    config = zoo.reported_config("cpu")("bccd", "unet")
    assert f"| {config.epochs * 2048:,} |" in line
    assert "tiles of 128 px" in line
    assert line.endswith("| cpu | 9 (9, 9) |")


def test_alignments_that_disagree_are_named(report: Any, rows: Any) -> None:
    for found in rows:
        if found["variant"] == "cam max":
            for part in ("value", "low", "high"):
                key = "point localization (receptive_field)|micro"
                found[f"{key}|{part}"] = str(float(found[f"{key}|{part}"]) + 0.35)
    (line,) = (x for x in report.verdicts_table({"bccd": rows}) if "PYLON localizes better" in x)
    assert "paper's resizing: holds; receptive field: does not hold" in line


def test_what_whole_images_are_trained_on_is_counted_from_the_lists(
    report: Any, zoo: ModuleType
) -> None:
    from pylon_zoo.training import TrainingConfig

    plain = TrainingConfig(model="pylon_test_resnet", data="nih14", image_size=96)
    assert report.epoch_of(plain) == ("655 images of 96 px", 655)
    mixed = TrainingConfig(model="pylon_test_resnet", data="nih14", also="phantom")
    text, images = report.epoch_of(mixed)
    assert (text, images) == ("655 images of 256 px, in turns with images of phantom", 1310)
    assert report.epoch_of(zoo.reported_config("gpu")("phantom", "pan")) == (
        "tiles of 160 px",
        4096,
    )
    # The recipe takes fewer tiles than its task would.
    start = zoo.reported_config("cpu")(zoo.STARTS, "pan")
    assert report.epoch_of(start) == ("tiles of 128 px", start.tiles_per_epoch)
    assert start.tiles_per_epoch == 2048


def test_runs_of_one_dataset_that_were_trained_otherwise_have_their_own_line(
    report: Any, zoo: ModuleType, rows: Any
) -> None:
    more = [full_row(report, variant, 0, 0.5, 0.5) for variant in zoo.CONTROLS]
    radiographs = [
        {key.replace("Platelets", "Nodule"): value for key, value in found.items()}
        for found in [*rows, *more]
    ]
    lines = report.training_table({"nih14": radiographs}, zoo.reported_config("cpu"))[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:6]] for line in lines]
    encoder = zoo.PROFILES["cpu"].encoders["nih14"]
    side = zoo.PROFILES["cpu"].configs["nih14"]["image_size"]
    images = f"655 images of {side} px"
    mixed = f"{images}, in turns with images of phantom"
    start = f"the checkpoint {zoo.PROFILES['cpu'].published['pylon']}"
    assert cells == [
        ["nih14", "pylon", encoder, start, mixed],
        ["nih14", "all others", encoder, "its own on phantom_tiles", mixed],
        ["nih14", "pylon without phantoms", encoder, start, images],
        ["nih14", "pylon from scratch", encoder, "random weights", images],
    ]
    (_, start, *_) = report.way_of(zoo.reported_config("gpu")("nih14", "cam max"), "cam max")
    assert start == "its own on phantom"
    # All see the same number of images.
    assert len({line.split("|")[7] for line in lines}) == 1


# ---- The pictures


def test_every_run_is_a_dot_and_chance_a_line(report: Any, zoo: ModuleType, rows: Any) -> None:
    variants = list(zoo.VARIANTS)
    figure = zoo.zoo_plots.draw_runs({"bccd": rows}, variants, "localization")
    (panel,) = figure.axes
    dots = np.concatenate([np.asarray(found.get_offsets()) for found in panel.collections])
    expected = [
        [
            float(found[f"{report.column('bccd', 'localization', alignment)}|value"]),
            variants.index(found["variant"]) - zoo.zoo_plots.OFFSETS[alignment],
        ]
        for found in rows
        for alignment in report.ALIGNMENTS
    ]
    np.testing.assert_allclose(sorted(dots.tolist()), sorted(expected))
    assert [label.get_text() for label in panel.get_yticklabels()] == variants
    dashed = [found for found in panel.lines if found.get_linestyle() == "--"]
    assert [found.get_xdata()[0] for found in dashed] == [0.1]


def test_the_forest_shows_every_effect(report: Any, zoo: ModuleType, rows: Any) -> None:
    figure = zoo.zoo_plots.draw_claims({"bccd": rows})
    (panel,) = figure.axes
    # An interval each, and right after it the effect; filled where it is decided.
    shown = [
        (tuple(interval.get_xdata()), dot.get_xdata()[0], dot.get_mfc() != "white")
        for interval, dot in pairwise(panel.lines)
        if len(interval.get_xdata()) == 2 and len(dot.get_xdata()) == 1
    ]
    assert shown == [
        (found.effect.interval(), found.effect.mean, found.verdict in ("holds", "does not hold"))
        for found in report.findings({"bccd": rows})
    ]
    assert len(shown) == 2 + 2 + 1 + 2


def test_pictures_state_their_rows(
    zoo: ModuleType, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo.zoo_plots, "IMAGES", tmp_path)
    zoo.zoo_plots.draw({"bccd": rows}, list(zoo.VARIANTS), "cpu")
    names = ["zoo_cpu_claims.png", "zoo_cpu_localization.png", "zoo_cpu_small.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        picture = Image.open(tmp_path / name)
        assert picture.text["rows"] == zoo.zoo_plots.digest({"bccd": rows})
        assert picture.getpixel((0, 0))[:3] == (255, 255, 255)
    assert zoo.zoo_plots.digest({"bccd": rows}) != zoo.zoo_plots.digest({"bccd": rows[1:]})


def test_nothing_trained_is_said(zoo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "RESULTS", BENCHMARKS / "nowhere")
    with pytest.raises(SystemExit, match="No run of the profile gpu has a row"):
        zoo.write_claims("gpu")
