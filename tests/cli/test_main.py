import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import fake_bccd
import numpy as np
import pytest
import torch
from PIL import Image

import pylon_zoo
from pylon_zoo.cli import main as cli
from pylon_zoo.data import BCCD, Phantom


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = pylon_zoo.create_model("pylon_regnetx_002", class_names=Phantom.class_names)
    return pylon_zoo.save_pretrained(model, tmp_path_factory.mktemp("phantom") / "model")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(a) for a in arguments])
    code = stopped.value.code
    return code if isinstance(code, int) else 0


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predict_a_phantom(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", "--phantom", 3, "-m", checkpoint, "-o", tmp_path, "--threshold", 0) == 0
    rows = rows_of(tmp_path)
    assert {row["class"] for row in rows} == set(Phantom.class_names)
    present = {
        name
        for name, label in zip(Phantom.class_names, Phantom("test")[3].labels, strict=True)
        if label
    }
    assert {row["class"] for row in rows if row["inside"]} == present
    probabilities = [float(row["probability"]) for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(list(tmp_path.glob("*.png"))) == len(rows)
    printed = capsys.readouterr()
    assert all(name in printed.out for name in Phantom.class_names)
    assert "Not for clinical use" in printed.err


def test_predict_a_folder_goes_on_after_a_bad_file(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(images / "color.png")
    Image.fromarray(pixels[..., 0]).save(images / "gray.jpg")
    (images / "broken.png").write_bytes((images / "color.png").read_bytes()[:500])
    assert run("predict", images, "-m", checkpoint, "-o", tmp_path / "out") == 1
    rows = rows_of(tmp_path / "out")
    assert {Path(row["image"]).name for row in rows} == {"color.png", "gray.jpg"}
    assert len(rows) == 2 * 6
    assert all(0 <= int(row["x"]) < 150 and 0 <= int(row["y"]) < 100 for row in rows)
    assert "broken.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "pylon_dla46_c.phantm"], "pylon_dla46_c.phantom"),
        (["train", "phantoms"], "Did you mean 'phantom'"),
        (["train", "phantom", "--set", "epoch=1"], "Did you mean 'epochs'"),
        (["evaluate", "x", "--data", "bccd"], "--root DIR"),
        (["predict", "none.png"], "none.png"),
    ],
)
def test_errors_are_one_paragraph(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "predict":
        arguments += ["-o", str(tmp_path)]
    assert run(*arguments) == 1
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err


def test_wrong_usage_exits_with_2(tmp_path: Path) -> None:
    assert run("predict", "-o", tmp_path) == 2
    assert run("predict", "a.png", "--phantom", 1) == 2
    assert run("nonsense") == 2


def test_list_and_info(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "pylon_resnet1*") == 0
    assert "pylon_resnet18" in capsys.readouterr().out.split()
    assert run("info", checkpoint, "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert info["label_names"] == list(Phantom.class_names)
    model = pylon_zoo.load_pretrained(checkpoint)
    assert info["parameters"] == sum(p.numel() for p in model.parameters())


def test_evaluate_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = pylon_zoo.create_model("cam_regnetx_002", in_chans=3, class_names=BCCD.class_names)
    folder = pylon_zoo.save_pretrained(model, tmp_path / "model")
    root = fake_bccd.write(tmp_path / "BCCD")
    arguments = ["evaluate", folder, "--data", "bccd", "--root", root, "--threshold-split", "train"]
    assert run(*arguments, "-o", tmp_path / "all", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["items"] == {"classification": 12, "localization": 2}
    assert report["localization"]["corners_false"]["per_class"]["RBC"]["support"] == 2
    assert report["command"] == (
        f"pylon-zoo evaluate {folder} --data bccd --split val --root DIR --threshold-split train"
    )
    assert report["thresholds"]["chosen_on"] == "train"
    assert report == json.loads((tmp_path / "all" / "report.json").read_text())
    table = (tmp_path / "all" / "report.md").read_text()
    for metric in ("average precision", "sensitivity at Youden's threshold", "IoU > 0.25"):
        assert f"| {metric} | RBC |" in table
    assert (tmp_path / "all" / "roc.png").exists()
    assert (tmp_path / "all" / "localization.png").exists()
    assert run(*arguments) == 0
    printed = capsys.readouterr().out
    assert f"{report['classification']['macro']['value']:.3f}" in printed


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys\n"
        "from pylon_zoo.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in ("predict", "evaluate", "train", "list", "info"):
        assert command in done.stdout
