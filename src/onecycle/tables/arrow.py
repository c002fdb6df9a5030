"""Parquet and Arrow files, whole or as record batches."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onecycle.core.reading import Budget, open_for_reading
from onecycle.errors import FileError
from onecycle.tables.csv_dialect import looks_like
from onecycle.tables.table_checks import Table

_PARQUET = (b"PAR1",)
_ARROW = (b"ARROW1", b"\xff\xff\xff\xff")  # a file, which can be read from its end, or a stream
_BUFFER = 2**20


def read_parquet(path: Path, max_bytes: int) -> Table:
    """The whole of a Parquet file.

    Raises FileError for a file that is missing, damaged or no Parquet, or takes more than `max_bytes` in memory.
    """
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs] -- it has none

    with _explained(path, "Parquet", _PARQUET), pq.ParquetFile(path, pre_buffer=True) as file:
        Budget(path, max_bytes).spend(_unpacked_bytes(file))
        _ = file.schema_arrow.names  # a UnicodeDecodeError where they are damaged
        table = file.read()
        table.validate(full=True)
        return table


def stream_parquet(path: Path, rows: int) -> Iterator[Any]:
    """The record batches of a Parquet file, of at most `rows` rows. Raises FileError as `read_parquet` does."""
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs] -- it has none

    # with a buffer, a column of a row group is read piece by piece
    with _explained(path, "Parquet", _PARQUET), pq.ParquetFile(path, buffer_size=_BUFFER) as file:
        _ = file.schema_arrow.names
        for groups in _row_groups(file.metadata, rows):
            for batch in file.iter_batches(rows, groups):
                batch.validate(full=True)
                yield batch


def _row_groups(footer: Any, rows: int) -> Iterator[list[int]]:
    """The row groups, one by one, small ones together: what pyarrow iterates over it holds until the end."""
    groups, count = list[int](), 0
    for group in range(footer.num_row_groups):
        groups.append(group)
        count += footer.row_group(group).num_rows
        if count >= rows:
            yield groups
            groups, count = [], 0
    if groups:
        yield groups


def read_ipc(path: Path, max_bytes: int) -> Table:
    """The whole of an Arrow file or stream, memory-mapped where it is not compressed.

    Raises FileError for a file that is missing, damaged or not Arrow, or takes more than `max_bytes` when unpacked.
    """
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    batches: list[Any] = []
    with _explained(path, "Arrow", _ARROW):
        budget = Budget(path, max_bytes, slack=path.stat().st_size)  # what is mapped as it is takes no memory
        schema, found = _ipc(path)
        for batch in found:
            budget.spend(sum(column.nbytes for column in batch.columns if not pa.types.is_dictionary(column.type)))
            batches.append(batch)
        return pa.Table.from_batches(batches, schema)


def stream_ipc(path: Path) -> Iterator[Any]:
    """The record batches of an Arrow file or stream, as they are in it. Raises FileError as `read_ipc` does."""
    with _explained(path, "Arrow", _ARROW):
        yield from _ipc(path)[1]


def _ipc(path: Path) -> tuple[Any, Iterator[Any]]:
    """The schema and the record batches, each checked: a damaged one could lead outside of its memory."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    source = pa.memory_map(str(path))
    whole = source.read(len(_ARROW[0])) == _ARROW[0]
    source.seek(0)
    reader: Any = pa.ipc.open_file(source) if whole else pa.ipc.open_stream(source)
    _ = reader.schema.names  # a UnicodeDecodeError where they are damaged

    def batches() -> Iterator[Any]:
        for batch in map(reader.get_batch, range(reader.num_record_batches)) if whole else reader:
            batch.validate(full=True)
            yield batch

    return reader.schema, batches()


def _unpacked_bytes(file: Any) -> int:
    """What the columns of a Parquet file take in memory at least, by its footer."""
    footer, width = file.metadata, 0
    for kind in file.schema_arrow.types:
        try:
            width += kind.bit_width
        except ValueError:  # no fixed width: an offset for each value
            width += 32
    groups = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
    return max(groups, footer.num_rows * width // 8)


@contextmanager
def _explained(path: Path, form: str, magic: tuple[bytes, ...]) -> Generator[None]:
    """Check that the file begins as `form` does; turn pyarrow's errors into a FileError that names it."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    with open_for_reading(path) as file:
        head = file.read(64)
    if not head:
        raise FileError(f"{path}: empty; expected {form}; copy or download it again")
    if not head.startswith(magic):
        found = looks_like(head)
        raise FileError(
            f"{path}: {f'looks like {found}' if found else f'begins with {head[:8]!r}'}; expected {form}, as its "
            "suffix says; give it the suffix of its format, or save it again"
        )
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise FileError(
            f"{path}: damaged or cut short ({reason}); expected a whole {form} file; copy or download it again"
        ) from error
