"""`onecycle train --resume`: a run that is kept, gone on with to its end."""

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.cli.run_files import use_agg
from onecycle.cli.run_settings import kept_settings
from onecycle.cli.train import build_learner, cli_worded_errors, finish
from onecycle.core.device import pick_device
from onecycle.errors import FileError


def resume(run: Path, device: str | None, as_json: bool) -> int:
    """Go on from the newest checkpoint, and write what `train` writes; the exit code.

    Raises FileError where there is nothing to resume, or the run was made in Python, SettingError where it is in use,
    or its data have changed.
    """
    if RunFolder(run).is_python_run():
        raise FileError(
            f"{run}: made in Python, so its model and settings are not known here; go on with "
            f"learn.resume({str(run)!r}), by a learner made as the one of the run"
        )
    settings, lr, found = kept_settings(run)
    if device is not None:
        settings = replace(settings, data=replace(settings.data, device=device))
    use_agg()
    with redirect_stdout(sys.stderr):
        setup, learn = build_learner(settings, pick_device(settings.data.device))
        with cli_worded_errors(settings, lr):
            learn.resume(run)
    return finish(learn, settings, setup, found, lr, run, as_json)
