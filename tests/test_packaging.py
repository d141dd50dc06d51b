"""What a wheel and an sdist hold, and that the package works from a wheel and from the source."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import pylon_zoo
from pylon_zoo.weights.manifest import (
    BundledSource,
    RepositorySource,
    checkpoints_folder,
    load_manifest,
    manifest_path,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def bundled() -> dict[str, str]:
    """Weights files that come with the package, and the checkpoints they are of."""
    return {
        source.filename: entry.name
        for entry in load_manifest().checkpoints
        for source in entry.sources
        if isinstance(source, BundledSource)
    }


def test_bundled_weights_are_at_most_4_mib_each() -> None:
    sizes = {name: (checkpoints_folder() / name).stat().st_size for name in bundled()}
    assert sizes
    assert {name: size for name, size in sizes.items() if size > 4 * 2**20} == {}


def test_all_weights_together_are_at_most_60_mib() -> None:
    folders = (ROOT / "pylon_zoo" / "checkpoints", ROOT / "checkpoints")
    files = {path for folder in folders for path in folder.rglob("*.safetensors")}
    sources = [source for entry in load_manifest().checkpoints for source in entry.sources]
    known = {checkpoints_folder() / filename for filename in bundled()}
    known |= {ROOT / source.path for source in sources if isinstance(source, RepositorySource)}
    assert files <= known, "weights that no entry of the manifest names"
    assert sum(path.stat().st_size for path in files) <= 60 * 2**20


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
    for filename in bundled():
        assert f"pylon_zoo/checkpoints/{filename}" in names
    # Weights of the repository are in neither; the package says so when they are asked for.
    assert not [name for name in names if name.startswith("checkpoints/")]
    kinds = {Path(name).suffix for name in names if name.startswith("pylon_zoo/")}
    assert kinds == {".py", ".typed", ".json", ".safetensors"}
    # Of the package every tracked file, and the manifest; no stray one.
    inside = {name for name in names if name.startswith("pylon_zoo/")}
    assert inside == {*tracked("pylon_zoo"), "pylon_zoo/weights_manifest.json"}
    about = {name.split("/", 1)[1] for name in names if not name.startswith("pylon_zoo/")}
    assert about == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


#: Folders of the sdist; beside them it has single files.
FOLDERS = ("pylon_zoo", "examples", "tests", "docs", "benchmarks")
FILES = {
    "weights_manifest.json",
    "README.md",
    "LICENSE",
    "Makefile",
    "mkdocs.yml",
    "pyproject.toml",
    "PKG-INFO",
    ".gitignore",
}


def test_the_sdist_holds_what_builds_and_tests_it_and_no_data(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
    expected = {name for folder in FOLDERS for name in tracked(folder)}
    assert names == expected | FILES
    assert not [name for name in names if name.startswith("checkpoints/")]
    # What tests compare with is small text; images they draw themselves.
    kinds = {Path(name).suffix for name in names if name.startswith(("tests/", "examples/"))}
    assert kinds <= {".py", ".json", ".ipynb"}


def tracked(folder: str) -> set[str]:
    """Files that belong to a folder of the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


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
for name in {names}:
    model = pylon_zoo.load_pretrained(name)
    print(model.spec.name, model.spec.class_names)
print(manifest_path())
"""


def test_the_manifest_is_found_in_a_wheel_and_in_the_source(built: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "site"
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(unpacked)
    code = CODE.replace("{names}", repr(sorted(bundled().values())))
    from_wheel = run_from(unpacked, code, tmp_path).splitlines()
    assert Path(from_wheel[-1]) == unpacked / "pylon_zoo" / "weights_manifest.json"
    from_source = run_from(ROOT, code, tmp_path).splitlines()
    assert Path(from_source[-1]) == ROOT / "weights_manifest.json" == manifest_path()
    assert from_wheel[:-1] == from_source[:-1]
    assert len(from_source) - 1 == len(bundled()) >= 2


#: Of each extra, its packages and code that needs them.
MISSING = {
    "train": (
        ("accelerate", "matplotlib"),
        "from pylon_zoo.training import train; from pylon_zoo.recipes import load_recipe; "
        "train(load_recipe('phantom'), 'run')",
    ),
    "trackers": (
        ("tensorboard", "tensorboardX"),
        "from pylon_zoo.training import train; from pylon_zoo.recipes import load_recipe; "
        "train(load_recipe('phantom').override(['tracker=tensorboard']), 'run')",
    ),
    "parquet": (("pyarrow",), "from pylon_zoo import bulk; bulk.require_pyarrow()"),
    "viz": (
        ("matplotlib",),
        "from pylon_zoo.heatmaps.overlay import colorize; import numpy; "
        "colorize(numpy.zeros((4, 4), numpy.float32))",
    ),
    "dicom": (
        ("pydicom", "highdicom"),
        "from pathlib import Path; from pylon_zoo import dicom_output, read_image; "
        "Path('a.dcm').write_bytes(bytes(128) + b'DICM'); "
        "'pydicom' in blocked and read_image('a.dcm'); "
        "dicom_output.write_secondary_capture(None, 'a.dcm', 'b.dcm')",
    ),
    "export": (
        ("onnx", "onnxscript", "onnxruntime"),
        "import pylon_zoo; from pylon_zoo.export import export; "
        "export(pylon_zoo.create_model('cam_test_resnet'), 'a.onnx')",
    ),
    "demo": (("gradio",), "from pylon_zoo.demo.page import serve; serve([], ready=print)"),
}

PROBE = """
import json, sys
cases, blocked = json.loads(sys.argv[1])
for name in blocked:
    sys.modules[name] = None
from pylon_zoo.errors import MissingExtraError
messages = {}
for extra, code in cases.items():
    try:
        exec(code)
    except MissingExtraError as error:
        messages[extra] = str(error)
print(json.dumps(messages))
"""


def test_every_extra_of_the_package_is_tested_for() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    names = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    assert names - {"dev", "docs"} == set(MISSING)


@pytest.mark.parametrize(
    ("extras", "blocked"),
    [
        # Nothing but the package itself.
        (sorted(set(MISSING) - {"trackers"}), [p for case in MISSING.values() for p in case[0]]),
        # A part of an extra.
        (["train", "viz", "dicom", "export"], ["matplotlib", "highdicom", "onnxscript"]),
        (["trackers", "export"], ["tensorboard", "tensorboardX", "onnxruntime"]),
        (["train"], ["accelerate"]),
    ],
    ids=["all", "parts", "other parts", "accelerate"],
)  # fmt: skip
def test_a_missing_extra_is_named(extras: list[str], blocked: list[str], tmp_path: Path) -> None:
    cases = {e: MISSING[e][1] for e in extras}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([cases, blocked])],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    messages = json.loads(done.stdout)
    assert set(messages) == set(cases)
    for extra, message in messages.items():
        assert f"pip install 'pylon-zoo[{extra}]'" in message
        missing = set(MISSING[extra][0]) & set(blocked)
        assert any(repr(package) in message for package in missing), message
