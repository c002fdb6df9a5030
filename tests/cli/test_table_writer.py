"""People's tables are written as they were: the cells of CSV, the types of Parquet and Arrow."""

import csv
import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onecycle.cli.table_writer import TEXT_SUFFIXES, FormulaCells, open_table_writer
from onecycle.errors import DataError, OutputError
from onecycle.tables.csv_dialect import CsvStyle
from onecycle.tables.read import read_columns, stream_as_written, text_style
from table_files import write_file


def copied(source: Path, target: Path, rows: int = 3, escaped: bool = False, column: str = "a") -> str | None:
    """Write the rows of `source` to `target`, a few at a time; return what is said of formulas."""
    formulas, typed = FormulaCells(escaped), target.suffix not in TEXT_SUFFIXES
    with open_table_writer(target, text_style(source) or CsvStyle(), formulas) as write:
        for written, _ in stream_as_written(source, (), [column], rows, typed):
            write(written)
    return formulas.message()


def cells(path: Path, **options: Any) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.reader(file, **options))


PEOPLE = (
    'zip,account,name,"pr,ice",a,note\n'
    '00123,12345678901234567890,NA,0.10,1,"two\r\nlines, ""quoted"""\n'
    "01123,12345678901234567891,None,+1.50, 2 ,\n"
    '"02123",99999999999999999999999,-,1e5,3,null\n'
    "03123,1,x  ,TRUE,4,#N/A\n"
)


def test_csv_is_written_cell_by_cell_as_it_was(tmp_path: Path) -> None:
    assert copied(write_file(tmp_path, PEOPLE), tmp_path / "out.csv", rows=1) is None
    assert (tmp_path / "out.csv").read_bytes().decode() == PEOPLE.replace('"02123"', "02123")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(st.lists(st.text("01NA.-,;\t\"'\r\n =é€\u2028", max_size=6), min_size=3, max_size=3), min_size=1),
    delimiter=st.sampled_from(",;\t"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
)
def test_any_cell_comes_out_as_it_was(rows: Any, delimiter: str, line_end: str, bom: bool, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    content = [["a", "b", "c d"], *([str(i), *row[1:]] for i, row in enumerate(rows))]
    with source.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows(content)
    copied(source, out, rows=2)
    assert cells(out, delimiter=delimiter) == content
    assert out.read_bytes().startswith(b"\xef\xbb\xbf") == bom
    assert out.read_bytes().endswith(line_end.encode())
    copied(source, tmp_path / "out.parquet", rows=2)
    found = pq.read_table(tmp_path / "out.parquet")
    for i, name in enumerate(content[0]):
        told = ["" if cell is None else str(cell) for cell in found[name].to_pylist()]
        assert told == [row[i] for row in content[1:]] or pa.types.is_floating(found[name].type)


def test_columns_of_csv_have_a_type_where_each_cell_can_be_told_again(tmp_path: Path) -> None:
    columns = {
        "int64": "1,-20,",
        "string": "01,2,3",
        "double": "1.5,-0.25,3",
        "double ": "1.0,2.5,1e-05",
        "string ": "1.0,2,3",
        "string  ": "1.50,2.5,3.5",
        "string   ": "12345678901234567890,1,2",
        "string    ": "1,NA,2",
        "bool": "true,,false",
        "string     ": "True,False,True",
        "date32[day]": "2020-01-31,,2021-01-01",
        "timestamp[ms]": "2020-01-31 10:00:00,,2021-01-01 00:00:00",
        "string      ": "2020-01-31T10:00:00,,",
        "string       ": ",,",
    }
    lines = zip(*(cells.split(",") for cells in columns.values()), strict=True)
    source = write_file(tmp_path, "\n".join(map(",".join, [[*columns], *lines])) + "\n")
    copied(source, tmp_path / "out.parquet", rows=1, column="int64")
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert [str(kind) for kind in schema.types] == [name.strip() for name in columns]


def test_decimal_commas_and_semicolons_stay(tmp_path: Path) -> None:
    text = "zahl;text;a\n1,5;v1.5;1\n-2,25;Müller;2\n"
    source = write_file(tmp_path, text)
    style = text_style(source)
    assert style == CsvStyle(";", ",")
    with open_table_writer(tmp_path / "out.csv", style, FormulaCells()) as write:
        for written, _ in stream_as_written(source, (), ["a"], 10, typed=False):
            write(written.append_column("prediction", pa.array([0.5, None])))
    assert (tmp_path / "out.csv").read_text("utf-8") == "zahl;text;a;prediction\n1,5;v1.5;1;0,5\n-2,25;Müller;2;\n"
    copied(source, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").to_pydict() == {
        "zahl": [1.5, -2.25],
        "text": ["v1.5", "Müller"],
        "a": [1, 2],
    }


TYPES: dict[str, Any] = {
    "a": [1, 2, 3, 4],
    "decimal": pa.array([Decimal("1.10")] * 4),
    "zone": pa.array([1, 2, None, 4], pa.timestamp("us", "Europe/Berlin")),
    "struct": [{"x": 1, "y": [1, 2]}] * 4,
    "map": pa.array([[("k", 1)]] * 4, pa.map_(pa.string(), pa.int64())),
    "uint64": pa.array([2**64 - 1] * 4, pa.uint64()),
    "dictionary": pa.array(["x", "y", "z", "x"]).dictionary_encode(),
    "list": [[1, None], [2], [], None],
    "bytes": [b"\xff", b"b", None, b""],
    "duration": pa.array([1, 2, 3, 4], pa.duration("s")),
    "null": pa.nulls(4),
    "half": pa.array([1.5] * 4, pa.float16()),
    "text": pa.array(["NA", "x,y", None, ""], pa.large_string()),
    "date": [datetime.date(2020, 1, 1)] * 4,
    "single": pa.array([0.1] * 4, pa.float32()),
    "flag": [True, False, None, True],
}


@pytest.fixture
def typed(tmp_path: Path) -> Path:
    table = pa.table(TYPES).replace_schema_metadata({"pandas": "{}"})
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return tmp_path / "in.arrow"


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_types_are_kept(typed: Path, suffix: str) -> None:
    out = typed.with_name(f"out{suffix}")
    assert copied(typed, out) is None
    table = pyarrow.feather.read_table(typed, memory_map=False)
    found = pq.read_table(out) if suffix == ".parquet" else pyarrow.feather.read_table(out, memory_map=False)
    plain = [name for name in TYPES if suffix == ".arrow" or not pa.types.is_nested(table.schema.field(name).type)]
    assert found.select(plain).schema.equals(table.select(plain).schema, check_metadata=True)
    assert found.to_pylist() == table.to_pylist()


def test_types_that_csv_lacks_are_text(typed: Path) -> None:
    copied(typed, typed.with_name("out.csv"))
    rows = [dict(zip(TYPES, row, strict=True)) for row in cells(typed.with_name("out.csv"))[1:]]
    assert rows[0] == {
        "a": "1",
        "decimal": "1.10",
        "zone": "1970-01-01 01:00:00.000001+0100",
        "struct": '{"x": 1, "y": [1, 2]}',
        "map": '[["k", 1]]',
        "uint64": "18446744073709551615",
        "dictionary": "x",
        "list": "1;",
        "bytes": "ff",
        "duration": "1",
        "null": "",
        "half": "1.5",
        "text": "NA",
        "date": "2020-01-01",
        "single": "0.1",
        "flag": "true",
    }
    assert [row["text"] for row in rows] == ["NA", "x,y", "", ""]


def test_views_and_run_ends_hold_the_same_in_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "a": [1, 2, 3, 4],
            "text": pa.array(["x", "y", None, ""], pa.string_view()),
            "lists": pa.array([[1], [2, 3], None, [4]], pa.list_view(pa.int64())),
            "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 4], pa.int32()), pa.array([7, 8])),
        }
    )
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as writer:
        writer.write_table(table)
    copied(tmp_path / "in.arrow", tmp_path / "out.parquet", rows=3)
    assert pq.read_table(tmp_path / "out.parquet").to_pydict() == table.to_pydict()


# As polars writes columns of lists, structs, Categorical and Enum to Arrow files.
_VIEWS = pa.array(["u", "v"], pa.string_view())
OF_VIEWS: dict[str, Any] = {
    "categories": pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0], pa.uint32()), _VIEWS),
    "enum": pa.DictionaryArray.from_arrays(pa.array([1, 1, None, 0], pa.uint8()), _VIEWS, ordered=True),
    "bytes": pa.DictionaryArray.from_arrays(pa.array([0, 0, 0, 0]), pa.array([b"x"], pa.binary_view())),
    "texts": pa.array([["x"], None, [], ["y", None]], pa.large_list(pa.string_view())),
    "structs": pa.array([[{"k": "x"}], None, [], [{"k": None}]], pa.list_(pa.struct({"k": pa.string_view()}))),
    "lists of categories": pa.ListArray.from_arrays(
        pa.array([0, 1, 1, 2, 2]), pa.DictionaryArray.from_arrays(pa.array([0, 1]), _VIEWS)
    ),
    "map": pa.array([[("k", "x")], None, [], []], pa.map_(pa.string(), pa.string_view())),
    "pair": pa.array([["x", "y"], None, ["x", None], ["", ""]], pa.list_(pa.string_view(), 2)),
}


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("name", OF_VIEWS)
def test_dictionaries_and_lists_of_views_hold_the_same(tmp_path: Path, name: str, suffix: str) -> None:
    table = pa.table({"a": [1, 2, 3, 4], "b": OF_VIEWS[name]})
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as writer:
        writer.write_table(table)
    out = tmp_path / f"out{suffix}"
    copied(tmp_path / "in.arrow", out, rows=3)
    found = pq.read_table(out) if suffix == ".parquet" else pyarrow.feather.read_table(out, memory_map=False)
    assert found.to_pylist() == table.to_pylist()
    assert pa.types.is_dictionary(found.schema.field("b").type) == pa.types.is_dictionary(OF_VIEWS[name].type)


def test_dictionaries_and_lists_of_views_are_text_in_csv(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3, 4], **OF_VIEWS})
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as writer:
        writer.write_table(table)
    copied(tmp_path / "in.arrow", tmp_path / "out.csv", rows=3)
    first = ["1", "u", "v", "x", "x", '[{"k": "x"}]', "u", '[["k", "x"]]', "x;y"]
    assert cells(tmp_path / "out.csv")[1] == first


def test_a_type_that_parquet_lacks_is_an_error(tmp_path: Path) -> None:
    table = pa.table({"a": [1], "span": pa.array([pa.MonthDayNano([1, 2, 3])])})
    with pa.ipc.new_file(tmp_path / "in.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(OutputError, match=r'out.parquet: column "span" holds month_day_nano_interval, which Parquet'):
        copied(tmp_path / "in.arrow", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_dictionary_that_outgrows_its_index_is_an_error(tmp_path: Path) -> None:
    parts = [pa.array([f"{i}-{j}" for j in range(100)]).dictionary_encode() for i in range(2)]
    tables = [pa.table({"d": part.cast(pa.dictionary(pa.int8(), pa.string()))}) for part in parts]
    with (
        pytest.raises(OutputError, match='the dictionary of column "d" has more values than int8 counts'),
        open_table_writer(tmp_path / "out.arrow", CsvStyle(), FormulaCells()) as write,
    ):
        for table in tables:
            write(table)


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "=A1"]
NO_FORMULAS = ["-1.5", "+3", "-1,234.50", "-5%", "1=1", "-", "--", "-1e-5", "a@b", "", "'=1", "-,5", "+39 06 698"]


def test_formulas_are_said_and_escaped_if_asked(tmp_path: Path) -> None:
    rows = [*NO_FORMULAS, *FORMULAS]
    source = tmp_path / "in.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b"], *([i, cell] for i, cell in enumerate(rows))])
    out = tmp_path / "out.csv"
    first = f"first in row {len(NO_FORMULAS) + 2} (the header is row 1), column \"b\": '=1+1'"
    assert copied(source, out) == (
        f"a spreadsheet would run 7 cells as formulas, {first}; --escape-formulas writes an apostrophe before them"
    )
    assert [cell for _, cell in cells(out)[1:]] == rows
    assert copied(source, out, escaped=True) == f"wrote an apostrophe before 7 cells, {first}"
    assert [cell for _, cell in cells(out)[1:]] == NO_FORMULAS + [f"'{cell}" for cell in FORMULAS]
    assert copied(source, tmp_path / "out.parquet") is None


def test_formulas_in_names_and_dictionaries_are_said(tmp_path: Path) -> None:
    formulas = FormulaCells()
    with open_table_writer(tmp_path / "out.csv", CsvStyle(), formulas) as write:
        write(pa.table({"=HYPERLINK()": [-1.5], "d": pa.array(["=2"]).dictionary_encode()}))
    message = formulas.message()
    assert message is not None
    assert message.startswith(
        "a spreadsheet would run 2 cells as formulas, first in row 1 (the header is row 1), column"
    )


def test_columns_that_the_model_does_not_use_may_hold_anything(tmp_path: Path) -> None:
    text = "a,phone\n" + "".join(f"{i},{i}\n" for i in range(99)) + "7,unlisted\n"  # mostly numbers
    source = write_file(tmp_path, text)
    with pytest.raises(DataError, match="phone"):
        list(stream_as_written(source, (), ["a", "phone"], 10, typed=False))
    copied(source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == text
    assert read_columns(source, (), ["a"])[1].column_names == ["a"]


def test_a_late_cell_decides_on_the_type_of_a_column(tmp_path: Path) -> None:
    late = "".join(f"{i},{i},{i}.5,x{i}\n" for i in range(500)) + "500,007,1.50,9\n"
    source = write_file(tmp_path, f"a,b,c,d\n{late}".encode(), "in.csv")
    copied(source, tmp_path / "out.parquet", rows=100)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.types == [pa.int64(), pa.string(), pa.string(), pa.string()]
    assert table.slice(500).to_pylist() == [{"a": 500, "b": "007", "c": "1.50", "d": "9"}]
