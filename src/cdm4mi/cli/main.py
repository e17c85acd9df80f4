"""The command line: one file a command; a user's mistake is one line on stderr and exit code 2."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any

import typer

from cdm4mi import __version__
from cdm4mi.cli.benchmark import benchmark
from cdm4mi.cli.calibrate import calibrate
from cdm4mi.cli.check import check
from cdm4mi.cli.demo import demo
from cdm4mi.cli.denoise import denoise
from cdm4mi.cli.distill import distill
from cdm4mi.cli.evaluate import evaluate
from cdm4mi.cli.export import export
from cdm4mi.cli.inspect import inspect
from cdm4mi.cli.lesion_test import lesion_test
from cdm4mi.cli.noise import noise
from cdm4mi.cli.options import with_options
from cdm4mi.cli.plan import plan
from cdm4mi.cli.prepare import prepare
from cdm4mi.cli.report import report
from cdm4mi.cli.steps import steps
from cdm4mi.cli.sweep import sweep
from cdm4mi.cli.terminal import Formatter, echo, printable
from cdm4mi.cli.train import train
from cdm4mi.cli.trust import trust
from cdm4mi.cli.view import view
from cdm4mi.errors import Terminated, UserError

UsageError: Any = typer.BadParameter.__base__
"""What typer raises for a wrong command line: click's class, or its own copy of it, by typer's version."""

READERS = ("pydicom", "tifffile", "PIL", "highdicom", "h5py")
"""Libraries whose logs of odd files, some with values of a header in them, are kept off the terminal."""

app = typer.Typer(
    name="cdm4mi",
    help="Conditional diffusion models for medical imaging: restore CT, MR and PET scans. Not for clinical use.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    denoise,
    train,
    prepare,
    plan,
    check,
    calibrate,
    distill,
    steps,
    evaluate,
    benchmark,
    report,
    sweep,
    inspect,
    export,
    view,
    trust,
    lesion_test,
    noise,
    demo,
):
    app.command()(command)


def _show_version(value: bool) -> None:
    if value:
        echo(f"cdm4mi {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Say more of what is done."),
) -> None:
    """Conditional diffusion models for medical imaging: restore CT, MR and PET scans. Not for clinical use."""
    if context.invoked_subcommand is None:
        echo(context.get_help())
        raise typer.Exit
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(message)s"))
    handler.addFilter(lambda record: record.name.split(".")[0] not in READERS)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it has a handler of its own
    logging.getLogger("cdm4mi").setLevel(logging.INFO if verbose else logging.WARNING)


def run() -> None:
    """Entry point of the ``cdm4mi`` command."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _fail(f"error: {with_options(str(error))}", error.code)
    except UsageError as error:
        message = error.format_message().replace("Value error, ", "")  # in which typer says that a choice is none
        _fail(f"error: {message} (--help shows what is possible)", error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _fail("stopped", 130)
    except Terminated:
        _fail("stopped (SIGTERM)", 143)
    except MemoryError:
        _fail("error: out of memory; try a smaller --batch, --tile or training.batch_size", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"error: {where}{error.strerror or error}", 2)
    sys.exit(code if isinstance(code, int) else 0)


def _terminate(*_: Any) -> None:
    raise Terminated


def _fail(line: str, code: int) -> None:
    print(printable(" ".join(line.split())), file=sys.stderr)
    sys.exit(code)
