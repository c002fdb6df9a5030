"""`onecycle report`: the page of a run, from its record alone."""

from pathlib import Path

from onecycle.commands.files import RECORD, REPORT, use_agg
from onecycle.core.record import Record
from onecycle.show.report import write_report


def report(run: Path) -> int:
    """Write RUN/report.html anew; the exit code.

    Raises FileError where there is no record, OutputError where nothing can be written.
    """
    use_agg()
    record = Record.load(run / RECORD)
    write_report(record, run / REPORT)
    print(run / REPORT)
    return 0
