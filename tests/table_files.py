"""Files of tables for the tests: written in every format, read in both ways."""

import datetime
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from onecycle.errors import DataError
from onecycle.tables.read import read_table, stream_table

EXAMPLE = pa.table(
    {
        "id": pa.array(range(1000)),
        "x": pa.array([None if i % 7 == 0 else i / 8 for i in range(1000)]),
        "word": pa.array([None if i % 5 == 0 else f"wörd {i % 30}, so" for i in range(1000)]),
        "flag": pa.array([i % 3 == 0 for i in range(1000)]),
        "day": pa.array([datetime.date(2020, 1, 1) + datetime.timedelta(i) for i in range(1000)]),
        "time": pa.array([datetime.datetime(2020, 1, 1, 0, 0, i % 60) for i in range(1000)], pa.timestamp("s")),
    }
)


def _write_csv(table: pa.Table, path: Path, delimiter: str = ",", compression: str | None = None) -> None:
    with pa.output_stream(str(path), compression=compression) as file:
        pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(delimiter=delimiter))


def _write_feather(table: pa.Table, path: Path) -> None:
    pyarrow.feather.write_feather(table, str(path), chunksize=300)


# how the tests write the files of each suffix in onecycle.tables.read.FORMATS
WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    ".csv": _write_csv,
    ".tsv": partial(_write_csv, delimiter="\t"),
    ".csv.gz": partial(_write_csv, compression="gzip"),
    ".csv.zst": partial(_write_csv, compression="zstd"),
    ".tsv.gz": partial(_write_csv, delimiter="\t", compression="gzip"),
    ".tsv.zst": partial(_write_csv, delimiter="\t", compression="zstd"),
    ".parquet": partial(pq.write_table, row_group_size=300),
    ".pq": partial(pq.write_table, row_group_size=300),
    ".arrow": _write_feather,
    ".feather": _write_feather,
    ".ipc": _write_feather,
}


def write_table(table: pa.Table, path: Path) -> None:
    """`table` in the format that the suffix of `path` names."""
    suffix = next(suffix for suffix in WRITERS if path.name.lower().endswith(suffix))
    WRITERS[suffix](table, path)


def stream_as_table(path, **options) -> pa.Table:
    batches = list(stream_table(path, **options))
    assert len({batch.schema for batch in batches}) == 1
    return pa.Table.from_batches(batches)


def write_file(folder, text: str | bytes, name: str = "train.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def assert_refused(path, message: str, error: type[Exception] = DataError, **options) -> None:
    """Both ways of reading raise an error whose text has `message`, as it stands, after the path."""
    for read in (read_table, lambda path: list(stream_table(path))):
        with pytest.raises(error) as caught:
            read(path, **options)
        assert type(caught.value) is error
        assert message in str(caught.value)
        assert str(caught.value).startswith(str(path))


def attempt(read, path) -> tuple[pa.Table | None, DataError | None]:
    """The table, or the error that reading it raises."""
    try:
        return read(path), None
    except DataError as error:
        return None, error
