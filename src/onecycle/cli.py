"""The command line: arguments → settings → learner.

typer only reads the arguments: a command returns the job that they ask for, and `run` does it. The jobs are in
`commands/`, imported when they are done, so that `--help` needs neither torch nor NumPy.
"""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn, TypeAlias

import typer
from typer.core import TyperGroup

from onecycle import __version__
from onecycle.commands.settings import DATASETS, TrainSettings, check_plot_name
from onecycle.core.errors import OneCycleError, SettingError, did_you_mean

Job: TypeAlias = Callable[[], int]  # gives the exit code
UsageError: Any = typer.BadParameter.__mro__[1]  # where it lives depends on typer's version
FAILED, BAD_REQUEST, INTERRUPTED, CLOSED_PIPE, TERMINATED = 1, 2, 130, 141, 143


class _Commands(TyperGroup):
    """The commands, with our words for one that does not exist."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` begins with."""
        if args[0] not in self.commands:
            hint = did_you_mean(args[0], self.commands) or f"; expected one of {', '.join(self.commands)}"
            raise SettingError(f'unknown command "{args[0]}"{hint}')
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Commands, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

# Numbers arrive as text: `TrainSettings` checks them in one place, with one wording.
Dataset = Annotated[
    str, typer.Argument(metavar="DATASET", help=f"The data set: {', '.join(DATASETS)}.", show_default=False)
]
Batch = Annotated[str, typer.Option(metavar="N", help="Batch size.")]
Hidden = Annotated[str, typer.Option(metavar="N,N,...", help="Sizes of the hidden layers.")]
Decay = Annotated[str, typer.Option(metavar="NUMBER", help="Weight decay.")]
Seed = Annotated[str, typer.Option(metavar="N", help="Decides weights and batch order: same seed, same run.")]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="cpu, cuda, cuda:N or mps; else ONECYCLE_DEVICE, else the fastest there is."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout instead.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `train` wrote.", show_default=False)]


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
def train(
    dataset: Dataset,
    epochs: Annotated[str, typer.Option(metavar="N", help="Epochs of the one cycle.")] = "1",
    lr: Annotated[
        str, typer.Option(metavar="auto|NUMBER", help="Peak learning rate; auto takes what the finder suggests.")
    ] = "auto",
    bs: Batch = "64",
    hidden: Hidden = "50",
    wd: Decay = "1e-2",
    seed: Seed = "42",
    device: Device = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to write.", show_default="runs/DATASET"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote to OUT.")] = False,
    as_json: Json = False,
) -> Job:
    """Find a learning rate and train one cycle.

    Writes model, record, plots and report to a folder. Progress goes to stderr; stdout gets the names of the files,
    one a line. Ctrl-C ends the training: what was trained so far is written, marked as stopped, and the exit code
    is 130.
    """
    settings = TrainSettings.parse(dataset, epochs, lr, bs, hidden, wd, seed, device)

    def job() -> int:
        from onecycle.commands.train import train

        return train(settings, out or Path("runs") / dataset, force, as_json)

    return job


@app.command()
def lr_find(
    dataset: Dataset,
    bs: Batch = "64",
    hidden: Hidden = "50",
    wd: Decay = "1e-2",
    seed: Seed = "42",
    device: Device = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Where to draw the curve.")] = None,
    as_json: Json = False,
) -> Job:
    """Suggest a learning rate.

    stdout gets the number; stderr gets the other suggestions by name.
    """
    settings = TrainSettings.parse(dataset, "1", "auto", bs, hidden, wd, seed, device)
    check_plot_name(out)

    def job() -> int:
        from onecycle.commands.train import find_lr

        return find_lr(settings, out, as_json)

    return job


@app.command()
def predict(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="The folder that `train` or `learn.export` wrote.", show_default=False),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rows: a npy, npz or PNG file.", show_default=False)],
    device: Device = None,
    as_json: Json = False,
) -> Job:
    """Predict the class of each row of a file.

    stdout gets a line for each row: class and probability, a tab between them.

    npy and npz hold one row or many, flat (784 numbers) or as images (28 x 28). Whole numbers are pixels from 0 to 255
    and are scaled as in training; floats are taken as they are. In an npz with several arrays, the rows are called x.

    A PNG is one image, made to look like MNIST: gray, a white digit on black (dark on light is inverted, and stderr
    says so), cut out, scaled to fit 20 x 20 pixels, and put into the middle of 28 x 28 by its centre of mass. An image
    that has the model's size already is not moved.
    """

    def job() -> int:
        from onecycle.commands.predict import predict

        return predict(run, file, device, as_json)

    return job


@app.command()
def report(run: Run) -> Job:
    """Write the report of a run anew.

    RUN/report.html is made from RUN/record.json; nothing is computed again.
    """

    def job() -> int:
        from onecycle.commands.report import report

        return report(run)

    return job


@app.command()
def doctor(as_json: Json = False) -> Job:
    """Say what onecycle runs on.

    Versions, devices, paths, and whether the embedded MNIST is whole. The exit code is 1 where something is wrong.
    """

    def job() -> int:
        from onecycle.commands.doctor import doctor

        return doctor(as_json)

    return job


def run(args: list[str] | None = None) -> int:
    """Do what `args` (by default the process's) ask for. Errors become a line on stderr; returns the exit code."""
    try:
        job: Job | int | None = typer.main.get_command(app).main(args, prog_name="onecycle", standalone_mode=False)
        code = job or 0 if isinstance(job, int | None) else job()
        sys.stdout.flush()
        return code
    except OneCycleError as error:
        return _fail(str(error), error.exit_code)
    except UsageError as error:
        return _fail(_explain(error), BAD_REQUEST)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except _Terminated:
        return _fail("ended by SIGTERM", TERMINATED)
    except BrokenPipeError:
        # nobody reads any more; without this, Python complains when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except Exception as error:
        hint = "set ONECYCLE_DEBUG=1 for the traceback"
        return _fail(f"unexpected {type(error).__name__}: {error}; this is a bug: {hint} and report it", FAILED)


def main() -> NoReturn:
    """The console script."""
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = _warn
    sys.exit(run())


class _Terminated(BaseException):
    """SIGTERM, as an exception, so that half-written files are cleaned up; no `except Exception` stops it."""


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise _Terminated


def _warn(message: Warning | str, *_: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _fail(message: str, code: int) -> int:
    if os.environ.get("ONECYCLE_DEBUG"):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return code


def _explain(error: Any) -> str:
    """Our words for what typer says about arguments."""
    context = error.ctx
    hint = f"; see {context.command_path} --help" if context else ""
    if type(error).__name__ == "NoSuchOption":
        known = [name for param in context.command.params for name in param.opts] if context else []
        return f'unknown option "{error.option_name}"{did_you_mean(error.option_name, [*known, "--help"]) or hint}'
    message = error.format_message().rstrip(".")
    return message[:1].lower() + message[1:] + hint
