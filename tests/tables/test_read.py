import datetime
import gzip
import io
import os
import pickle
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onecycle.errors import DataError, FileError, SettingError
from onecycle.tables import csv as read_csv
from onecycle.tables.read import SUFFIXES, is_table_file, lines_named, read_table, stream_table

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


def write(table: pa.Table, path) -> None:
    """`table` in the format that the suffix of `path` names."""
    name = path.name.lower()
    if ".csv" in name or ".tsv" in name:
        how = pyarrow.csv.WriteOptions(delimiter="\t" if ".tsv" in name else ",")
        packing = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
        with pa.output_stream(str(path), compression=packing) as file:
            pyarrow.csv.write_csv(table, file, how)
    elif path.suffix in (".parquet", ".pq"):
        pq.write_table(table, path, row_group_size=300)
    else:
        pyarrow.feather.write_feather(table, str(path), chunksize=300)


def streamed(path, **options) -> pa.Table:
    batches = list(stream_table(path, **options))
    assert len({batch.schema for batch in batches}) == 1
    return pa.Table.from_batches(batches)


def csv(folder, text: str | bytes, name: str = "train.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def fails(path, message: str, error: type[Exception] = DataError, **options) -> None:
    """Both ways of reading raise an error whose text has `message`, as it stands, after the path."""
    for read in (read_table, lambda path: list(stream_table(path))):
        with pytest.raises(error) as caught:
            read(path, **options)
        assert type(caught.value) is error
        assert message in str(caught.value)
        assert str(caught.value).startswith(str(path))


def tried(read, path) -> tuple[pa.Table | None, DataError | None]:
    """The table, or the error that reading it raises."""
    try:
        return read(path), None
    except DataError as error:
        return None, error


# every format


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_table_back(tmp_path, suffix):
    path = tmp_path / f"some.table{suffix.upper() if suffix == '.csv' else suffix}"
    write(EXAMPLE, path)
    assert is_table_file(path)
    found = read_table(str(path))
    assert found.cast(EXAMPLE.schema).equals(EXAMPLE)  # Parquet knows no whole seconds
    assert streamed(path, rows=97).equals(found)
    assert max(batch.num_rows for batch in stream_table(path, rows=97)) == 97


@pytest.mark.parametrize("name", ["x.CSV", "x.csv.GZ", "x.y.tsv.zst", "X.Parquet", "a/b.feather", ".hidden.csv"])
def test_table_files_are_known_by_their_suffix(name):
    assert is_table_file(name)


@pytest.mark.parametrize(
    "name", ["x.txt", "x.gz", "x.npy.gz", "x.parquet.gz", "csv", "x.csv.bz2", "x.npz", "x.pkl", "x"]
)
def test_other_files_are_no_table_files(name):
    assert not is_table_file(name)


def test_another_suffix(tmp_path):
    known = "expected one of .csv, .tsv, .csv.gz, .csv.zst, .tsv.gz, .tsv.zst, .parquet, .pq, .arrow, .feather, .ipc"
    fails(csv(tmp_path, "a,b\n1,2\n", "x.xls"), f': the suffix ".xls" is none of a table; {known}')
    fails(csv(tmp_path, "a,b\n1,2\n", "x.paquet"), f'".paquet" is none of a table; did you mean ".parquet"?; {known}')
    fails(csv(tmp_path, "a,b\n1,2\n", "train"), 'the suffix "" is none of a table')


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_cannot_be_opened(tmp_path, suffix):
    (tmp_path / f"train{suffix}").touch()
    fails(tmp_path / f"trian{suffix}", f': no such file; did you mean "train{suffix}"?', FileError)
    fails(tmp_path / f"train{suffix}", ": empty; expected", FileError)
    (tmp_path / f"folder{suffix}").mkdir()
    fails(
        tmp_path / f"folder{suffix}",
        ": a folder; expected a file; name a file inside it, or read a folder of Parquet",
        FileError,
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path):
    path = csv(tmp_path, "a,b\n1,2\n")
    path.chmod(0)
    fails(path, ": cannot be read (Permission denied)", FileError)


@pytest.mark.parametrize("rows", [0, -1, 1.5, "many"])
def test_a_bad_number_of_rows(tmp_path, rows):
    with pytest.raises(SettingError, match="rows is .*; expected a whole number of at least 1"):
        list(stream_table(csv(tmp_path, "a\nx\n"), rows=rows))


# CSV: what is understood


def test_types_missing_values_and_dates(tmp_path):
    path = csv(
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
    assert streamed(path).equals(table)


@pytest.mark.parametrize(
    ("text", "names", "row"),
    [
        ("a,b\n1,x\n", ["a", "b"], [1, "x"]),
        ("a;b\n1,5;x\n", ["a", "b"], [1.5, "x"]),  # decimal commas
        ("a;b\n1.5;x, y\n", ["a", "b"], [1.5, "x, y"]),
        ("a\tb\n1,5\tx\n", ["a", "b"], ["1,5", "x"]),
        ("a|b\n1|x;y;z\n", ["a", "b"], [1, "x;y;z"]),
        ("a;b,c\n1;2,x\n", ["a;b", "c"], ["1;2", "x"]),  # a comma in the header is what divides
        ('"price, EUR";size\n1;2\n', ["price, EUR", "size"], [1, 2]),  # but not in a quoted name
        ('a,"b ""c"""\n"1","x\n""y"", z"\n', ["a", 'b "c"'], [1, 'x\n"y", z']),
        ("\ufeffa,b\r\n1,x\r\n\r\n", ["a", "b"], [1, "x"]),
        ("a,b\r1,x\r", ["a", "b"], [1, "x"]),
        ("a\n1\n", ["a"], [1]),
        ("a,b\n +1.5 , x\n", ["a", "b"], [1.5, " x"]),
    ],
)
def test_ways_to_write_csv(tmp_path, text, names, row):
    table = read_table(csv(tmp_path, text))
    assert table.column_names == names
    assert list(table.to_pylist()[0].values()) == row
    assert streamed(tmp_path / "train.csv").equals(table)


def test_columns_can_be_kept_as_text(tmp_path):
    path = csv(tmp_path, "zip,age,code\n" + "01234,1,7\n" * 20 + "G,2,8\n")
    table = read_table(path, text=["zip", "code", "of another file"])
    assert table["zip"].to_pylist() == ["01234"] * 20 + ["G"]
    assert [str(kind) for kind in table.schema.types] == ["string", "int64", "string"]
    assert streamed(path, text=["zip", "code", "of another file"]).equals(table)


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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_streaming_gives_the_types_of_the_whole(tmp_path, monkeypatch, data):
    """Also where the blocks are so small that each has other types."""
    width = data.draw(st.integers(1, 3))
    columns = [data.draw(st.lists(cell, min_size=1, max_size=4), label="cells of a column") for _ in range(width)]
    rows = data.draw(st.lists(st.tuples(*map(st.sampled_from, columns)), min_size=1, max_size=40))
    text = io.StringIO(newline="")
    pd.DataFrame(rows, columns=[f"column {i}" for i in range(width)]).to_csv(text, index=False, lineterminator="\n")
    path = csv(tmp_path, text.getvalue())
    monkeypatch.setattr(read_csv, "_BLOCK", data.draw(st.sampled_from([150, 300, 2**20])))
    whole, error = tried(read_table, path)
    pieces, same_error = tried(lambda path: streamed(path, rows=7), path)
    assert str(error) == str(same_error)
    assert error or pieces.equals(whole)


def test_line_ends_in_cells_where_blocks_are_cut(tmp_path):
    words = ["first line\nsecond line, with a comma\n\nlast"] * 40_000  # pyarrow cuts blocks of 1 MiB
    table = pa.table({"n": range(40_000), "words": words})
    write(table, tmp_path / "x.csv")
    assert read_table(tmp_path / "x.csv").equals(table)
    assert streamed(tmp_path / "x.csv").equals(table)


def test_streaming_holds_a_few_blocks_only(tmp_path, monkeypatch):
    table = pa.table({"n": np.arange(200_000), "x": np.random.default_rng(0).normal(size=200_000)})
    write(table, tmp_path / "x.csv")
    monkeypatch.setattr(read_csv, "_BLOCK", 2**16)
    before, most = pa.total_allocated_bytes(), 0
    for _ in stream_table(tmp_path / "x.csv"):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < table.nbytes  # 3.2 MB; the file has 5 MB


# CSV: what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\n\r\n", ": no header line; expected the names of the columns in the first line"),
        ("a,b", ": no rows below the header; expected at least one"),
        ("a,b\n\n\n", ": no rows below the header; expected at least one"),
        ("1,2.5,-3\n4,5,6\n", ":1: the first line is 1, 2.5, -3, all numbers; expected a header line with the names"),
        ("1,2,3,4,5,6\n4,5,6,7,8,9\n", ":1: the first line is 1, 2, 3, 4, 5, …, all numbers"),
        ("a,b,a,c,b\n1,2,3,4,5\n", ': more than one column is called "a", "b"; expected each name once: rename them'),
        ("a,,b\n1,2,3\n", ": column 2 of 3 has no name; expected a name for each: name it, or leave it out"),
        (
            ",a\n0,2\n",
            ": column 1 of 2 has no name; expected a name for each: name it, or leave it out (a pandas index",
        ),
        ("a,b,\n1,2,\n", ": column 3 of 3 has no name"),
    ],
)
def test_headers_that_cannot_be_used(tmp_path, text, message):
    fails(csv(tmp_path, text), message)


def test_rows_that_do_not_fit_the_header_are_named_by_their_line(tmp_path):
    good = "1,x\n" * 14
    fails(
        csv(tmp_path, f"a,b\n{good}1,x\n1,2,3\n{good}"),
        ":17: 3 cells; expected 2 as in the header (a, b); check the delimiters",
    )
    fails(csv(tmp_path, f"a,b\n{good}1,x\n1\n{good}"), ":17: 1 cell; expected 2 as in the header (a, b)")
    fails(
        csv(tmp_path, f'a,b\n{good}1,"x\ny\n\nz"\n\n1,2,3\n'), ":21: 3 cells; expected 2"
    )  # lines in cells, empty lines
    fails(csv(tmp_path, f"a,b\r\n{good}1,2,3\r\n"), ":16: 3 cells; expected 2")
    names = ",".join("abcdefg")
    fails(csv(tmp_path, f"{names}\n1,2\n"), ":2: 2 cells; expected 7 as in the header (a, b, c, d, e, …)")
    fails(csv(tmp_path, gzip.compress(b"a,b\n1,2,3\n", mtime=0), "x.csv.gz"), ":2: 3 cells; expected 2")


def test_quotes_that_stay_open(tmp_path):
    good = "1,x\n" * 10
    message = ":12: a quote opens in this row and is not closed before the end of the file; expected a closing quote"
    fails(csv(tmp_path, f'a,b\n{good}2,"y\n{good}'), message)
    fails(
        csv(tmp_path, f'a,b\n{good}"2,y\n{good}'),
        ":12: 1 cell; expected 2 as in the header (a, b); is a quote left open?",
    )
    fails(csv(tmp_path, gzip.compress(f'a,b\n{good}2,"y\n{good}'.encode(), mtime=0), "x.csv.gz"), message)
    assert read_table(csv(tmp_path, f'a,b\n{good}2,"y\nz"\n')).num_rows == 11


def test_a_row_without_an_end(tmp_path):
    message = "the row after that of line 2 has a cell of more than 131,072 characters; expected shorter ones; is a quote left open?"
    fails(csv(tmp_path, 'a,b\n1,x\n2,"' + "y" * 2**24), message)
    fails(csv(tmp_path, "a,b\n1,x\n" + "2" * 2**24), message)


def test_cells_that_python_would_find_too_long(tmp_path):
    long = "word " * 60_000
    assert read_table(csv(tmp_path, f"a,b\n1,{long}\n"))["b"].to_pylist() == [long]
    assert streamed(csv(tmp_path, f"a,b\n1,{long}\n"))["b"].to_pylist() == [long]
    fails(
        csv(tmp_path, f"a,b\n1,{long}\n1\n"),
        ": cannot be read as CSV (CSV parse error: ",
        FileError,
    )


@pytest.mark.parametrize("rows", [15, 400_000])  # beyond the first bytes too
def test_other_encodings_are_named_by_line_and_byte(tmp_path, rows):
    text = "a,b\n" + "1,xyz\n" * rows + "2,café\n1,ü\n"
    message = f":{rows + 2}: byte 0xe9 at position {4 + 6 * rows + 5:,} is not UTF-8; expected text in UTF-8; save the file as UTF-8"
    fails(csv(tmp_path, text.encode("latin-1")), message, FileError)
    fails(csv(tmp_path, text.replace("\n", "\r").encode("latin-1")), message, FileError)
    fails(csv(tmp_path, text.encode()[:-2]), f":{rows + 3}: byte 0xc3 at position", FileError)  # cut in a character
    with pytest.raises(FileError, match="byte 0xe9"):
        read_table(csv(tmp_path, text.encode("latin-1")), text=["b"])
    assert read_table(csv(tmp_path, text.encode("utf-8-sig"))).column_names == ["a", "b"]
    fails(
        csv(tmp_path, text.encode("utf-16")),
        ": looks like UTF-16 text; expected CSV, which is text in UTF-8",
        FileError,
    )
    fails(
        csv(tmp_path, text.encode("utf-16-le")), ": looks like a binary file or UTF-16 text, with zero bytes", FileError
    )


def test_a_header_in_another_encoding(tmp_path):
    fails(csv(tmp_path, "größe,b\n1,2\n".encode("latin-1")), ":1: byte 0xf6 at position 2 is not UTF-8", FileError)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<!DOCTYPE html>\n<html>404</html>", "an HTML page"),
        (b"PK\x03\x04\x14\0", "a zip archive, as Excel's .xlsx is"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "gzip"),
        (pickle.dumps({"a": 1}), "a pickle"),
        (b"SQLite format 3\0", "an SQLite database"),
    ],
)
def test_another_format_than_the_suffix_says(tmp_path, content, found, suffix):
    fails(csv(tmp_path, content, f"x{suffix}"), f": looks like {found}; expected ", FileError)


def test_tables_in_each_others_suffix(tmp_path):
    write(EXAMPLE, tmp_path / "x.parquet")
    write(EXAMPLE, tmp_path / "x.arrow")
    write(EXAMPLE, tmp_path / "x.csv")
    for suffix, other, found in [
        (".csv", ".parquet", "looks like Parquet; expected CSV"),
        (".csv", ".arrow", "looks like Arrow; expected CSV"),
        (
            ".arrow",
            ".parquet",
            "looks like Parquet; expected Arrow, as its suffix says; give it the suffix of its format",
        ),
        (".parquet", ".arrow", "looks like Arrow; expected Parquet"),
        (".parquet", ".csv", 'begins with b\'"id","x"\'; expected Parquet'),
        (".csv.gz", ".csv", "begins with b'\"i'; expected a gzip file, as its name says; rename it"),
    ]:
        path = tmp_path / f"wrong{suffix}"
        path.write_bytes((tmp_path / f"x{other}").read_bytes())
        fails(path, f": {found}", FileError)


# CSV: numbers with slips


def test_a_cell_that_is_no_number_is_named_by_its_line(tmp_path):
    ages = "".join(f"{20 + i % 40},x\n" for i in range(15))
    message = (
        ":17: column \"age\" is 'abc'; expected a number, as in 30 of its 31 cells; correct it, or leave it empty where the "
        'value is missing; to train on it as a category, say so: --kind age=category, or in Python kinds={"age": "category"}'
    )
    fails(csv(tmp_path, f"age,b\n{ages}abc,y\n{ages}"), message)
    fails(csv(tmp_path, f'age,b\n{ages}21,"y\nz"\n\nabc,y\n{ages}'), ":20: column \"age\" is 'abc'")
    fails(
        csv(tmp_path, f"age;b\n1,5;x\n{ages.replace(',', ';')}abc;y\n{ages.replace(',', ';')}"),
        ":18: column \"age\" is 'abc'",
    )
    table = read_table(tmp_path / "train.csv", text=["age"])
    assert table["age"].type == pa.string()


def test_a_slip_beyond_the_first_block(tmp_path, monkeypatch):
    monkeypatch.setattr(read_csv, "_BLOCK", 2**12)
    lines = [f"{i},{i / 8}" for i in range(100_000)]
    lines[90_000] = "90000,n.a."
    path = csv(tmp_path, "id,price\n" + "\n".join(lines))
    fails(path, ":90002: column \"price\" is 'n.a.'; expected a number, as in 99,999 of its 100,000 cells")


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
def test_categories_among_which_are_numbers(tmp_path, cells):
    path = csv(tmp_path, "floor,n\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    assert read_table(path)["floor"].type == pa.string()
    assert streamed(path)["floor"].type == pa.string()


def test_slips_that_come_first(tmp_path, monkeypatch):
    """A marker that pyarrow does not know, in a tenth of the cells, all at the beginning."""
    monkeypatch.setattr(read_csv, "_BLOCK", 2**10)
    path = csv(tmp_path, "a,b\n" + "missing,1\n" * 1000 + "".join(f"{i},1\n" for i in range(9000)))
    fails(path, ":2: column \"a\" is 'missing'; expected a number, as in 9,000 of its 10,000 cells")


# packed files


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_packed_files_that_are_cut_short_or_damaged(tmp_path, suffix):
    write(pa.table({"x": np.random.default_rng(0).normal(size=50_000)}), tmp_path / f"x.csv{suffix}")
    whole, form = (tmp_path / f"x.csv{suffix}").read_bytes(), {".gz": "gzip", ".zst": "zstd"}[suffix]
    advice = f"); expected a whole {form} file; copy or download it again"
    for length in (3, 40, len(whole) // 2, len(whole) - 4):
        path = csv(tmp_path, whole[:length], f"cut.csv{suffix}")
        fails(path, f": damaged {form} after ", FileError)
        fails(path, advice, FileError)
    damaged = csv(tmp_path, whole[:-100] + b"\xff" * 100, f"damaged.csv{suffix}")
    fails(damaged, f": damaged {form} after ", FileError)


def test_what_unpacks_to_more_than_the_cap(tmp_path):
    path = csv(tmp_path, gzip.compress(b"a,b\n" + b"1,2\n" * 100_000, mtime=0), "bomb.csv.gz")
    with pytest.raises(
        FileError, match=r"bomb\.csv\.gz: takes more than the cap of 50,000 bytes when unpacked; .*max_bytes="
    ):
        read_table(path, max_bytes=50_000)
    assert read_table(path, max_bytes=401_000).num_rows == 100_000
    pq.write_table(pa.table({"x": np.zeros(1_000_000)}), tmp_path / "x.parquet")
    with pytest.raises(FileError, match="takes more than the cap of 7,000,000 bytes"):
        read_table(tmp_path / "x.parquet", max_bytes=7_000_000)
    pyarrow.feather.write_feather(pa.table({"x": np.zeros(1_000_000)}), str(tmp_path / "x.arrow"), compression="zstd")
    with pytest.raises(FileError, match="takes more than the cap of 7,000,000 bytes"):
        read_table(tmp_path / "x.arrow", max_bytes=7_000_000)
    pyarrow.feather.write_feather(
        pa.table({"x": np.zeros(100_000)}), str(tmp_path / "y.arrow"), compression="uncompressed"
    )
    assert read_table(tmp_path / "y.arrow", max_bytes=1000).num_rows == 100_000  # mapped: it takes no memory


def test_a_gzip_bomb_takes_no_more_memory_than_the_cap(tmp_path):
    with gzip.open(tmp_path / "bomb.csv.gz", "wb") as file:
        file.write(b"a,b\n1,2\n3,")
        for _ in range(64):
            file.write(b"4" * 2**20)
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match="bomb"):
        read_table(tmp_path / "bomb.csv.gz", max_bytes=2**22)
    assert pa.default_memory_pool().max_memory() - before < 2**29
    with pytest.raises(DataError, match="has a cell of more than 131,072 characters"):
        list(stream_table(tmp_path / "bomb.csv.gz"))


# Parquet and Arrow


def test_files_that_are_cut_short(tmp_path):
    for name in ("x.parquet", "x.arrow"):
        write(EXAMPLE, tmp_path / name)
        whole, form = (tmp_path / name).read_bytes(), {"x.parquet": "Parquet", "x.arrow": "Arrow"}[name]
        for length in (10, len(whole) // 2, len(whole) - 3):
            path = csv(tmp_path, whole[:length], f"cut_{name}")
            fails(path, ": damaged or cut short (", FileError)
            fails(path, f"); expected a whole {form} file; copy or download it again", FileError)


def test_an_arrow_stream_with_any_suffix(tmp_path):
    with pa.ipc.new_stream(str(tmp_path / "data.arrow"), EXAMPLE.schema) as writer:
        writer.write_table(EXAMPLE, max_chunksize=100)
    assert read_table(tmp_path / "data.arrow").equals(EXAMPLE)
    assert streamed(tmp_path / "data.arrow", rows=30).equals(EXAMPLE)
    cut = csv(tmp_path, (tmp_path / "data.arrow").read_bytes()[:-500], "cut.arrow")
    fails(cut, ": damaged or cut short (", FileError)


def test_the_first_feather_format(tmp_path):
    path = csv(tmp_path, b"FEA1" + b"\0" * 60, "old.feather")
    fails(path, ": looks like the first Feather format; expected Arrow", FileError)


def test_tables_without_rows_or_columns(tmp_path):
    for name in ("x.parquet", "x.arrow"):
        write(EXAMPLE.slice(0, 0), tmp_path / name)
        fails(tmp_path / name, ": no rows; expected at least one")
    write(pa.table({}), tmp_path / "x.arrow")
    with pytest.raises(DataError, match=r"x\.arrow: no columns; expected at least one"):
        read_table(tmp_path / "x.arrow")


def test_names_that_are_given_twice_or_empty(tmp_path):
    twice = pa.Table.from_arrays([pa.array([1])] * 3, names=["a", "b", "a"])
    write(twice, tmp_path / "x.arrow")
    fails(tmp_path / "x.arrow", ': more than one column is called "a"; expected each name once')
    write(pa.Table.from_arrays([pa.array([1])], names=[" "]), tmp_path / "x.arrow")
    fails(tmp_path / "x.arrow", ": column 1 of 1 has no name")


def test_names_that_are_no_text(tmp_path):
    table = pa.table({"name": [1]})
    with pa.ipc.new_stream(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    content = (tmp_path / "x.arrow").read_bytes().replace(b"name", b"n\xffme")
    fails(csv(tmp_path, content, "x.arrow"), ": damaged or cut short ('utf-8' codec can't decode byte 0xff", FileError)
    pq.write_table(table, tmp_path / "x.parquet", store_schema=False)
    content = (tmp_path / "x.parquet").read_bytes().replace(b"name", b"n\xffme")
    fails(csv(tmp_path, content, "x.parquet"), ": damaged or cut short ('utf-8' codec can't decode", FileError)


def test_nested_columns_are_refused_but_for_lists(tmp_path):
    write(pa.table({"tags": [["a"], ["b", "c"]], "n": [1, 2]}), tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet")["tags"].to_pylist() == [["a"], ["b", "c"]]
    write(pa.table({"n": [1], "place": [{"lat": 1.5}]}), tmp_path / "x.parquet")
    message = ': column "place" holds values of type struct<lat: double>; expected one number, text or date in each row'
    fails(tmp_path / "x.parquet", message)
    write(pa.table({"m": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))}), tmp_path / "x.arrow")
    fails(tmp_path / "x.arrow", ': column "m" holds values of type map<string, int64')
    write(pa.table({"deep": [[[1]]]}), tmp_path / "x.arrow")
    fails(tmp_path / "x.arrow", ': column "deep" holds values of type list<item: list<item: int64>>')


def test_bytes_are_read_as_text_where_they_are_text(tmp_path):
    write(pa.table({"s": [b"a", None]}), tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet")["s"].to_pylist() == ["a", None]
    write(pa.table({"s": [b"\xff\xfe"]}), tmp_path / "x.parquet")
    fails(
        tmp_path / "x.parquet",
        ': column "s" holds bytes that are no UTF-8 text; expected text or numbers; leave it out',
    )


def test_an_unnamed_pandas_index_is_left_out(tmp_path):
    frame = pd.DataFrame({"a": [1, 2, 3]}).iloc[[2, 0, 1]]
    frame.to_parquet(tmp_path / "x.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "x.parquet").names
    assert read_table(tmp_path / "x.parquet").to_pydict() == {"a": [3, 1, 2]}
    assert streamed(tmp_path / "x.parquet").column_names == ["a"]
    frame.rename_axis("key").to_parquet(tmp_path / "x.parquet")
    assert set(read_table(tmp_path / "x.parquet").column_names) == {"a", "key"}


def test_invalid_text_and_dictionaries_in_arrow_files(tmp_path):
    """What pyarrow itself does not notice, and would follow out of the memory it has."""
    text = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 1], "i4")), pa.py_buffer(b"\xff"))
    write(pa.table({"s": text}), tmp_path / "x.ipc")
    fails(tmp_path / "x.ipc", ": damaged or cut short (", FileError)
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 99]), pa.array(["a", "b"]), safe=False)
    write(pa.table({"d": codes}), tmp_path / "x.ipc")
    fails(tmp_path / "x.ipc", ": damaged or cut short (", FileError)


def test_extension_types_run_no_code(tmp_path):
    """A type whose metadata is a pickle that would fail the test: old versions of pyarrow loaded it."""

    class Trap:
        def __reduce__(self):
            return pytest.fail, ("code was run",)

    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(Trap())}
    schema = pa.schema([pa.field("a", pa.int64(), metadata=metadata)])
    write(pa.table([[1, 2]], schema=schema), tmp_path / "x.arrow")
    assert read_table(tmp_path / "x.arrow").to_pydict() == {"a": [1, 2]}


def test_extension_types_are_what_they_stand_for(tmp_path):
    frame = pd.DataFrame({"month": pd.period_range("2020", periods=2, freq="M"), "json": ["1", "2"]})
    table = pa.Table.from_pandas(frame)
    table = table.set_column(1, "json", pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1", "2"])))
    write(table, tmp_path / "x.arrow")
    assert [str(kind) for kind in read_table(tmp_path / "x.arrow").schema.types] == ["int64", "string"]


# anything at all


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_errors_or_tables(tmp_path, data):
    name = data.draw(st.sampled_from([f"x{suffix}" for suffix in SUFFIXES]))
    write(EXAMPLE.slice(0, 20), tmp_path / name)
    content = bytearray((tmp_path / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path = csv(tmp_path, bytes(content), f"damaged_{name}")
    for read in (read_table, streamed):
        table, error = tried(read, path)
        assert str(path) in str(error) if error else table.validate(full=True) is None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.sampled_from(SUFFIXES))
def test_any_bytes_are_an_error_or_a_table(tmp_path, content, suffix):
    path = csv(tmp_path, content, f"x{suffix}")
    for read in (read_table, streamed):
        table, error = tried(read, path)
        assert str(path) in str(error) if error else table.num_rows


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("row 1: column b is 7", "{path}:4: column b is 7"),
        ("missing, first in row 2, counted from 0; fill", "missing, first in {path}:5; fill"),
        ("row 9: there is none", "row 9: there is none"),
        ("something in row 1", "something in row 1"),
    ],
)
def test_rows_are_named_by_their_lines(tmp_path, said, expected):
    path = csv(tmp_path, 'a,b\n"1\n2",x\n2,y\n3,z\n')
    with pytest.raises(DataError) as caught, lines_named(path):
        raise DataError(said)
    assert str(caught.value) == expected.format(path=path)
    with pytest.raises(DataError, match=f"^{said}$"), lines_named(tmp_path / "t.parquet"):
        raise DataError(said)


def test_reading_imports_no_pandas(tmp_path):
    import subprocess

    path = csv(tmp_path, "a,b\n1,x\n2,y\n")
    code = (
        "import sys; from onecycle.tables.read import read_table, stream_table\n"
        "assert not {'pyarrow', 'torch'} & set(sys.modules)\n"
        "read_table(sys.argv[1]); list(stream_table(sys.argv[1]))\n"
        "assert not {'pandas', 'polars'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
