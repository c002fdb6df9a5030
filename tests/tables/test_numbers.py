import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onecycle.errors import DataError
from onecycle.tables.features import Features
from onecycle.tables.numbers import CLIP, Sample
from tables.feature_tables import fitted, of, real_table

pytestmark = pytest.mark.slow


SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine


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


def test_the_median_of_many_rows_is_that_of_a_sample():
    random = np.random.default_rng(0)
    x = random.normal(size=600_000)
    table = pa.table({"x": pa.array(x, mask=random.random(600_000) < 0.1)})
    written = Features.fit(table, of("number")).to_dict()["columns"][0]
    assert abs(written["fill"]) < 0.01
    assert written["mean"] == pytest.approx(np.nanmean(table["x"].to_numpy()), rel=1e-9)
    assert written["std"] == pytest.approx(np.nanstd(table["x"].to_numpy()), rel=1e-12)


def test_a_sample_is_the_same_whatever_the_chunks():
    random = np.random.default_rng(0)
    x, present = random.normal(size=500_000), random.random(500_000) < 0.7
    samples = [Sample(), Sample()]
    for sample, size in zip(samples, (32_768, 10_007), strict=True):
        for start in range(0, len(x), size):
            sample.add(x[start : start + size], start, present[start : start + size])
    assert samples[0].median == samples[1].median
    assert samples[0].median == pytest.approx(np.median(x[present]), abs=0.01)


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


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-120, 1e-50, 1e38, 1e98])
def test_numbers_of_any_scale_stay_different(scale: float):
    table = pa.table({"x": np.array([0.0, 1.0, 2.0, 4.0, 8.0]) * scale})
    z = fitted(table).transform(table)[:, 0]
    assert np.isfinite(z).all()
    assert (np.diff(z) > 0.1).all()
    assert z.std() == pytest.approx(1, abs=0.5)


def test_numbers_that_lose_what_tells_them_apart_are_said():
    with pytest.warns(UserWarning, match=r'column "x": 2 of 4 numbers are beyond ±1e\+100, and count as that'):
        fitted(pa.table({"x": [1e300, 2e300, 0.0, 1.0]}))
    with pytest.warns(UserWarning, match='column "x" is from .*: float64 hardly tells its numbers apart'):
        fitted(pa.table({"x": np.array([10**18, 10**18 + 150, 10**18 + 300] * 3)}))
