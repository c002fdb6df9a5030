"""Files of tables for the tests: written in every format, read in both ways."""

import datetime

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


def write_table(table: pa.Table, path) -> None:
    """`table` in the format that the suffix of `path` names."""
    name = path.name.lower()
    if ".csv" in name or ".tsv" in name:
        options = pyarrow.csv.WriteOptions(delimiter="\t" if ".tsv" in name else ",")
        compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
        with pa.output_stream(str(path), compression=compression) as file:
            pyarrow.csv.write_csv(table, file, options)
    elif path.suffix in (".parquet", ".pq"):
        pq.write_table(table, path, row_group_size=300)
    else:
        pyarrow.feather.write_feather(table, str(path), chunksize=300)


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
