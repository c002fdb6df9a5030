"""Arrow columns as values: their kinds, missing markers, texts, codes and slices."""

import datetime
import decimal
import threading
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from onecycle.errors import DataError
from onecycle.tables.dates import as_days
from onecycle.tables.values import (
    CSV_MISSING_MARKERS,
    MISSING_MARKERS,
    as_numbers,
    category_form,
    column_slices,
    dictionary_codes,
    in_parallel,
    null_missing_markers,
    value_counts,
    value_kind,
    value_texts,
)


@pytest.mark.parametrize(
    ("data_type", "kind", "form"),
    [
        (pa.int8(), "number", "number"),
        (pa.decimal128(5, 2), "number", "number"),
        (pa.duration("s"), "number", "text"),
        (pa.time32("s"), "number", "text"),
        (pa.large_string(), "text", "text"),
        (pa.dictionary(pa.int8(), pa.string()), "text", "text"),
        (pa.dictionary(pa.int8(), pa.int64()), "number", "number"),
        (pa.bool_(), "bool", "bool"),
        (pa.timestamp("ns", "Europe/Berlin"), "date", "text"),
        (pa.null(), "nothing", "text"),
        (pa.list_(pa.int8()), "other", "text"),
        (pa.binary(), "other", "text"),
    ],
)
def test_kinds_of_types(data_type, kind, form):
    assert (value_kind(data_type), category_form(data_type)) == (kind, form)


def test_a_missing_cell_of_a_csv_file_is_missing_in_text_too():
    assert {marker.lower() for marker in CSV_MISSING_MARKERS} < set(MISSING_MARKERS)
    texts = [spelling for marker in MISSING_MARKERS for spelling in (marker, marker.upper(), f" {marker.title()}\t")]
    assert null_missing_markers(pa.chunked_array([texts])).null_count == len(texts)
    assert null_missing_markers(pa.chunked_array([[" no ", "0", "n.a."]])).to_pylist() == ["no", "0", "n.a."]
    assert not {"none", "unknown", "missing"} & set(CSV_MISSING_MARKERS)  # they can be categories


def test_numbers():
    x, missing = as_numbers(pa.chunked_array([["1", " 2.5 ", "n/a"], ["inf"]]), "x")
    assert x[:2].tolist() == [1, 2.5]
    assert missing is not None
    assert missing.tolist() == [False, False, True, True]
    x, missing = as_numbers(pa.chunked_array([pa.array([1500, 0], pa.duration("ms"))]), "x")
    assert (x.tolist(), missing) == ([1.5, 0], None)
    with pytest.raises(DataError, match="row 12: column \"x\" is 'two'; expected a number"):
        as_numbers(pa.chunked_array([["1", "", "two"]]), "x", first_row=10)
    with pytest.raises(DataError, match=r'column "x" holds date32\[day\]; expected numbers'):
        as_numbers(pa.chunked_array([[datetime.date(2020, 1, 1)]]), "x")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([1, None]), ["1", None]),
        (pa.array([1.0, 0.1, float("nan")]), ["1", "0.1", None]),
        (pa.array([0.1], pa.float32()), ["0.1"]),
        (pa.array([decimal.Decimal("1.00"), decimal.Decimal("1.50")]), ["1", "1.5"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["a", " ", None]), ["a", None, None]),
        (pa.array([datetime.date(2020, 1, 31), None]), ["2020-01-31", None]),
        (pa.array([datetime.time(12, 30)], pa.time32("s")), ["12:30:00"]),
        (pa.array([90], pa.duration("s")), ["90"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    ],
)
def test_equal_values_have_equal_texts(values, texts):
    assert value_texts(values).to_pylist() == texts


@pytest.mark.parametrize("encode", [False, True])
def test_codes_and_counts(encode):
    column = pa.chunked_array([["a", "b"], ["a", None]])
    column = column.dictionary_encode() if encode else column
    parts = list(dictionary_codes(column))
    coded = [None if code < 0 else values[code].as_py() for values, codes in parts for code in codes.tolist()]
    assert coded == ["a", "b", "a", None]
    total = Counter[str | None]()
    for values, counts in value_counts(column):
        total.update(dict(zip(values.to_pylist(), counts.tolist(), strict=True)))
    assert total == {"a": 2, "b": 1, None: 1}


def test_slices():
    table = pa.table({"x": pa.chunked_array([[1, 2, 3], [4, 5]])})
    for source in (table, table.combine_chunks().to_batches()[0]):
        assert [rows.to_pylist() for rows in column_slices(source, "x", 2)] == [[1, 2], [3, 4], [5]]


def test_threads_return_results_in_order_and_raise_the_first_error():
    assert in_parallel(lambda x: x * x, range(100)) == [x * x for x in range(100)]

    def fail(x: int) -> None:
        if x > 1:
            raise ValueError(x)

    with pytest.raises(ValueError, match="^2$"):
        in_parallel(fail, range(5))
    assert in_parallel(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]


def test_numbers_and_dates_in_a_dictionary_of_text():
    """Each text is read once: a long one that many rows have takes no more memory than one that one row has."""
    texts = pa.array(["7", "no", "1" + "0" * 2**20, " 1.5", None, "?"])
    column = pa.chunked_array([pa.DictionaryArray.from_arrays(np.tile([0, 3, 4, 5, 2], 2_000), texts)])
    x, missing = as_numbers(column, "v")
    np.testing.assert_array_equal(x[:5], [7, 1.5, np.nan, np.nan, np.inf])
    assert missing is not None
    assert missing[:5].tolist() == [False, False, True, True, True]
    with pytest.raises(DataError, match=r"""row 14: column "v" is 'no'; expected a number"""):
        as_numbers(pa.chunked_array([pa.DictionaryArray.from_arrays([0, 3, None, 0, 1], texts)]), "v", 10)
    days = pa.array(["2020-01-02", "soon", None, "1970-01-02T12:00:00Z"])
    dates = pa.chunked_array([pa.DictionaryArray.from_arrays([3, 0, 2, None], days)])
    numbers, seconds, absent = as_days(dates, "v", 0, lenient=False)
    assert (numbers[:2].tolist(), seconds[:2].tolist()) == ([1, 18_263], [43_200, 0])
    assert absent is not None
    assert absent.tolist() == [False, False, True, True]
    soon = pa.chunked_array([pa.DictionaryArray.from_arrays([0, 1], days)])
    with pytest.raises(DataError, match=r"""row 1: column "v" is 'soon'"""):
        as_days(soon, "v", 0, lenient=False)
    assert as_days(soon, "v", 0, lenient=True)[2].tolist() == [False, True]


def test_a_slice_takes_only_what_it_uses_of_a_long_dictionary():
    codes = pa.array([90, None, 7, 90])
    column = pa.chunked_array([pa.DictionaryArray.from_arrays(codes, pa.array(map(str, range(100))))])
    ((values, places),) = dictionary_codes(column)
    assert (values.to_pylist(), places.tolist()) == (["7", "90"], [1, -1, 0, 1])
