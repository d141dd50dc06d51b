"""What all commands share: consoles, tables, JSON, exit codes, and help with examples."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "FAULT",
    "INTERRUPTED",
    "STOPPED",
    "USAGE",
    "AsJson",
    "Command",
    "Group",
    "LogHandler",
    "examples",
    "make_table",
    "note",
    "out",
    "print_json",
    "report_error",
]

#: An error that its message explains, or something amiss in what was asked about.
FAILED = 1
USAGE = 2
#: EX_SOFTWARE and EX_TEMPFAIL of sysexits.h, and the shell's 128 + SIGINT.
FAULT, STOPPED, INTERRUPTED = 70, 75, 130

EXIT_CODES = {
    0: "done",
    FAILED: "an error, which the message explains; or the command found something amiss "
    "(skipped images, damaged files, a metric outside its interval)",
    USAGE: "wrong usage",
    FAULT: "a fault of pylon_zoo itself; please report it",
    STOPPED: "SIGTERM or Ctrl-C stopped a training run, whose state is saved; the same command "
    "goes on with it",
    INTERRUPTED: "interrupted by Ctrl-C",
}

out = Console(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


def note(text: str, style: str = "") -> None:
    """Tell the person at the terminal; standard output is for results."""
    err.print(text, markup=False, soft_wrap=True, style=style)


def report_error(text: str) -> None:
    """Print one paragraph on standard error."""
    err.print(f"[bold red]Error:[/bold red] {escape(text)}", soft_wrap=True)


def print_json(data: Any) -> None:
    """Print JSON, indented."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def make_table(*headers: str, right: Iterable[str] = (), title: str | None = None) -> Table:
    """A table whose cells go on in the next line where the terminal is narrow: nothing is cut.

    Args:
        headers: of the columns.
        right: those of numbers.
        title: above the table.
    """
    columns = [
        Column(header, overflow="fold", justify="right" if header in right else "left")
        for header in headers
    ]
    return Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


class LogHandler(logging.Handler):
    """Brings the library's log messages to the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message; from warnings on in yellow."""
        note(self.format(record), "yellow" if record.levelno >= logging.WARNING else "dim")


def examples(*commands: str) -> str:
    """Examples as the end of a command's help; lines of code, none wider than 76 columns."""
    return "\n".join(commands)


class _Help:
    """Help of a command or group: usage, description, parameters, commands, examples."""

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            # That a flag is a bool tells nobody anything.
            if getattr(parameter, "is_flag", False) and parameter.metavar is None:
                parameter.metavar = ""
        return parameters

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; nothing of it is cut where the terminal is narrow."""
        with out.capture() as capture:
            self._print_help(ctx)
        formatter.write(capture.get())

    def _print_help(self, ctx: Any) -> None:
        command: Any = self
        out.print(f"\n {escape(ctx.get_usage())}\n")
        for paragraph in (command.help or "").split("\n\n"):
            out.print(Padding(escape(" ".join(paragraph.split())), (0, 1, 1, 1), expand=False))
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in command.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections[kind].append((" ".join(record[0].split()), record[1]))
        if isinstance(command, TyperGroup):
            options = sections.pop("Options")
            for name in command.list_commands(ctx):
                child: Any = command.commands[name]
                section = sections.setdefault(child.rich_help_panel or "Commands", [])
                section.append((name, child.get_short_help_str(limit=100)))
            sections["Options"] = options
        for title, rows in sections.items():
            _print_section(
                title, [(f"[cyan]{escape(left)}", escape(right)) for left, right in rows]
            )
        # escape() would double the backslash at the end of a line.
        _print_section("Examples", [(Text(line),) for line in (command.epilog or "").splitlines()])


def _print_section(title: str, rows: Sequence[tuple[str | Text, ...]]) -> None:
    if not rows:
        return
    out.print(f" [bold]{title}")
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in rows[0][1:]:
        grid.add_column(max_width=27, overflow="fold")
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*row)
    out.print(Padding(grid, (0, 1, 1, 3), expand=False))


class Command(_Help, TyperCommand):
    """A command with examples."""


class Group(_Help, TyperGroup):
    """A group of commands with examples."""


class Program(Group):
    """All commands, by panels; its help ends with the exit codes."""

    PANELS = ("Explore", "Use", "Train", "Data", "Weights")

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the panels."""
        commands: Any = self.commands
        places = {panel: place for place, panel in enumerate(self.PANELS)}
        return sorted(
            commands, key=lambda name: places.get(commands[name].rich_help_panel, len(places))
        )

    def _print_help(self, ctx: Any) -> None:
        super()._print_help(ctx)
        _print_section("Exit codes", [(f"{code:>3}", text) for code, text in EXIT_CODES.items()])


def command_line(arguments: Sequence[str]) -> str:
    """A command as it is typed."""
    return shlex.join(["pylon-zoo", *arguments])
