"""What a wheel and an sdist hold, and that the package works from a wheel and from the source."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pylon_zoo
from pylon_zoo.weights.manifest import load_manifest, manifest_path

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {name.split("/")[0] for name in names} == {
        "pylon_zoo",
        f"pylon_zoo-{pylon_zoo.__version__}.dist-info",
    }
    for needed in (
        "py.typed",
        "weights_manifest.json",
        "architectures/encoders.json",
        "weights/manifest.schema.json",
    ):
        assert f"pylon_zoo/{needed}" in names
    for entry in load_manifest().checkpoints:
        assert f"pylon_zoo/checkpoints/{entry.name}.safetensors" in names
    kinds = {Path(name).suffix for name in names if name.startswith("pylon_zoo/")}
    assert kinds == {".py", ".typed", ".json", ".safetensors"}


def test_the_sdist_holds_what_builds_and_tests_it(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        tops = {name.split("/")[1] for name in sdist.getnames() if "/" in name}
    assert {"pylon_zoo", "tests", "examples", "weights_manifest.json", "LICENSE"} <= tops
    assert not {".venv", "runs", ".git", "demo_output"} & tops


def run_from(folder: Path, code: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CODE = """
import pylon_zoo
from pylon_zoo.weights.manifest import manifest_path
for name in pylon_zoo.list_models(pretrained=True):
    model = pylon_zoo.load_pretrained(name)
    print(model.spec.name, model.spec.class_names)
print(manifest_path())
"""


def test_the_manifest_is_found_in_a_wheel_and_in_the_source(built: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "site"
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(unpacked)
    from_wheel = run_from(unpacked, CODE, tmp_path).splitlines()
    assert Path(from_wheel[-1]) == unpacked / "pylon_zoo" / "weights_manifest.json"
    from_source = run_from(ROOT, CODE, tmp_path).splitlines()
    assert Path(from_source[-1]) == ROOT / "weights_manifest.json" == manifest_path()
    assert from_wheel[:-1] == from_source[:-1]
    assert len(from_source) - 1 == len(load_manifest().checkpoints) >= 2
