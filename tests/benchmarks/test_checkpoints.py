"""Checkpoints made of runs, and that cards and pages say what the manifest says."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_curve
from tiny_task import CONFIG, TinyTask

import pylon_zoo
from pylon_zoo.data import BCCD, LocalizationDataset, Phantom, Sample, Tiles, tasks
from pylon_zoo.errors import InvalidOptionError, WeightsNotFoundError
from pylon_zoo.heatmaps.gallery import COLORMAP, DARK, OPACITY, Case
from pylon_zoo.heatmaps.overlay import GROUND, TRUE_BOX, blend
from pylon_zoo.reproduction import metrics_of
from pylon_zoo.spec import Preprocessing
from pylon_zoo.training import evaluation, train
from pylon_zoo.weights import load_manifest
from pylon_zoo.weights import manifest as manifest_module
from pylon_zoo.weights.config import read_config
from pylon_zoo.weights.manifest import BundledSource, Entry, Metric, RepositorySource

ROOT = Path(__file__).resolve().parents[2]
NAME = "pylon_test_efficientnet.tiny"


@pytest.fixture(scope="module")
def checkpoints() -> ModuleType:
    path = ROOT / "benchmarks" / "checkpoints.py"
    specification = importlib.util.spec_from_file_location("checkpoints_script", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Task(TinyTask):
    def selection(self) -> LocalizationDataset:
        return self.classification("val")

    def classification(self, split: str) -> LocalizationDataset:
        return Phantom(split, size=64, length=24)


@pytest.fixture(scope="module")
def clone(checkpoints: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository with runs of two seeds, and a checkpoint made of them."""
    top = tmp_path_factory.mktemp("clone")
    (top / "pylon_zoo").mkdir()
    (top / "weights_manifest.json").write_text('{"manifest_version": 1, "checkpoints": []}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "tiny", Task)
        patch.setattr(manifest_module, "PACKAGE", top / "pylon_zoo")
        patch.setattr(checkpoints, "load_recipe", {"tiny_large": CONFIG}.__getitem__)
        patch.setattr(evaluation, "REPLICATES", 20)
        for seed in (3, 4):
            train(replace(CONFIG, seed=seed), top / "runs" / str(seed), progress=False)
        runs = [str(top / "runs" / str(seed)) for seed in (3, 4)]
        checkpoints.main(["add", "tiny_large", "--runs", *runs, "--split", "test"])
        yield top


@pytest.fixture
def entry(clone: Path) -> Entry:
    return load_manifest().find(NAME)


def losses(clone: Path) -> dict[int, float]:
    return {
        seed: json.loads((clone / f"runs/{seed}/run.json").read_text())["best_validation_loss"]
        for seed in (3, 4)
    }


def test_the_run_of_the_lowest_selection_loss_is_taken(clone: Path, entry: Entry) -> None:
    found = losses(clone)
    best = min(found, key=found.__getitem__)
    assert entry.command == f"pylon-zoo train tiny_large --set seed={best}"
    assert entry.recipe == "tiny_large"
    assert entry.data.name == "tiny"
    run = pylon_zoo.load_pretrained(clone / f"runs/{best}").state_dict()
    for key, tensor in pylon_zoo.load_pretrained(NAME).state_dict().items():
        assert torch.equal(tensor, run[key].half().to(tensor.dtype)), key


def test_the_folder_can_be_loaded_and_published(clone: Path, entry: Entry) -> None:
    folder = clone / "checkpoints" / NAME
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "gallery.png", "model.safetensors",
    }  # fmt: skip
    assert entry.sources == (RepositorySource(path=f"checkpoints/{NAME}/model.safetensors"),)
    checkpoint = read_config(folder)
    assert checkpoint.record == entry.to_record()
    assert checkpoint.spec == entry.spec == pylon_zoo.load_pretrained(folder).spec
    assert not (clone / "pylon_zoo" / "checkpoints").exists()


def test_thresholds_are_youdens_on_the_selection_data(entry: Entry) -> None:
    task, model = Task(), pylon_zoo.load_pretrained(NAME)
    transform = pylon_zoo.create_transform(model)
    scores = {}
    for split in ("val", "test"):
        items = task.classification(split)
        samples = [transform(items[i]) for i in range(len(items))]
        with torch.no_grad():
            logits = model(torch.stack([s.image for s in samples])).logits.double()
        scores[split] = torch.stack([s.labels for s in samples]).numpy(), logits.sigmoid().numpy()
    assert entry.thresholds is not None
    assert set(entry.thresholds) == set(task.class_names)
    metrics = {m.name: m for m in entry.metrics}
    for k, name in enumerate(task.class_names):
        labels, probabilities = (part[:, k] for part in scores["val"])
        wrong, right, thresholds = roc_curve(labels, probabilities, drop_intermediate=False)
        threshold = thresholds[np.argmax(right - wrong)]
        assert entry.thresholds[name] == pytest.approx(threshold, rel=1e-5)
        labels, probabilities = (part[:, k] for part in scores["test"])
        called = probabilities >= threshold * (1 - 1e-6)
        assert metrics[f"sensitivity_{name}"].value == round(called[labels == 1].mean(), 4)
        assert metrics[f"specificity_{name}"].value == round(1 - called[labels == 0].mean(), 4)
    assert entry.thresholds_rule is not None
    assert "val split" in entry.thresholds_rule
    assert {m.split for m in entry.metrics} == {"test"}


def test_the_record_has_calibration_and_what_float16_does(clone: Path, entry: Entry) -> None:
    values = {m.name: m.value for m in entry.metrics}
    for mean in ("macro", "micro", *Phantom.class_names):
        for kind in ("auroc", "ece", "brier", "point_localization_corners_false"):
            assert f"{kind}_{mean}" in values
    found = losses(clone)
    best = min(found, key=found.__getitem__)
    model = pylon_zoo.load_pretrained(clone / f"runs/{best}")
    report = evaluation.evaluate(model, Task(), "test", threshold_split="val")
    changes = {m.name: abs(m.value - values[m.name]) for m in metrics_of(report, "x")}
    assert entry.precision is not None
    assert entry.precision.dtype == "float16"
    assert entry.precision.largest_change == pytest.approx(max(changes.values()))
    assert changes[entry.precision.metric] == max(changes.values())


def test_the_largest_change_is_found(checkpoints: ModuleType, entry: Entry) -> None:
    first, second, *_ = entry.metrics
    before = (first, second)
    shifted = replace(second, value=second.value - 0.125, interval=(-1.0, 2.0))
    found = checkpoints.largest_change(before, (first, shifted), "float16")
    assert (found.largest_change, found.metric) == (0.125, second.name)


def test_bundled_weights_lie_in_the_package_alone(
    checkpoints: ModuleType, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(clone, tmp_path / "clone")
    monkeypatch.setattr(manifest_module, "PACKAGE", tmp_path / "clone" / "pylon_zoo")
    runs = [clone / "runs" / "3"]
    entry = checkpoints.add("tiny_large", runs, None, "test", bundle=True)
    assert entry.sources == (BundledSource(filename=f"{NAME}.safetensors"),)
    bundled = tmp_path / "clone" / "pylon_zoo" / "checkpoints" / f"{NAME}.safetensors"
    in_folder = tmp_path / "clone" / "checkpoints" / NAME / "model.safetensors"
    assert bundled.stat().st_size == entry.bytes
    assert not in_folder.exists()
    assert f'load_pretrained("{NAME}")' in checkpoints.render_card(entry)
    entry = checkpoints.add("tiny_large", runs, None, "test", bundle=False)
    assert in_folder.stat().st_size == entry.bytes
    assert not bundled.exists()
    assert f'load_pretrained("checkpoints/{NAME}")' in checkpoints.render_card(entry)


def test_what_is_no_run_of_the_recipe(checkpoints: ModuleType, clone: Path, tmp_path: Path) -> None:
    run = clone / "runs" / "3"
    with pytest.raises(InvalidOptionError, match=r"no finished run"):
        checkpoints.choose_run(CONFIG, [tmp_path])
    with pytest.raises(InvalidOptionError, match=r"its epochs is 2, the recipe's 7"):
        checkpoints.choose_run(replace(CONFIG, epochs=7), [run])
    with pytest.raises(InvalidOptionError, match=r"has the seed 3"):
        checkpoints.choose_run(CONFIG, [run, run])
    with pytest.raises(InvalidOptionError, match=r"selects models and thresholds"):
        checkpoints.add("tiny_large", [run], None, "val", bundle=False)


@pytest.mark.usefixtures("clone")
def test_splits_are_what_the_task_says(checkpoints: ModuleType, bccd_root: Path) -> None:
    phantoms = {
        "training": "Phantom('train', size=256, length=3000, seed=7)",
        "selection": "Phantom('val', size=256, length=500, seed=0)",
        "reported": "Phantom('test', size=256, length=500, seed=0)",
    }
    task = tasks.PhantomTask(seed=7)
    assert checkpoints.splits_of(task, CONFIG, "test") == phantoms
    mixed = checkpoints.splits_of(task, replace(CONFIG, also="tiny"), "test")
    assert mixed == phantoms | {"training, too": phantoms["training"]}
    names = "\n".join(sorted(BCCD(bccd_root, "fit").names)).encode()
    found = checkpoints.identify(Tiles(BCCD(bccd_root, "fit"), positions="random"))
    assert found == (
        f"fit split: 171 images, sha256 of the sorted names {hashlib.sha256(names).hexdigest()}"
    )


# ---- The gallery


class Dots:
    """Images of two classes, and a third without boxes.

    The box of class k of image i is at (10 * i, 20 * k), 9 px wide.
    """

    class_names = ("a", "b", "c")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        boxes = [[10.0 * index, 20.0 * k, 10 * index + 9, 20 * k + 9] for k in range(2)]
        kept = [k for k in range(2) if (index, k) != (3, 1)]
        return Sample(
            torch.full((1, 40, 40), index, dtype=torch.uint8),
            torch.ones(3),
            torch.tensor(boxes)[kept],
            torch.tensor(kept),
            source=str(index),
        )


#: Probability and whether the peak lies in the box, of class a and b in each image.
SAID = [((0.9, True), (0.2, True)), ((0.8, False), (0.3, True)), ((0.95, False), (0.1, True)),
        ((0.1, True), (0.99, False))]  # fmt: skip


def say(model: object, sample: Sample) -> Any:
    """What a model would have predicted, class b first."""
    index = int(sample.source)
    findings = []
    for k in (1, 0):
        probability, hit = SAID[index][k]
        x, y = 10 * index + 4, 20 * k + 4 if hit else 39
        known = (index, k) != (3, 1)
        findings.append(
            SimpleNamespace(probability=probability, x=x, y=y, inside=hit if known else None)
        )
    return SimpleNamespace(
        classes=(1, 0),
        findings=findings,
        probability_maps=torch.stack([torch.full((40, 40), SAID[index][k][0]) for k in (1, 0)]),
        boxes_of=lambda at: sample.boxes[sample.box_classes == 1 - at],
    )


@pytest.fixture
def dots(checkpoints: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(checkpoints, "predict", say)
    return SimpleNamespace(class_names=Dots.class_names, localization=lambda split: Dots())


def test_the_gallery_takes_the_images_of_the_rule(checkpoints: ModuleType, dots: Any) -> None:
    # The model sees them twice as large.
    look = Preprocessing((1, 80, 80))
    model = SimpleNamespace(spec=SimpleNamespace(class_names=("a", "b", "c"), preprocessing=look))
    images = checkpoints.boxed_images(model, dots, "test")
    assert [image.image.shape for image in images] == [(1, 80, 80)] * 4
    a, b, c = checkpoints.find_cases(model, images)
    assert c == []
    assert a == [Case(0, 0.9, True), Case(1, 0.8, False), Case(2, 0.95, False), Case(3, 0.1, True)]
    # The image without a box of class b says nothing of it, however probable it is.
    assert b == [Case(0, 0.2, True), Case(1, 0.3, True), Case(2, 0.1, True)]
    first, second = checkpoints.gallery_rows(model, dots, "test", with_images=True)
    assert first[0] == "a: 2 of 4 images hit"
    titles = ["hit, probability 0.90", "median hit, probability 0.90", "miss, probability 0.95"]
    assert [cell.title for cell in first[1]] == titles
    for cell, index in zip(first[1], (0, 0, 2), strict=True):
        torch.testing.assert_close(cell.image, torch.full((1, 80, 80), index / 255))
        assert torch.equal(cell.boxes, 2 * Dots()[index].boxes[:1])
        assert cell.peak == (10 * index + 4, 39 if index == 2 else 4)
        assert float(cell.values.max()) == pytest.approx(SAID[index][0][0])
    assert second[0] == "b: 3 of 3 images hit"
    assert [cell.title for cell in second[1]][2] == "no miss"
    assert [cell.peak[0] // 10 for cell in second[1][:2]] == [1, 0]


def test_images_of_others_are_drawn_on_this_machine_alone(
    checkpoints: ModuleType, clone: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[bool] = []

    def rows(model: object, task: object, split: str, *, with_images: bool) -> list[Any]:
        assert split == "test"
        shown.append(with_images)
        return [("a", [])]

    monkeypatch.setattr(checkpoints, "gallery_rows", rows)
    monkeypatch.setattr(checkpoints, "encode_gallery", lambda rows: b"picture")
    folder = clone / "checkpoints" / NAME
    before = (folder / "gallery.png").read_bytes()
    others = replace(entry, data=replace(entry.data, url="https://example.org"))
    assert checkpoints.write_gallery(others, None, with_images=True).name != "gallery.png"
    assert (folder / "gallery.png").read_bytes() == before
    assert checkpoints.write_gallery(others, None, with_images=False).name == "gallery.png"
    assert checkpoints.write_gallery(entry, None, with_images=False).name == "gallery.png"
    assert shown == [True, False, True]
    (folder / checkpoints.LOCAL_GALLERY).unlink()
    (folder / "gallery.png").write_bytes(before)
    ignored = (ROOT / ".gitignore").read_text()
    assert f"/checkpoints/*/{checkpoints.LOCAL_GALLERY}\n" in ignored


def test_a_gallery_stays_below_its_limit(
    checkpoints: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    cell = checkpoints.Cell(
        "hit", torch.rand(64, 64), torch.tensor([[1.0, 2, 30, 40]]), image=noise
    )
    monkeypatch.setattr(checkpoints, "WIDTHS", (448, 288))
    large = checkpoints.encode_gallery([("a", [cell] * 3)])
    assert Image.open(io.BytesIO(large)).width == 3 * (2 * (224 + 8) + 8)
    monkeypatch.setattr(checkpoints, "LIMIT", len(large) - 1)
    small = checkpoints.encode_gallery([("a", [cell] * 3)])
    assert Image.open(io.BytesIO(small)).width == 3 * (2 * (144 + 8) + 8)
    assert len(small) < len(large)
    monkeypatch.setattr(checkpoints, "LIMIT", len(small) - 1)
    with pytest.raises(InvalidOptionError, match="cells of 288 px"):
        checkpoints.encode_gallery([("a", [cell] * 3)])


# ---- Cards and pages


def numbers_of(text: str) -> set[str]:
    """Every number of three digits after its point, outside of code."""
    return set(re.findall(r"(?<![\w.])\d\.\d{3}(?!\d)", re.sub(r"`[^`]*`", "", text)))


def known_numbers(metrics: tuple[Metric, ...]) -> set[str]:
    """That a card may show."""
    found = set()
    for metric in metrics:
        values = [metric.value, *metric.interval]
        values += [] if metric.chance is None else [metric.chance]
        found |= {f"{value:.3f}" for value in values}
    return found


def rows_of(text: str, heading: str) -> dict[str, list[str]]:
    """The first table after a heading, by its first cell."""
    table = text.partition(heading)[2].partition("\n\n| ")[2].partition("\n\n")[0]
    lines = [line.strip("| ").split(" | ") for line in f"| {table}".splitlines()]
    return {cells[0]: cells for cells in lines}


def check_text(text: str, entry: Entry) -> None:
    """All numbers are the manifest's, and the manifest's are all there."""
    metrics = {m.name: m for m in entry.metrics}
    look = entry.spec.preprocessing
    known = known_numbers(entry.metrics) | {f"{v:.3f}" for v in (*look.mean, *look.std)}
    known |= {f"{v:.3g}" for v in (entry.thresholds or {}).values()}
    assert numbers_of(text) <= known
    names = [*(entry.spec.class_names or ()), "macro", "micro"]
    main = rows_of(text, "## Results on")
    assert list(main)[2:] == [name for name in names if name in main]
    for name, cells in main.items():
        if name in names:
            for kind in ("auroc", *(k for k in ALIGNED if f"{k}_{name}" in metrics)):
                found = metrics.get(f"{kind}_{name}")
                if found is not None:
                    low, high = found.interval
                    assert f"{found.value:.3f} [{low:.3f}, {high:.3f}]" in cells
                    assert str(found.support) in cells
    if entry.thresholds:
        rows = rows_of(text, "### Operating thresholds")
        for name, value in entry.thresholds.items():
            assert rows[name][1] == f"{value:.3g}"
            assert main[name][-1] == f"{value:.3g}"
            for cell, kind in zip(rows[name][2:], ("sensitivity", "specificity"), strict=True):
                assert cell.startswith(f"{metrics[f'{kind}_{name}'].value:.3f} [")
        assert str(entry.thresholds_rule) in text
        rows = rows_of(text, "### Calibration")
        measured = [name for name in names if f"brier_{name}" in metrics]
        assert [name for name in rows if name in names] == measured
        for name in measured:
            for cell, kind in zip(rows[name][1:3], ("ece", "brier"), strict=True):
                assert cell.startswith(f"{metrics[f'{kind}_{name}'].value:.3f} [")
        error = metrics["ece_macro"]
        assert f"expected calibration error is {error.value:.3f}" in " ".join(text.split())
    if entry.precision:
        assert f"{entry.precision.largest_change:.4f} (`{entry.precision.metric}`)" in text


ALIGNED = ("point_localization_corners_false", "point_localization_receptive_field")


def test_card_and_page_of_a_new_checkpoint(
    checkpoints: ModuleType, clone: Path, entry: Entry
) -> None:
    card = (clone / "checkpoints" / NAME / "README.md").read_text(encoding="utf-8")
    page = (clone / "docs" / "checkpoints" / f"{NAME}.md").read_text(encoding="utf-8")
    for text in (card, page):
        check_text(text, entry)
        assert "the hit of the median probability" in text
        assert entry.command in text
        assert "The images are not ours" not in text
    assert "](gallery.png)" in card
    assert f"]({NAME}.png)" in page
    picture = clone / "docs" / "checkpoints" / f"{NAME}.png"
    assert picture.read_bytes() == (clone / "checkpoints" / NAME / "gallery.png").read_bytes()
    # From the manifest alone, the same again; and what is not in it goes.
    before = {p: p.read_bytes() for p in clone.rglob("*.md")}
    stale = picture.with_name("pylon_gone.tag.md")
    stale.write_text("old")
    checkpoints.main(["cards"])
    assert {p: p.read_bytes() for p in clone.rglob("*.md")} == before
    others = replace(entry, data=replace(entry.data, url="https://example.org"))
    assert "The images are not ours" in checkpoints.render_card(others)


# ---- What is committed


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> tuple[Entry, ...]:
    if not (ROOT / "checkpoints").is_dir():
        pytest.skip("cards are in the repository alone")
    monkeypatch.setattr(manifest_module, "PACKAGE", ROOT / "pylon_zoo")
    return load_manifest().checkpoints


def test_committed_cards_and_pages_are_what_the_manifest_gives(
    checkpoints: ModuleType, committed: tuple[Entry, ...]
) -> None:
    remedy = "run python benchmarks/checkpoints.py cards"
    names = {entry.name for entry in committed}
    assert {path.name for path in (ROOT / "checkpoints").iterdir() if path.is_dir()} == names
    pages = ROOT / "docs" / "checkpoints"
    assert {p.name for p in pages.iterdir()} == {
        f"{n}{end}" for n in names for end in (".md", ".png")
    }
    for entry in committed:
        folder = ROOT / "checkpoints" / entry.name
        card = (folder / "README.md").read_text(encoding="utf-8")
        page = (pages / f"{entry.name}.md").read_text(encoding="utf-8")
        assert card == checkpoints.render_card(entry), remedy
        assert page == checkpoints.render_page(entry), remedy
        check_text(card, entry)
        check_text(page, entry)
        picture = (folder / "gallery.png").read_bytes()
        assert picture == (pages / f"{entry.name}.png").read_bytes(), remedy
        assert len(picture) <= checkpoints.LIMIT
        try:
            checkpoint = read_config(folder)
        except WeightsNotFoundError:
            assert any(isinstance(source, BundledSource) for source in entry.sources)
        else:
            assert checkpoint.record == entry.to_record()
            assert (checkpoint.sha256, checkpoint.spec) == (entry.sha256, entry.spec)


def part_of_images(path: Path) -> float:
    """The part of a gallery's pixels with colors that neither maps, grounds nor boxes have."""
    heat = np.linspace(0, 1, 64, dtype=np.float32)[None]
    grounds = [np.full((1, 64, 3), value, np.uint8) for value in (DARK, 128)]
    curves = [np.asarray(blend(ground, heat, OPACITY, COLORMAP))[0] for ground in grounds]
    plain = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in (GROUND, TRUE_BOX)]
    known = np.concatenate([*curves, plain]).astype(int)
    counts = Image.open(path).convert("RGB").getcolors(1 << 16)
    assert counts is not None
    strange = [n for n, color in counts if np.abs(known - color).max(axis=1).min() > 12]
    return sum(strange) / sum(n for n, _ in counts)


def test_no_committed_gallery_shows_an_image_of_others(committed: tuple[Entry, ...]) -> None:
    for entry in committed:
        part = part_of_images(ROOT / "checkpoints" / entry.name / "gallery.png")
        # Letters, and marks that are blended into what they lie on, are few.
        assert part > 0.3 if entry.data.drawn else part < 0.06, (entry.name, part)
