"""Options of the loop, on runs of a few steps."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task
import torch
from safetensors.torch import load_file
from tiny_task import CONFIG

import pylon_zoo
from pylon_zoo.data import LocalizationDataset, Phantom, Sample, open_task, tasks
from pylon_zoo.data.tasks import PhantomTask
from pylon_zoo.errors import ImageReadError, InvalidOptionError, MissingExtraError, TrainingError
from pylon_zoo.preprocessing import Transform
from pylon_zoo.training import TrainingConfig, loop, train
from pylon_zoo.training.batches import create_loaders
from pylon_zoo.training.heatmap_page import HeatmapPage
from pylon_zoo.training.record import hash_weights

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
#: One process and two, or one piece and two, compute the same but for rounding.
STILL = ["batch_norm=frozen", "optimizer=adam", "ema_decay=0", "clip_norm=1", "learning_rate=1e-4"]


class Broken:
    """Every fourth image cannot be read."""

    class_names = Phantom.class_names

    def __init__(self, dataset: LocalizationDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        if index % len(self) % 4 == 3:
            raise ImageReadError(f"scan-{index % len(self)}.png: the image is damaged.")
        return self.dataset[index]


class BrokenTask(tiny_task.TinyTask):
    name = "broken"

    def training(self) -> LocalizationDataset:
        return Broken(super().training())


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(tasks.TASKS, "tiny", tiny_task.TinyTask)
    monkeypatch.setitem(tasks.TASKS, "broken", BrokenTask)
    return


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(row[key]) for row in rows for key in ("train_loss", "validation_loss")]


def test_pieces_add_up_to_the_batch(tmp_path: Path) -> None:
    for pieces in (1, 2):
        config = CONFIG.override([*STILL, f"accumulation={pieces}"])
        train(config, tmp_path / str(pieces), progress=False)
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in "12")
    assert losses(tmp_path / "1") == pytest.approx(losses(tmp_path / "2"), abs=1e-5)
    assert all(torch.allclose(one[k], two[k], atol=1e-4) for k in one)
    with pytest.raises(InvalidOptionError, match="multiple of 3"):
        train(CONFIG.override(["accumulation=3"]), tmp_path / "3", progress=False)


def test_augmenting_on_the_device_trains_alike_and_the_same_with_workers(tmp_path: Path) -> None:
    runs = {
        "worker": ["augmentation=dihedral"],
        "device": ["augmentation=dihedral", "augment_on=device"],
        "apart": ["augmentation=dihedral", "augment_on=device", "workers=1"],
        "other": ["augmentation=none"],
    }
    weights = {}
    for name, settings in runs.items():
        train(CONFIG.override([*STILL, *settings]), tmp_path / name, progress=False)
        weights[name] = load_file(tmp_path / name / "model.safetensors")
    # Images have the input's size already: where they are augmented is a matter of rounding.
    assert losses(tmp_path / "worker") == pytest.approx(losses(tmp_path / "device"), abs=1e-4)
    assert losses(tmp_path / "worker") != pytest.approx(losses(tmp_path / "other"), abs=1e-3)
    assert all(torch.equal(weights["device"][k], weights["apart"][k]) for k in weights["device"])


def test_recomputing_changes_no_bit(tmp_path: Path) -> None:
    for recompute in ("false", "true"):
        config = CONFIG.override(["model=cam_test_resnet", "epochs=1", f"recompute={recompute}"])
        train(config, tmp_path / recompute, progress=False)
    plain, recomputed = (load_file(tmp_path / n / "model.safetensors") for n in ("false", "true"))
    assert all(torch.equal(plain[k], recomputed[k]) for k in plain)
    assert losses(tmp_path / "false") == losses(tmp_path / "true")
    with pytest.raises(InvalidOptionError, match="computes its features in one piece"):
        train(CONFIG.override(["recompute=true"]), tmp_path / "other", progress=False)


def test_two_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = []

    def noting(model: Any, names: str, batch_norm: str) -> None:
        frozen.append(names)
        set_train_mode(model, names, batch_norm)

    set_train_mode = loop.set_train_mode
    monkeypatch.setattr(loop, "set_train_mode", noting)
    settings = ["freeze=encoder", "frozen_epochs=1", "ema_decay=0", "batch_size=8"]
    train(CONFIG.override(settings), tmp_path, progress=False)
    assert frozen == ["encoder", ""]
    first, second = sorted((tmp_path / "checkpoints").glob("*.pt"))
    states = [torch.load(path, weights_only=True) for path in (first, second)]
    # Adam keeps no moments of what never had a gradient.
    counts = [len(state["optimizer"]["state"]) for state in states]
    assert 0 < counts[0] < counts[1]


def test_a_loss_that_is_no_number_tells_all_and_leaves_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, whole = 0, loop.masked_bce

    def breaking(*arguments: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        return whole(*arguments) * (float("inf") if count == 2 else 1)

    monkeypatch.setattr(loop, "masked_bce", breaking)
    with pytest.raises(TrainingError) as raised:
        train(CONFIG.override(["checkpoint_steps=1"]), tmp_path, progress=False)
    message = str(raised.value)
    assert "inf in epoch 1, step 1 (learning rate 0.001, gradient scaler None)" in message
    assert message.count("phantom-0-train-") == CONFIG.batch_size
    (path,) = (tmp_path / "checkpoints").glob("*.pt")
    state = torch.load(path, weights_only=True)
    assert state["run"]["step"] == 1
    assert all(v.isfinite().all() for v in state["model"].values())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_named(workers: int, tmp_path: Path) -> None:
    config = CONFIG.override(["data=broken", f"workers={workers}"])
    with pytest.raises(TrainingError, match=r"scan-\d.png: the image is damaged[^$]*--skip-bad N"):
        train(config, tmp_path, progress=False)


def test_bad_images_are_tolerated_and_listed(tmp_path: Path) -> None:
    result = train(CONFIG.override(["data=broken", "skip_bad=2"]), tmp_path, progress=False)
    expected = ("scan-3.png: the image is damaged.", "scan-7.png: the image is damaged.")
    assert result.bad_images == expected
    assert json.loads((tmp_path / "run.json").read_text())["bad_images"] == list(expected)
    with pytest.raises(TrainingError, match=r"skip_bad is 1"):
        train(CONFIG.override(["data=broken", "skip_bad=1"]), tmp_path / "b", progress=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in fp16")
def test_fp16_without_a_gpu_is_float32_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for precision in ("no", "fp16"):
        config = CONFIG.override(["epochs=1", f"precision={precision}"])
        train(config, tmp_path / precision, progress=False)
    assert "precision=fp16 needs a GPU; on the cpu it is float32." in caplog.text
    assert losses(tmp_path / "fp16") == losses(tmp_path / "no")


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"10 training items.*at most 10"):
        train(CONFIG.override(["batch_size=11"]), tmp_path, progress=False)


def test_weights_to_start_from(tmp_path: Path) -> None:
    settings = ["epochs=1", "batch_size=8"]
    train(CONFIG.override(settings), tmp_path / "a", progress=False)
    settings += [f"weights={tmp_path / 'a'}", "learning_rate=1e-9", "ema_decay=0"]
    train(CONFIG.override([*settings, "batch_norm=frozen"]), tmp_path / "b", progress=False)
    before, after = (load_file(tmp_path / n / "model.safetensors") for n in "ab")
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in before)
    with pytest.raises(InvalidOptionError, match="holds a pylon_test_efficientnet"):
        train(CONFIG.override([*settings, "model=cam_resnet18"]), tmp_path / "c", progress=False)


class RadiographTask(tasks.Task):
    """Whole phantoms with two findings, of which one is named as the phantoms'."""

    name = "radiographs"
    class_names = ("Hernia", "Mass")
    splits = ("val",)
    preprocessing = tasks.Preprocessing.default(1, size=64)

    def training(self) -> LocalizationDataset:
        return Relabelled(Phantom("train", size=64, length=10, seed=self.seed))

    def selection(self) -> LocalizationDataset:
        return Relabelled(Phantom("val", size=64, length=7))

    classification = localization = tasks.PhantomTask.localization


class Relabelled:
    class_names = RadiographTask.class_names

    def __init__(self, dataset: LocalizationDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        return Sample(sample.image, sample.labels[:2], source=f"radiograph {index}")


def test_images_of_another_task_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        PhantomTask, "images", lambda task: Phantom("train", size=64, seed=task.seed)
    )
    task = RadiographTask()
    config = replace(CONFIG, also="phantom", seed=3)
    loader, selection, order = create_loaders(config, task, task.preprocessing, 1)
    items = loader.dataset
    assert len(order) == 2 * len(task.training())
    assert len(selection.dataset) == len(task.selection())
    _image, labels, source, *_ = items[0, 2]
    assert (source, labels.tolist()) == (
        "radiograph 1",
        task.training()[1].labels.tolist(),
    )
    image, labels, *_ = items[0, 3]
    phantom = Phantom("train", size=64, seed=3)[1]
    assert labels[0].isnan()
    assert labels[1] == phantom.labels[Phantom.class_names.index("mass")]
    assert image.shape == (1, 64, 64)


def test_tiles_take_no_turns() -> None:
    task = open_task("phantom")
    config = replace(CONFIG, data="phantom", also="phantom")
    with pytest.raises(InvalidOptionError, match=r"phantom is trained on tiles.*also=phantom"):
        create_loaders(config, task, task.preprocessing, 1)


def test_side_and_number_of_tiles() -> None:
    assert open_task("phantom").training()[0].image.shape[-2:] == (160, 160)
    assert open_task("phantom", tile=96).training()[0].image.shape[-2:] == (96, 96)
    assert len(open_task("phantom").training()) == 4096
    assert len(open_task("phantom", tiles_per_epoch=32).training()) == 32
    with pytest.raises(InvalidOptionError, match=r"nih14 is trained on whole images.*, bccd"):
        open_task("nih14", "DIR", tile=96)


def test_a_tracker_reads_what_the_table_says(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    train(CONFIG.override(["tracker=tensorboard"]), tmp_path, progress=False)
    events = reader.EventAccumulator(str(tmp_path / "pylon_zoo")).Reload()
    with (tmp_path / "metrics.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 2
    assert set(events.Tags()["scalars"]) == set(rows[0]) - {"epoch"}
    for name in events.Tags()["scalars"]:
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        # Two steps an epoch.
        expected = [(2 * int(row["epoch"]), float(row[name])) for row in rows]
        assert logged == [(step, pytest.approx(value)) for step, value in expected]


def test_a_tracker_that_is_unknown_or_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidOptionError, match="tensorboard"):
        train(CONFIG.override(["tracker=pen"]), tmp_path, progress=False)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    with pytest.raises(MissingExtraError, match=r"pylon-zoo\[trackers\]"):
        train(CONFIG.override(["tracker=tensorboard"]), tmp_path, progress=False)
    with pytest.raises(MissingExtraError, match=r"Install it with: pip install wandb$"):
        train(CONFIG.override(["tracker=wandb"]), tmp_path, progress=False)


def start_two(folder: Path, settings: list[str]) -> subprocess.Popen[str]:
    # On the CPU, accelerate launch starts several processes through MPI only.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.Popen(
        [*launch, ROOT / "tests" / "tiny_task.py", str(folder), *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )


def train_by_two(folder: Path, settings: list[str]) -> None:
    with start_two(folder, settings) as two:
        output, _ = two.communicate()
    assert two.returncode == 0, output
    assert json.loads((folder / "run.json").read_text())["processes"] == 2


def test_two_processes_follow_one(tmp_path: Path) -> None:
    """Fifty steps, each an epoch; 7 validation items leave a tail that must count once."""
    settings = [*STILL, "batch_size=8", "epochs=50", "augmentation=none"]
    train(CONFIG.override(settings), tmp_path / "one", progress=False)
    train_by_two(tmp_path / "two", settings)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 2 * 50
    assert two == pytest.approx(one, abs=1e-4)
    # It learns, so that following is no matter of course.
    assert one[-2] < one[0] - 0.03
    # Before rounding adds up, both judge the very same seven images.
    assert two[:2] == pytest.approx(one[:2], abs=1e-6)


def test_two_processes_follow_one_through_two_phases(tmp_path: Path) -> None:
    settings = [*STILL, "epochs=4", "freeze=encoder", "frozen_epochs=2"]
    train(CONFIG.override(settings), tmp_path / "one", progress=False)
    train_by_two(tmp_path / "two", settings)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
def test_a_signal_to_one_of_two_processes_stops_both_at_one_step(tmp_path: Path) -> None:
    settings = [*STILL, "epochs=40"]
    with start_two(tmp_path / "stopped", settings) as two:
        metrics = tmp_path / "stopped" / "metrics.csv"
        while not metrics.exists() and two.poll() is None:
            time.sleep(0.05)
        children = Path(f"/proc/{two.pid}/task/{two.pid}/children").read_text().split()
        assert len(children) == 2
        os.kill(int(children[1]), signal.SIGTERM)
        output, _ = two.communicate()
    assert two.returncode != 0
    # Each says so, and by the same number of steps.
    (step,) = set(re.findall(r"stopped the run after step (\d+), which is saved", output))
    assert "SIGTERM stopped the run" in output
    assert "A signal to another process stopped the run" in output
    assert not (tmp_path / "stopped" / "run.json").exists()
    train_by_two(tmp_path / "stopped", settings)
    train(CONFIG.override(settings), tmp_path / "one", progress=False)
    assert losses(tmp_path / "stopped") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert int(step) < 80


def compile_by(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``model.compile()`` use another backend than Inductor, which takes a minute."""
    compile_in_place = torch.nn.Module.compile

    def compiled(module: torch.nn.Module, **_: Any) -> None:
        torch._dynamo.reset()
        compile_in_place(module, backend=backend, fullgraph=True)

    monkeypatch.setattr(torch.nn.Module, "compile", compiled)


def test_compiled_training_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a graph break, which ``fullgraph`` would raise; judged by the compiled network."""
    compile_by("aot_eager", monkeypatch)
    settings = ["ema_decay=0", "epochs=1"]
    train(CONFIG.override(settings), tmp_path / "eager", progress=False)
    config = CONFIG.override([*settings, "compile=true"])
    train(config, tmp_path / "compiled", progress=False)
    eager, compiled = losses(tmp_path / "eager"), losses(tmp_path / "compiled")
    assert compiled == pytest.approx(eager, abs=1e-4)
    # No name tells of the compiler, so that a checkpoint loads everywhere.
    state = torch.load(max((tmp_path / "compiled" / "checkpoints").glob("*.pt")), weights_only=True)
    plain = pylon_zoo.load_pretrained(tmp_path / "compiled").state_dict()
    assert list(state["model"]) == list(plain)


def test_a_compiled_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_by("eager", monkeypatch)
    config = CONFIG.override(["compile=true"])
    train(config, tmp_path / "whole", progress=False)
    folder = shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    max((folder / "checkpoints").glob("*.json")).unlink()
    train(config, folder, progress=False)
    assert losses(folder) == losses(tmp_path / "whole")
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "resumed")]
    assert weights[0] == weights[1]


@pytest.mark.full
def test_inductor(tmp_path: Path) -> None:
    train(CONFIG.override(["epochs=1"]), tmp_path / "eager", progress=False)
    config = CONFIG.override(["epochs=1", "compile=true"])
    train(config, tmp_path / "compiled", progress=False)
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), abs=1e-3)


def scale_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every Accelerator a gradient scaler, which fp16 has on a GPU only."""
    create = loop.create_accelerator

    def scaling(*arguments: Any) -> Any:
        accelerator = create(*arguments)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        return accelerator

    monkeypatch.setattr(loop, "create_accelerator", scaling)


def test_the_gradient_scaler_is_saved_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without fp16, Accelerate would clip what is still scaled.
    config = CONFIG.override(["clip_norm=0"])
    train(config, tmp_path / "plain", progress=False)
    scale_gradients(monkeypatch)
    folder = tmp_path / "scaled"
    train(config, folder, progress=False)
    # A power of two changes no gradient but those that it saves from vanishing.
    assert losses(folder) == pytest.approx(losses(tmp_path / "plain"), abs=1e-5)
    files = sorted((folder / "checkpoints").glob("*.pt"))
    scalers = [torch.load(path, weights_only=True)["scaler"] for path in files]
    # Two steps an epoch: the scale doubles after each.
    assert [scaler["scale"] for scaler in scalers] == [2048.0, 4096.0]

    files[1].with_suffix(".json").unlink()
    monkeypatch.setattr(loop, "masked_bce", lambda *_: torch.tensor(float("nan")))
    monkeypatch.setattr("accelerate.Accelerator.backward", lambda *_: None)
    with pytest.raises(TrainingError, match=r"gradient scaler \{'scale': 2048\.0,"):
        train(config, folder, progress=False)


def test_heatmaps_of_fixed_images_epoch_by_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(CONFIG.override(["epochs=2", "heatmaps=2"]), tmp_path / "a", progress=False)
    train(CONFIG.override(["epochs=2"]), tmp_path / "b", progress=False)
    weights = [(tmp_path / n / "model.safetensors").read_bytes() for n in "ab"]
    assert weights[0] == weights[1]
    assert (tmp_path / "a" / "heatmaps.png").read_bytes().startswith(b"\x89PNG")
    files = sorted((tmp_path / "a" / "heatmaps").glob("*.npz"))
    assert [path.name for path in files] == ["epoch_0001.npz", "epoch_0002.npz"]
    # The maps are those of the moving average at the end of the epoch.
    model = pylon_zoo.load_pretrained(tmp_path / "a")
    best = json.loads((tmp_path / "a" / "run.json").read_text())["best_epoch"]
    plain = pylon_zoo.create_transform(model)
    page = HeatmapPage(tmp_path / "a", Phantom("val", size=64, length=7), plain, 2)
    sample, k = page.samples[0], page.classes[0]
    image = plain(sample).image[None]
    expected = pylon_zoo.get_cam(model, image)[0, k].sigmoid().numpy()
    with np.load(files[best - 1]) as maps:
        assert set(maps) == {"0", "1"}
        assert np.allclose(maps["0"] / 255, expected, atol=1 / 255 + 1e-4)


def test_the_page_shows_every_class_in_turn(tmp_path: Path) -> None:
    items = Phantom("val", size=64, length=30)
    transform = Transform(tiny_task.TinyTask.preprocessing)
    page = HeatmapPage(tmp_path, items, transform, 8)
    assert page.classes == [0, 1, 2, 3, 4, 5, 0, 1]
    first = [next(i for i in range(30) if items[i].labels[k]) for k in range(6)]
    for sample, index in zip(page.samples, first, strict=False):
        assert sample.source == items[index].source
    second = next(i for i in range(first[0] + 1, 30) if items[i].labels[0])
    assert page.samples[6].source == items[second].source
    one = HeatmapPage(tmp_path, Phantom("val", size=64, length=1), transform, 8)
    assert len(one.samples) == int(items[0].labels.sum())


def test_the_record_tells_how_to_repeat_the_run(tmp_path: Path) -> None:
    train(CONFIG.override(["epochs=1"]), tmp_path, progress=False)
    run = json.loads((tmp_path / "run.json").read_text())
    assert TrainingConfig(**run["config"]) == CONFIG.override(["epochs=1"])
    assert run["versions"]["torch"] == torch.__version__
    assert run["steps"] == 2
    assert run["class_names"] == list(Phantom.class_names)
    assert (run["training_items"], run["selection_items"]) == (10, 7)
    torch.manual_seed(CONFIG.seed)
    model = pylon_zoo.create_model(CONFIG.model, class_names=Phantom.class_names)
    assert run["initial_weights_sha256"] == hash_weights(model)
    assert {"revision", "command", "device", "threads", "platform", "processes"} <= set(run)
