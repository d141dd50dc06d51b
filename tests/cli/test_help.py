"""Every command's help and its examples, completion, exit codes and stopping."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main

import pylon_zoo
from pylon_zoo.cli import main as cli
from pylon_zoo.cli import terminal
from pylon_zoo.cli.completion import DATASETS
from pylon_zoo.data import TASKS

PROGRAM: Any = typer.main.get_command(cli.app)


def commands(group: Any = PROGRAM, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every command and group by its words."""
    found = {words: group}
    for name, child in getattr(group, "commands", {}).items():
        found |= commands(child, (*words, name))
    return found


COMMANDS = commands()
SINGLE = [words for words, command in COMMANDS.items() if not hasattr(command, "commands")]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(a) for a in arguments])
    code = stopped.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for console in (terminal.out, terminal.err):
        monkeypatch.setattr(console, "_width", 80)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("words", list(COMMANDS), ids=" ".join)
def test_help_fits_80_columns_and_cuts_nothing(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, "--help") == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "…" not in printed
    flat = " ".join(printed.split())
    command = COMMANDS[words]
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert all(name in printed for name in parameter.opts)
        assert set((parameter.help or "").split()) <= set(printed.split())
    for name in getattr(command, "commands", {}):
        assert f"   {name} " in printed
    if not words:
        for code, meaning in terminal.EXIT_CODES.items():
            assert f"{code} {meaning}" in flat
    assert ("Examples" in printed) == (words in SINGLE or not words)
    # To be pasted as they are.
    lines = [line.strip() for line in printed.splitlines()]
    assert all(example.strip() in lines for example in (command.epilog or "").splitlines())


def example_lines(words: tuple[str, ...]) -> list[str]:
    lines: list[str] = COMMANDS[words].epilog.splitlines()
    assert max(map(len, lines)) <= 76
    return "\n".join(lines).replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("words", SINGLE, ids=" ".join)
def test_examples_parse(words: tuple[str, ...]) -> None:
    lines = example_lines(words)
    assert lines
    own = 0
    for line in lines:
        typed = shlex.split(re.sub(r">\s*\S+$", "", line))
        if typed[0] == "accelerate":
            assert typed[:4] == ["accelerate", "launch", "-m", "pylon_zoo.cli.main"]
            typed = typed[3:]
        assert typed[0] in ("pylon-zoo", "pylon_zoo.cli.main")
        named = max((w for w in SINGLE if tuple(typed[1 : 1 + len(w)]) == w), key=len)
        own += named == words
        # Raises where an option does not exist or a value does not fit.
        COMMANDS[named].make_context("pylon-zoo", typed[1 + len(named) :])
    assert own


def complete(line: str) -> set[str]:
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    environment = {
        **os.environ,
        "_PYLON_ZOO_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from pylon_zoo.cli.main import main; main()"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert not done.stderr
    return set(done.stdout.split())


def test_names_are_completed() -> None:
    assert complete("pylon-zoo ev") == {"evaluate"}
    assert complete("pylon-zoo weights ver") == {"verify"}
    assert complete("pylon-zoo train phan") == {
        "phantom",
        "phantom_cam",
        "phantom_small",
        "phantom_tiles",
        "phantom_tiles_fpn",
    }
    checkpoints = set(pylon_zoo.list_models("pylon_dla46_c*", pretrained=True))
    assert complete("pylon-zoo predict --model pylon_dla46_c.") == checkpoints
    assert complete("pylon-zoo evaluate pylon_dla46_c.p") == {
        "pylon_dla46_c.phantom",
        "pylon_dla46_c.phantom_tiles",
    }
    assert complete("pylon-zoo data check ima") == {"image_folder"}
    assert complete("pylon-zoo info resnet18") == set(pylon_zoo.list_encoders("resnet18*"))
    assert complete("pylon-zoo benchmark bccd --models x,pan_resnet10") == {
        f"x,{name}" for name in pylon_zoo.list_models("pan_resnet10*")
    }
    assert complete("pylon-zoo export m f --format o") == {"onnx"}


def test_completed_datasets_are_all_datasets() -> None:
    assert list(DATASETS) == list(TASKS)


def test_completion_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from pylon_zoo.cli import completion\n"
        "assert completion.complete_names('pylon_')\n"
        "assert completion.complete_recipes('')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    "arguments",
    ["list --recipes", "weights list", "weights info pylon_dla46_c.bccd", "info",
     "train phantom --show", "info resnet50", "info pan_swin_tiny_patch4_window7_224"],
)  # fmt: skip
def test_tables_fit_80_columns_and_cut_nothing(
    arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments.split()) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "…" not in printed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("list pylon_resnet18 --json", lambda: ["pylon_resnet18"]),
        ("list --encoders resnet18 --json", lambda: ["resnet18"]),
        ("list --pretrained --json", lambda: pylon_zoo.list_models(pretrained=True)),
        ("list --recipes bccd_cam --json",
         lambda: {"bccd_cam": "The CAM twin of bccd: same encoder, data, seed and budget"}),
    ],
)  # fmt: skip
def test_list_prints_json(
    arguments: str, expected: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments.split()) == 0
    assert json.loads(capsys.readouterr().out) == expected()


def test_datasets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--datasets", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(TASKS)
    assert run("list", "--datasets", "bccd") == 0
    assert TASKS["bccd"].url in capsys.readouterr().out
    assert run("list", "--datasets", "--recipes") == 2


def test_a_recipe_is_shown_with_its_changes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "phantom", "--set", "seed=7", "--show", "--json") == 0
    settings = json.loads(capsys.readouterr().out)
    assert (settings["model"], settings["seed"]) == ("pylon_regnetx_002", 7)


def test_info_of_models_and_encoders(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "swin_tiny_patch4_window7_224") == 0
    assert "224 x 224 px, others by img_size=" in capsys.readouterr().out
    assert run("info", "pan_hrnet_w18_small", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["encoder_multiple"], facts["weights"]) == (32, None)


def test_wrong_usage_is_one_paragraph_with_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", "--modle", "x") == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    assert "--model" in message
    assert message.endswith(". See pylon-zoo predict --help.")
    assert run("predict", "--phantom", 1, "--threshold", 2) == 2
    assert "--threshold" in capsys.readouterr().err


class Boom(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (Boom("it broke"), 70, "--debug"),
        (PermissionError(13, "Permission denied", "/a/file"), 1, "Permission denied: /a/file"),
        (MemoryError(), 1, "batch_size"),
    ],
)
def test_other_errors_are_one_paragraph_too(
    raised: Exception,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise raised

    monkeypatch.setattr("pylon_zoo.registry.list_models", fail)
    assert run("list", "a[b]c") == code
    message = capsys.readouterr().err.strip()
    assert message.startswith("Error: ")
    assert words in message
    assert "\n" not in message
    with pytest.raises(type(raised)):
        cli.main(["list", "--debug"])


def test_a_device_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("predict", "--phantom", 1, "--device", "cuda:99", "-o", tmp_path) == 1
    assert "Give --device cpu" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == pylon_zoo.__version__


def test_log_messages_reach_the_terminal_on_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("list", "nothing")
    capsys.readouterr()
    cli.logging.getLogger("pylon_zoo").info("going on")
    printed = capsys.readouterr()
    assert printed.err.strip() == "going on"
    assert not printed.out


def test_ctrl_c_says_one_line_and_exits_with_130(tmp_path: Path) -> None:
    fifo = tmp_path / "image.png"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "pylon_zoo.cli.main", "predict", fifo, "-o", tmp_path / "out"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Tests that a shell runs in the background inherit that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    # Opening the other end waits until the command reads the image, which never comes.
    with fifo.open("wb"):
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "Interrupted."
    assert not out
