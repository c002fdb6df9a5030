import datetime as dt
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onecycle.errors import DataError
from onecycle.tables.features import Features
from onecycle.tables.profile import ColumnProfile
from tables.feature_tables import fitted, profiles, real_table

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:column .* divide the column first")]


SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine


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
    texts = {
        name: table[name].dictionary_encode() for name in table.schema.names if pa.types.is_string(table[name].type)
    }
    quick = pa.table({name: texts.get(name, table[name]) for name in table.schema.names})
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
