"""`onecycle report`: the page of a run, from its record alone."""

from pathlib import Path

from onecycle.cli.run_files import RECORD, REPORT, use_agg
from onecycle.core.files import write_text
from onecycle.core.record import Record
from onecycle.errors import FileError, OneCycleError
from onecycle.show.report import render_report

_EXPECTED = "expected the folder of a run, which `onecycle train` wrote"


def report(run: Path) -> int:
    """Write RUN/report.html anew; the exit code.

    Raises FileError where there is no record, OutputError where nothing can be written.
    """
    use_agg()
    if run.is_file():
        raise FileError(f"{run} is a file; {_EXPECTED}")
    if not run.is_dir():
        raise FileError(f"{run}: no such folder; {_EXPECTED}")
    if not (run / RECORD).exists():
        raise FileError(f"{run} holds no {RECORD}; {_EXPECTED}")
    write_text(run / REPORT, _rendered(run / RECORD))
    print(run / REPORT)
    return 0


def _rendered(path: Path) -> str:
    record = Record.load(path)
    try:
        return render_report(record)
    except OneCycleError:
        raise
    except Exception as error:  # anything may be inside a record that was edited by hand
        found = f"{type(error).__name__}: {error}"
        raise FileError(
            f"{path}: no report can be made of it ({found}); expected a record that onecycle wrote: use another copy, "
            "or train again"
        ) from error
