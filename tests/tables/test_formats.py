"""A format that is added to FORMATS, JSON Lines, is read in all the ways in which a table is read."""

import io
import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from onecycle import DataBunch, DataError, FileError
from onecycle.cli.app import run
from onecycle.core.reading import Budget, open_for_reading
from onecycle.tables.cache.source import file_shape
from onecycle.tables.formats import SAMPLE_ROWS, FileShape, TableFormat, sampled_shape
from onecycle.tables.read import FORMATS, is_table_file, read_table, stream_table
from table_files import assert_refused, stream_as_table, write_file

ROWS = 3_000
CALLS: Counter[str] = Counter()  # how often a file was read by `read` and by `stream`


def _rows(path: Path, text_columns: Collection[str]) -> list[dict[str, Any]]:
    with open_for_reading(path) as file:
        content = file.read()
    if not content:
        raise FileError(f"{path}: empty; expected JSON Lines; copy or download it again")
    rows = [json.loads(line) for line in io.BytesIO(content)]
    return [{key: str(value) if key in text_columns else value for key, value in row.items()} for row in rows]


def _read(path: Path, text_columns: Collection[str], max_bytes: int) -> pa.Table:
    CALLS["read"] += 1
    Budget(path, max_bytes).spend(path.stat().st_size)
    return pa.Table.from_pylist(_rows(path, text_columns))


def _stream(path: Path, text_columns: Collection[str], rows: int) -> Iterator[pa.RecordBatch]:
    CALLS["stream"] += 1
    yield from pa.Table.from_pylist(_rows(path, text_columns)).to_batches(max_chunksize=rows)


def _shape(path: Path) -> FileShape:
    return sampled_shape(path, _stream(path, (), SAMPLE_ROWS), lambda path: path.read_bytes().count(b"\n"))


JSON_LINES = TableFormat(_read, _stream, _shape, line_of_row=lambda _, row: row + 1)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, ".jsonl", JSON_LINES)
    CALLS.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Rows of a number, a category of digits, and a target that depends on both."""
    random = np.random.default_rng(0)
    x, code = random.normal(size=ROWS).tolist(), random.integers(1, 4, ROWS).tolist()
    rows = [{"x": x[i], "code": code[i], "y": x[i] + code[i]} for i in range(ROWS)]
    return write_file(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "rows.jsonl")


def test_it_is_read_whole_and_streamed(file: Path) -> None:
    assert is_table_file(file)
    table = read_table(file)
    assert table.schema == pa.schema({"x": pa.float64(), "code": pa.int64(), "y": pa.float64()})
    batches = list(stream_table(file, rows=700))
    assert [batch.num_rows for batch in batches] == [700, 700, 700, 700, 200]
    assert pa.Table.from_batches(batches).equals(table)
    assert CALLS == {"read": 1, "stream": 1}


def test_batches_of_different_types_are_an_error_of_the_reader(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [pa.record_batch({"x": [1]}), pa.record_batch({"x": [1.5]})]
    monkeypatch.setitem(FORMATS, ".jsonl", replace(JSON_LINES, stream=lambda *_: iter(batches)))
    with pytest.raises(TypeError, match="rows.jsonl: read as batches of different types: x: int64 and x: double"):
        list(stream_table(file))


def test_some_columns_stay_text(file: Path) -> None:
    assert pa.types.is_string(read_table(file, ["code"]).schema.field("code").type)
    assert stream_as_table(file, text_columns=["code"]).equals(read_table(file, ["code"]))


def test_its_shape_says_how_much_memory_it_takes(file: Path) -> None:
    assert file_shape(file) == FileShape(["x", "code", "y"], row_bytes=24, rows=ROWS)


def test_files_that_cannot_be_read(tmp_path: Path, file: Path) -> None:
    assert_refused(write_file(tmp_path, "", "empty.jsonl"), ": empty; expected JSON Lines", FileError)
    assert_refused(write_file(tmp_path, '{"": 1}\n', "nameless.jsonl"), ": column 1 of 1 has no name")
    assert_refused(tmp_path / "row.jsonl", ': no such file; did you mean "rows.jsonl"?', FileError)
    assert_refused(write_file(tmp_path, "", "rows.jsonll"), 'did you mean ".jsonl"?; expected one of .csv, ')
    with pytest.raises(FileError, match="takes more than the cap of 10 bytes"):
        read_table(file, max_bytes=10)


def test_a_bunch_in_memory_and_on_the_disk(file: Path) -> None:
    bunch = partial(DataBunch.from_table, file, "y", kinds={"code": "category"}, split="random", seed=1, device="cpu")
    in_memory = bunch()
    assert CALLS["read"] == 1
    CALLS.clear()
    on_disk = bunch(memory_limit="10 kB")
    assert (CALLS["read"], CALLS["stream"] >= 3) == (0, True)
    for data in (in_memory, on_disk):
        assert data.features is not None
        assert (data.features.names, data.features.text_columns) == (["x", "code"], ["code"])
        assert len(data.train_ds) + len(data.valid_ds) == ROWS
        assert len(data.valid_ds) == pytest.approx(ROWS / 5, rel=0.1)


def test_an_error_after_reading_names_the_line(tmp_path: Path) -> None:
    lines = [f'{{"x": {i}, "y": {"null" if i == 4 else i}}}\n' for i in range(50)]
    path = write_file(tmp_path, "".join(lines), "rows.jsonl")
    for limit in (None, 1):
        with pytest.raises(DataError) as caught:
            DataBunch.from_table(path, "y", split="random", memory_limit=limit)
        assert f"{path}:5" in str(caught.value)


@pytest.mark.parametrize("options", [(), ("--memory-limit", "10 kB", "--split", "random")])
def test_inspect(file: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(file), "--target", "y", *options]) == 0
    out = capsys.readouterr().out
    assert "target: y, regression\n" in out
    assert "rows to train on" in out


def test_inspect_shows_the_columns(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(file)]) == 0
    out = capsys.readouterr().out
    assert f"{file}: 3,000 rows, 3 columns" in out
    assert "int64" in out
