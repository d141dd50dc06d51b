import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_task
import torch
from tiny_task import CONFIG

from pylon_zoo.data import tasks
from pylon_zoo.errors import CheckpointError, TrainingError, TrainingStopped
from pylon_zoo.training import TrainingResult, loop, train
from pylon_zoo.training.checkpoint import Checkpoints, get_random_states, set_random_states

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(tasks.TASKS, "tiny", tiny_task.TinyTask)
    return


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "tiny", tiny_task.TinyTask)
        return train(CONFIG, tmp_path_factory.mktemp("whole"), progress=False).folder


def stop_after(steps: int, folder: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> None:
    """Send SIGTERM within step ``steps`` of a run."""
    count, smooth = 0, loop.smooth

    def counting(*arguments: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == steps:
            os.kill(os.getpid(), 15)
        return smooth(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "smooth", counting)
        with pytest.raises(TrainingStopped, match=f"SIGTERM stopped the run after step {steps}"):
            train(CONFIG.override(settings), folder, progress=False)


def same_run(one: Path, other: Path) -> bool:
    """Equal weights, and equal numbers but for speed."""

    def content(folder: Path) -> tuple[bytes, list[list[str]]]:
        rows = (folder / "metrics.csv").read_text().split()
        return (folder / "model.safetensors").read_bytes(), [r.split(",")[:4] for r in rows]

    return content(one) == content(other)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_stopped_run_goes_on_to_the_same_weights(
    steps: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(steps, tmp_path, monkeypatch)
    assert not (tmp_path / "run.json").exists()
    # Numbers drawn elsewhere in the meantime must not matter.
    torch.rand(3)
    train(CONFIG, tmp_path, progress=False)
    assert same_run(tmp_path, whole)


def test_a_finished_run_is_not_trained_again_unless_asked(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")

    def forbidden(*_: Any) -> torch.Tensor:
        raise AssertionError("a step was trained")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "masked_bce", forbidden)
        result = train(CONFIG, folder, progress=False)
        before = json.loads((whole / "run.json").read_text())
        assert (result.best_epoch, result.best_loss) == (
            before["best_epoch"],
            before["best_validation_loss"],
        )
        with pytest.raises(AssertionError, match="a step was trained"):
            train(CONFIG, folder, progress=False, resume=False)


def test_another_configuration_is_refused_with_what_differs(whole: Path) -> None:
    other = CONFIG.override(["learning_rate=0.5", "options.num_up=2", "workers=1", "skip_bad=2"])
    with pytest.raises(CheckpointError) as raised:
        train(other, whole, progress=False)
    lines = str(raised.value).splitlines()
    assert lines[1:3] == ["  options: {} -> {'num_up': 2}", "  learning_rate: 0.001 -> 0.5"]
    assert "--fresh" in lines[3]


@pytest.mark.parametrize("damage", ["torn", "bits", "deleted", "header"])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(
    damage: str,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop_after(3, tmp_path, monkeypatch, "checkpoint_steps=1")
    header = max((tmp_path / "checkpoints").glob("*.json"))
    assert header.stem == "step_00000003"
    content = header.with_suffix(".pt").read_bytes()
    if damage == "torn":
        header.with_suffix(".pt").write_bytes(content[: len(content) // 2])
    elif damage == "bits":
        header.with_suffix(".pt").write_bytes(content[:-9] + b"\0" + content[-8:])
    elif damage == "deleted":
        header.with_suffix(".pt").unlink()
    else:
        header.write_text("{")
    train(CONFIG, tmp_path, progress=False)
    assert "The checkpoint of step 3 is torn or gone" in caplog.text
    assert same_run(tmp_path, whole)


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, CONFIG)
    for step in range(1, 6):
        checkpoints.save({"value": step}, step=step, best_step=min(step, 2))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"step_0000000{n}.{kind}" for n in (2, 4, 5) for kind in ("json", "pt")]
    assert checkpoints.load() == {"value": 5}
    header = json.loads((tmp_path / "step_00000005.json").read_text())
    assert header["config"] == CONFIG.to_dict()
    assert header["versions"]["torch"] == torch.__version__
    checkpoints.clear()
    assert checkpoints.load() is None


def test_what_it_holds_is_read_without_unpickling(whole: Path) -> None:
    state = torch.load(max((whole / "checkpoints").glob("*.pt")), weights_only=True)
    assert set(state) == {
        "average",
        "bad_images",
        "model",
        "optimizer",
        "random",
        "run",
        "schedule",
    }
    assert state["run"]["finished"]
    assert len(state["random"]) == 1


def test_random_states_come_back() -> None:
    def draw() -> list[float]:
        return [float(torch.rand(())), float(np.random.rand()), random.random()]

    states = get_random_states()
    first = draw()
    assert draw() != first
    set_random_states(states)
    assert draw() == first


def test_a_full_disk_leaves_the_earlier_checkpoint_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, CONFIG)
    checkpoints.save({"value": 1}, step=1, best_step=0)
    write = Path.write_bytes

    def full(path: Path, data: Any) -> int:
        write(path, data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(TrainingError, match=r"disk of .* is full: .* MB of .* MB are free on /"):
        checkpoints.save({"value": 2}, step=2, best_step=0)
    assert checkpoints.load() == {"value": 1}
    assert len(list(tmp_path.iterdir())) == 2


FULL_DISK = """
import sys, torch
from pathlib import Path
from tiny_task import CONFIG
from pylon_zoo.errors import TrainingError
from pylon_zoo.training.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]) / "checkpoints", CONFIG)
checkpoints.save({"value": torch.zeros(100_000)}, step=1, best_step=0)
try:
    checkpoints.save({"value": torch.zeros(1_000_000)}, step=2, best_step=0)
except TrainingError as error:
    print(error)
print(len(checkpoints.load()["value"]))
"""


def test_on_a_disk_that_is_really_full(tmp_path: Path) -> None:
    mount = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    inner = f'mount -t tmpfs -o size=3m tmpfs {tmp_path} && exec "$0" "$@"'
    try:
        possible = subprocess.run([*mount, inner, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare to mount a small disk with")
    if possible.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    done = subprocess.run(
        [*mount, inner, sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert f"are free on {tmp_path}" in done.stdout
    assert done.stdout.splitlines()[-1] == "100000"


def test_killed_runs_end_with_the_same_weights() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "kill_and_resume.py", "--kills", "2"],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("2 identical, 0 different")


def test_the_command_exits_with_its_own_code(tmp_path: Path) -> None:
    code = (
        "import os, runpy, sys\n"
        "from pylon_zoo.training import loop\n"
        "smooth = loop.smooth\n"
        "loop.smooth = lambda *a: (os.kill(os.getpid(), 2), smooth(*a))[1]\n"
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, ROOT / "tests" / "tiny_task.py", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 75, done.stderr
    assert [p.name for p in (tmp_path / "checkpoints").glob("*.json")] == ["step_00000001.json"]


def test_results_are_plain(whole: Path) -> None:
    result = train(CONFIG, whole, progress=False)
    assert isinstance(result, TrainingResult)
    assert result.bad_images == ()
