"""Runs the code blocks of README.md and docs/, in the order in which a reader meets them.

A block is run unless its fence says otherwise:

* ``python``: in the namespace of its page. With ``{ data-test="raises NAME" }`` it must raise that
  error.
* ``sh``: commands of pylon-zoo, in this process. With ``data-test="parse"`` nothing is run: they
  need a Hub, a GPU, files or hours that a test has not; every command, option and value is checked.
  With ``data-test="exit N"`` they must exit with N.
* ``text`` right after a block: what that block prints; ``...`` stands for anything.
* any other language with ``title="FILE"``: the file that the reader writes.

A block of another kind is an error: none is passed over.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import fake_dicom
import fake_own
import numpy as np
import pytest
import typer
from PIL import Image

from pylon_zoo import errors
from pylon_zoo.cli.main import app, main
from pylon_zoo.data import Phantom
from pylon_zoo.data.tasks import PhantomTask
from pylon_zoo.recipes import load_recipe
from pylon_zoo.training import evaluation
from pylon_zoo.training.config import TrainingConfig

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^( *)```(\w*)([^\n`]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
OPTION = re.compile(r'([\w-]+)="([^"]*)"')
#: Programs of others, as the pages call them.
OTHERS = {"hf auth login"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: whose it is, and at which line.
        language: the first word of the fence.
        options: of the fence, by name.
        text: what it holds.
    """

    page: str
    language: str
    options: dict[str, str]
    text: str


def pages() -> list[Path]:
    """README.md and everything in docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> Iterator[Block]:
    """Blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(FENCE.findall(text)), f"{page}: a fence is not understood"
    for match in FENCE.finditer(text):
        indent, language, options, body = match.groups()
        where = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
        body = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        assert not OPTION.sub("", options).strip(" {}"), f'{where}: options are NAME="value"'
        yield Block(where, language, dict(OPTION.findall(options)), body)


def run_page(page: Path) -> None:
    """Run all blocks of a page in the current folder, one after another."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed: str | None = None
    for block in blocks_of(page):
        test = block.options.get("data-test", "")
        if block.language == "text":
            assert printed is not None, f"{block.page}: no block before this prints anything"
            check_printed(block, printed)
        elif block.language == "python":
            printed = run_python(block, namespace, test)
        elif block.language == "sh":
            printed = run_shell(block, test)
        else:
            assert "title" in block.options, f"{block.page}: nothing to do with {block.language!r}"
            file = Path(block.options["title"])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
            printed = None


def check_printed(block: Block, printed: str) -> None:
    """What the page shows is what was printed; trailing spaces do not count."""
    shown, got = (
        "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")
        for text in (block.text, printed)
    )
    pattern = re.escape(shown).replace(re.escape("..."), ".*")
    assert re.fullmatch(pattern, got, re.DOTALL), f"{block.page}: printed was\n{got}"


def run_python(block: Block, namespace: dict[str, Any], test: str) -> str:
    """Run a block; what it printed."""
    # Line numbers are the page's, so that a traceback leads there.
    line = int(block.page.rpartition(":")[2])
    code = compile("\n" * line + block.text, block.page, "exec")
    out = io.StringIO()
    kind, _, name = test.partition(" ")
    assert kind in ("", "raises"), f"{block.page}: test={test!r}"
    expected = pytest.raises(getattr(errors, name)) if kind else contextlib.nullcontext()
    with contextlib.redirect_stdout(out), expected as caught:
        exec(code, namespace)
    return str(caught.value) if caught is not None else out.getvalue()


def run_shell(block: Block, test: str) -> str | None:
    """Run or check the commands of a block; what they printed, if they were run."""
    lines = list(commands(block.text))
    assert lines, f"{block.page}: no command"
    if test == "parse":
        for line in lines:
            check_command(line, block.page)
        return None
    kind, _, code = test.partition(" ")
    assert kind in ("", "exit"), f"{block.page}: test={test!r}"
    return "".join(run_command(line, block.page, int(code or 0)) for line in lines)


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command, without variables set for it."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words = words[1:]
        if words:
            yield words


def run_command(words: list[str], where: str, expected: int) -> str:
    """Run a command of pylon-zoo; what it printed to the standard output."""
    assert words[0] == "pylon-zoo", f'{where}: {words[0]} is only parsed; say data-test="parse"'
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words[1:])
        except SystemExit as end:
            code = end.code or 0
    said = f"{out.getvalue()}{err.getvalue()}"
    assert code == expected, f"{where}: {shlex.join(words)} exits with {code}\n{said}"
    return out.getvalue()


def check_command(words: list[str], where: str) -> None:
    """Whether a command could be run: it, its options and their values are known."""
    program, *arguments = words
    if program == "pylon-zoo":
        check_pylon_zoo(arguments, where)
    elif program in ("accelerate", "torchrun"):
        script, rest = parse_launcher(program, arguments)
        assert script == "pylon_zoo.cli.main", f"{where}: {script}"
        check_pylon_zoo(rest, where)
    elif program == "python":
        source = (ROOT / arguments[0]).read_text(encoding="utf-8")
        for word in arguments[1:]:
            assert not word.startswith("-") or f'"{word}"' in source, f"{where}: no option {word}"
    elif program == "make":
        targets = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets), where
    elif program == "pip":
        check_pip(arguments, where)
    else:
        assert shlex.join(words) in OTHERS, f"{where}: unknown command {shlex.join(words)}"


def check_pylon_zoo(arguments: list[str], where: str) -> None:
    """Parse a command line as the program does, down to types and values, and do nothing."""
    command: Any = typer.main.get_command(app)
    context, name = None, "pylon-zoo"
    arguments = [word for word in arguments if word != "--debug"]
    while True:
        context = command.make_context(name, list(arguments), parent=context)
        if not hasattr(command, "commands"):
            break
        left = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, left)
    settings = context.params.get("settings") or []
    if "recipe" in context.params:
        load_recipe(context.params["recipe"]).override(settings)
    elif settings:
        TrainingConfig(model="", data="").override(settings)


def parse_launcher(program: str, arguments: list[str]) -> tuple[str, list[str]]:
    """The module that a launcher starts, and its arguments."""
    if program == "torchrun":
        from torch.distributed.run import get_args_parser as make_parser
    else:
        from accelerate.commands.launch import launch_command_parser as make_parser

        assert arguments.pop(0) == "launch"
    parsed = make_parser().parse_args(arguments)
    assert parsed.module
    return parsed.training_script, parsed.training_script_args


def check_pip(arguments: list[str], where: str) -> None:
    """The project's name and extras are right."""
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    known = set(re.findall(r"^(\w+) = ", section.partition("\n[")[0], re.MULTILINE))
    assert arguments[0] == "install", where
    for word in arguments[1:]:
        match = re.fullmatch(r"([\w-]+)(?:\[([\w,]+)\])?", word)
        assert match is not None, f"{where}: {word}"
        extras = set(filter(None, (match[2] or "").split(",")))
        assert match[1] == "pylon-zoo", f"{where}: {word}"
        assert extras <= known, f"{where}: {word}"


def write_reader_files(folder: Path) -> None:
    """The files that the pages suppose their reader has: drawn, and as small as can be."""
    for index in (4, 5):
        pixels = Phantom("test")[index].image[0].numpy()
        for name in ("chest.png", "scans/a.png") if index == 4 else ("scans/b.png",):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name)
    table = fake_own.csv_table(folder / "my_data")
    for name in ("labels.csv", "boxes.csv"):
        shutil.copy(table / name, folder / name.replace("labels", "my_images"))
    shutil.copytree(table / "images", folder / "images")
    fake_own.coco(folder / "my_coco")
    fake_own.image_folder(folder / "my_folder", images=12)
    pixels = Phantom("test")[4].image[0].numpy()
    for name in ("chest.dcm", "study/series1/1.dcm", "study/series1/2.dcm"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        fake_dicom.write(folder / name, pixels.astype(np.uint8), **fake_dicom_study())


def fake_dicom_study() -> dict[str, Any]:
    """Identifiers of an invented study."""
    from pydicom.uid import generate_uid

    return {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}


@contextlib.contextmanager
def small_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Training and evaluation do what they always do, on less."""
    finetune = sys.modules["pylon_zoo.training.finetune"]
    default_config = finetune.default_config  # type: ignore[attr-defined]

    def small_config(*arguments: Any) -> TrainingConfig:
        config: TrainingConfig = default_config(*arguments)
        return config.override(["epochs=1", "image_size=64", "precision=no"])

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "default_config", small_config)
        patch.setattr(evaluation, "REPLICATES", 20)
        patch.setattr(PhantomTask, "classification", lambda self, split: Phantom(split, length=12))
        patch.setattr("pylon_zoo.preprocessing._warned_of_dark", False)
        # Clients wait between their attempts; there is nothing to wait for.
        patch.setattr("time.sleep", lambda seconds: None)
        with mock.patch.dict(os.environ, {"COLUMNS": "80", "NO_PROXY": "127.0.0.1,localhost"}):
            yield
