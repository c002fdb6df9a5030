"""Text in columns: with rich on a terminal, plain and aligned elsewhere."""

import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence

WIDTH = 80  # where there is no terminal that has one
_LONGEST = 20  # a longer cell of the first column stands on a line of its own
_LEAST_LAST, _LEAST_FIRST = 24, 12  # characters of the last and the first column, whatever the others take
_COLORS = {"target": "bold green", "dropped": "dim", "number": "cyan", "category": "magenta", "date": "yellow"}


def print_columns(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table. The first and the last column are wrapped; `right` are the columns of numbers."""
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich(head, rows, right)
    else:
        print(*plain_columns(head, rows, right, WIDTH), sep="\n")


def plain_columns(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int], width: int) -> list[str]:
    """The lines of a table of about `width` characters; a long cell of the first column has a line of its own."""
    last = len(head) - 1
    short = [row for row in [head, *rows] if cells_of(row[0]) <= _LONGEST]
    sizes = [max(cells_of(row[i]) for row in (short if i == 0 else [head, *rows])) for i in range(last)]
    left = sum(sizes) + 2 * last
    lines: list[str] = []
    for row in [head, *rows]:
        cells = [*row]
        if cells_of(cells[0]) > sizes[0]:
            lines += textwrap.wrap(cells[0], width, subsequent_indent="  ")
            cells[0] = ""
        fixed = "  ".join(
            _padded(cell, size, i in right) for i, (cell, size) in enumerate(zip(cells[:last], sizes, strict=True))
        )
        first, *more = textwrap.wrap(cells[last], max(width - left, _LEAST_LAST)) or [""]
        lines.append(f"{fixed}  {first}".rstrip())
        lines += [" " * left + line for line in more]
    return lines


def print_numbers(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print numbers below their names; the first column is text."""
    sizes = [max(cells_of(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [_padded(cell, size, i > 0) for i, (cell, size) in enumerate(zip(row, sizes, strict=True))]
        print(f"  {'  '.join(cells if sizes[0] else cells[1:])}")


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and what is said of them, indented and wrapped."""
    width = max(len(name) for name, _ in pairs)
    for name, text in pairs:
        indent = f"  {name:{width}}  "
        print_wrapped(indent + text, len(indent))


def print_wrapped(text: str, indent: int = 2) -> None:
    """Print a line, or several of which all but the first are indented."""
    room = shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH
    print(textwrap.fill(text, max(room, WIDTH // 2), subsequent_indent=" " * indent))


def cells_of(text: str) -> int:
    """How many columns of a terminal a text takes: wide characters take two, accents that are put on others none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def _padded(text: str, size: int, right: bool) -> str:
    space = " " * (size - cells_of(text))
    return space + text if right else text + space


def _rich(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, last = Console(highlight=False), len(head) - 1
    widest = [max(cells_of(row[i]) for row in [head, *rows]) for i in range(len(head))]
    room = console.width - sum(widest[1:last]) - 2 * last  # of the first and the last column
    first = min(widest[0], max(room - _LEAST_LAST, room * 2 // 5, _LEAST_FIRST))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(head):
        width = first if i == 0 else min(max(room - first, 1), widest[i]) if i == last else widest[i]
        table.add_column(name, justify="right" if i in right else "left", overflow="fold", width=width)
    for row in rows:
        table.add_row(*(Text(cell, style=_COLORS.get(row[1], "") if i == 1 else "") for i, cell in enumerate(row)))
    console.print(table)
