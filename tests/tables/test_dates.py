import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from onecycle.errors import DataError
from onecycle.tables.features import Features
from tables.feature_tables import fitted, profiles


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
