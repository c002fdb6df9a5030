"""The command line: typer reads the arguments, a command returns the job they ask for, and `run` does it.

The jobs are functions of the other modules in `cli/`, which are imported when a job is done, so that `--help` needs
neither torch nor NumPy. A command that fails says why in one line on stderr.
"""

import codecs
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn, TypeAlias

import typer
from typer.core import TyperGroup

from onecycle import __version__
from onecycle.cli.options import (
    BadValueError,
    Device,
    Force,
    Json,
    Plot,
    Run,
    Table,
    check_alone,
    option,
    takes_settings,
)
from onecycle.cli.settings import TrainSettings, default_run_folder
from onecycle.cli.terminal import print_lines
from onecycle.core.streams import printable_output, reserve_descriptors
from onecycle.errors import OneCycleError, SettingError, did_you_mean

Job: TypeAlias = Callable[[], int]  # returns the exit code
UsageError: Any = typer.BadParameter.__mro__[1]  # its module depends on typer's version
FAILED, BAD_REQUEST, INTERRUPTED, CLOSED_PIPE, TERMINATED = 1, 2, 130, 141, 143  # exit codes


class _Commands(TyperGroup):
    """The commands, with our own error for an unknown one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that `args` begins with. Raise SettingError if there is none."""
        if args[0] not in self.commands and not ctx.resilient_parsing:  # which completion asks for
            hint = did_you_mean(args[0], self.commands) or f"; expected one of {', '.join(self.commands)}"
            raise SettingError(f'unknown command "{args[0]}"{hint}')
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Commands, rich_markup_mode=None, pretty_exceptions_enable=False)


def _job(module: str, function: str, *args: Any) -> Job:
    """Return the job of a function in `cli/`, whose module is imported when the job is done."""
    return lambda: getattr(import_module(f"onecycle.cli.{module}"), function)(*args)


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> Job | None:
    """Find the learning rate, run one cycle, look at the plots."""
    if version:
        print(f"onecycle {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
    return None


@app.command()
@takes_settings(source_required=False)
def train(
    context: typer.Context,
    settings: TrainSettings | None,
    out: Annotated[Path | None, option("FOLDER", "Where to write; by default runs/SOURCE.")] = None,
    force: Force = False,
    checkpoint_every: Annotated[
        str | None, option("WHEN", 'Write checkpoints: every "1 epoch", "30 s", or number of batches.')
    ] = None,
    resume: Annotated[Path | None, option("RUN", "Resume the training whose checkpoints are in this folder.")] = None,
    as_json: Json = False,
) -> Job:
    """Find a learning rate and train one cycle.

    SOURCE is mnist; a table, such as a csv, csv.gz, parquet or arrow file, of which --target is predicted; arrays (npy,
    npz, IDX, a NumPy pickle); or a folder with a sub-folder of images for each class. The error for any other file
    lists all suffixes.

    Writes model, record, plots and report to a folder. What is read, the plan and the progress go to stderr; stdout
    gets the names of the files, one a line. Ctrl-C ends the training: what was trained so far is written, marked as
    stopped, and the exit code is 130.

    With --checkpoint-every nothing is lost when the training is stopped or killed: `onecycle train --resume RUN`
    resumes it, and it ends as if it had never been stopped.
    """
    if resume is not None:
        check_alone(context, "resume")
        return _job("train", "resume", resume, context.params["device"], as_json)
    if settings is None:
        raise SettingError("SOURCE is missing, which says what is trained on: mnist, or the path of a file or folder")
    out = out or default_run_folder(settings.source)
    return _job("train", "train", settings, out, force, as_json, checkpoint_every)


@app.command()
@takes_settings(without=("epochs", "lr"))
def lr_find(settings: TrainSettings, out: Plot = None, as_json: Json = False) -> Job:
    """Suggest a learning rate.

    Takes what `train` takes. stdout gets the number; stderr gets all suggestions by name, and which of them it is.
    """
    return _job("train", "find_lr", settings, out, as_json)


@app.command()
def predict(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="The folder that `train` or `learn.export` wrote.", show_default=False),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rows, as in training.", show_default=False)],
    out: Table = None,
    force: Force = False,
    device: Device = None,
    as_json: Json = False,
    escape_formulas: Annotated[
        bool,
        typer.Option("--escape-formulas", help="Write an apostrophe before CSV cells that a spreadsheet would run."),
    ] = False,
) -> Job:
    """Predict each row of a file.

    stdout gets a line for each row: class and probability, a tab between them; a value; or labels, commas between them.
    With -o a table is written: the columns of FILE, `prediction`, and `probability_CLASS` for each class or label. The
    cells of FILE stay as they are: of CSV as they are written, of Parquet and Arrow with their types.

    For a model of a table, FILE is a table with its columns, in any order and among others, or npy or npz.

    For a model of images, npy and npz hold one row or many, flat (784 numbers) or as images (28 x 28). Whole numbers
    are pixels from 0 to 255 and are scaled as in training; floats are taken as they are. In an npz with several arrays,
    the rows are called x. PNG, JPEG and folders of them are for models that were trained on such a folder.

    For a model of mnist, a PNG is one image, made to look like MNIST: gray, a white digit on black (dark on light is
    inverted, and stderr says so), cut out, scaled to fit 20 x 20 pixels, and put into the middle of 28 x 28 by its
    centre of mass. An image that has the model's size already is not moved.
    """
    return _job("predict", "predict", run, file, out, force, device, as_json, escape_formulas)


@app.command()
@takes_settings(without=("lr", "hidden", "wd", "precision", "engine", "threads", "device"))
def inspect(settings: TrainSettings, as_json: Json = False) -> Job:
    """Show the columns of a file, and what training would do.

    Each column with its kind, why it has that kind, and its missing and distinct values. With --target also how the
    target is distributed, the split, the model, and how long it would train.
    """
    return _job("inspect", "inspect", settings, as_json)


@app.command()
def report(run: Run) -> Job:
    """Write the report of a run again.

    RUN/report.html is made from RUN/record.json; nothing is computed again.
    """
    return _job("report", "report", run)


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the runs are.")] = Path("runs"),
    as_json: Json = False,
) -> Job:
    """List runs: whether they are finished, run, or can be resumed, and how far they are."""
    return _job("runs", "runs", folder, as_json)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove the entries that nobody uses.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read their content too, to find damage.")] = False,
    as_json: Json = False,
) -> Job:
    """List the tables that were prepared on disk because they are larger than memory."""
    return _job("cache", "cache", clear, check, as_json)


@app.command()
def doctor(as_json: Json = False) -> Job:
    """Show what onecycle runs on.

    Versions, devices, paths, and whether the embedded MNIST is whole. The exit code is 1 if something is wrong.
    """
    return _job("doctor", "doctor", as_json)


def run(args: list[str] | None = None) -> int:
    """Do what `args` (by default the process's) ask for and return the exit code. Errors become a line on stderr.

    What stdout or stderr does not take is dropped, and the job goes on: the files that it writes are what counts.
    """
    with printable_output() as stdout:
        code = _run(args)
        stdout.flush()
        if stdout.error is None or code:
            return code
        if isinstance(stdout.error, BrokenPipeError):  # nobody reads any more
            return CLOSED_PIPE
        reason = stdout.error.strerror or stdout.error
        return _fail(f"stdout cannot be written ({reason}); files that were asked for are complete", FAILED)


def _run(args: list[str] | None) -> int:
    try:
        job: Job | int | None = typer.main.get_command(app).main(args, prog_name="onecycle", standalone_mode=False)
        return job or 0 if isinstance(job, int | None) else job()
    except OneCycleError as error:
        return _fail(str(error), error.exit_code)
    except BadValueError as error:
        return _fail(f"{error.param.opts[0] if error.param else 'a value'} is {error.message}", BAD_REQUEST)
    except UsageError as error:
        return _fail(_usage_message(error), BAD_REQUEST)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except TerminatedError:
        return _fail("ended by SIGTERM", TERMINATED)
    except Exception as error:
        advice = "this is a bug: set ONECYCLE_DEBUG=1 for the traceback and report it"
        return _fail(f"unexpected {type(error).__name__}: {error}; {advice}", FAILED)


def main() -> NoReturn:
    """Run the console script."""
    reserve_descriptors()
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGUSR1"):  # writes a checkpoint of a running fit; before that there is nothing to write
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    warnings.showwarning = _warn
    codecs.register_error("onecycle.printable", _printable)
    if isinstance(sys.stdout, TextIOWrapper):  # stderr escapes what it cannot print without this
        sys.stdout.reconfigure(errors="onecycle.printable")
    sys.exit(run())


class TerminatedError(BaseException):
    """SIGTERM, as an exception, so that half-written files are cleaned up; no `except Exception` stops it."""


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TerminatedError


def _warn(message: Warning | str, *_: Any) -> None:
    """Print a warning as one line, without a place in the source; replaces `warnings.showwarning`."""
    print_lines(f"warning: {message}", file=sys.stderr)


def _printable(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Replace text that the output's encoding lacks: a file's name by its bytes, anything else by \u1234."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.lookup_error("backslashreplace")(error)


def _fail(message: str, code: int) -> int:
    if os.environ.get("ONECYCLE_DEBUG"):
        traceback.print_exc()
    print_lines(f"error: {message}", file=sys.stderr)
    return code


def _usage_message(error: Any) -> str:
    """Return what typer says about arguments in our words, with a suggestion or the command whose --help to read."""
    context = error.ctx
    hint = f"; see {context.command_path} --help" if context else ""
    if type(error).__name__ == "NoSuchOption":
        known = [name for parameter in context.command.params for name in parameter.opts] if context else []
        return f'unknown option "{error.option_name}"{did_you_mean(error.option_name, [*known, "--help"]) or hint}'
    message = error.format_message().rstrip(".")
    return message[:1].lower() + message[1:] + hint
