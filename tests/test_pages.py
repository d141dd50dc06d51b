"""README.md and docs/: every code block runs, and every number stands in the committed results."""

import re
import shutil
from pathlib import Path

import pytest
from pages import ROOT, pages, run_page, small_work, write_reader_files

#: Runs in tests/weights/test_publish_page.py, which has a Hub.
ELSEWHERE = {"docs/how-to/publish.md"}
PAGES = [p for p in pages() if str(p.relative_to(ROOT)) not in ELSEWHERE]


@pytest.fixture(scope="module")
def reader_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    write_reader_files(folder)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_code_blocks_run(
    page: Path, reader_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(reader_files, tmp_path / "here")
    monkeypatch.chdir(folder)
    with small_work(monkeypatch):
        run_page(page)


def test_every_number_stands_in_the_committed_results() -> None:
    results = (ROOT / "benchmarks" / "results").glob("twins_*.md")
    printed = {line for path in results for line in path.read_text(encoding="utf-8").splitlines()}
    zoo = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    printed |= set(zoo.replace("](checkpoints/", "](docs/checkpoints/").splitlines())
    rows = [
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if re.search(r"\| .*\[", line)
    ]
    assert len(rows) >= 14
    assert set(rows) <= printed


def test_speeds_and_scores_of_the_readme_stand_in_the_committed_results() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    results = ROOT / "benchmarks" / "results"
    ratios = re.findall(r"[\d.]+ x faster|[\d.]+ x the time", text)
    assert len(ratios) == 3
    speed = (results / "speed_cpu.md").read_text(encoding="utf-8")
    for ratio in ratios:
        assert f"| {ratio.replace('the time', 'its time')} |" in speed
    (scores,) = re.findall(r"macro AUROC ([\d.]+) against ([\d.]+)\)", text)
    table = (results / "finetune.md").read_text(encoding="utf-8").splitlines()
    (row,) = (line for line in table if line.startswith("| new_smears | AUROC | macro |"))
    assert [cell.split()[0] for cell in row.split("|")[4:6]] == list(scores)
