"""Tables are read from files of every format, or refused with an error that names the file."""

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onecycle.errors import DataError, FileError, SettingError
from onecycle.tables.read import FORMATS, is_table_file, naming_lines, read_table, stream_table
from table_files import EXAMPLE, WRITERS, assert_refused, attempt, stream_as_table, write_file, write_table


def test_the_tests_write_every_format():
    assert WRITERS.keys() == FORMATS.keys()


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_round_trips(tmp_path, suffix):
    path = tmp_path / f"some.table{suffix.upper() if suffix == '.csv' else suffix}"
    write_table(EXAMPLE, path)
    assert is_table_file(path)
    found = read_table(str(path))
    assert found.cast(EXAMPLE.schema).equals(EXAMPLE)  # Parquet knows no whole seconds
    assert stream_as_table(path, rows=97).equals(found)
    assert max(batch.num_rows for batch in stream_table(path, rows=97)) == 97


@pytest.mark.parametrize("name", ["x.CSV", "x.csv.GZ", "x.y.tsv.zst", "X.Parquet", "a/b.feather", ".hidden.csv"])
def test_table_files_are_known_by_their_suffix(name):
    assert is_table_file(name)


@pytest.mark.parametrize(
    "name", ["x.txt", "x.gz", "x.npy.gz", "x.parquet.gz", "csv", "x.csv.bz2", "x.npz", "x.pkl", "x"]
)
def test_other_files_are_not_table_files(name):
    assert not is_table_file(name)


def test_an_unsupported_suffix(tmp_path):
    known = "expected one of .csv, .tsv, .csv.gz, .csv.zst, .tsv.gz, .tsv.zst, .parquet, .pq, .arrow, .feather, .ipc"
    assert_refused(write_file(tmp_path, "a,b\n1,2\n", "x.xls"), f': unsupported table suffix ".xls"; {known}')
    assert_refused(
        write_file(tmp_path, "a,b\n1,2\n", "x.paquet"),
        f'unsupported table suffix ".paquet"; did you mean ".parquet"?; {known}',
    )
    assert_refused(write_file(tmp_path, "a,b\n1,2\n", "train"), ': unsupported table suffix ""; expected one of')


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_that_cannot_be_opened(tmp_path, suffix):
    (tmp_path / f"train{suffix}").touch()
    assert_refused(tmp_path / f"trian{suffix}", f': no such file; did you mean "train{suffix}"?', FileError)
    assert_refused(tmp_path / f"train{suffix}", ": empty; expected", FileError)
    (tmp_path / f"folder{suffix}").mkdir()
    assert_refused(
        tmp_path / f"folder{suffix}",
        ": a folder; expected a file; name a file inside it, or read a folder of Parquet",
        FileError,
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path):
    path = write_file(tmp_path, "a,b\n1,2\n")
    path.chmod(0)
    assert_refused(path, ": cannot be read (Permission denied)", FileError)


@pytest.mark.parametrize("rows", [0, -1, 1.5, "many"])
def test_a_bad_number_of_rows(tmp_path, rows):
    with pytest.raises(SettingError, match="rows is .*; expected a whole number of at least 1"):
        list(stream_table(write_file(tmp_path, "a\nx\n"), rows=rows))


def test_tables_with_the_suffix_of_another_format(tmp_path):
    write_table(EXAMPLE, tmp_path / "x.parquet")
    write_table(EXAMPLE, tmp_path / "x.arrow")
    write_table(EXAMPLE, tmp_path / "x.csv")
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
        assert_refused(path, f": {found}", FileError)


def test_tables_without_rows_or_columns(tmp_path):
    for name in ("x.parquet", "x.arrow"):
        write_table(EXAMPLE.slice(0, 0), tmp_path / name)
        assert_refused(tmp_path / name, ": no rows; expected at least one")
    write_table(pa.table({}), tmp_path / "x.arrow")
    with pytest.raises(DataError, match=r"x\.arrow: no columns; expected at least one"):
        read_table(tmp_path / "x.arrow")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_errors_or_tables(tmp_path, data):
    name = data.draw(st.sampled_from([f"x{suffix}" for suffix in FORMATS]))
    write_table(EXAMPLE.slice(0, 20), tmp_path / name)
    content = bytearray((tmp_path / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path = write_file(tmp_path, bytes(content), f"damaged_{name}")
    for read in (read_table, stream_as_table):
        table, error = attempt(read, path)
        assert str(path) in str(error) if error else table.validate(full=True) is None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.sampled_from(list(FORMATS)))
def test_any_bytes_are_an_error_or_a_table(tmp_path, content, suffix):
    path = write_file(tmp_path, content, f"x{suffix}")
    for read in (read_table, stream_as_table):
        table, error = attempt(read, path)
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
def test_errors_name_lines_instead_of_rows(tmp_path, said, expected):
    path = write_file(tmp_path, 'a,b\n"1\n2",x\n2,y\n3,z\n')
    with pytest.raises(DataError) as caught, naming_lines(path):
        raise DataError(said)
    assert str(caught.value) == expected.format(path=path)
    with pytest.raises(DataError, match=f"^{said}$"), naming_lines(tmp_path / "t.parquet"):
        raise DataError(said)


def test_reading_imports_no_pandas(tmp_path):
    path = write_file(tmp_path, "a,b\n1,x\n2,y\n")
    code = (
        "import sys; from onecycle.tables.read import read_table, stream_table\n"
        "assert not {'pyarrow', 'torch'} & set(sys.modules)\n"
        "read_table(sys.argv[1]); list(stream_table(sys.argv[1]))\n"
        "assert not {'pandas', 'polars'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
