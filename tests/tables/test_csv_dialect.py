"""The dialects of CSV files, and errors that name a line."""

import gzip
from contextlib import suppress

import pytest

from onecycle import DataBunch
from onecycle.errors import DataError, FileError, SettingError
from onecycle.tables.read import read_table
from table_files import assert_refused, stream_as_table, write_file


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
def test_dialects(tmp_path, text, names, row):
    table = read_table(write_file(tmp_path, text))
    assert table.column_names == names
    assert list(table.to_pylist()[0].values()) == row
    assert stream_as_table(tmp_path / "train.csv").equals(table)


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
    assert_refused(write_file(tmp_path, text), message)


def test_errors_name_the_line_of_a_row_that_does_not_fit_the_header(tmp_path):
    good = "1,x\n" * 14
    assert_refused(
        write_file(tmp_path, f"a,b\n{good}1,x\n1,2,3\n{good}"),
        ":17: 3 cells; expected 2 as in the header (a, b); check the delimiters",
    )
    assert_refused(
        write_file(tmp_path, f"a,b\n{good}1,x\n1\n{good}"), ":17: 1 cell; expected 2 as in the header (a, b)"
    )
    assert_refused(
        write_file(tmp_path, f'a,b\n{good}1,"x\ny\n\nz"\n\n1,2,3\n'), ":21: 3 cells; expected 2"
    )  # lines in cells, empty lines
    assert_refused(write_file(tmp_path, f"a,b\r\n{good}1,2,3\r\n"), ":16: 3 cells; expected 2")
    names = ",".join("abcdefg")
    assert_refused(
        write_file(tmp_path, f"{names}\n1,2\n"), ":2: 2 cells; expected 7 as in the header (a, b, c, d, e, …)"
    )
    assert_refused(write_file(tmp_path, gzip.compress(b"a,b\n1,2,3\n", mtime=0), "x.csv.gz"), ":2: 3 cells; expected 2")


def test_quotes_that_stay_open(tmp_path):
    good = "1,x\n" * 10
    message = ":12: a quote opens in this row and is not closed before the end of the file; expected a closing quote"
    assert_refused(write_file(tmp_path, f'a,b\n{good}2,"y\n{good}'), message)
    assert_refused(
        write_file(tmp_path, f'a,b\n{good}"2,y\n{good}'),
        ":12: 1 cell; expected 2 as in the header (a, b); is a quote left open?",
    )
    assert_refused(
        write_file(tmp_path, gzip.compress(f'a,b\n{good}2,"y\n{good}'.encode(), mtime=0), "x.csv.gz"), message
    )
    assert read_table(write_file(tmp_path, f'a,b\n{good}2,"y\nz"\n')).num_rows == 11


def test_a_row_without_an_end(tmp_path):
    message = "the row after that of line 2 has a cell of more than 131,072 characters; expected shorter ones; is a quote left open?"
    assert_refused(write_file(tmp_path, 'a,b\n1,x\n2,"' + "y" * 2**24), message)
    assert_refused(write_file(tmp_path, "a,b\n1,x\n" + "2" * 2**24), message)


def test_cells_that_python_would_find_too_long(tmp_path):
    long = "word " * 60_000
    assert read_table(write_file(tmp_path, f"a,b\n1,{long}\n"))["b"].to_pylist() == [long]
    assert stream_as_table(write_file(tmp_path, f"a,b\n1,{long}\n"))["b"].to_pylist() == [long]
    assert_refused(
        write_file(tmp_path, f"a,b\n1,{long}\n1\n"),
        ": cannot be read as CSV (CSV parse error: ",
        FileError,
    )


@pytest.mark.parametrize("part", ["1", " ", '"', "1.", ".1", "1e", "+"])
def test_a_long_header_is_read_in_linear_time(tmp_path, part):
    """Millions of characters: with the square of that many steps it would never end."""
    name = part * 300_000
    path = write_file(tmp_path, f"{name}x,y\n1,2\n3,4\n" if part != '"' else f'"{name}x",y\n1,2\n3,4\n')
    with suppress(DataError):
        assert read_table(path).column_names[1] == "y"


@pytest.mark.parametrize(
    "cell", ["1" * 1_000_000 + "x", "1" * 1_000_000, "1." * 500_000, "0" * 500_000 + "e", " " * 1_000_000 + "x"]
)
def test_a_long_cell_is_read_in_linear_time(tmp_path, cell):
    lines = "\n".join(f"{i}.5;{i % 3};{i % 2}" for i in range(40))
    for text in (f"c;d;y\n{cell};1;0\n{lines}\n", f"c;d;y\n{lines}\n1.5;{cell};0\n"):
        path = write_file(tmp_path, text)
        for kinds in ({}, {"c": "category", "d": "category"}, {"c": "date"}, {"c": "number"}):
            with suppress(DataError, SettingError):
                DataBunch.from_table(path, "y", kinds=kinds, bs=8, device="cpu", seed=0)
