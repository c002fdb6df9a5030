"""`onecycle report`: the page of a run, from its record alone."""

from pathlib import Path

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.cli.run_files import RECORD, REPORT, use_agg
from onecycle.cli.terminal import print_lines
from onecycle.core.files import write_text
from onecycle.core.record import Record
from onecycle.errors import FileError, OneCycleError
from onecycle.show.report import render_report

_EXPECTED = "expected the folder of a run, which `onecycle train` wrote"


def report(run: Path) -> int:
    """Write RUN/report.html again. Return the exit code.

    Raise FileError if there is no record that can be read, OutputError if nothing can be written.
    """
    use_agg()
    if run.is_file():
        raise FileError(f"{run} is a file; {_EXPECTED}")
    if not run.is_dir():
        raise FileError(f"{run}: no such folder; {_EXPECTED}")
    path = run / RECORD
    if not path.exists():
        raise FileError(f"{run} holds no {RECORD}; {_EXPECTED}")
    record = Record.load(path)
    try:
        html = render_report(record)
    except OneCycleError:
        raise
    except Exception as error:  # a record that was edited by hand may hold anything
        raise FileError(
            f"{path}: no report can be made of it ({type(error).__name__}: {error}); expected a record that onecycle "
            "wrote: use another copy, or train again"
        ) from error
    with RunFolder(run).locked():
        write_text(run / REPORT, html)
    print_lines(run / REPORT)
    return 0
