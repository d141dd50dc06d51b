import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.utils.model_ema import ModelEmaV3
from tiny_task import CONFIG

import pylon_zoo
from pylon_zoo.data import LocalizationDataset, Phantom, tasks
from pylon_zoo.data.seeds import generator_for
from pylon_zoo.errors import TrainingError
from pylon_zoo.preprocessing import Transform
from pylon_zoo.training import TrainingConfig, loop, train
from pylon_zoo.training.loop import clear_untrained, masked_bce


class TinyTask(tasks.PhantomTask):
    name = "tiny"

    def training(self) -> LocalizationDataset:
        return Phantom("train", size=64, length=8, seed=self.seed)

    def selection(self) -> LocalizationDataset:
        return Phantom("val", size=64, length=6)


TinyTask.preprocessing = tasks.Preprocessing.default(1, size=64)


@pytest.fixture(autouse=True)
def tiny_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(tasks.TASKS, "tiny", TinyTask)
    return


def test_bce_equals_torchs_and_leaves_unknown_labels_out() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3) * 4, torch.rand(5, 3).round()
    expected = F.binary_cross_entropy_with_logits(logits, labels)
    assert torch.allclose(masked_bce(logits, labels), expected)
    labels[2] = float("nan")
    keep = torch.tensor([0, 1, 3, 4])
    expected = F.binary_cross_entropy_with_logits(logits[keep], labels[keep])
    assert torch.allclose(masked_bce(logits, labels), expected)
    logits.requires_grad_()
    loss = masked_bce(logits, torch.full((5, 3), float("nan")))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_a_run_leaves_a_model_its_curve_and_its_record(tmp_path: Path) -> None:
    result = train(CONFIG, tmp_path, progress=False)
    model = pylon_zoo.load_pretrained(tmp_path)
    assert model.spec.class_names == Phantom.class_names
    assert not model.training
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    losses = [float(row["validation_loss"]) for row in rows]
    assert result.best_loss == min(losses)
    assert result.best_epoch == 1 + losses.index(min(losses))
    # What was saved is what was validated.
    task = TinyTask()
    transform = pylon_zoo.create_transform(model)
    samples = [transform(task.selection()[i]) for i in range(6)]
    with torch.no_grad():
        logits = model(torch.stack([s.image for s in samples])).logits
    loss = masked_bce(logits, torch.stack([s.labels for s in samples]))
    assert float(loss) == pytest.approx(result.best_loss, abs=1e-5)
    run = json.loads((tmp_path / "run.json").read_text())
    assert TrainingConfig(**run["config"]) == CONFIG
    assert (tmp_path / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_weights_with_any_number_of_workers(tmp_path: Path) -> None:
    files = []
    for name, settings in {"a": [], "b": ["workers=2"], "c": ["seed=1"]}.items():
        train(CONFIG.override(["epochs=1", *settings]), tmp_path / name, progress=False)
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


def plain_loop(config: TrainingConfig) -> tuple[dict[str, torch.Tensor], list[float]]:
    """What the first checkpoints were trained with, on torch alone: best weights, all losses."""
    torch.manual_seed(config.seed)
    task = TinyTask(seed=config.seed)
    items, judges = task.training(), task.selection()
    model = pylon_zoo.create_model(config.model, class_names=task.class_names)
    model = model.to(memory_format=torch.channels_last)
    average = ModelEmaV3(model, decay=config.ema_decay, use_warmup=True)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": spared, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": config.weight_decay},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
    batches, step, losses, best = len(items) // config.batch_size, 0, [], {}
    steps = config.epochs * batches
    for epoch in range(1, config.epochs + 1):
        model.train()
        order = torch.randperm(len(items), generator=generator_for(config.seed, epoch)).tolist()
        change = Transform(task.preprocessing, config.augmentation)
        total = 0.0
        for b in range(batches):
            samples = [
                change(items[epoch * len(items) + i], generator_for(config.seed, epoch, i))
                for i in order[b * config.batch_size : (b + 1) * config.batch_size]
            ]
            images = torch.stack([s.image for s in samples]).to(memory_format=torch.channels_last)
            part = math.pi * (step - 1) / (steps - 1)
            rate = 1.0 if step == 0 else 0.5 + 0.5 * math.cos(part)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate
            labels = torch.stack([s.labels for s in samples])
            # Torch's own mean differs in the last digit.
            loss = F.binary_cross_entropy_with_logits(model(images).logits, labels, reduction="sum")
            loss = loss / labels.numel()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            average.update(model, step=step)
            total += float(loss.detach())
            step += 1
        change = Transform(task.preprocessing)
        samples = [change(judges[i]) for i in range(len(judges))]
        images, labels = (
            torch.stack([getattr(s, name) for s in samples]) for name in ("image", "labels")
        )
        logits = []
        with torch.no_grad():
            for piece in images.split(config.batch_size):
                logits.append(average.module(piece.to(memory_format=torch.channels_last)).logits)
        scores = torch.cat(logits)
        total_loss = F.binary_cross_entropy_with_logits(scores, labels, reduction="sum")
        validation = float(total_loss / labels.numel())
        if validation < min([*losses[1::2], math.inf]):
            clear_untrained(model, average.module, optimizer)
            best = {k: v.clone() for k, v in average.module.state_dict().items()}
        losses += [total / batches, validation]
    return best, losses


def test_the_weights_are_bit_for_bit_those_of_a_plain_loop(tmp_path: Path) -> None:
    config = CONFIG.override(["weight_decay=0.05"])
    train(config, tmp_path, progress=False)
    expected, losses = plain_loop(config)
    weights = load_file(tmp_path / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r[k]) for r in rows for k in ("train_loss", "validation_loss")] == losses


def test_plateau_lowers_the_rate_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_validate", lambda *_: 1.0)
    config = CONFIG.override(["schedule=plateau", "learning_rate=2e-5", "epochs=40"])
    result = train(config, tmp_path, progress=False)
    assert result.best_epoch == 1
    with (tmp_path / "metrics.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    # The first epoch is the best; each further pair of epochs divides the rate by 5.
    assert rates == pytest.approx([2e-5] * 3 + [4e-6] * 2)


def test_a_loss_that_is_no_number_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> torch.Tensor:
        return torch.tensor(float("nan"), requires_grad=True)

    monkeypatch.setattr(loop, "masked_bce", broken)
    with pytest.raises(TrainingError, match=r"nan in epoch 1, step 0 .*learning rate"):
        train(CONFIG, tmp_path, progress=False)


def test_weights_without_gradient_are_cleared_and_change_nothing_at_that_size() -> None:
    torch.manual_seed(0)
    model = pylon_zoo.create_model("pylon_regnetx_002", num_classes=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images = torch.randn(4, 1, 256, 256)
    for _ in range(2):
        optimizer.zero_grad()
        masked_bce(model(images).logits, torch.rand(4, 3).round()).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        before = model(images[:1]).maps
        cleared = clear_untrained(model, model, optimizer)
        after = model(images[:1]).maps
    assert torch.equal(before, after)
    # At 256 px the 3 x 3 kernels at stride 256 see one cell, the 5 x 5 at stride 128 four.
    kernels = {
        name: model.attention.get_submodule(name).conv.weight  # type: ignore[operator]
        for name in ("down3", "up3", "down2", "up2", "down1")
    }
    assert [int((kernels[n] != 0).sum()) for n in ("down3", "up3")] == [1, 1]
    assert [int((kernels[n] != 0).sum()) for n in ("down2", "up2")] == [9, 9]
    assert (kernels["down1"] != 0).all()
    assert cleared >= 2 * 8 + 2 * 16
