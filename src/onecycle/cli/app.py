"""The command line: arguments → settings → learner.

typer only reads the arguments: a command returns the job that they ask for, and `run` does it. The jobs are in
`cli/`, imported when they are done, so that `--help` needs neither torch nor NumPy.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeAlias

import typer
from typer.core import TyperGroup

from onecycle import __version__
from onecycle.cli import exit_codes as failing
from onecycle.cli import options as given
from onecycle.cli.settings import TrainSettings, check_plot_name, check_table_name, run_folder
from onecycle.errors import OneCycleError, SettingError, did_you_mean

Job: TypeAlias = Callable[[], int]  # gives the exit code
UsageError: Any = typer.BadParameter.__mro__[1]  # where it lives depends on typer's version


class _Commands(TyperGroup):
    """The commands, with our words for one that does not exist."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` begins with."""
        if args[0] not in self.commands:
            hint = did_you_mean(args[0], self.commands) or f"; expected one of {', '.join(self.commands)}"
            raise SettingError(f'unknown command "{args[0]}"{hint}')
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Commands, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _job(module: str, function: str, *args: Any) -> Job:
    """The job of a function in `cli/`, which is imported when it is done."""
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
def train(
    context: typer.Context,
    source: Annotated[
        str | None, typer.Argument(metavar="SOURCE", help="mnist, or the path of a file or folder.", show_default=False)
    ] = None,
    target: given.Target = None,
    task: given.Task = None,
    split: given.SplitBy = "auto",
    valid: given.Valid = None,
    drop: given.Drop = None,
    kinds: given.Kind = None,
    image_size: given.ImageSize = None,
    memory_limit: given.Memory = None,
    epochs: given.Epochs = "auto",
    lr: given.Rate = "auto",
    bs: given.Batch = "auto",
    model: given.Model = "auto",
    hidden: given.Hidden = None,
    wd: given.Decay = "1e-2",
    precision: given.Precision = "fp32",
    engine: given.EngineName = "auto",
    seed: given.Seed = "42",
    device: given.Device = None,
    out: Annotated[Path | None, given.option("FOLDER", "Where to write; by default runs/SOURCE.")] = None,
    force: given.Force = False,
    checkpoint_every: Annotated[
        str | None, given.option("WHEN", 'Keep the training as it goes: "1 epoch", "30 s", or a number of batches.')
    ] = None,
    resume: Annotated[Path | None, given.option("RUN", "Go on with the training that is kept in this folder.")] = None,
    as_json: given.Json = False,
) -> Job:
    """Find a learning rate and train one cycle.

    SOURCE is mnist; a table (csv, tsv, also gz or zst; parquet, arrow, feather), of which --target is predicted;
    arrays (npy, npz, IDX, a NumPy pickle); or a folder with a sub-folder of images for each class.

    Writes model, record, plots and report to a folder. What is read, the plan and the progress go to stderr; stdout
    gets the names of the files, one a line. Ctrl-C ends the training: what was trained so far is written, marked as
    stopped, and the exit code is 130.

    With --checkpoint-every nothing is lost when the training is stopped or killed: `onecycle train --resume RUN` goes
    on with it, and ends as if it had never been stopped.
    """
    if resume is not None:
        given.check_alone(context, "resume")
        return _job("resume", "resume", resume, device, as_json)
    if source is None:
        raise SettingError("SOURCE is missing, which says what is trained on: mnist, or the path of a file or folder")
    settings = TrainSettings.parse(
        source, target=target, task=task, split=split, valid=valid, drop=drop, kinds=kinds, image_size=image_size,
        memory_limit=memory_limit,
        epochs=epochs, lr=lr, bs=bs, model=model, hidden=hidden, wd=wd, precision=precision, engine=engine, seed=seed,
        device=device,
    )  # fmt: skip

    return _job("train", "train", settings, out or run_folder(source), force, as_json, checkpoint_every)


@app.command()
def lr_find(
    source: given.Source,
    target: given.Target = None,
    task: given.Task = None,
    split: given.SplitBy = "auto",
    valid: given.Valid = None,
    drop: given.Drop = None,
    kinds: given.Kind = None,
    image_size: given.ImageSize = None,
    bs: given.Batch = "auto",
    model: given.Model = "auto",
    hidden: given.Hidden = None,
    wd: given.Decay = "1e-2",
    precision: given.Precision = "fp32",
    seed: given.Seed = "42",
    device: given.Device = None,
    out: Annotated[Path | None, given.option("FILE.png", "Where to draw the curve.")] = None,
    as_json: given.Json = False,
) -> Job:
    """Suggest a learning rate.

    Takes what `train` takes. stdout gets the number; stderr gets all suggestions by name, and which of them it is.
    """
    settings = TrainSettings.parse(
        source, target=target, task=task, split=split, valid=valid, drop=drop, kinds=kinds, image_size=image_size,
        bs=bs, model=model, hidden=hidden, wd=wd, precision=precision, seed=seed, device=device,
    )  # fmt: skip
    check_plot_name(out)

    return _job("train", "find_lr", settings, out, as_json)


@app.command()
def predict(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="The folder that `train` or `learn.export` wrote.", show_default=False),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rows, as in training.", show_default=False)],
    out: Annotated[
        Path | None, given.option("FILE", "Write a table: .parquet, .csv, .tsv, .arrow or .feather.", "-o", "--out")
    ] = None,
    force: given.Force = False,
    device: given.Device = None,
    as_json: given.Json = False,
) -> Job:
    """Predict each row of a file.

    stdout gets a line for each row: class and probability, a tab between them; a value; or labels, commas between them.
    With -o a table is written: the columns of FILE, `prediction`, and `probability_CLASS` for each class or label.

    For a model of a table, FILE is a table with its columns, in any order and among others, or npy or npz.

    For a model of images, npy and npz hold one row or many, flat (784 numbers) or as images (28 x 28). Whole numbers
    are pixels from 0 to 255 and are scaled as in training; floats are taken as they are. In an npz with several arrays,
    the rows are called x. PNG, JPEG and folders of them are for models that were trained on such a folder.

    For a model of mnist, a PNG is one image, made to look like MNIST: gray, a white digit on black (dark on light is
    inverted, and stderr says so), cut out, scaled to fit 20 x 20 pixels, and put into the middle of 28 x 28 by its
    centre of mass. An image that has the model's size already is not moved.
    """
    check_table_name(out)
    return _job("predict", "predict", run, file, out, force, device, as_json)


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(metavar="FILE", help="What `train` takes.", show_default=False)],
    target: given.Target = None,
    task: given.Task = None,
    split: given.SplitBy = "auto",
    valid: given.Valid = None,
    drop: given.Drop = None,
    kinds: given.Kind = None,
    image_size: given.ImageSize = None,
    memory_limit: given.Memory = None,
    epochs: given.Epochs = "auto",
    bs: given.Batch = "auto",
    model: given.Model = "auto",
    seed: given.Seed = "42",
    as_json: given.Json = False,
) -> Job:
    """Show the columns of a file, and what training would do.

    Each column with what it is taken for and why, and its missing and different values. With --target also how the
    target is distributed, the split, the model, and how long it would train.
    """
    settings = TrainSettings.parse(
        source, target=target, task=task, split=split, valid=valid, drop=drop, kinds=kinds, image_size=image_size,
        memory_limit=memory_limit,
        epochs=epochs, bs=bs, model=model, seed=seed,
    )  # fmt: skip

    return _job("inspect", "inspect", settings, as_json)


@app.command()
def report(run: given.Run) -> Job:
    """Write the report of a run anew.

    RUN/report.html is made from RUN/record.json; nothing is computed again.
    """
    return _job("report", "report", run)


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the runs are.")] = Path("runs"),
    as_json: given.Json = False,
) -> Job:
    """List runs: whether they are finished, run, or can be resumed, and how far they are."""
    return _job("runs", "runs", folder, as_json)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove the entries that nobody uses.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read their content too, to find damage.")] = False,
    as_json: given.Json = False,
) -> Job:
    """List the tables that were prepared on the disk because they are larger than memory."""
    return _job("cache", "cache", clear, check, as_json)


@app.command()
def doctor(as_json: given.Json = False) -> Job:
    """Say what onecycle runs on.

    Versions, devices, paths, and whether the embedded MNIST is whole. The exit code is 1 where something is wrong.
    """
    return _job("doctor", "doctor", as_json)


def run(args: list[str] | None = None) -> int:
    """Do what `args` (by default the process's) ask for. Errors become a line on stderr; returns the exit code."""
    try:
        job: Job | int | None = typer.main.get_command(app).main(args, prog_name="onecycle", standalone_mode=False)
        code = job or 0 if isinstance(job, int | None) else job()
        sys.stdout.flush()
        return code
    except OneCycleError as error:
        return failing.fail(str(error), error.exit_code)
    except UsageError as error:
        return failing.fail(failing.explained(error), failing.BAD_REQUEST)
    except (KeyboardInterrupt, typer.Abort):
        return failing.fail("interrupted", failing.INTERRUPTED)
    except failing.TerminatedError:
        return failing.fail("ended by SIGTERM", failing.TERMINATED)
    except BrokenPipeError:
        # nobody reads any more; without this, Python complains when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return failing.CLOSED_PIPE
    except Exception as error:
        hint = "set ONECYCLE_DEBUG=1 for the traceback"
        return failing.fail(
            f"unexpected {type(error).__name__}: {error}; this is a bug: {hint} and report it", failing.FAILED
        )


def main() -> NoReturn:
    """The console script."""
    signal.signal(signal.SIGTERM, failing.terminate)
    if hasattr(signal, "SIGUSR1"):  # keeps a training that runs; before that there is nothing to keep
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    warnings.showwarning = failing.warn
    if isinstance(sys.stdout, TextIOWrapper):  # stderr escapes what it cannot print of itself
        sys.stdout.reconfigure(errors="onecycle.printable")
    sys.exit(run())
