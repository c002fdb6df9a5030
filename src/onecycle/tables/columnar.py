"""Read Parquet and Arrow files, whole or as record batches."""

from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from onecycle.core.reading import Budget, open_for_reading
from onecycle.errors import FileError
from onecycle.tables.file_bytes import detect_format
from onecycle.tables.formats import SAMPLE_ROWS, FileShape, TableFormat, sampled_shape
from onecycle.tables.values import RecordBatch, Table, import_pyarrow

_PARQUET_MAGIC = (b"PAR1",)
_ARROW_MAGIC = (b"ARROW1", b"\xff\xff\xff\xff")  # a file, which has a footer, or a stream
_BUFFER_BYTES = 2**20


def read_parquet(path: Path, _text_columns: Collection[str], max_bytes: int) -> Table:
    """Read a Parquet file, with the types that it has.

    Raises FileError for a file that is missing, damaged or not Parquet, or takes more than `max_bytes` in memory.
    """
    with _parquet_file(path, pre_buffer=True) as file:
        Budget(path, max_bytes).spend(_decompressed_bytes(file))
        table = file.read()
        table.validate(full=True)
        return table


def stream_parquet(path: Path, _text_columns: Collection[str], rows: int) -> Iterator[RecordBatch]:
    """Yield the record batches of a Parquet file, of at most `rows` rows. Raises FileError as `read_parquet` does."""
    # with a buffer size, pyarrow reads a column of a row group a buffer at a time
    with _parquet_file(path, buffer_size=_BUFFER_BYTES) as file:
        for row_groups in _row_groups(file.metadata, rows):
            for batch in file.iter_batches(rows, row_groups):
                batch.validate(full=True)
                yield batch


@contextmanager
def _parquet_file(path: Path, **options: Any) -> Generator[Any]:
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs] -- it has none

    with _format_errors(path, "Parquet", _PARQUET_MAGIC), pq.ParquetFile(path, **options) as file:
        _ = file.schema_arrow.names  # raises UnicodeDecodeError if they are damaged
        yield file


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
    row_groups = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
    return max(row_groups, footer.num_rows * row_bits // 8)


def read_arrow(path: Path, _text_columns: Collection[str], max_bytes: int) -> Table:
    """Read an Arrow file or stream with the types that it has, memory-mapped if it is not compressed.

    Raises FileError for a file that is missing, damaged or not Arrow, or takes more than `max_bytes` when decompressed.
    """
    pa, _ = import_pyarrow()
    with _format_errors(path, "Arrow", _ARROW_MAGIC):
        budget = Budget(path, max_bytes, slack=path.stat().st_size)  # memory-mapped columns take no memory
        schema, batches = _open_arrow(path)
        read: list[RecordBatch] = []
        for batch in batches:
            budget.spend(sum(column.nbytes for column in batch.columns if not pa.types.is_dictionary(column.type)))
            read.append(batch)
        return pa.Table.from_batches(read, schema)


def stream_arrow(path: Path, _text_columns: Collection[str], _rows: int) -> Iterator[RecordBatch]:
    """Yield the record batches of an Arrow file or stream, of any size. Raises FileError as `read_arrow` does."""
    with _format_errors(path, "Arrow", _ARROW_MAGIC):
        yield from _open_arrow(path)[1]


def _open_arrow(path: Path) -> tuple[Any, Iterator[RecordBatch]]:
    """Return the schema and the record batches, each validated: a damaged one could point outside of its memory."""
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

    return reader.schema, batches()


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
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
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
