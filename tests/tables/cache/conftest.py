"""A table in a file, for all tests of the cache."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tables.cache.table_files import aged, table


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(table(), path, row_group_size=700)
    return aged(path)
