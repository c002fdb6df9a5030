"""Lines and tables: fitted to the terminal by rich, or plain text with one line a row for a pipe or a file."""

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TextIO

from onecycle.core.streams import unfiltered
from onecycle.errors import printable


def print_lines(*lines: object, file: TextIO | None = None) -> None:
    """Print each of `lines` as one line, whatever the names in it are, to stdout or `file`."""
    print("\n".join(printable(str(line), one_line=True, keep_bytes=True) for line in lines), file=file)


def print_table(
    rows: Sequence[Sequence[str]],
    head: Sequence[str] | None = None,
    right: Collection[int] = (),
    indent: int = 0,
    styles: Mapping[str, str] | None = None,
) -> None:
    """Print rows of text in aligned columns.

    Args:
        rows: The cells of each row.
        head: Names of the columns, or None.
        right: Indexes of the columns that are aligned to the right.
        indent: Spaces before each line.
        styles: rich styles of cells with these texts in the second column, on a terminal.
    """
    rows = [[printable(" ".join(cell.split()), keep_bytes=True) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        print("\n".join(plain_lines(rows, head, right, indent)))
        return
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=head is not None)
    for i, name in enumerate(head or rows[0]):
        # too wide a table shrinks from its widest columns on; "fold" wraps their text and cuts nothing off
        table.add_column(name if head else "", justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, (styles or {}).get(cell, "") if i == 1 else "") for i, cell in enumerate(row)))
    Console(file=unfiltered(sys.stdout), highlight=False).print(Padding(table, (0, 0, 0, indent), expand=False))


def plain_lines(
    rows: Sequence[Sequence[str]], head: Sequence[str] | None = None, right: Collection[int] = (), indent: int = 0
) -> list[str]:
    """Return the lines of a table whose columns are as wide as their widest cell, see `print_table`."""
    from rich.cells import cell_len

    rows = [*([head] if head else []), *rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for row in rows:
        cells: list[str] = []
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cell_len(cell))
            cells.append(space + cell if i in right else cell + space)
        lines.append(" " * indent + "  ".join(cells).rstrip())
    return lines
