import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from onecycle.errors import DataError, SettingError
from onecycle.tables import categories
from onecycle.tables.profile import ColumnProfile, TableProfiler, profile_columns
from onecycle.tables.spec import TableSpec

ROWS = 1000


def profiles(table: pa.Table, target: object = (), kinds: object = None) -> list[ColumnProfile]:
    return profile_columns(table, TableSpec(target, kinds=kinds or {}))


def only(values: object, kind: str | None = None) -> ColumnProfile:
    """What a column of `values` is, beside one that is always of use."""
    column = pa.array(values) if not isinstance(values, pa.Array | pa.ChunkedArray) else values
    table = pa.table({"it": column, "other": [i * i % 7 for i in range(len(column))]})
    return profiles(table, kinds={"it": kind} if kind else {})[0]


def said(values: object) -> str:
    column = only(values)
    return f"{column.kind}: {column.why}"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 1], "number: 1 to 3"),
        ([0.25, -1e20, float("nan")], "number: -1e+20 to 0.25"),
        (pa.array([1, 2, 2], pa.uint64()), "number: 1 to 2"),
        (pa.array(np.array([0.5, 1, 2], np.float16)), "number: 0.5 to 2"),
        ([Decimal("1.50"), Decimal("2.25")], "number: 1.5 to 2.25"),
        ([dt.timedelta(seconds=90), dt.timedelta(minutes=2)], "number: 90 to 120"),
        ([dt.time(0, 1), dt.time(2)], "number: 60 to 7,200"),
        ([True, False, True], "category: 2 distinct values"),
        (["a", "b", "a"], "category: 2 distinct texts"),
        (pa.array(["a", "b", "a"], pa.large_string()), "category: 2 distinct texts"),
        (pa.array(["a", "b", "a"], pa.string_view()), "category: 2 distinct texts"),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "category: 2 distinct texts"),
        (pa.array([3, 5, 3]).dictionary_encode(), "category: 2 distinct numbers"),
        ([dt.date(2020, 1, 31), dt.date(2021, 2, 1)], "date: 2020-01-31 to 2021-02-01"),
        ([dt.datetime(2020, 1, 31, 8), dt.datetime(2021, 2, 1)], "date: 2020-01-31T08:00:00 to 2021-02-01"),
        (pa.array([0, 3600], pa.timestamp("s", "Europe/Berlin")), "date: 1970-01-01 to 1970-01-01T01:00:00"),
        (["EU"] * 3, "dropped: constant: always 'EU'"),
        ([5, 5], "dropped: constant: always 5"),
        ([dt.date(2020, 1, 31)] * 2, "dropped: constant: always 2020-01-31"),
        ([5, None], "number: 5 or missing"),
        (["EU", None], "category: 1 distinct text"),
        (pa.nulls(3), "dropped: all missing"),
        (pa.array([None, None], pa.string()), "dropped: all missing"),
        (["", " "], "dropped: all missing"),
        ([float("nan"), None], "dropped: all missing"),
        (pa.array([None, None], pa.date32()), "dropped: all missing"),
        ([[1], [2, 3]], "dropped: holds list<item: int64>; expected text, numbers or dates"),
        ([{"a": 1}, {"a": 2}], "dropped: holds struct<a: int64>; expected text, numbers or dates"),
        ([b"a", b"b"], "dropped: holds binary; expected text, numbers or dates"),
    ],
)
def test_each_type_has_its_kind(values: object, expected: str):
    assert said(values) == expected


def test_identifiers_are_dropped():
    assert said([f"k{i}" for i in range(ROWS)]) == "dropped: identifier: 1,000 distinct texts in 1,000 rows"
    nearly = [f"k{i % 960}" for i in range(ROWS)]
    assert said(nearly) == "dropped: identifier: 960 distinct texts in 1,000 rows"
    with_gaps = [f"k{i}" if i % 2 else None for i in range(ROWS)]
    assert said(with_gaps) == "dropped: identifier: 500 distinct texts in 500 rows"
    assert said([f"k{i % 900}" for i in range(ROWS)]) == "category: 900 distinct texts"
    assert said([f"k{i}" for i in range(20)]) == "category: 20 distinct texts"


def test_whole_numbers_that_count_the_rows_are_dropped():
    assert said(range(1, ROWS + 1)) == "dropped: identifier: counts the rows, 1 to 1,000"
    assert said(range(20)) == "number: 0 to 19"
    assert said([*range(1, ROWS), 5]) == "number: 1 to 999"
    assert said(range(0, 2 * ROWS, 2)) == "number: 0 to 1,998"
    assert said([None, *range(ROWS)]) == "number: 0 to 999"
    assert said(pa.array(range(ROWS), pa.float64())) == "number: 0 to 999"
    chosen = np.random.default_rng(0).random(ROWS) < 0.8
    assert said(np.arange(ROWS)[chosen]) == "dropped: identifier: counts the rows, 0 to 999"
    assert said([*range(10, 1, -1), *range(ROWS)]) == "number: 0 to 999"


def test_rows_are_counted_over_chunks():
    many = np.arange(100_000)
    assert only(pa.array(many)).kind == "dropped"
    many[70_000:] -= 1
    assert only(pa.array(many)).kind == "number"


def test_text_with_many_values_keeps_the_most_frequent():
    column = only([f"word {i // 2}" for i in range(4000)])
    assert column.kind == "category"
    assert (
        column.why
        == "2,000 distinct texts, of which the 1,000 most frequent count and the others are treated as unseen"
    )
    assert column.distinct == 2000


def test_text_of_dates_is_dates():
    days = [str(dt.date(2020, 1, 1) + dt.timedelta(days=i)) for i in range(100)]
    column = only(days)
    assert (column.kind, column.why) == ("date", "text of dates, 2020-01-01 to 2020-04-09")
    days[7], days[8], days[9] = "soon", "", "2020-02-30"
    column = only(days)
    assert column.why == (
        "text of dates, 2020-01-01 to 2020-04-09; not a date in 2 rows, for example '2020-02-30', which counts as missing"
    )
    assert (column.kind, column.missing, column.unparsed) == ("date", 3, 2)
    days[9] = "2020-01-09"
    assert "; not a date in 1 row, for example 'soon', which counts as missing" in only(days).why
    assert only([*days[:50], *(f"word {i}" for i in range(9))]).kind == "dropped"
    assert only(["2020-01-01T10:00:00Z", "2020-01-02 11:30+02:00"]).why == (
        "text of dates, 2020-01-01T10:00:00 to 2020-01-02T09:30:00"
    )


def test_text_of_numbers_is_numbers_where_it_was_meant():
    assert said(["1", "2", " ", "1"]) == "number: text of numbers, 1 to 2"
    assert said(["1", "2", "?", "1"]) == "number: text of numbers, 1 to 2"  # "?" is missing in any text
    assert said(["1.5", "-2e3", "7"]) == "number: text of numbers, -2,000 to 7"
    assert said(["1.5", "inf", "2", "1"]) == "number: text of numbers, 1 to 2; 'inf' counts as missing"
    assert said(["inf", "-inf", "?"]) == "category: 2 distinct texts"
    assert said(["1", "2", "1"]) == "category: 2 distinct texts"
    assert said(["01234", "99999", "?"]) == "category: 2 distinct texts"
    assert said(["1", "2", "na", "1"]) == "number: text of numbers, 1 to 2; 'na' counts as missing"


def test_text_that_is_nearly_numbers_says_so():
    ages = [f"{i % 50}.5" for i in range(99)] + ["abc"]
    assert said(ages) == "category: 51 distinct texts; 99% of it is numbers, 'abc' is not"
    prices = [f"{i}.5" for i in range(99)] + ["abc"]
    assert said(prices) == "dropped: identifier: 100 distinct texts in 100 rows; 99% of it is numbers, 'abc' is not"


def test_the_targets_are_left_out():
    table = pa.table({"a": [1, 2], "y": [0, 1], "z": [0, 1]})
    assert [column.name for column in profiles(table, ["y", "z"])] == ["a"]


def test_missing_values_are_counted():
    assert only([1.0, None, float("nan"), float("inf"), 2]).missing == 3
    assert only(["a", None, "", "b"]).missing == 2
    assert only([dt.date(2020, 1, 1), None, dt.date(2020, 1, 2)]).missing == 1
    assert only([[1], None]).missing == 1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([10115, 20095, 10115], "category"),
        ([1, 1, 1], "number"),
        (["1", "2", "3"], "number"),
        ([True, False, True], "number"),
        (["2020-01-01", "soon", "later"], "date"),
        ([f"k{i}" for i in range(100)], "category"),
        ([dt.date(2020, 1, 1)] * 3, "category"),
        (["a", "b", "a"], "dropped"),
        ([[1], [2]], "dropped"),
    ],
)
def test_kinds_has_the_last_word(values: object, kind: str):
    column = only(values, kind)
    assert (column.kind, column.why) == (kind, "set by kinds")


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"zipp": "category"}, 'kinds names "zipp", but there is no such column; did you mean "zip"?'),
        ({"qqq": "category"}, 'kinds names "qqq", but there is no such column; there are zip, tags, y'),
        ({"zip": "categorical"}, "kinds sets \"zip\" to 'categorical'; expected one of number, category, date, dropped; did you mean \"category\"?"),
        ({"zip": 3}, 'kinds sets "zip" to 3; expected one of number, category, date, dropped'),
        ({"zip": "date"}, 'kinds sets "zip" to date, but it holds int64, which cannot be read as date'),
        ({"tags": "number"}, 'kinds sets "tags" to number, but it holds list<item: string>, which cannot be read as number'),
        ({"y": "number"}, "kinds sets \"y\", which is predicted, to 'number'; expected \"category\", of a lone target of classes: task says what else a target is"),
    ],
)  # fmt: skip
def test_kinds_that_cannot_be(kinds: dict[str, str], message: str):
    table = pa.table({"zip": [1, 2], "tags": [["a"], []], "y": [0, 1]})
    with pytest.raises(SettingError) as found:
        profiles(table, ["y"], kinds)
    assert str(found.value) == message


def test_an_unknown_target_is_named():
    table = pa.table({"price": [1, 2], "a": [0, 1]})
    with pytest.raises(SettingError) as found:
        profiles(table, ["prize"])
    assert str(found.value) == 'there is no column "prize" to predict; did you mean "price"?'


def test_nothing_to_learn_from():
    with pytest.raises(DataError) as found:
        profiles(pa.table({"a": [1, 1], "b": ["x", "x"], "y": [0, 1]}), ["y"])
    assert str(found.value) == (
        'no column is left to learn from; dropped: "a" (constant: always 1), "b" (constant: always \'x\')'
    )
    with pytest.raises(DataError, match=r"^no column is left to learn from: each is predicted, left out with drop"):
        profiles(pa.table({"y": [0, 1]}), ["y"])
    with pytest.raises(DataError, match="the table has no rows; expected at least one"):
        profiles(pa.table({"a": pa.array([], pa.int64())}))


def test_two_columns_of_one_name():
    table = pa.table([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"])
    with pytest.raises(DataError, match='2 columns are called "a"; expected one: rename or drop the others'):
        profiles(table)


def test_batches_are_profiled_as_a_whole():
    random = np.random.default_rng(0)
    table = pa.table(
        {
            "row": range(5000),
            "x": random.normal(size=5000),
            "text": [f"t{i}" for i in random.integers(0, 50, 5000)],
            "id": [f"k{i}" for i in range(5000)],
            "day": pa.array(random.integers(0, 9999, 5000), pa.int32()).cast(pa.date32()),
            "late": [None] * 4999 + ["x"],
            "y": random.integers(0, 2, 5000),
        }
    )
    profiler = TableProfiler(table.schema, TableSpec("y"))
    for batch in table.to_batches(max_chunksize=700):
        profiler.add(batch)
    assert profiler.features() == profiles(table, ["y"])
    assert [column.kind for column in profiler.features()] == [
        "dropped",
        "number",
        "category",
        "dropped",
        "date",
        "category",
    ]


def test_more_texts_than_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(categories, "MAX_COUNTED", 1000)
    table = pa.table({"id": [f"k{i}" for i in range(5000)], "x": [i % 9 for i in range(5000)], "y": range(5000)})
    profiler = TableProfiler(table.schema, TableSpec("y"))
    for batch in table.to_batches(max_chunksize=2000):
        profiler.add(batch)
        profiler.features()
    assert profiler.features()[0].why == "identifier: 2,000 distinct texts in 2,000 rows"
    rest = pa.table({"t": [f"k{i % 1800}" for i in range(5000)], "x": [i % 9 for i in range(5000)]})
    assert profiles(rest)[0].why == (
        "at least 1,800 distinct texts, of which the 1,000 most frequent count and the others are treated as unseen"
    )
