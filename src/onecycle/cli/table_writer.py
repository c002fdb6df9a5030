"""Write tables that came from people: Parquet and Arrow with the types that they had, CSV cell by cell as it was."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from onecycle.core.files import atomic_write
from onecycle.errors import OutputError, pluralize
from onecycle.tables.csv_dialect import CsvStyle
from onecycle.tables.values import ChunkedArray, Table, decode_column, import_pyarrow, is_list_type

TEXT_SUFFIXES = (".csv", ".tsv")
_ARROW_SUFFIXES = (".arrow", ".feather")
_LIST_SEPARATOR = ";"  # between the items of a list in a CSV cell
_FORMULA = r"^[=+\-@\t\r\n]"  # how a cell begins that a spreadsheet runs; numbers, with spaces too, and signs are not
_PLAIN = r"^([+-]?([0-9][0-9., ]*|[.,][0-9]+)([eE][+-]?[0-9]+)?%?|[+-]+)$"


class FormulaCells:
    """Counts the cells of a CSV file that a spreadsheet would run as formulas.

    Attributes:
        escaped: Whether they are written with an apostrophe before them, which makes them text.
    """

    def __init__(self, escaped: bool = False) -> None:
        self.escaped, self._count, self._first, self._rows = escaped, 0, "", 1  # the header is row 1

    def check(self, names: list[str], columns: list[ChunkedArray]) -> list[ChunkedArray]:
        """Count the formulas in the next rows of columns of text; return the columns, escaped if that is asked for."""
        pa, pc = import_pyarrow()
        first: tuple[int, str, str] | None = None
        for i, (name, column) in enumerate(zip(names, columns, strict=True)):
            begins = pc.match_substring_regex(column, _FORMULA)
            if not pc.any(begins).as_py():
                continue
            runs = pc.fill_null(pc.and_not(begins, pc.match_substring_regex(column, _PLAIN)), False)
            if count := pc.sum(runs).as_py():
                row = pc.index(runs, True).as_py()
                first = min(first or (row, name, column[row].as_py()), (row, name, column[row].as_py()))
                self._count += count
            if count and self.escaped:
                apostrophe, no_separator = (pa.scalar(text, pa.large_string()) for text in ("'", ""))
                columns[i] = pc.if_else(runs, pc.binary_join_element_wise(apostrophe, column, no_separator), column)
        if first is not None and not self._first:
            row, name, cell = first
            self._first = f'row {self._rows + row} (the header is row 1), column "{name}": {cell[:40]!r}'
        self._rows += len(columns[0])
        return columns

    def message(self) -> str | None:
        """Return what there is to say of them, or None if there were none."""
        if not self._count:
            return None
        if self.escaped:
            return f"wrote an apostrophe before {pluralize(self._count, 'cell')}, first in {self._first}"
        return (
            f"a spreadsheet would run {pluralize(self._count, 'cell')} as formulas, first in {self._first}; "
            "--escape-formulas writes an apostrophe before them"
        )


@contextmanager
def open_table_writer(path: Path, style: CsvStyle, formulas: FormulaCells) -> Generator[Callable[[Table], None]]:
    """Yield a function that appends a pyarrow Table to the file `path`: Parquet, CSV, TSV or Arrow, by its suffix.

    All tables have the same columns. The file is there, or replaced, when the block ends without an error. Raise
    OutputError if it cannot be written, or if the format has no such type. CSV is written in this `style`.
    """
    writer: Any = None
    with atomic_write(path) as file:

        def write(table: Table) -> None:
            nonlocal writer
            if writer is None:
                writer = _open_writer(path, file, table, style, formulas)
            writer.write_table(table)

        try:
            yield write
        finally:
            if writer is not None:
                writer.close()


def _open_writer(path: Path, file: BinaryIO, table: Table, style: CsvStyle, formulas: FormulaCells) -> Any:
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return _CsvWriter(file, table.column_names, style, formulas)
    return (_ArrowWriter if suffix in _ARROW_SUFFIXES else _ParquetWriter)(path, file, table)


class _ParquetWriter:
    """Writes tables as Parquet, with their types; those that Parquet lacks as the nearest that it has."""

    def __init__(self, path: Path, file: BinaryIO, first: Table) -> None:
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs] -- it has none

        pa, _ = import_pyarrow()
        self._path, self._not_written = path, (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError)
        for field in (first := _without_views(first)).schema:
            try:  # to name the column
                pq.write_table(pa.table({field.name: first[field.name].slice(0, 0)}), pa.BufferOutputStream())
            except self._not_written as error:
                raise OutputError(
                    f'{path}: column "{field.name}" holds {field.type}, which Parquet lacks ({error}); give a name '
                    "that ends in .arrow"
                ) from error
        self._writer = pq.ParquetWriter(file, first.schema)

    def write_table(self, table: Table) -> None:
        """Append rows."""
        self._writer.write_table(_without_views(table))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


class _ArrowWriter:
    """Writes tables as an Arrow file; the dictionaries of the tables become one, which grows."""

    def __init__(self, path: Path, file: BinaryIO, first: Table) -> None:
        from pyarrow import ipc  # pyright: ignore[reportMissingTypeStubs] -- it has none

        self._path, self._dictionaries = path, dict[str, Any]()
        first = self._unify(first)
        options = ipc.IpcWriteOptions(emit_dictionary_deltas=True)
        self._writer, self._dictionaries = ipc.new_file(file, first.schema, options=options), {}

    def write_table(self, table: Table) -> None:
        """Append rows."""
        self._writer.write_table(self._unify(table))

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()

    def _unify(self, table: Table) -> Table:
        """Return the table with dictionaries that begin with those that were written before."""
        pa, pc = import_pyarrow()
        for i, field in enumerate(table.schema):
            if not pa.types.is_dictionary(field.type):
                continue
            kind = _without_views_type(field.type)
            if kind != field.type:  # which Arrow cannot decode
                field = field.with_type(kind)
                table = table.set_column(i, field, _plain_dictionaries(table.column(i), kind))
            values = pa.chunked_array([c.dictionary for c in table.column(i).chunks], field.type.value_type).unique()
            known = self._dictionaries.get(field.name)
            if known is not None:
                values = pa.concat_arrays([known, values.filter(pc.invert(pc.is_in(values, known)))])
            self._dictionaries[field.name] = values
            plain = table.column(i).cast(field.type.value_type).combine_chunks()
            try:
                places = pc.index_in(plain, values, skip_nulls=True).cast(field.type.index_type)
            except pa.ArrowInvalid as error:
                raise OutputError(
                    f'{self._path}: the dictionary of column "{field.name}" has more values than '
                    f"{field.type.index_type} counts; give a name that ends in .parquet"
                ) from error
            column = pa.DictionaryArray.from_arrays(places, values, ordered=field.type.ordered)
            table = table.set_column(i, field, column)
        return table


def _without_views(table: Table) -> Table:
    """Return the table with views and run-end encoding, which Parquet does not have, as plain columns."""
    pa, pc = import_pyarrow()
    for i, field in enumerate(table.schema):
        column, kind = table.column(i), _without_views_type(field.type)
        if kind == field.type:
            continue
        if pa.types.is_dictionary(kind):
            column = _plain_dictionaries(column, kind)
        elif pa.types.is_run_end_encoded(field.type):
            column = pc.run_end_decode(column).cast(kind)
        elif pa.types.is_nested(kind):  # Arrow's casts of slices of lists that are views give wrong offsets
            column = pa.chunked_array([pa.array(column.to_pylist(), kind)])
        else:
            column = column.cast(kind)
        table = table.set_column(i, field.with_type(kind), column)
    return table


def _without_views_type(kind: Any) -> Any:
    """Return an Arrow type with plain types in the place of views and run-end encoding, in lists and parts too."""
    pa, _ = import_pyarrow()
    types = pa.types
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return pa.large_string() if types.is_string_view(kind) else pa.large_binary()
    if types.is_run_end_encoded(kind):
        return _without_views_type(kind.value_type)
    if types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _without_views_type(kind.value_type), kind.ordered)
    if types.is_struct(kind):
        return pa.struct([field.with_type(_part_type(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_part_type(kind.key_type), kind.item_field.with_type(_part_type(kind.item_type)))
    if is_list_type(kind):
        item = kind.value_field.with_type(_part_type(kind.value_type))
        if types.is_fixed_size_list(kind):
            return pa.list_(item, kind.list_size)
        return pa.list_(item) if types.is_list(kind) else pa.large_list(item)
    return kind


def _part_type(kind: Any) -> Any:
    """Return the type of an item or a part: one without views, and without their dictionaries."""
    plain = _without_views_type(kind)
    return plain.value_type if plain != kind and import_pyarrow()[0].types.is_dictionary(plain) else plain


def _plain_dictionaries(column: ChunkedArray, kind: Any) -> ChunkedArray:
    """Return a column of dictionaries as one of the type `kind`, whose dictionaries hold no views."""
    pa, _ = import_pyarrow()
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(kind.value_type), ordered=kind.ordered)
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, kind)


class _CsvWriter:
    """Writes tables as CSV: a cell is quoted only if it must be, and missing cells are empty."""

    def __init__(self, file: BinaryIO, names: list[str], style: CsvStyle, formulas: FormulaCells) -> None:
        pa, _ = import_pyarrow()
        self._file, self._style, self._formulas = file, style, formulas
        header = [pa.chunked_array([pa.array([name], pa.large_string())]) for name in names]
        if style.bom:
            file.write(b"\xef\xbb\xbf")
        self._write(formulas.check(names, header))

    def write_table(self, table: Table) -> None:
        """Append rows."""
        columns = [cells_as_text(column, self._style.decimal) for column in table.columns]
        self._write(self._formulas.check(table.column_names, columns))

    def close(self) -> None:
        """Do nothing: a CSV file has no footer."""

    def _write(self, columns: list[ChunkedArray]) -> None:
        pa, pc = import_pyarrow()
        delimiter, line_end, nothing = (
            pa.scalar(text, pa.large_string()) for text in (self._style.delimiter, self._style.line_end, "")
        )
        cells = [self._quoted(column) for column in columns]
        ends = pc.binary_join_element_wise(cells[-1], line_end, nothing, null_handling="replace", null_replacement="")
        lines = pc.binary_join_element_wise(*cells[:-1], ends, delimiter, null_handling="replace", null_replacement="")
        for chunk in lines.chunks:
            _, offsets, data = chunk.buffers()
            if len(chunk):
                bounds = memoryview(offsets).cast("q")
                self._file.write(memoryview(data)[bounds[chunk.offset] : bounds[chunk.offset + len(chunk)]])

    def _quoted(self, column: ChunkedArray) -> ChunkedArray:
        """Return the cells as they stand in the file; an empty text is quoted, to tell it from a missing one."""
        _, pc = import_pyarrow()
        special = pc.or_(
            pc.match_substring_regex(column, f'[{self._style.delimiter}"\r\n]'), pc.equal(pc.binary_length(column), 0)
        )
        if not pc.any(special).as_py():
            return column
        doubled = pc.replace_substring(column, '"', '""')
        pa, _ = import_pyarrow()
        quote, nothing = (pa.scalar(text, pa.large_string()) for text in ('"', ""))
        return pc.if_else(special, pc.binary_join_element_wise(quote, doubled, quote, nothing), column)


def cells_as_text(column: ChunkedArray, decimal: str = ".") -> ChunkedArray:
    """Return a column of any type as large strings, the cells of a CSV file; null stays null.

    The items of a list of plain values are separated by ";"; other nested values are JSON; bytes that are not UTF-8
    text are hexadecimal. `decimal` is the decimal mark of numbers.
    """
    pa, pc = import_pyarrow()
    types, kind, text = pa.types, column.type, pa.large_string()
    if isinstance(kind, pa.BaseExtensionType):
        return cells_as_text(pa.chunked_array([c.storage for c in column.chunks], kind.storage_type), decimal)
    if types.is_run_end_encoded(kind):
        return cells_as_text(pc.run_end_decode(column), decimal)
    if types.is_dictionary(kind):
        return cells_as_text(decode_column(column), decimal)
    try:
        texts = column.cast(text)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return pa.chunked_array([pa.array(map(_cell_as_text, column.to_pylist()), text)])
    is_number = types.is_floating(kind) or types.is_decimal(kind)
    return pc.replace_substring(texts, ".", decimal) if decimal != "." and is_number else texts


def _cell_as_text(cell: Any) -> str | None:
    if cell is None:
        return None
    if isinstance(cell, bytes):
        try:
            return cell.decode()
        except UnicodeDecodeError:
            return cell.hex()
    if isinstance(cell, list) and not any(isinstance(item, list | dict | tuple) for item in cell):
        return _LIST_SEPARATOR.join("" if item is None else str(_cell_as_text(item)) for item in cell)
    return json.dumps(cell, ensure_ascii=False, default=str) if isinstance(cell, list | dict) else str(cell)
