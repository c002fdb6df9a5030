"""The names and types of columns, whatever a table was read from."""

import datetime
import decimal
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from onecycle.errors import DataError
from onecycle.tables.adapters import as_table
from onecycle.tables.read import read_table
from onecycle.tables.target import Target
from onecycle.tables.target_stats import labels_of
from onecycle.tables.values import dictionary_codes
from table_files import assert_refused, stream_as_table, write_table


def test_names_that_are_repeated_or_empty(tmp_path):
    twice = pa.Table.from_arrays([pa.array([1])] * 3, names=["a", "b", "a"])
    write_table(twice, tmp_path / "x.arrow")
    assert_refused(tmp_path / "x.arrow", ': more than one column is called "a"; expected each name once')
    write_table(pa.Table.from_arrays([pa.array([1])], names=[" "]), tmp_path / "x.arrow")
    assert_refused(tmp_path / "x.arrow", ": column 1 of 1 has no name")


def test_nested_columns_are_refused_except_lists(tmp_path):
    write_table(pa.table({"tags": [["a"], ["b", "c"]], "n": [1, 2]}), tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet")["tags"].to_pylist() == [["a"], ["b", "c"]]
    write_table(pa.table({"n": [1], "place": [{"lat": 1.5}]}), tmp_path / "x.parquet")
    message = ': column "place" holds values of type struct<lat: double>; expected one number, text or date in each row'
    assert_refused(tmp_path / "x.parquet", message)
    write_table(pa.table({"m": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))}), tmp_path / "x.arrow")
    assert_refused(tmp_path / "x.arrow", ': column "m" holds values of type map<string, int64')
    write_table(pa.table({"deep": [[[1]]]}), tmp_path / "x.arrow")
    assert_refused(tmp_path / "x.arrow", ': column "deep" holds values of type list<item: list<item: int64>>')


def test_bytes_are_read_as_text_if_they_are_utf8(tmp_path):
    write_table(pa.table({"s": [b"a", None]}), tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet")["s"].to_pylist() == ["a", None]
    write_table(pa.table({"s": [b"\xff\xfe"]}), tmp_path / "x.parquet")
    assert_refused(
        tmp_path / "x.parquet",
        ': column "s" holds bytes that are not UTF-8 text; expected text or numbers; leave it out',
    )


def test_an_unnamed_pandas_index_is_dropped(tmp_path):
    frame = pd.DataFrame({"a": [1, 2, 3]}).iloc[[2, 0, 1]]
    frame.to_parquet(tmp_path / "x.parquet")
    assert "__index_level_0__" in pq.read_schema(tmp_path / "x.parquet").names
    assert read_table(tmp_path / "x.parquet").to_pydict() == {"a": [3, 1, 2]}
    assert stream_as_table(tmp_path / "x.parquet").column_names == ["a"]
    frame.rename_axis("key").to_parquet(tmp_path / "x.parquet")
    assert set(read_table(tmp_path / "x.parquet").column_names) == {"a", "key"}


def test_extension_types_run_no_code(tmp_path):
    """A type whose metadata is a pickle that would fail the test: old versions of pyarrow loaded it."""

    class Trap:
        def __reduce__(self):
            return pytest.fail, ("code was run",)

    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(Trap())}
    schema = pa.schema([pa.field("a", pa.int64(), metadata=metadata)])
    write_table(pa.table([[1, 2]], schema=schema), tmp_path / "x.arrow")
    assert read_table(tmp_path / "x.arrow").to_pydict() == {"a": [1, 2]}


def test_extension_types_become_their_storage(tmp_path):
    frame = pd.DataFrame({"month": pd.period_range("2020", periods=2, freq="M"), "json": ["1", "2"]})
    table = pa.Table.from_pandas(frame)
    table = table.set_column(1, "json", pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1", "2"])))
    write_table(table, tmp_path / "x.arrow")
    assert [str(kind) for kind in read_table(tmp_path / "x.arrow").schema.types] == ["int64", "string"]


def test_types_that_stay_as_they_are():
    columns = {
        "dictionary": pa.array(["a", "b"]).dictionary_encode(),
        "numbers in a dictionary": pa.array([10, 20]).dictionary_encode(),
        "large": pa.array(["a", "b"], pa.large_string()),
        "decimal": pa.array([decimal.Decimal("1.50"), None]),
        "bool": pa.array([True, None]),
        "date": pa.array([datetime.date(2020, 1, 1), None]),
        "time": pa.array([datetime.time(12, 30), None]),
        "stamp": pa.array([0, 1], pa.timestamp("ns", "Europe/Berlin")),
        "duration": pa.array([datetime.timedelta(1), None]),
        "half": pa.array([np.float16(1.5), None], pa.float16()),
        "unsigned": pa.array([1, 255], pa.uint8()),
        "list": pa.array([["a"], []]),
        "pair": pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
        "nothing": pa.nulls(2),
    }
    table = as_table(pa.table(columns))
    assert table.equals(pa.table(columns))


def test_types_that_are_cast():
    ends = pa.RunEndEncodedArray.from_arrays(pa.array([1, 2], pa.int32()), pa.array(["a", "b"]))
    views = pa.array(["a", None], pa.string_view())
    table = as_table(
        pa.table(
            {
                "view": views,
                "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.uint32()), views),
                "runs": ends,
                "lists": pa.array([["a"], []], pa.list_(pa.string_view())),
                "list view": pa.array([[1], []], pa.list_view(pa.int64())),
                "bytes": pa.array([b"a", None]),
                "fixed": pa.array([b"ab", None], pa.binary(2)),
                "large bytes": pa.array([b"a", None], pa.large_binary()),
                "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["1", None])),
            }
        )
    )
    assert [str(kind).replace("item: ", "") for kind in table.schema.types] == [
        *("large_string", "dictionary<values=large_string, indices=uint32, ordered=0>", "large_string"),
        *("large_list<large_string>", "large_list<int64>", "string", "large_string", "large_string", "string"),
    ]
    assert table["runs"].to_pylist() == ["a", "b"]


def test_names_that_are_not_utf8():
    content = pa.BufferOutputStream()
    with pa.ipc.new_stream(content, pa.schema([("name", pa.int64())])) as writer:
        writer.write_table(pa.table({"name": [1]}))
    damaged = content.getvalue().to_pybytes().replace(b"name", b"n\xffme")
    with pytest.raises(
        DataError, match=r"pyarrow\.Table: the name of a column is not UTF-8 .*; expected text; rename it"
    ):
        as_table(pa.Table.from_batches([pa.ipc.open_stream(damaged).read_next_batch()]))


def mask(*nulls: int) -> pa.Array:
    return pa.array(map(bool, nulls), pa.bool_())


@pytest.mark.parametrize("build", [pa.ListViewArray, pa.LargeListViewArray])
def test_list_views_out_of_order_that_overlap(build: Any):
    offsets, sizes = np.array([4, 0, 1, 3, 5]), np.array([1, 2, 0, 2, 2])
    number = "i8" if build is pa.LargeListViewArray else "i4"
    labels = pa.array(list("abcdefg"), pa.string_view())
    views = build.from_arrays(
        pa.array(offsets.astype(number)), pa.array(sizes.astype(number)), labels, mask=mask(0, 0, 0, 1, 0)
    )
    expected = [["e"], ["a", "b"], [], None, ["f", "g"]]
    for start in range(5):
        assert as_table(pa.table({"v": views.slice(start)}))["v"].to_pylist() == expected[start:]


def test_the_last_label_of_a_list_view_is_learned():
    views = pa.ListViewArray.from_arrays([0, 1, 2, 4], [1, 2, 2, 1], ["a", "b", "a", "b", "c"])
    table = as_table(pa.table({"v": views}))
    target = Target.fit(table, ["v"])
    assert target.classes == ["a", "b", "c"]
    assert target.transform(table).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("values", [pa.array(["a", None, "c"]), pa.array(["a", None, "c"]).dictionary_encode()])
def test_runs_that_begin_and_end_in_the_middle(values: pa.Array):
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 5, 9], pa.int16()), values)
    expected = ["a", "a", None, None, None, "c", "c", "c", "c"]
    for start in range(9):
        for length in range(1, 10 - start):
            column = as_table(pa.table({"v": runs.slice(start, length)}))["v"]
            assert column.to_pylist() == expected[start : start + length]


def test_items_that_a_null_list_points_at_are_not_labels():
    values, offsets = pa.array(["a", "b", "c", "a"]), np.array([0, 1, 3, 4], "i4")
    lists = pa.ListArray.from_buffers(
        pa.list_(pa.string()), 3, [pa.py_buffer(b"\x05"), pa.py_buffer(offsets)], children=[values]
    )
    labels, rows = labels_of(pa.chunked_array([lists]), "v", 0)
    assert (labels.to_pylist(), rows.tolist()) == (["a", "a"], [0, 2])


def test_damaged_columns_in_memory_are_refused():
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 99]), pa.array(["a", "b"]), safe=False)
    with pytest.raises(DataError, match=r'column "v" of type dictionary.* is damaged'):
        as_table(pa.table({"v": codes}))
    views = pa.Array.from_buffers(
        pa.string_view(), 1, [None, pa.py_buffer(np.array([99, 0, 7, 0], "i4"))]
    )  # of a buffer that is not there
    with pytest.raises(DataError, match='column "v" of type string_view is damaged'):
        as_table(pa.table({"v": views}))


@pytest.mark.parametrize(
    "column",
    [
        pa.RunEndEncodedArray.from_arrays(pa.array([2**40]), pa.array([1])),
        pa.RunEndEncodedArray.from_arrays(pa.array([2**20]), pa.array(["x" * 2**20])),
        pa.ListViewArray.from_arrays(np.zeros(2**15, "i4"), np.full(2**15, 2**15, "i4"), np.arange(2**15)),
    ],
    ids=["runs", "runs of text", "views"],
)
def test_columns_that_repeat_their_values_too_often_are_refused(column: pa.Array):
    with pytest.raises(DataError, match=r'column "v" of type .* takes more than 2,147,483,648 bytes as'):
        as_table(pa.table({"v": column}))


def test_types_that_cannot_be_a_feature_are_named():
    months = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
    lists = pa.DictionaryArray.from_arrays(pa.array([0]), pa.array([["a"]]))
    for column in (months, lists, pa.array([{}], pa.struct([])), pa.array([[(1, 2)]], pa.map_("i8", "i8"))):
        with pytest.raises(DataError) as caught:
            as_table(pa.table({"v": column}))
        assert f'column "v" holds values of type {column.type}; expected one number' in str(caught.value)


def test_dictionaries_with_nulls_in_chunks():
    """pyarrow does not join them."""
    chunks = [pa.DictionaryArray.from_arrays([0, 1, None], [value, None]) for value in ("a", "b")]
    column = as_table({"v": pa.chunked_array(chunks)})["v"]
    assert [[values.to_pylist(), codes.tolist()] for values, codes in dictionary_codes(column)] == [
        [["a", None], [0, 1, -1]],
        [["b", None], [0, 1, -1]],
    ]
