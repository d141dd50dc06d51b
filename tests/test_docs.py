"""The site of docs/: made pages are what their scripts make, nothing is left out, no network."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pages import ROOT

import pylon_zoo
from pylon_zoo import data, errors, heatmaps, metrics, training, weights
from pylon_zoo.weights.manifest import BundledSource, HubSource, RepositorySource

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["zoo.md", "errors.md"])
def test_made_pages_are_what_the_script_makes(generate: ModuleType, name: str) -> None:
    assert set(generate.PAGES) == {"zoo.md", "errors.md"}
    made = generate.PAGES[name]()
    assert (DOCS / name).read_text(encoding="utf-8") == made, "run python docs/generate.py"


def test_the_zoo_lists_every_checkpoint_with_its_numbers(generate: ModuleType) -> None:
    page = (DOCS / "zoo.md").read_text(encoding="utf-8")
    header = next(line for line in page.splitlines() if line.startswith("| checkpoint")).split(
        " | "
    )
    for entry in weights.load_manifest().checkpoints:
        row = re.search(rf"^\| \[`{re.escape(entry.name)}`\].*$", page, re.MULTILINE)
        assert row is not None
        cells = dict(zip(header, row[0].split(" | "), strict=True))
        auroc = next(m for m in entry.metrics if m.name == "auroc_macro")
        assert cells["AUROC"].startswith(f"{auroc.value:.3f} [")
        place = next(m for m in entry.metrics if m.name == "point_localization_corners_false_macro")
        assert cells["point localization"].startswith(f"{place.value:.3f} [")
        assert cells["MB"] == f"{entry.bytes / 1e6:.1f}"
        assert cells["trained on |"] == f"{entry.data.name} |"
        assert row[0].startswith(f"| [`{entry.name}`](checkpoints/{entry.name}.md) |")
        assert page.count(f"| [`{entry.name}`]") == 1


def test_sources_in_a_word(generate: ModuleType) -> None:
    hub = HubSource(repo_id="org/x", revision="0" * 40, filename="model.safetensors")
    sources = (
        BundledSource(filename="a.safetensors"),
        RepositorySource(path="checkpoints/a/model.safetensors"),
        hub,
    )
    assert [generate.place(source) for source in sources] == [
        "the package",
        "the repository",
        "`hf-hub:org/x`",
    ]


def test_every_public_error_has_its_section(generate: ModuleType) -> None:
    assert {cls.__name__ for cls in generate.public_errors()} == set(errors.__all__) - {
        "unknown_name"
    }
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    for name in set(errors.__all__) - {"PylonZooError", "unknown_name"}:
        assert f"### {name}\n" in page


def test_the_reference_has_every_public_name() -> None:
    pages = "".join(p.read_text(encoding="utf-8") for p in (DOCS / "reference").glob("*.md"))
    described = {line.rpartition(".")[2] for line in re.findall(r"^::: (\S+)", pages, re.M)}
    # The errors have a page of their own.
    public = {*pylon_zoo.__all__} - {"__version__", "PylonZooError"}
    for package in (data, heatmaps, metrics, training, weights):
        public |= set(package.__all__)
    assert public <= described, sorted(public - described)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material is missing: pip install '.[docs]'")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is missing: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_builds_without_a_warning_and_needs_no_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 20
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r"<(?:link|script|img|iframe|source)\b[^>]*?(?:href|src)=\"?([^\" >]+)", html
        )
        outside = [url for url in loaded if re.match(r"(?:https?:)?//", url)]
        assert not outside, f"{page.name} loads {outside}"
        assert "```" not in html, f"{page.name} shows a fence"
        assert not re.search(r":(?:func|class|meth|mod|attr|data|exc):", html), page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet


def test_every_checkpoint_has_its_page_with_its_gallery(site: Path) -> None:
    overview = (site / "zoo.html").read_text(encoding="utf-8")
    for name in weights.load_manifest().names:
        page = (site / "checkpoints" / f"{name}.html").read_text(encoding="utf-8")
        assert re.search(rf'<img [^>]*src="?{re.escape(name)}\.png', page)
        assert (site / "checkpoints" / f"{name}.png").is_file()
        # In the table and in the navigation.
        assert len(re.findall(rf'href="?checkpoints/{re.escape(name)}\.html', overview)) >= 2


def test_pages_say_what_they_are_not_for(site: Path) -> None:
    assert "Not for clinical use" in (site / "index.html").read_text(encoding="utf-8")
    assert not list(site.rglob("*.py"))
    assert not list(site.rglob("*.in"))
