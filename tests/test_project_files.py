"""What stands around the package: workflows, templates, citation, CONTRIBUTING."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_package import LAYERS

import pylon_zoo
from pylon_zoo.cli.weights import app

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "CONTRIBUTING.md").exists():
    pytest.skip("an sdist has only what builds and tests it", allow_module_level=True)


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_release_publishes_what_was_checked_and_holds_no_secret() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    assert "secrets." not in text
    release = load(".github/workflows/release.yml")
    jobs = release["jobs"]
    assert (jobs["check"]["needs"], jobs["publish"]["needs"]) == ("build", "check")
    # Only the job that publishes, and runs nothing of the project, may ask for an identity.
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert release["permissions"] == {"contents": "read"}
    assert all("run" not in step for step in jobs["publish"]["steps"])
    assert any(".ci/smoke.py" in str(step) for step in jobs["build"]["steps"])
    assert any("smoke.py" in step.get("run", "") for step in jobs["check"]["steps"])
    # YAML 1.1 reads the key `on` as True.
    assert release[True] == {"push": {"tags": ["v*"]}}


def test_ci_runs_what_one_runs_by_hand() -> None:
    job = load(".github/workflows/ci.yml")["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    oldest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert oldest is not None
    assert oldest.group(1) in job["strategy"]["matrix"]["python"]


@pytest.mark.parametrize("name", ["bug.yml", "addition.yml"])
def test_issue_forms(name: str) -> None:
    form = load(f".github/ISSUE_TEMPLATE/{name}")
    assert {"name", "description", "body"} <= set(form)
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in fields}) == len(fields)
    assert all(part["attributes"]["label"] for part in fields)


def test_hooks_are_those_of_make_check() -> None:
    repos = load(".pre-commit-config.yaml")["repos"]
    hooks = {hook["id"] for repo in repos for hook in repo["hooks"]}
    assert {"ruff-check", "ruff-format", "mypy", "check-yaml", "check-added-large-files"} <= hooks


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    citation = load("CITATION.cff")
    assert citation["version"] == pylon_zoo.__version__
    paper = citation["preferred-citation"]
    assert paper["doi"] == "10.1016/j.isci.2022.103933"
    assert [author["family-names"] for author in paper["authors"]] == [
        "Preechakul", "Sriswasdi", "Kijsirikul", "Chuangsuwanich",
    ]  # fmt: skip


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_tour_shows_the_layers_as_they_are() -> None:
    table = CONTRIBUTING.split("<!-- layers")[1].split("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[3:]]
    assert [set(re.findall(r"`(\w+)`", row)) for row in reversed(rows)] == LAYERS


def test_files_and_targets_that_are_named_exist() -> None:
    named = re.findall(r"`((?:pylon_zoo|tests|benchmarks|\.ci)/[\w/.]+)`", CONTRIBUTING)
    assert len(named) > 8
    missing = [name for name in named if "NAME" not in name and not (ROOT / name).exists()]
    assert not missing
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {
        w
        for line in re.findall(r"^make ([a-z ]+)", CONTRIBUTING, re.MULTILINE)
        for w in line.split()
    }
    assert {"fix", "check", "test", "bench"} <= used <= targets


def test_the_way_to_a_checkpoint_is_one_that_the_commands_know() -> None:
    section = CONTRIBUTING.split("## Add a checkpoint")[1].split("\n## ")[0]
    script = (ROOT / "benchmarks" / "checkpoints.py").read_text(encoding="utf-8")
    lines = re.findall(r"python benchmarks/checkpoints\.py ([^`\n]+)", section)
    assert {line.split()[0] for line in lines} == {"add", "cards"}
    for word in re.findall(r"(?<=\s)--\w[\w-]*", " ".join(lines)):
        assert f'"{word}"' in script
    known = {command.name for command in app.registered_commands}
    used = set(re.findall(r"pylon-zoo weights (\w+)", section))
    assert used == {"verify", "reproduce", "publish"}
    assert used <= {*known, *(c.callback.__name__ for c in app.registered_commands if c.callback)}
