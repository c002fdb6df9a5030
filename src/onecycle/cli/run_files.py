"""The files of a run: their names, whether they can be written, and writing them."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onecycle.checkpoint.run_folder import RECORD, RunFolder
from onecycle.core.files import atomic_write, unwritable
from onecycle.errors import OutputError, SettingError
from onecycle.export.bundle import check_bundle_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL, REPORT = "model", "report.html"
BUNDLE_STATE = "manifest.json"  # what a bundle is known by
PLOTS = ("lr_find.png", "lr.png", "losses.png", "metrics.png", "confusion.png", "predictions.png")


def use_agg() -> None:
    """Let matplotlib draw to files only: a command opens no window and needs no screen."""
    import matplotlib

    matplotlib.use("Agg")


@contextmanager
def reserve_output(out: Path, force: bool) -> Generator[None]:
    """Make `out` for the files of a run. Where the run fails before it wrote any, what was made goes again.

    Raises SettingError where it holds something and `force` is not given, and where it holds a run that was made in
    Python, which `force` would destroy; OutputError where it cannot be written.
    """
    with made_folders(out):
        _claim(out, force)
        yield


@contextmanager
def made_folders(folder: Path) -> Generator[None]:
    """What fails inside leaves `folder` and its parents as they were: those that were made and are empty go again."""
    made: list[Path] = []
    with suppress(OSError):  # a folder that may not be looked into, which is reported when it is written to
        made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    except BaseException:  # Ctrl-C and SIGTERM too
        with suppress(OSError):  # not empty, or not made
            for place in made:
                place.rmdir()
        raise


def _claim(out: Path, force: bool) -> None:
    """Make `out`, and find out before the work whether its files can be written."""
    if out.is_file():
        raise OutputError(f"{out} is a file; expected a folder: give another --out")
    check_writable(out / RECORD)
    if RunFolder(out).is_python_run():
        raise SettingError(f"{out} holds a run made in Python, whose checkpoints would be lost; give another --out")
    if not force and any(out.iterdir()):
        raise SettingError(f"{out} is not empty; give another --out, or --force to replace what an earlier run wrote")
    for name in (RECORD, REPORT, *PLOTS):
        if (out / name).is_dir():
            raise OutputError(f"{out / name} is a folder; expected a file or nothing: give another --out")
    check_bundle_path(out / MODEL, overwrite=True)


def check_new(path: Path, force: bool, option: str) -> None:
    """Raises OutputError where `path` is a folder, SettingError where it is a file and `force` is not given."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; expected the name of a file")
    if path.exists() and not force:
        raise SettingError(f"{path} exists; give another {option}, or --force to replace it")


def check_writable(path: Path) -> None:
    """Raises OutputError where `path` cannot be written. Makes its folder, and leaves nothing else there."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; expected the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):  # the only test that is true for every user and file system
            pass
    except OSError as error:
        raise unwritable(path.parent, error) from error


def write_figure(figure: "Figure | Any", path: Path) -> None:
    """Write `figure` to `path` as PNG and close it."""
    from matplotlib import pyplot as plt

    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=144, bbox_inches="tight")
    plt.close(figure)
