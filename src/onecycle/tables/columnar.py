"""Read Parquet and Arrow files, whole or as record batches."""

import struct
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onecycle.core.reading import MAX_BYTES, Budget, open_for_reading
from onecycle.errors import FileError
from onecycle.tables.arrow_messages import check_buffer_sizes
from onecycle.tables.file_bytes import detect_format
from onecycle.tables.formats import SAMPLE_ROWS, FileShape, TableFormat, sampled_shape
from onecycle.tables.normalize import decoded_bytes
from onecycle.tables.values import RecordBatch, Table, import_pyarrow

_PARQUET_MAGIC = (b"PAR1",)
_ARROW_MAGIC = (b"ARROW1", b"\xff\xff\xff\xff")  # a file, which has a footer, or a stream
_BUFFER_BYTES = 2**20
_ROW_BYTES = 4  # of a table, at least: of its row in a matrix
_ITEM_BYTES = 4  # of a list in Parquet, at least: of its levels
_ANY_ROWS, _ROWS_PER_BYTE = 2**20, 2**12  # of a file that is streamed
_MAX_TEXT_BYTES = 2**31 - 2**20  # of the texts of an array


def read_parquet(path: Path, _text_columns: Collection[str], max_bytes: int) -> Table:
    """Read a Parquet file, with the types that it has.

    Raises FileError for a file that is missing, damaged or not Parquet, or takes more than `max_bytes` in memory.
    """
    pa, _ = import_pyarrow()
    with _parquet_file(path, pre_buffer=True) as (file, types):
        Budget(path, max_bytes).spend(_decompressed_bytes(file))
        budget = Budget(path, max_bytes)
        parts = [file.schema_arrow.empty_table()] if not file.num_row_groups else []
        for row_group in range(file.num_row_groups):
            parts.append(_decode_dictionaries(file.read_row_group(row_group), types, budget))
        return pa.concat_tables(parts).cast(pa.schema(types))


def stream_parquet(path: Path, _text_columns: Collection[str], rows: int) -> Iterator[RecordBatch]:
    """Yield the record batches of a Parquet file, of at most `rows` rows. Raises FileError as `read_parquet` does."""
    pa, _ = import_pyarrow()
    # with a buffer size, pyarrow reads a column of a row group a buffer at a time
    with _parquet_file(path, buffer_size=_BUFFER_BYTES) as (file, types):
        _check_rows(path, file.metadata.num_rows, path.stat().st_size)
        for row_groups in _row_groups(file.metadata, rows):
            for batch in file.iter_batches(rows, row_groups):
                table = _decode_dictionaries(pa.Table.from_batches([batch]), types, Budget(path, MAX_BYTES))
                yield from table.cast(pa.schema(types)).combine_chunks().to_batches()


@contextmanager
def _parquet_file(path: Path, **options: Any) -> Generator[tuple[Any, list[Any]]]:
    """Open a Parquet file, and return it with the fields of its schema.

    Text is read as dictionaries, so that a page of few long values that occur in many rows takes little memory.
    """
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs] -- it has none

    types = import_pyarrow()[0].types
    with _format_errors(path, "Parquet", _PARQUET_MAGIC):
        with pq.ParquetFile(path) as file:
            _ = file.schema_arrow.names  # raises UnicodeDecodeError if they are damaged
            fields, footer = list(file.schema_arrow.remove_metadata()), file.metadata
            texts = [field.name for field in fields if types.is_string(field.type) or types.is_binary(field.type)]
        with pq.ParquetFile(path, metadata=footer, read_dictionary=texts, **options) as file:
            yield file, fields


def _decode_dictionaries(table: Table, fields: list[Any], budget: Budget) -> Table:
    """Return the table, validated, with the dictionaries that its text was read as decoded, at the budget's cost."""
    pa, pc = import_pyarrow()
    table.validate(full=True)
    for i, field in enumerate(fields):
        column = table.column(i)
        if field.type == column.type or not pa.types.is_dictionary(column.type):
            budget.spend(decoded_bytes(column))
            continue
        chunks = list[Any]()
        for chunk in column.chunks:
            lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
            budget.spend(4 * len(chunk) + (pc.sum(lengths).as_py() or 0))
            for part in _parts(
                chunk, np.cumsum(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False), dtype=np.int64)
            ):
                chunks.append(part.dictionary.take(part.indices))
        table = table.set_column(i, field.name, pa.chunked_array(chunks, field.type))
    return table


def _parts(array: Any, ends: Any) -> Iterator[Any]:
    """Yield slices of an array whose texts, which end at `ends`, take less than 2 GiB each (or are a single one)."""
    start = 0
    while start < len(array):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + _MAX_TEXT_BYTES)), start + 1)
        yield array.slice(start, stop - start)
        start = stop


def _row_groups(footer: Any, rows: int) -> Iterator[list[int]]:
    """Yield row groups to iterate over at once, of about `rows` rows: pyarrow frees none of them before the last."""
    row_groups, count = list[int](), 0
    for row_group in range(footer.num_row_groups):
        row_groups.append(row_group)
        count += footer.row_group(row_group).num_rows
        if count >= rows:
            yield row_groups
            row_groups, count = [], 0
    if row_groups:
        yield row_groups


def _decompressed_bytes(file: Any) -> int:
    """Return the least memory that the columns of a Parquet file take, by its footer."""
    footer, row_bits = file.metadata, 0
    for data_type in file.schema_arrow.types:
        try:
            row_bits += data_type.bit_width
        except ValueError:  # a type without a fixed width has an offset for each value
            row_bits += 32
    row_groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    repeated = [i for i in range(footer.num_columns) if footer.schema.column(i).max_repetition_level]
    items = sum(row_group.column(i).num_values for row_group in row_groups for i in repeated)  # of lists
    in_pages = sum(row_group.total_byte_size for row_group in row_groups)
    return max(in_pages, footer.num_rows * max(row_bits // 8, _ROW_BYTES), items * _ITEM_BYTES)


def read_arrow(path: Path, _text_columns: Collection[str], max_bytes: int) -> Table:
    """Read an Arrow file or stream with the types that it has, memory-mapped if it is not compressed.

    Raises FileError for a file that is missing, damaged or not Arrow, or takes more than `max_bytes` when decompressed.
    """
    pa, _ = import_pyarrow()
    with _format_errors(path, "Arrow", _ARROW_MAGIC):
        budget = Budget(path, max_bytes, slack=path.stat().st_size)  # memory-mapped columns take no memory
        schema, batches, compressed_bytes = _open_arrow(path, max_bytes)
        Budget(path, max_bytes).spend(compressed_bytes)
        read: list[RecordBatch] = []
        for batch in batches:
            budget.spend(_batch_bytes(batch))
            read.append(batch)
        return pa.Table.from_batches(read, schema)


def stream_arrow(path: Path, _text_columns: Collection[str], rows: int) -> Iterator[RecordBatch]:
    """Yield the record batches of an Arrow file or stream, of at most `rows` rows. Raises as `read_arrow` does."""
    with _format_errors(path, "Arrow", _ARROW_MAGIC):
        done, size = 0, path.stat().st_size
        for batch in _open_arrow(path, MAX_BYTES)[1]:
            done += batch.num_rows
            _check_rows(path, done, size)
            for start in range(0, batch.num_rows, max(rows, 1)):  # of runs, each part takes memory of its own only
                part = batch.slice(start, rows)
                Budget(path, MAX_BYTES, slack=size).spend(_batch_bytes(part))
                yield part


def _check_rows(path: Path, rows: int, size: int) -> None:
    """Raise FileError for so many rows in a file of `size` bytes that nothing can be learned from most of them."""
    if rows > _ANY_ROWS + _ROWS_PER_BYTE * size:
        raise FileError(f"{path}: {rows:,} rows in {size:,} bytes; expected a table whose rows differ")


def _batch_bytes(batch: RecordBatch) -> int:
    """Return the bytes of the columns, without dictionaries, which batches share; of a row at least four."""
    types = import_pyarrow()[0].types
    columns = sum(
        column.indices.nbytes if types.is_dictionary(column.type) else decoded_bytes(column) for column in batch.columns
    )
    return max(columns, _ROW_BYTES * batch.num_rows)


def _open_arrow(path: Path, max_bytes: int) -> tuple[Any, Iterator[RecordBatch], int]:
    """Return the schema, the record batches and the bytes of their compressed buffers.

    Each batch is validated: a damaged one could point outside of its memory. None takes more than `max_bytes`.
    """
    pa, _ = import_pyarrow()
    source = pa.memory_map(str(path))
    is_file = source.read(len(_ARROW_MAGIC[0])) == _ARROW_MAGIC[0]
    source.seek(0)
    reader: Any = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
    _ = reader.schema.names  # raises UnicodeDecodeError if they are damaged

    def batches() -> Iterator[RecordBatch]:
        for batch in map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader:
            batch.validate(full=True)
            yield batch

    return reader.schema, batches(), check_buffer_sizes(path, is_file, max_bytes)


@contextmanager
def _format_errors(path: Path, form: str, magic: tuple[bytes, ...]) -> Generator[None]:
    """Check that the file begins as its format does; turn pyarrow's errors into a FileError that names the file."""
    pa, _ = import_pyarrow()
    with open_for_reading(path) as file:
        head = file.read(64)
    if not head:
        raise FileError(f"{path}: empty; expected {form}; copy or download it again")
    if not head.startswith(magic):
        other = detect_format(head)
        raise FileError(
            f"{path}: {f'looks like {other}' if other else f'begins with {head[:8]!r}'}; expected {form}, as its "
            "suffix says; give it the suffix of its format, or save it again"
        )
    try:
        yield
    except pa.ArrowNotImplementedError as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise FileError(
            f"{path}: holds what pyarrow does not read ({reason}), or is damaged; write the columns as other types, or "
            "leave them out"
        ) from error
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError, struct.error) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise FileError(
            f"{path}: damaged or cut short ({reason}); expected a whole {form} file; copy or download it again"
        ) from error


def _count_rows(path: Path, file_format: str) -> int | None:
    """Return the number of rows by the footer; None for an Arrow stream, which has none."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    import pyarrow.dataset  # pyright: ignore[reportMissingTypeStubs] -- it has none

    try:
        return pyarrow.dataset.dataset(str(path), format=file_format).count_rows()
    except pa.ArrowException:
        return None


def parquet_shape(path: Path) -> FileShape:
    """Return the shape by the footer and the first rows. Raises FileError as `read_parquet` does."""
    return sampled_shape(path, stream_parquet(path, (), SAMPLE_ROWS), partial(_count_rows, file_format="parquet"))


def arrow_shape(path: Path) -> FileShape:
    """Return the shape by the footer, if there is one, and the first rows. Raises FileError as `read_arrow` does."""
    return sampled_shape(path, stream_arrow(path, (), SAMPLE_ROWS), partial(_count_rows, file_format="ipc"))


PARQUET = TableFormat(read_parquet, stream_parquet, parquet_shape)
ARROW = TableFormat(read_arrow, stream_arrow, arrow_shape)
