import copy
import datetime as dt
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onecycle.errors import DataError
from onecycle.tables.features import Features
from onecycle.tables.numbers import CLIP, Sample
from onecycle.tables.profile import ColumnProfile, profile_columns
from onecycle.tables.spec import TableSpec
from onecycle.tables.values import with_dictionaries

pytestmark = pytest.mark.slow

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine


def fitted(table: pa.Table, **kinds: str) -> Features:
    return Features.fit(table, profiles(table, kinds=kinds))


def profiles(table: pa.Table, kinds: Any = None) -> list[ColumnProfile]:
    return profile_columns(table, TableSpec((), kinds=kinds or {}))


def of(kind: str, name: str = "x") -> list[ColumnProfile]:
    """The profile of a lone column."""
    return [ColumnProfile(name, kind, "", 0, None)]


def real_table(rows: int = 400, seed: int = 0) -> pa.Table:
    """Columns of every kind, with missing values."""
    random = np.random.default_rng(seed)
    some = lambda share: random.random(rows) < share  # noqa: E731
    return pa.table(
        {
            "age": pa.array(random.integers(18, 90, rows), mask=some(0.1)),
            "income": pa.array(random.lognormal(10, 1, rows)),
            "ratio": pa.array(random.normal(size=rows).astype(np.float32), from_pandas=True),
            "city": pa.array(random.choice(["Rome", "Oslo", "Lima", "Bonn"], rows), mask=some(0.2)),
            "member": pa.array(random.random(rows) < 0.3),
            "sold": pa.array(random.integers(15_000, 20_000, rows).astype("M8[D]"), mask=some(0.05)),
            "seen": pa.array((random.integers(0, 10**9, rows)).astype("M8[s]")),
        }
    )


def test_the_columns_of_the_matrix():
    features = fitted(real_table())
    assert features.inputs == ["age", "income", "ratio", "city", "member", "sold", "seen"]
    assert features.names == [
        *("age", "income", "ratio", "age is missing", "sold is missing"),
        *("sold year", "sold month", "sold day", "sold weekday", "sold day of year", "sold elapsed"),
        *("seen year", "seen month", "seen day", "seen weekday", "seen day of year", "seen hour", "seen minute"),
        *("seen elapsed", "city", "member"),
    ]
    assert features.numbers == 19
    assert features.sizes == [6, 3]
    matrix = features.transform(real_table())
    assert (matrix.shape, matrix.dtype) == ((400, 21), np.float32)


def test_numbers_are_standardised_as_numpy_does():
    table = real_table()
    x = table["income"].to_numpy()
    expected = (x - x.mean()) / x.std()
    np.testing.assert_allclose(fitted(table).transform(table)[:, 1], expected, rtol=1e-6, atol=1e-6)


def test_missing_numbers_become_the_median_and_are_flagged():
    table = pa.table({"x": [1.0, None, 2.0, float("nan"), 9.0, float("inf"), -float("inf")]})
    features = fitted(table)
    present = np.array([1.0, 2.0, 9.0])
    mean, std = present.mean(), present.std()
    matrix = features.transform(table)
    expected = np.where(np.isin(np.arange(7), [1, 3, 5, 6]), 2, [1, 0, 2, 0, 9, 0, 0])
    np.testing.assert_allclose(matrix[:, 0], (expected - mean) / std, rtol=1e-6)
    assert matrix[:, 1].tolist() == [0, 1, 0, 1, 0, 1, 1]
    later = features.transform(pa.table({"x": pa.array([5, None])}))
    np.testing.assert_allclose(later[:, 0], (np.array([5, 2]) - mean) / std, rtol=1e-6)


def test_a_column_missing_only_later_gets_the_median():
    features = fitted(pa.table({"x": [1.0, 2.0, 9.0]}))
    assert features.names == ["x"]
    matrix = features.transform(pa.table({"x": pa.array([None, 2.0])}))
    assert matrix[0] == matrix[1]
    assert features.transform(pa.table({"x": pa.nulls(2)})).tolist() == matrix.repeat(2, 0)[:2].tolist()


def test_values_far_out_are_clipped():
    features = fitted(pa.table({"x": [0.0, 1.0]}))
    assert features.transform(pa.table({"x": [1e9, -1e300, 1.7e308]})).ravel().tolist() == [CLIP, -CLIP, CLIP]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, 3], pa.uint8()), [1, 3]),
        (pa.array([2**63, 2**64 - 1], pa.uint64()), [2.0**63, 2.0**64]),
        (pa.array(np.array([1, 3], np.float16)), [1, 3]),
        ([Decimal("1.5"), Decimal("3.5")], [1.5, 3.5]),
        ([dt.timedelta(milliseconds=1500), dt.timedelta(seconds=3)], [1.5, 3]),
        (pa.array([1500, 3000], pa.duration("ms")), [1.5, 3]),
        ([dt.time(0, 0, 1), dt.time(0, 1)], [1, 60]),
        (pa.array([1_000_000_000, 2_000_000_000], pa.time64("ns")), [1, 2]),
        (pa.array([1, 2], pa.time32("s")), [1, 2]),
        (pa.array([1.5, 2.5]).dictionary_encode(), [1.5, 2.5]),
        ([True, False], [1, 0]),
        (["1.5", " -2e1 "], [1.5, -20]),
    ],
)
def test_whatever_holds_numbers_is_read_as_such(values: Any, expected: list[float]):
    table = pa.table({"x": values})
    matrix = Features.fit(table, of("number")).transform(table)
    x = np.array(expected)
    np.testing.assert_allclose(matrix[:, 0], (x - x.mean()) / x.std(), rtol=1e-6)


def test_text_for_a_number_is_read_or_refused():
    features = fitted(pa.table({"age": [10, 20, 40]}))
    found = features.transform(pa.table({"age": ["10", " 20.0 ", "4e1"]}))
    assert (found == features.transform(pa.table({"age": [10, 20, 40]}))).all()
    absent = features.transform(pa.table({"age": ["?", "N/A", ""]}))
    assert (absent == features.transform(pa.table({"age": [None, 20, 20]}))).all()
    with pytest.raises(DataError) as error:
        features.transform(pa.table({"age": ["1"] * 70_017 + ["abc", "d"]}), first_row=1000)
    assert str(error.value) == "row 71017: column \"age\" is 'abc'; expected a number"


@pytest.mark.parametrize(
    ("train", "later", "message"),
    [
        ([1, 2], [dt.date(2020, 1, 1)], 'column "x" holds date32[day]; expected numbers'),
        ([1, 2], [[1]], 'column "x" holds list<item: int64>; expected numbers'),
        ([dt.date(2020, 1, 1), dt.date(2020, 2, 1)], [5], 'column "x" holds int64; expected dates, or text with a date such as 2024-01-31 or 2024-01-31 18:30:00'),
        ([dt.date(2020, 1, 1), dt.date(2020, 2, 1)], ["2020-01-02", "31.1.2020"], "row 1: column \"x\" is '31.1.2020'; expected a date such as 2024-01-31 or 2024-01-31 18:30:00"),
        (["a", "b"], [[1]], 'column "x" holds list<item: int64>; expected text, numbers or true and false'),
    ],
)  # fmt: skip
def test_a_column_of_another_kind(train: Any, later: Any, message: str):
    features = fitted(pa.table({"x": train}))
    with pytest.raises(DataError) as error:
        features.transform(pa.table({"x": later}))
    assert str(error.value) == message


def test_a_missing_column_is_named():
    features = fitted(pa.table({"age": [1, 2], "b": [3, 5]}))
    with pytest.raises(DataError) as error:
        features.transform(pa.table({"ages": [1], "b": [3]}))
    assert str(error.value) == 'the table has no column "age", which the model was trained with; did you mean "ages"?'
    with pytest.raises(DataError) as error:
        features.transform(pa.table({"q": [1]}))
    assert str(error.value) == 'the table has no column "age", which the model was trained with; there are q'
    with pytest.raises(DataError, match='2 columns are called "age"; expected one: rename or drop the others'):
        features.transform(pa.table([[1], [2], [3]], names=["age", "age", "b"]))


def test_other_columns_and_another_order_do_not_matter():
    table = real_table()
    features = fitted(table)
    turned = table.select(table.column_names[::-1]).append_column("more", pa.array([["?"]] * len(table)))
    assert (features.transform(turned) == features.transform(table)).all()


def codes(features: Features, values: Any) -> list[float]:
    return features.transform(pa.table({"x": values}))[:, -1].tolist()


def test_categories_are_coded_by_frequency_then_by_text():
    features = fitted(pa.table({"x": ["b", "a", "c", "c", "d", "d"]}))
    assert codes(features, ["c", "d", "a", "b", "unseen", None, ""]) == [1, 2, 3, 4, 0, 0, 0]
    assert features.sizes == [5]


def test_missing_categories_have_a_code_where_training_had_some():
    features = fitted(pa.table({"x": ["b", "a", None, "b", " "]}))
    assert codes(features, ["b", "a", None, "", "c"]) == [1, 2, 3, 3, 0]
    assert features.sizes == [4]


def test_rare_categories_share_the_code_of_unseen_ones():
    values = [f"v{i:04}" for i in range(1100)] * 2 + ["v1099"]
    features = fitted(pa.table({"x": values}))
    assert features.sizes == [1001]
    assert codes(features, ["v1099", "v0000", "v0998", "v0999"]) == [1, 2, 1000, 0]


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["b", "a", "b", None, "zz"]),
        pa.array(["b", "a", "b", None, "zz"], pa.large_string()),
        pa.array(["b", "a", "b", None, "zz"], pa.string_view()),
        pa.array(["b", "a", "b", None, "zz"]).dictionary_encode(),
        pa.chunked_array([["b"], ["a", "b"], [], [None, "zz"]]),
        pa.chunked_array([pa.array(["b", "a"]).dictionary_encode(), pa.array(["b", None, "zz"]).dictionary_encode()]),
        pa.DictionaryArray.from_arrays([0, 1, 2, 3, 4], ["b", "a", "b", None, "zz"]),
        pa.array(["b", "a", "b", "", "zz"]),
        pl.Series(["b", "a", "b", None, "zz"], dtype=pl.Categorical).to_arrow(),
        pa.Array.from_pandas(pd.Categorical(["b", "a", "b", None, "zz"])),
    ],
)
def test_text_is_the_same_in_all_of_arrows_types(values: Any):
    table = pa.table({"x": ["b", "a", "b", None]})
    features = fitted(table)
    assert codes(features, values) == [1, 2, 1, 3, 0]
    assert fitted(pa.table({"x": values.slice(0, 4)})).to_dict() == features.to_dict()


@pytest.mark.parametrize(
    ("train", "later"),
    [
        ([1, 2, 1], ["1", "2.0", " 1 "]),
        ([1, 2, 1], [1.0, 2.0, 1.0]),
        ([1, 2, 1], [Decimal("1.00"), Decimal(2), Decimal(1)]),
        ([1.0, 2.5, 1.0], ["1", "2.50", "1e0"]),
        (pa.array([0.5, 0.1, 0.5], pa.float32()), [0.5, 0.1, 0.5]),
        (["1", "2", "1"], [1, 2, 1]),
        (["1", "2", "1"], [1.0, 2.0, 1.0]),
        (["01234", "99999", "01234"], [1234, 99999, 1234]),
        ([True, False, True], ["true", "FALSE", "True"]),
        ([True, False, True], [1, 0, 1]),
        (["True", "False", "True"], [True, False, True]),
        ([1, 0, 1], [True, False, True]),
        (["2020-01-01", "2020-01-02", "2020-01-01"], [dt.date(2020, 1, 1), dt.date(2020, 1, 2), dt.date(2020, 1, 1)]),
        ([2**62 + 1, 2**62, 2**62 + 1], [str(2**62 + 1), str(2**62), str(2**62 + 1)]),
        ([dt.time(10), dt.time(11), dt.time(10)], ["10:00:00.000000", "11:00:00.000000", "10:00:00.000000"]),
    ],
)
def test_categories_match_by_value(train: Any, later: Any):
    features = Features.fit(pa.table({"x": train}), of("category"))
    assert codes(features, train) == [1, 2, 1]
    assert codes(features, later) == [1, 2, 1]
    assert codes(features, ["1_0"]) == [0]
    assert codes(features, pa.nulls(1)) == [0]


def test_dates_become_parts():
    days = [dt.datetime(2019, 12, 31, 23, 59), dt.datetime(2020, 2, 29, 6, 30), dt.datetime(2024, 3, 1)]
    table = pa.table({"x": pa.array(days, pa.timestamp("ms"))})
    features = fitted(table)
    parts = pd.Series(days).dt
    expected = {
        "year": parts.year, "month": parts.month, "day": parts.day, "weekday": parts.day_of_week,
        "day of year": parts.day_of_year, "hour": parts.hour, "minute": parts.minute,
        "elapsed": pd.Series(days).astype("int64") / 1e6,
    }  # fmt: skip
    assert features.names == [f"x {part}" for part in expected]
    matrix = features.transform(table)
    for place, values in enumerate(expected.values()):
        x = values.to_numpy(float)
        np.testing.assert_allclose(matrix[:, place], (x - x.mean()) / x.std(), rtol=1e-5, atol=1e-6)


def test_parts_that_never_change_are_left_out():
    table = pa.table({"x": [dt.date(2020, 1, day) for day in (1, 2, 5)]})
    assert fitted(table).names == ["x day", "x weekday", "x day of year", "x elapsed"]


def test_missing_dates_become_the_median_and_are_flagged():
    table = pa.table({"x": [dt.date(2020, 1, 1), None, dt.date(2021, 2, 2), dt.date(2023, 3, 7)]})
    features = fitted(table)
    matrix = features.transform(table)
    assert features.names[0] == "x is missing"
    assert matrix[:, 0].tolist() == [0, 1, 0, 0]
    assert (matrix[1, 1:] == matrix[2, 1:]).all()
    assert (features.transform(pa.table({"x": pa.nulls(1)}))[0, 1:] == matrix[2, 1:]).all()


@pytest.mark.parametrize(
    "values",
    [
        pa.array([946_684_800, 1_000_000_000, -86_401], pa.timestamp("s")),
        pa.array([946_684_800_000, 1_000_000_000_000, -86_401_000], pa.timestamp("ms", "Europe/Berlin")),
        pa.array([946_684_800 * 10**9, 10**18, -86_401 * 10**9], pa.timestamp("ns")),
        ["2000-01-01", "2001-09-09 01:46:40", "1969-12-30T23:59:59"],
        ["2000-01-01T00:00:00Z", "2001-09-09T03:46:40+02:00", "1969-12-30T23:59:59Z"],
        ["2000-01-01T00:00:00", "2001-09-09T03:46:40+0200", "1969-12-30T23:59:59.000000000"],
        pa.array(["2000-01-01", "2001-09-09 01:46:40", "1969-12-30T23:59:59"]).dictionary_encode(),
    ],
)
def test_dates_are_the_same_in_all_types(values: Any):
    table = pa.table({"x": pa.array([946_684_800, 1_000_000_000, -86_401], pa.timestamp("s")).cast("timestamp[us]")})
    features = fitted(table)
    assert (features.transform(pa.table({"x": values})) == features.transform(table)).all()


def test_text_that_is_no_date_is_missing_where_a_few_of_the_rest_have_such():
    days = [str(dt.date(2020, 1, 1) + dt.timedelta(days=i)) for i in range(60)]
    train, rest = pa.table({"x": days}), pa.table({"x": [*days[:30], "yesterday", "?"]})
    columns = profiles(train)
    features = Features.fit(train, columns, rest)
    assert features.names == Features.fit(train, columns).names
    np.testing.assert_array_equal(features.transform(rest)[30], features.transform(rest)[31])
    streamed = Features.fit_stream([train], columns, rest.to_batches(max_chunksize=9))
    assert streamed.to_dict() == features.to_dict()


@pytest.mark.parametrize(("kinds", "bad"), [({}, 7), ({"x": "date"}, 1)])
def test_text_that_is_no_date_is_refused(kinds: dict[str, str], bad: int):
    """Where more than a few of the rest have such, and where dates were asked for."""
    days = [str(dt.date(2020, 1, 1) + dt.timedelta(days=i)) for i in range(60)]
    train, rest = pa.table({"x": days}), pa.table({"x": days[:30] + ["yesterday"] * bad})
    features = Features.fit(train, profiles(train, kinds=kinds), rest)
    with pytest.raises(DataError, match="row 30: column \"x\" is 'yesterday'; expected a date"):
        features.transform(rest)


def test_text_that_is_no_date_is_missing_where_it_was_so_in_training():
    days = [str(dt.date(2020, 1, 1) + dt.timedelta(days=i)) for i in range(60)]
    table = pa.table({"x": [*days, "soon"]})
    features = fitted(table)
    assert features.transform(table)[-2:, 0].tolist() == [0, 1]
    assert features.transform(pa.table({"x": ["2020-02-31", "never", None]}))[:, 0].tolist() == [1, 1, 1]


def test_days_before_1_and_after_9999_count_as_the_nearest():
    table = pa.table({"x": pa.array([-(2**62), 0, 2**62], pa.timestamp("s"))})
    matrix = fitted(table).transform(table)
    assert np.isfinite(matrix).all()
    assert profiles(table)[0].why.startswith("0001-01-01T")


def test_a_table_without_rows():
    table = real_table()
    with pytest.raises(DataError, match="the table has no rows to train on; expected at least one"):
        Features.fit(table.slice(0, 0), profiles(table))
    assert fitted(table).transform(table.slice(0, 0)).shape == (0, 21)


def test_nothing_that_differs():
    columns = [ColumnProfile("x", "date", "", 0, None)]
    with pytest.raises(DataError, match="no column of the training rows has two different values; there is nothing to"):
        Features.fit(pa.table({"x": [dt.date(2020, 1, 1)]}), columns)


def test_columns_without_a_value_in_training():
    columns = [
        ColumnProfile("n", "number", "", 0, None),
        ColumnProfile("c", "category", "", 0, None),
        ColumnProfile("d", "date", "", 0, None),
    ]
    empty = pa.table({"n": pa.nulls(2, pa.float64()), "c": pa.nulls(2, pa.string()), "d": pa.nulls(2, pa.date32())})
    features = Features.fit(empty, columns)
    assert features.transform(empty).tolist() == [[0, 1], [0, 1]]
    assert (features.names, features.sizes) == (["n", "c"], [2])
    later = pa.table({"n": [5.0], "c": ["x"], "d": [dt.date(2020, 1, 1)]})
    assert features.transform(later).tolist() == [[5, 0]]


def test_dictionaries_change_nothing():
    table = real_table()
    quick = with_dictionaries(table)
    assert pa.types.is_dictionary(quick.schema.field("city").type)
    assert profiles(quick) == profiles(table)
    assert fitted(quick).to_dict() == fitted(table).to_dict()
    assert (fitted(table).transform(quick) == fitted(table).transform(table)).all()


def test_batches_give_what_the_whole_table_gives():
    table, columns = real_table(250_000), profiles(real_table())
    whole = Features.fit(table, columns)
    batches = table.to_batches(max_chunksize=7001)
    streamed = Features.fit_stream(iter(batches), columns)
    assert same_to_rounding(streamed.to_dict(), whole.to_dict())
    np.testing.assert_allclose(streamed.transform(table), whole.transform(table), atol=1e-5)


def test_the_median_of_many_rows_is_that_of_a_sample():
    random = np.random.default_rng(0)
    x = random.normal(size=600_000)
    table = pa.table({"x": pa.array(x, mask=random.random(600_000) < 0.1)})
    written = Features.fit(table, of("number")).to_dict()["columns"][0]
    assert abs(written["fill"]) < 0.01
    assert written["mean"] == pytest.approx(np.nanmean(table["x"].to_numpy()), rel=1e-9)
    assert written["std"] == pytest.approx(np.nanstd(table["x"].to_numpy()), rel=1e-12)


def test_a_sample_is_the_same_whatever_the_pieces():
    random = np.random.default_rng(0)
    x, present = random.normal(size=500_000), random.random(500_000) < 0.7
    samples = [Sample(), Sample()]
    for sample, size in zip(samples, (32_768, 10_007), strict=True):
        for start in range(0, len(x), size):
            sample.add(x[start : start + size], start, present[start : start + size])
    assert samples[0].median == samples[1].median
    assert samples[0].median == pytest.approx(np.median(x[present]), abs=0.01)


def test_one_block_after_another():
    table = real_table(600_000)
    features = fitted(table.slice(0, 1000))
    matrix = features.transform(table)
    for start in (0, 4095, 262_143, 262_144, 599_999):
        assert (matrix[start] == features.transform(table.slice(start, 1))[0]).all()
    assert (features.transform(table.to_batches()[0]) == matrix).all()


def test_the_description_is_plain_json():
    features = fitted(real_table())
    written = json.dumps(features.to_dict(), allow_nan=False)
    again = Features.from_dict(json.loads(written))
    assert again.to_dict() == features.to_dict()
    assert again.names == features.names
    assert features.to_dict()["format"] == 1
    kinds = {column["name"]: column for column in features.to_dict()["columns"]}
    assert kinds["sold"]["fill"].startswith("20")
    assert sorted(kinds["city"]["values"]) == ["Bonn", "Lima", "Oslo", "Rome"]


DAMAGED = [
    ([], "preprocessing is []; expected an object"),
    ({}, "preprocessing.format is None; expected 1, what this version of onecycle writes"),
    ({"format": 2, "columns": []}, "preprocessing.format is 2; expected 1, what this version of onecycle writes"),
    ({"format": True, "columns": []}, "preprocessing.format is True; expected 1, what this version of onecycle writes"),
    ({"format": 1}, "preprocessing.columns is None; expected a list"),
    ({"format": 1, "columns": [3]}, "preprocessing.columns[0] is 3; expected an object"),
]
CHANGES = [
    (0, "kind", "text", "preprocessing.columns[0].kind is 'text'; expected one of number, date, category"),
    (0, "name", 3, "preprocessing.columns[0].name is 3; expected text"),
    (0, "mean", "0", "preprocessing.columns[0].mean is '0'; expected a finite number"),
    (0, "mean", True, "preprocessing.columns[0].mean is True; expected a finite number"),
    (0, "mean", float("nan"), "preprocessing.columns[0].mean is nan; expected a finite number"),
    (0, "mean", 10**400, "preprocessing.columns[0].mean is 1000000000000000"),
    (0, "std", 0, "preprocessing.columns[0].std is 0; expected a finite number above 0"),
    (0, "flag", 1, "preprocessing.columns[0].flag is 1; expected true or false"),
    (1, "name", "age", "preprocessing.columns is ['age', 'age', 'ratio', 'city', 'member', 'sold', 'seen']; expected each column once"),
    (3, "form", "eval", "preprocessing.columns[3].form is 'eval'; expected one of text, number, bool"),
    (3, "values", ["a", "a"], "preprocessing.columns[3].values is ['a', 'a']; expected different texts"),
    (3, "values", ["a", 1], "preprocessing.columns[3].values is ['a', 1]; expected different texts"),
    (5, "fill", "soon", "preprocessing.columns[5].fill is 'soon'; expected an ISO date"),
    (5, "parts", [], "preprocessing.columns[5].parts is []; expected an object"),
    (5, "parts", {"era": [0, 1]}, "preprocessing.columns[5].parts.era is [0.0, 1.0]; expected mean and std of a part of dates"),
    (5, "parts", {"year": [0]}, "preprocessing.columns[5].parts.year is [0.0]; expected mean and std of a part of dates"),
    (5, "parts", {"year": [0, 0]}, "preprocessing.columns[5].parts.year is [0.0, 0.0]; expected mean and std of a part of dates"),
    (5, "parts", {"year": [0, "1"]}, "preprocessing.columns[5].parts.year[1] is '1'; expected a finite number"),
    (5, "lenient", None, "preprocessing.columns[5].lenient is None; expected true or false"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "message"), DAMAGED)
def test_no_description_at_all(written: Any, message: str):
    with pytest.raises(DataError) as error:
        Features.from_dict(written)
    assert str(error.value) == f"{message}; take an undamaged copy, or train and save again"


@pytest.mark.parametrize(("column", "key", "value", "message"), CHANGES)
def test_a_damaged_description_is_refused(column: int, key: str, value: Any, message: str):
    written = copy.deepcopy(fitted(real_table()).to_dict())
    written["columns"][column][key] = value
    with pytest.raises(DataError) as error:
        Features.from_dict(written)
    assert str(error.value).startswith(message)
    del written["columns"][column][key]
    with pytest.raises(DataError):
        Features.from_dict(written)


def same_to_rounding(one: Any, other: Any, spread: float = 0.0) -> bool:
    """Equal but for the last digits; a mean may be near zero beside the `spread` of what it is the mean of."""
    if isinstance(one, dict):
        spread = one.get("std", spread)
        return one.keys() == other.keys() and all(same_to_rounding(one[key], other[key], spread) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_to_rounding, one, other))
    if not isinstance(one, float):
        return one == other
    return one == pytest.approx(other, rel=1e-9, abs=max(1e-9 * spread, 1e-12))


TYPES: dict[str, tuple[Any, Any]] = {
    "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "float": (pa.float64(), st.floats()),
    "half": (pa.float16(), st.floats(width=16).map(np.float16)),
    "bool": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text(max_size=3)),
    "dict": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["a", "b", "", " "])),
    "date": (pa.date32(), st.dates()),
    "time": (pa.timestamp("us"), st.datetimes()),
    "utc": (pa.timestamp("s", "UTC"), st.integers(-(2**60), 2**60)),
    "span": (pa.duration("s"), st.integers(-(2**62), 2**62)),
    "clock": (pa.time64("us"), st.times()),
}


@st.composite
def tables(draw: Any, least: int = 1) -> tuple[pa.Table, pa.Table]:
    """Two tables of one schema."""
    names = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, unique=True))
    both = []
    for rows in (draw(st.integers(least, 30)), draw(st.integers(0, 30))):
        cells = {name: st.lists(st.none() | TYPES[name][1], min_size=rows, max_size=rows) for name in names}
        both.append(pa.table({name: pa.array(draw(cells[name]), TYPES[name][0]) for name in names}))
    return both[0], both[1]


def try_fit(table: pa.Table) -> Features | None:
    try:
        return fitted(table)
    except DataError:
        return None


@settings(SLOW, max_examples=200)
@given(tables())
def test_no_table_gives_nan_or_infinity(both: tuple[pa.Table, pa.Table]):
    if (features := try_fit(both[0])) is None:
        return
    for table in both:
        matrix = features.transform(table)
        assert np.isfinite(matrix).all()
        taken = matrix[:, features.numbers :]
        assert ((taken >= 0) & (taken < features.sizes) & (taken == taken.round())).all()


@settings(SLOW, max_examples=100)
@given(tables())
def test_a_description_gives_the_same_bits(both: tuple[pa.Table, pa.Table]):
    if (features := try_fit(both[0])) is None:
        return
    again = Features.from_dict(json.loads(json.dumps(features.to_dict(), allow_nan=False)))
    for table in both:
        assert again.transform(table).tobytes() == features.transform(table).tobytes()


@settings(SLOW, max_examples=100)
@given(tables(), st.randoms())
def test_the_order_of_rows_and_columns_does_not_matter(both: tuple[pa.Table, pa.Table], random: Any):
    train, later = both
    columns = profiles_or_none(train)
    if columns is None or (features := try_fit(train)) is None:
        return
    order = list(range(len(train)))
    random.shuffle(order)
    turned = Features.fit(train.take(order).select(train.column_names[::-1]), columns)
    assert same_to_rounding(turned.to_dict(), features.to_dict())
    matrix = features.transform(later)
    order = list(range(len(later)))
    random.shuffle(order)
    assert (features.transform(later.take(pa.array(order, pa.int64()))) == matrix[order]).all()


@settings(SLOW, max_examples=100)
@given(st.lists(st.none() | st.floats(-1e50, 1e50), min_size=1))
def test_statistics_are_numpys(values: list[float | None]):
    written = Features.fit(pa.table({"x": pa.array(values, pa.float64())}), of("number")).to_dict()["columns"][0]
    present = np.array([value for value in values if value is not None])
    if len(present):
        size = np.abs(present).max()
        assert written["mean"] == pytest.approx(present.mean(), rel=1e-9, abs=1e-12 * size)
        assert written["fill"] == np.median(present)
        if present.std() > 1e-9 * size:
            assert written["std"] == pytest.approx(present.std(), rel=1e-6)
    assert written["flag"] == (0 < len(present) < len(values))


@settings(SLOW, max_examples=100)
@given(tables(), st.integers(1, 10))
def test_streaming_equals_fitting_at_once(both: tuple[pa.Table, pa.Table], size: int):
    columns = profiles_or_none(both[0])
    if columns is None or (whole := try_fit(both[0])) is None:
        return
    streamed = Features.fit_stream(both[0].to_batches(max_chunksize=size), columns)
    assert same_to_rounding(streamed.to_dict(), whole.to_dict())


def profiles_or_none(table: pa.Table) -> list[ColumnProfile] | None:
    try:
        return profiles(table)
    except DataError:
        return None
