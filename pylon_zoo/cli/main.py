"""The command line: ``pylon-zoo COMMAND``; exit codes are in ``pylon_zoo.cli.terminal``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from pylon_zoo import __version__
from pylon_zoo.cli import (
    benchmark,
    convert,
    data,
    demo,
    evaluate,
    export,
    info,
    predict,
    train,
    weights,
)
from pylon_zoo.cli import (
    list as listing,
)
from pylon_zoo.cli.terminal import (
    FAILED,
    FAULT,
    INTERRUPTED,
    STOPPED,
    USAGE,
    Command,
    LogHandler,
    Program,
    command_line,
    examples,
    note,
    report_error,
)
from pylon_zoo.errors import PylonZooError, TrainingStopped

__all__ = ["app", "main"]

app = typer.Typer(
    name="pylon-zoo",
    cls=Program,
    help="Where in a medical image does a classifier see what it says?\n\n"
    "Models that learn from image-level labels and return, beside each class's score, a map of "
    "where it comes from. Not for clinical use.",
    epilog=examples(
        "pylon-zoo predict --phantom 4     # look at a drawn radiograph",
        "pylon-zoo predict scans/          # your own images",
        "pylon-zoo finetune images.csv     # your own classes",
        "pylon-zoo predict --help          # every command has examples",
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _add(panel: str, command: Callable[..., Any], lines: tuple[str, ...], summary: str) -> None:
    app.command(
        command.__name__,
        cls=Command,
        epilog=examples(*lines),
        rich_help_panel=panel,
        short_help=summary,
    )(command)


_add("Explore", listing.list, listing.EXAMPLES, "Models, checkpoints, recipes, datasets.")
_add("Explore", info.info, info.EXAMPLES, "What a checkpoint, a model or an encoder is.")
_add("Use", predict.predict, predict.EXAMPLES, "Say what is in images, and where.")
_add("Use", evaluate.evaluate, evaluate.EXAMPLES, "Measure a checkpoint on a dataset.")
_add("Use", demo.demo, demo.EXAMPLES, "Try checkpoints in the browser.")
_add("Train", train.finetune, train.FINETUNE_EXAMPLES, "Teach a checkpoint your own classes.")
_add("Train", train.train, train.TRAIN_EXAMPLES, "Train a model by a recipe.")
_add("Train", benchmark.benchmark, benchmark.EXAMPLES, "Compare models over several seeds.")
app.add_typer(data.app, name="data", rich_help_panel="Data")
app.add_typer(weights.app, name="weights", rich_help_panel="Weights")
_add("Weights", export.export, export.EXAMPLES, "Write ONNX or torch.export.")
_add("Weights", convert.convert, convert.EXAMPLES, "Take over the PYLON authors' checkpoints.")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="With any command: show where an error came from.")
    ] = False,
) -> None:
    """Options before the command; :func:`main` takes ``--debug`` wherever it stands."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; errors are one paragraph, not a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    logger = logging.getLogger("pylon_zoo")
    if not any(isinstance(handler, LogHandler) for handler in logger.handlers):
        logger.addHandler(LogHandler())
        logger.setLevel(logging.INFO)
    try:
        code = app(arguments, prog_name="pylon-zoo", standalone_mode=False)
        if code == INTERRUPTED:
            note("Interrupted.")
        sys.exit(code)
    except TrainingStopped as stopped:
        note(str(stopped))
        sys.exit(STOPPED)
    except BrokenPipeError:
        # The reader of a pipe went away, e.g. `| head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(str(error))
            sys.exit(USAGE)
        if debug:
            raise
        message, code = _explain(error, arguments)
        report_error(message)
        sys.exit(code)


def _explain(error: Exception, arguments: list[str]) -> tuple[str, int]:
    """What happened and what to do, and the exit code."""
    if isinstance(error, PylonZooError):
        return str(error), FAILED
    # Of usage; the base class is typer's own or click's, as the version may be.
    describe = getattr(error, "format_message", None)
    if describe is not None:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "pylon-zoo"
        return f"{describe().strip().rstrip('.')}. See {command} --help.", USAGE
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        reason = str(error).partition("\n")[0]
        return (
            f"The memory is full. {reason} Take smaller images or batches (train: --set "
            f"batch_size=8, or --set accumulation=4 for the same result in pieces).",
            FAILED,
        )
    if isinstance(error, OSError) and error.strerror:
        file = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{file}. Check that path and its permissions.", FAILED
    return (
        f"{type(error).__name__}: {str(error).strip() or 'no message'} - this is a fault of "
        f"pylon_zoo. Run `{command_line([*arguments, '--debug'])}` to see where it came from, "
        f"and please report what it prints.",
        FAULT,
    )


if __name__ == "__main__":
    main()
