"""CSV files: types, missing values, and numbers with unparsed cells, read whole and streamed."""

import gc
import gzip
import io
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onecycle.errors import FileError
from onecycle.tables import csv as csv_module
from onecycle.tables.file_bytes import DecompressedFile
from onecycle.tables.read import read_table, stream_table
from onecycle.tables.values import CSV_MISSING_MARKERS
from table_files import assert_refused, attempt, stream_as_table, write_file, write_table


def test_types_missing_values_and_dates(tmp_path):
    path = write_file(
        tmp_path,
        "i,f,s,b,d,t,z,clock,none\n"
        "1,1.5,x,true,2020-01-01,2020-01-01T10:00,2020-01-01T00:00Z,12:30,\n"
        "NA,?,-,NaN,null,NULL,None,N/A,#N/A\n"
        '3,nan,"",FALSE,2021-02-28,2020-01-01 10:00:01,2020-01-01T00:00+01:00,23:59:59,""\n',
    )
    table = read_table(path)
    assert [str(kind) for kind in table.schema.types] == [
        *(
            "int64",
            "double",
            "string",
            "bool",
            "date32[day]",
            "timestamp[s]",
            "timestamp[s, tz=UTC]",
            "time32[s]",
            "null",
        ),
    ]
    assert [column.null_count for column in table.columns] == [1, 2, 2, 1, 1, 1, 1, 1, 3]
    assert stream_as_table(path).equals(table)


def test_missing_markers_are_missing_in_numbers_and_text_but_words_are_not(tmp_path):
    words = ["none", "Unknown", "na", "missing", " NA"]
    path = write_file(tmp_path, "n,word\n" + "".join(f"{marker},{marker}\n" for marker in CSV_MISSING_MARKERS))
    path.write_text(path.read_text() + "".join(f"1,{word}\n" for word in words))
    table = read_table(path)
    assert table["n"].to_pylist() == [None] * len(CSV_MISSING_MARKERS) + [1] * len(words)
    assert table["word"].to_pylist() == [None] * len(CSV_MISSING_MARKERS) + words
    assert stream_as_table(path).equals(table)
    as_written = read_table(path, text_columns=["word"])
    assert as_written["word"].to_pylist() == [None, *CSV_MISSING_MARKERS[1:], *words]
    assert as_written["n"].equals(table["n"])
    assert stream_as_table(path, text_columns=["word"]).equals(as_written)
    others = read_table(path, text_columns=["n"])
    assert others["word"].equals(table["word"])
    assert stream_as_table(path, text_columns=["n"]).equals(others)


@pytest.mark.parametrize("marker", ["na", "Null", "--", ".", "unknown", " ?"])
def test_words_that_are_missing_where_numbers_are_meant_are_so_in_csv_too(tmp_path, marker):
    path = write_file(tmp_path, "n\n" + "".join(f"{i}.5\n" for i in range(40)) + f"{marker}\n")
    assert str(read_table(path).schema.field("n").type) == "string"  # which the profile of the column makes numbers of
    assert stream_as_table(path).equals(read_table(path))


def test_whole_numbers_of_64_bits_are_exact(tmp_path, monkeypatch):
    hashes = [2**63 - 1, 2**63, 12345678901234567890, 2**64 - 1]
    rows = "".join(f"{i},{number},{number}.0,-{number},{number}0\n" for i, number in enumerate(hashes))
    path = write_file(tmp_path, "i,hash,float,negative,beyond\n" + rows + "4,,,,\n5,NA,1.5,1,1\n")
    table = read_table(path)
    assert [str(kind) for kind in table.schema.types] == ["int64", "uint64", "double", "double", "double"]
    assert table["hash"].to_pylist() == [*hashes, None, None]
    monkeypatch.setattr("onecycle.tables.csv.BLOCK_BYTES", 200)
    assert stream_as_table(path).equals(table)


def test_columns_can_stay_text(tmp_path):
    path = write_file(tmp_path, "zip,age,code\n" + "01234,1,7\n" * 20 + "G,2,8\n")
    table = read_table(path, text_columns=["zip", "code", "of another file"])
    assert table["zip"].to_pylist() == ["01234"] * 20 + ["G"]
    assert [str(kind) for kind in table.schema.types] == ["string", "int64", "string"]
    assert stream_as_table(path, text_columns=["zip", "code", "of another file"]).equals(table)


def test_reading_agrees_with_pandas(tmp_path):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "number": random.normal(size=500),
            "count": random.integers(-5, 5, 500),
            "text": random.choice(["a,b", 'c "d"', "e\nf", "ü", None], 500),
            "gaps": np.where(random.random(500) < 0.1, np.nan, random.random(500)),
        }
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    found, expected = read_table(tmp_path / "x.csv").to_pandas(), pd.read_csv(tmp_path / "x.csv")
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


cell = st.one_of(
    st.sampled_from(["", "NA", "0", "1", "7", "-3", "1.5", "1e3", "true", "False", "0x1F", "inf", "+2", " 5", "5 "]),
    st.sampled_from(
        ["2020-01-01", "2020-01-01 10:00", "2020-01-01T10:00:00.5", "2020-01-01T10:00Z", "12:30", "12:30:01"]
    ),
    st.sampled_from(
        ["x", "a,b", 'q"q', "line\nend", "\r\n", "1599-01-01", "1599-01-01T00:00:00.1", "99999999999999999999", "ü"]
    ),
    st.text(max_size=5).filter(lambda text: "\0" not in text),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_streaming_infers_the_types_of_the_whole_file(tmp_path, monkeypatch, data):
    """Also where the blocks are so small that each has other types."""
    width = data.draw(st.integers(1, 3))
    columns = [data.draw(st.lists(cell, min_size=1, max_size=4), label="cells of a column") for _ in range(width)]
    rows = data.draw(st.lists(st.tuples(*map(st.sampled_from, columns)), min_size=1, max_size=40))
    text = io.StringIO(newline="")
    pd.DataFrame(rows, columns=[f"column {i}" for i in range(width)]).to_csv(text, index=False, lineterminator="\n")
    path = write_file(tmp_path, text.getvalue())
    monkeypatch.setattr(csv_module, "BLOCK_BYTES", data.draw(st.sampled_from([150, 300, 2**20])))
    whole, error = attempt(read_table, path)
    streamed, same_error = attempt(lambda path: stream_as_table(path, rows=7), path)
    assert str(error) == str(same_error)
    assert error or streamed.equals(whole)


def test_line_ends_in_cells_where_blocks_are_cut(tmp_path):
    words = ["first line\nsecond line, with a comma\n\nlast"] * 40_000  # pyarrow cuts blocks of 1 MiB
    table = pa.table({"n": range(40_000), "words": words})
    write_table(table, tmp_path / "x.csv")
    assert read_table(tmp_path / "x.csv").equals(table)
    assert stream_as_table(tmp_path / "x.csv").equals(table)


def test_streaming_holds_a_few_blocks_only(tmp_path, monkeypatch):
    table = pa.table({"n": np.arange(200_000), "x": np.random.default_rng(0).normal(size=200_000)})
    write_table(table, tmp_path / "x.csv")
    monkeypatch.setattr(csv_module, "BLOCK_BYTES", 2**16)
    before, most = pa.total_allocated_bytes(), 0
    for _ in stream_table(tmp_path / "x.csv"):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < table.nbytes  # 3.2 MB; the file has 5 MB


def test_an_error_names_the_line_of_a_cell_that_is_not_a_number(tmp_path):
    ages = "".join(f"{20 + i % 40},x\n" for i in range(15))
    message = (
        ":17: column \"age\" is 'abc'; expected a number, as in 30 of its 31 cells; correct it, or leave it empty where the "
        'value is missing; to train on it as a category, say so: --kind age=category, or in Python kinds={"age": "category"}'
    )
    assert_refused(write_file(tmp_path, f"age,b\n{ages}abc,y\n{ages}"), message)
    assert_refused(write_file(tmp_path, f'age,b\n{ages}21,"y\nz"\n\nabc,y\n{ages}'), ":20: column \"age\" is 'abc'")
    assert_refused(
        write_file(tmp_path, f"age;b\n1,5;x\n{ages.replace(',', ';')}abc;y\n{ages.replace(',', ';')}"),
        ":18: column \"age\" is 'abc'",
    )
    table = read_table(tmp_path / "train.csv", text_columns=["age"])
    assert table["age"].type == pa.string()


def test_a_slip_below_a_cell_that_is_too_long_for_python(tmp_path):
    path = write_file(tmp_path, "n,text\n0," + "word " * 60_000 + "\n" + "".join(f"{i},\n" for i in range(40)) + "x,\n")
    assert_refused(path, ": row 42: column \"n\" is 'x'; expected a number, as in 41 of its 42 cells")


def test_a_slip_beyond_the_first_block(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_module, "BLOCK_BYTES", 2**12)
    lines = [f"{i},{i / 8}" for i in range(100_000)]
    lines[90_000] = "90000,n.a."
    path = write_file(tmp_path, "id,price\n" + "\n".join(lines))
    assert_refused(path, ":90002: column \"price\" is 'n.a.'; expected a number, as in 99,999 of its 100,000 cells")


@pytest.mark.parametrize(
    "cells",
    [
        [str(i) for i in range(80)] + [f"x{i}" for i in range(20)],  # fewer than 90% are numbers
        [str(i) for i in range(1000)] + [f"{i}b" for i in range(11)],  # more than 10 other values
        ["1", "2", "3", "4"] * 50 + ["G"],  # more than 10% of the values are others: floors of a house
        ["a", "b", "7"] * 50,
        ["NA", "x", "y"] * 10,
    ],
)
def test_categories_some_of_which_are_numbers(tmp_path, cells):
    path = write_file(tmp_path, "floor,n\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    assert read_table(path)["floor"].type == pa.string()
    assert stream_as_table(path)["floor"].type == pa.string()


def test_unparsed_cells_that_come_first(tmp_path, monkeypatch):
    """A marker that pyarrow does not know, in a tenth of the cells, all at the beginning."""
    monkeypatch.setattr(csv_module, "BLOCK_BYTES", 2**10)
    path = write_file(tmp_path, "a,b\n" + "lost,1\n" * 1000 + "".join(f"{i},1\n" for i in range(9000)))
    assert_refused(path, ":2: column \"a\" is 'lost'; expected a number, as in 9,000 of its 10,000 cells")


@pytest.mark.parametrize(
    "content", ["a,b\n1,x\n", "a,b\n1\n", "a,b\n" + "1,x\n" * 9 + "old,y\n"], ids=["read", "damaged", "text"]
)
def test_pyarrows_threads_hold_no_file_when_reading_is_done(tmp_path, content):
    """Not even for a moment: a thread that lets go of one while Python exits would abort the process."""
    path = tmp_path / "a.csv"
    path.write_text(content)
    for _ in range(50):
        attempt(read_table, path)
        assert not [left for left in gc.get_objects() if type(left) is DecompressedFile]


def test_an_error_in_the_middle_of_a_stream_is_told_at_once(tmp_path, monkeypatch):
    path = tmp_path / "a.csv.gz"
    whole = gzip.compress(
        b"a,b\n" + np.random.default_rng(0).bytes(2**21).hex("\n", 8).replace("\n", ",1\n").encode(), mtime=0
    )
    path.write_bytes(whole[: len(whole) // 2])
    waited = []
    monkeypatch.setattr(csv_module, "_RELEASE_SECONDS", 60)
    wait = threading.Event.wait
    monkeypatch.setattr(threading.Event, "wait", lambda event, *seconds: waited.append(wait(event, *seconds)))
    with pytest.raises(FileError, match="damaged gzip"):
        read_table(path)
    assert waited
    assert all(waited)  # the file was let go of before the time was over
