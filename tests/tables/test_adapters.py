import datetime
import re
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

from onecycle.errors import DataError, FileError
from onecycle.tables.adapters import as_table, open_table, table_name

ROWS = {"n": [1, 2, None], "x": [0.5, None, -1.5], "word": ["a", None, "b, c"], "flag": [True, False, None]}


class HuggingFace:
    """A stand-in for datasets.Dataset: rows are those of an Arrow table that its indices choose."""

    class _Data:
        def __init__(self, table: pa.Table) -> None:
            self.table = table

    def __init__(self, table: pa.Table, indices: list[int] | None = None, form: str | None = None) -> None:
        self.data, self._indices, self._form = self._Data(table), indices, form
        self.column_names, self.features = (
            table.column_names,
            dict(zip(table.column_names, table.schema.types, strict=True)),
        )

    def __len__(self) -> int:
        return self.data.table.num_rows if self._indices is None else len(self._indices)

    def with_format(self, form: str | None) -> "HuggingFace":
        return HuggingFace(self.data.table, self._indices, form)

    def select(self, indices: list[int]) -> "HuggingFace":
        return HuggingFace(self.data.table, indices, self._form)

    def __getitem__(self, key):
        table = self.data.table if self._indices is None else self.data.table.take(self._indices)
        if isinstance(key, str):
            return table[key].to_pylist()
        rows = table[key]
        return rows if self._form == "arrow" else rows.to_pydict()


class HuggingFaceDict(dict):
    """A stand-in for datasets.DatasetDict: data sets by split."""

    def with_format(self, form: str | None) -> "HuggingFaceDict":
        return HuggingFaceDict({name: split.with_format(form) for name, split in self.items()})


class ArrowStream:
    """An object with nothing but the Arrow stream protocol."""

    def __init__(self, table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


class OldPandas(pd.DataFrame):
    """A DataFrame as before pandas 2.2, without the protocol."""

    @property
    def __arrow_c_stream__(self):
        raise AttributeError


# what is a table

arrow = pa.table(ROWS)
frame = pd.DataFrame({name: pd.array(values) for name, values in ROWS.items()})


@pytest.mark.parametrize(
    "source",
    [
        arrow,
        arrow.to_batches()[0],
        arrow.to_reader(),
        pa.dataset.dataset(arrow),
        pa.dataset.dataset(arrow).scanner(),
        frame,
        frame.set_index(pd.Index([7, 5, 7])),
        OldPandas(frame),
        pl.DataFrame(ROWS),
        ArrowStream(arrow),
        HuggingFace(arrow),
        HuggingFace(pa.table({name: [*values[::-1], None] for name, values in ROWS.items()})).select([2, 1, 0]),
        ROWS,
        OrderedDict(ROWS),
        {name: tuple(values) for name, values in ROWS.items()},
        {name: pa.array(values) for name, values in ROWS.items()},
        {name: pl.Series(values) for name, values in ROWS.items()},
        {name: pd.Series(values, dtype=object) for name, values in ROWS.items()},
        [{"n": 1, "x": 0.5, "word": "a", "flag": True}, {"n": 2, "flag": False}, {"x": -1.5, "word": "b, c"}],
    ],
    ids=lambda source: table_name(source),
)
def test_every_form_of_a_table_is_converted_alike(source):
    table = as_table(source)
    assert table.to_pydict() == ROWS
    expected = [pa.int64(), pa.float64(), {pa.string(), pa.large_string()}, pa.bool_()]
    assert all(
        kind == wanted or kind in wanted
        for kind, wanted in zip(table.schema.types, expected, strict=True)
        if kind != wanted
    )
    if type(source).__name__ != "RecordBatchReader":  # which is used up
        assert open_table(source).equals(table)


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((3, 2)),
        np.zeros(3),
        torch.zeros(3, 2),
        (np.zeros((3, 2)), np.zeros(3)),
        [np.zeros((3, 2)), np.zeros(3)],
        (pd.DataFrame({"a": [1]}), pd.Series([1])),
        TensorDataset(torch.zeros(3, 2)),
        type("Own", (Dataset,), {"__len__": lambda self: 3, "__getitem__": lambda self, i: i})(),
        [],
        [1, 2],
        None,
        7,
        pa.array([1, 2]),
        pa.chunked_array([[1, 2]]),
        pa.schema([("a", pa.int64())]),
        pl.Series([1, 2]),
        pd.Series([1, 2]),
        pl.LazyFrame({"a": [1]}),
    ],
    ids=lambda source: table_name(source),
)
def test_other_objects_are_not_tables(source):
    assert as_table(source) is None
    with pytest.raises(
        DataError, match=f"^{re.escape(table_name(source))} is not a table.*; expected the path of a file, a table of"
    ):
        open_table(source)


def test_a_lazy_frame_must_be_collected():
    with pytest.raises(DataError, match=r"^polars\.LazyFrame is not a table; call its collect\(\) first; expected"):
        open_table(pl.LazyFrame({"a": [1]}))


def test_a_table_from_a_file(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n01,x\n2,y\n")
    assert open_table(tmp_path / "x.csv").to_pydict() == {"a": [1, 2], "b": ["x", "y"]}
    assert open_table(str(tmp_path / "x.csv"), text_columns=["a"])["a"].to_pylist() == ["01", "2"]
    with pytest.raises(FileError, match="no such file"):
        open_table(tmp_path / "y.csv")
    (tmp_path / "parts").mkdir()
    for part in range(2):
        pq.write_table(pa.table({"a": [part]}), tmp_path / "parts" / f"{part}.parquet")
    with pytest.raises(FileError, match=r'a folder of Parquet parts with pyarrow\.dataset\.dataset\("') as error:
        open_table(tmp_path / "parts")
    assert str(tmp_path / "parts") in str(error.value)
    assert open_table(pa.dataset.dataset(str(tmp_path / "parts"))).to_pydict() == {"a": [0, 1]}


def test_names_for_messages(tmp_path):
    assert table_name(tmp_path / "x.csv") == str(tmp_path / "x.csv")
    assert [
        table_name(source) for source in ("x.csv", {}, [], arrow, frame, pl.DataFrame(), np.zeros(1), torch.zeros(1))
    ] == [
        *(
            "x.csv",
            "dict",
            "list",
            "pyarrow.Table",
            "pandas.DataFrame",
            "polars.DataFrame",
            "numpy.ndarray",
            "torch.Tensor",
        ),
    ]


@pytest.mark.slow
def test_tensors_import_no_pyarrow():
    code = (
        "import sys, torch, numpy; from onecycle.tables.adapters import as_table\n"
        "assert as_table(torch.zeros(2)) is None and as_table((numpy.zeros(2), numpy.zeros(2))) is None\n"
        "assert 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# types


def test_polars_and_pandas_types():
    table = as_table(
        pl.DataFrame({"c": ["u", "v"], "d": [1, 2], "t": [datetime.timedelta(1)] * 2}).with_columns(
            pl.col("c").cast(pl.Categorical).alias("cat"), pl.col("d").cast(pl.Decimal(10, 2))
        )
    )
    assert table["cat"].type.value_type == pa.large_string()
    assert table["cat"].to_pylist() == ["u", "v"]
    assert table["d"].type == pa.decimal128(10, 2)
    table = as_table(
        pd.DataFrame(
            {
                "cat": pd.Categorical(["u", None], categories=["v", "u"]),
                "day": [datetime.date(2020, 1, 1), None],
                "stamp": pd.to_datetime(["2020-01-01", None]),
                "flag": [True, None],
                "gaps": [1.5, np.nan],
                "whole": pd.array([1, None], dtype="Int64"),
                "sparse": pd.arrays.SparseArray([1.5, np.nan]),
                "arrow": pd.array(["a", None], dtype=pd.ArrowDtype(pa.string())),
            },
            index=["i", "j"],
        )
    )
    assert table.column_names == ["cat", "day", "stamp", "flag", "gaps", "whole", "sparse", "arrow"]
    assert [column.null_count for column in table.columns] == [1] * 8
    assert as_table(pd.DataFrame([[1, 2]])).column_names == ["0", "1"]
    assert as_table(pd.DataFrame([[1, 2]], columns=[0, "b"])).column_names == ["0", "b"]
    two_levels = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]))
    assert as_table(two_levels).column_names == ["('a', 'x')", "('a', 'y')"]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (torch.tensor([1.5, 2.5], requires_grad=True), "float", [1.5, 2.5]),
        (torch.tensor([1.5, 2.5], dtype=torch.bfloat16), "float", [1.5, 2.5]),
        (torch.tensor([True, False]), "bool", [True, False]),
        (torch.arange(4)[::2], "int64", [0, 2]),
        (np.array([1, 2], ">i4"), "int32", [1, 2]),
        (np.array([1, 2], np.longdouble), "double", [1, 2]),
        (np.array(["2020", "2021"], "M8[Y]"), "date32[day]", [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)]),
        (np.array(["2020-01-01T10", "NaT"], "M8[h]"), "timestamp[s]", [datetime.datetime(2020, 1, 1, 10), None]),
        (np.array([1, 2], "m8[D]"), "duration[s]", [datetime.timedelta(1), datetime.timedelta(2)]),
        (np.array(["a", "bc"]), "string", ["a", "bc"]),
        (np.array([b"a", b"bc"]), "string", ["a", "bc"]),
        (np.array(["a", None], object), "string", ["a", None]),
        (np.ma.masked_array([1, 2], [0, 1]), "int64", [1, None]),
        (np.arange(6)[::-3], "int64", [5, 2]),
        ([np.float32(1), float("nan")], "float", [1, None]),
        ([1, 2.5], "double", [1, 2.5]),
        ([["a"], ["b", "c"]], "list<item: string>", [["a"], ["b", "c"]]),
        (range(2), "int64", [0, 1]),
        (pd.Series(["a", None]), "large_string", ["a", None]),
        ([datetime.date(2020, 1, 1), None], "date32[day]", [datetime.date(2020, 1, 1), None]),
    ],
)
def test_columns_of_a_dict(values, kind, expected):
    table = as_table({"a": values, 7: ["u", "v"]})
    assert table.column_names == ["a", "7"]
    assert str(table["a"].type) == kind
    assert table["a"].to_pylist() == expected


def test_a_structured_array():
    array = np.array([(1, 2.5, "a"), (2, np.nan, "b")], [("n", "u1"), ("x", "f4"), ("s", "U3")])
    assert as_table(array).to_pydict() == {"n": [1, 2], "x": [2.5, None], "s": ["a", "b"]}
    assert as_table(array.view(np.recarray)[:1]).num_rows == 1
    pairs = np.zeros(2, [("xy", "f4", 2)])
    with pytest.raises(
        DataError, match=r'numpy\.ndarray: column "xy" has shape \(2, 2\); expected one value for each row'
    ):
        as_table(pairs)
    with pytest.raises(DataError, match='column "inner" cannot be a column'):
        as_table(np.zeros(2, [("inner", [("a", "f4")])]))


values_of_type = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "text": st.text(),
    "float": st.floats(allow_nan=False),
    "bool": st.booleans(),
}


@given(
    st.sampled_from(sorted(values_of_type)).flatmap(lambda kind: st.lists(st.none() | values_of_type[kind], min_size=1))
)
def test_rows_and_columns_agree(values):
    columns, rows = as_table({"a": values}), as_table([{"a": value} for value in values])
    assert columns.equals(rows)
    assert columns["a"].to_pylist() == values


# what is refused


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (pa.table({}), "pyarrow.Table: no columns; expected at least one"),
        (pa.table({"a": pa.array([], pa.int64())}), "pyarrow.Table: no rows; expected at least one"),
        (pd.DataFrame({"a": []}), "pandas.DataFrame: no rows; expected at least one"),
        (pd.DataFrame(index=[1, 2]), "pandas.DataFrame: no columns; expected at least one"),
        (pl.DataFrame(), "polars.DataFrame: no columns; expected at least one"),
        ({}, "dict: no columns; expected at least one"),
        ({"a": []}, "dict: no rows; expected at least one"),
        ([{}, {}], "list: no columns; expected at least one"),
        (
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            'pandas.DataFrame: more than one column is called "a"; expected each',
        ),
        (pa.Table.from_arrays([[1], [2]], ["a", "a"]), 'pyarrow.Table: more than one column is called "a"'),
        ({1: [1], "1": [2]}, 'dict: more than one column is called "1"; expected each name once: rename them'),
        (
            pd.DataFrame([[1, 2]], columns=["a", ""]),
            "pandas.DataFrame: column 2 of 2 has no name; expected a name for each",
        ),
        ({"a": [1, 2], "b": [1, 2, 3]}, 'dict: column "b" has 3 rows, column "a" has 2; expected equal lengths'),
        (
            {"a": np.zeros((2, 3))},
            'dict: column "a" has shape (2, 3); expected one value for each row; make each part a',
        ),
        ({"a": torch.zeros(2, 3, 4)}, 'dict: column "a" has shape (2, 3, 4); expected one value for each row'),
        ({"a": torch.tensor(1)}, 'dict: column "a" has shape (); expected one value for each row'),
        (
            {"a": [1], "b": 7},
            'dict: column "b" is 7, of type int; expected a list, array or tensor with a value for each row',
        ),
        ({"a": "text"}, "dict: column \"a\" is 'text', of type str; expected a list, array or tensor"),
        ({"a": {"b": [1]}}, "dict: column \"a\" is {'b': [1]}, of type dict; expected a list, array or tensor"),
        (HuggingFaceDict(train=HuggingFace(arrow)), 'HuggingFaceDict: column "train" is <'),
        ({"a": pd.DataFrame({"b": [1]})}, 'dict: column "a" has shape (1, 1); expected one value for each row'),
        (
            {"a": [1, "x"]},
            "dict: column \"a\" mixes int and str: row 0 is 1, row 1 is 'x'; expected values of one type",
        ),
        (
            {"a": [None, "x", 2]},
            "dict: column \"a\" mixes str and int: row 1 is 'x', row 2 is 2; expected values of one type",
        ),
        ({"a": [True, 2]}, 'dict: column "a" mixes bool and int: row 0 is True, row 1 is 2'),
        ({"a": [2**70]}, 'dict: column "a" cannot be a column (Python int too large'),
        ({"a": np.array([1j])}, 'dict: column "a" cannot be a column (Unsupported numpy type'),
        ({"a": [object()]}, 'dict: column "a" cannot be a column (Could not convert <object'),
        (
            {"a": [{"b": 1}]},
            'dict: column "a" holds values of type struct<b: int64>; expected one number, text or date',
        ),
        (
            {"a": [b"\xff"]},
            'dict: column "a" holds bytes that are not UTF-8 text; expected text or numbers; leave it out',
        ),
        (
            pd.DataFrame({"b": [1, 2], "a": [1, "x"]}),
            'pandas.DataFrame: column "a" mixes int and str: row 0 is 1, row 1',
        ),
        (OldPandas({"a": ["x", 1.5]}), 'OldPandas: column "a" mixes str and float: row 0'),
        (pd.DataFrame({"a": [1j]}), 'pandas.DataFrame: column "a" cannot be a column'),
        (pd.DataFrame({"a": pd.interval_range(0, 2)}), 'pandas.DataFrame: column "a" holds values of type struct<'),
        (pl.DataFrame({"a": [{"b": 1}]}), 'polars.DataFrame: column "a" holds values of type struct<b: int64>'),
        (pl.DataFrame({"a": pl.Series([1], dtype=pl.Int128)}), "polars.DataFrame: cannot be read as an Arrow table ("),
        ([{"a": 1}, {"a": "x"}], "list: column \"a\" mixes int and str: row 0 is 1, row 1 is 'x'"),
        ([{"a": 1}, 7], "list: row 1 is 7; expected a dict, as row 0 is"),
        (
            HuggingFace(pa.table({"image": [{"bytes": b"", "path": "x.png"}]})),
            'column "image" holds values of type struct<',
        ),
    ],
)
def test_tables_that_cannot_be_used(source, message):
    with pytest.raises(DataError) as error:
        as_table(source)
    assert message in str(error.value)


def test_a_reader_that_is_used_up_has_no_rows():
    reader = arrow.to_reader()
    as_table(reader)
    with pytest.raises(DataError, match=r"pyarrow\.RecordBatchReader: no rows"):
        as_table(reader)


def test_a_data_set_whose_file_is_damaged(tmp_path):
    pq.write_table(arrow, tmp_path / "x.parquet")
    source = pa.dataset.dataset(str(tmp_path / "x.parquet"))
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + b"\0" * 500 + b"PAR1")
    with pytest.raises(DataError, match="cannot be read as an Arrow table"):
        as_table(source)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1, 2], "m8[M]"), "has dtype timedelta64[M], whose values have no length in seconds"),
        (np.array([1, 2], "m8"), "has dtype timedelta64, whose values have no length in seconds"),
        (np.array([1, 2**62], "M8[Y]"), "in row 1, of dtype datetime64[Y], which datetime64[D] cannot hold"),
        (np.array([1, 2**62], "M8[D]"), "in row 1, of dtype datetime64[D], which datetime64[D] cannot hold"),
        (np.array([1, 2**62], "M8[h]"), "in row 1, of dtype datetime64[h], which datetime64[s] cannot hold"),
        (np.array([1000, 1], "m8[ps]"), "in row 1, of dtype timedelta64[ps], which timedelta64[ns] cannot hold"),
        (np.array([1, np.longdouble("1e4000")]), "is inf in row 1, of dtype "),
    ],
)
def test_numpy_values_that_would_become_others_are_refused(array: np.ndarray, message: str):
    with pytest.raises(DataError) as caught:
        as_table({"v": array})
    assert 'dict: column "v" ' in str(caught.value)
    assert message in str(caught.value)


def test_numpy_times_in_steps_of_several_units():
    moments = np.array([1, 2, "NaT"], "M8[25s]")
    assert as_table({"v": moments})["v"].to_numpy().astype("M8[s]").astype(int)[:2].tolist() == [25, 50]
    assert as_table({"v": np.array([3], "m8[10ms]")})["v"].to_pylist() == [datetime.timedelta(milliseconds=30)]
    assert as_table({"v": np.array([1], "M8[2Y]")})["v"].to_pylist() == [datetime.date(1972, 1, 1)]


def test_masked_arrays_are_missing_values():
    masked = np.ma.array(np.arange(3, dtype=">f8"), mask=[0, 1, 0])
    assert as_table({"v": masked})["v"].to_pylist() == [0, None, 2]
