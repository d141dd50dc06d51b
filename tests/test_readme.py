"""Every Python block of the README runs, in order, in one namespace."""

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    namespace: dict[str, object] = {}
    for block in blocks:
        if "my_images.csv" in block:
            continue  # the reader's own data; tests/training/test_finetune.py fine-tunes on a CSV
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "my_model" / "model.safetensors").exists()


def test_every_number_stands_in_the_committed_results() -> None:
    results = (README.parent / "benchmarks" / "results").glob("twins_*.md")
    printed = {line for path in results for line in path.read_text(encoding="utf-8").splitlines()}
    rows = [
        line
        for line in README.read_text(encoding="utf-8").splitlines()
        if re.search(r"\| .*\[", line)
    ]
    assert len(rows) >= 8
    assert set(rows) <= printed
