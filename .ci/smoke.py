"""Does what is installed here work by itself? To be run by a clean venv, outside the repository.

    python smoke.py

Creates, loads and lists models and computes class maps with `pip install pylon-zoo` alone; then
asks for everything that needs an extra. What is missing must be named; what is there is told.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

#: A package of each extra, and a command that needs it; {x} is a folder with what they take.
EXTRAS = {
    "train": ("accelerate", "train phantom --set epochs=1 --output {x}/run"),
    "viz": ("matplotlib", "predict --phantom 1 --overlays --output {x}/viz"),
    "parquet": ("pyarrow", "predict --phantom 1 --parquet --no-overlays --output {x}/parquet"),
    "dicom": ("pydicom", "predict {x}/image.dcm --no-overlays --output {x}/dicom"),
    "export": ("onnx", "export pylon_dla46_c.phantom {x}/model.onnx"),
    "demo": ("gradio", "demo --no-browser"),
}


def pylon_zoo_command(arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``pylon-zoo`` as it is installed."""
    program = Path(sys.executable).with_name("pylon-zoo")
    return subprocess.run(
        [str(program), *arguments.split()], capture_output=True, text=True, check=False
    )


def check_alone() -> None:
    """Create, load, get_cam, list: nothing but the package and what it depends on."""
    import torch

    import pylon_zoo

    print("pylon_zoo", pylon_zoo.__version__, "from", pylon_zoo.__file__)
    names = pylon_zoo.list_models()
    assert "pylon_resnet50" in names
    model = pylon_zoo.create_model("pylon_resnet18", num_classes=3).eval()
    cam = pylon_zoo.get_cam(model, torch.randn(1, 1, 96, 130))
    assert cam.shape == (1, 3, 96, 130)
    checkpoints = pylon_zoo.list_models(pretrained=True)
    for name in checkpoints:
        loaded = pylon_zoo.load_pretrained(name)
        size = loaded.spec.preprocessing.input_size
        assert pylon_zoo.get_cam(loaded, torch.randn(1, *size)).isfinite().all()
    image = pylon_zoo.data.Phantom("test")[4].image
    loaded = pylon_zoo.load_pretrained("pylon_dla46_c.phantom")
    logits, _ = loaded(pylon_zoo.create_transform(loaded)(image)[None])
    print(f"{len(names)} models; {', '.join(checkpoints)} loaded; logits {logits[0].tolist()}")


def check_commands() -> None:
    """What the command line does without any extra."""
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            "--help", "list --pretrained", "info", "weights verify --all",
            f"predict --phantom 4 --output {folder}/predictions",
        ):  # fmt: skip
            done = pylon_zoo_command(command)
            assert done.returncode == 0, (command, done.stderr)
            print(f"$ pylon-zoo {command}: {len(done.stdout.splitlines())} lines")


def check_extras() -> None:
    """Each missing extra is named by the command that needs it, in one paragraph."""
    with tempfile.TemporaryDirectory() as folder:
        # The preamble by which a DICOM file is known.
        (Path(folder) / "image.dcm").write_bytes(bytes(128) + b"DICM")
        for extra, (package, command) in EXTRAS.items():
            if importlib.util.find_spec(package):
                print(f"extra {extra} is installed")
                continue
            done = pylon_zoo_command(command.format(x=folder))
            message = done.stderr.strip()
            assert done.returncode == 1, (command, done)
            assert f"pip install 'pylon-zoo[{extra}]'" in message, message
            assert "Traceback" not in message, message
            print(f"extra {extra} is missing: {message.splitlines()[-1]}")


if __name__ == "__main__":
    check_alone()
    check_commands()
    check_extras()
