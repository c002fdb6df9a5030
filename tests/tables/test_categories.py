import datetime as dt
from decimal import Decimal
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from onecycle.tables.categories import UnseenValues
from onecycle.tables.features import Features
from tables.feature_tables import fitted, of


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


@pytest.mark.parametrize("text", ["1" * 2_000_000 + "x", "1" * 2_000_000, "." * 2_000_000])
def test_a_long_cell_is_coded_in_linear_time(text: str):
    """Values of another form than in training are read as numbers: with the square of their length it would not end."""
    features = Features.fit(pa.table({"x": [1, 2, 1]}), of("category"))
    assert codes(features, [text, "2.0"]) == [0, 2]


def test_a_description_by_0_1_0_takes_markers_for_missing_unless_they_are_values():
    written = fitted(pa.table({"x": ["NA", "Rome ", None, "NA", "Rome "]}), x="category").to_dict()
    del written["columns"][0]["rule"]
    old = Features.from_dict(written)
    assert codes(old, ["NA", "Rome ", "None", "-", "Rome", " NA", None]) == [1, 2, 3, 3, 0, 0, 3]


@pytest.mark.parametrize(("kinds", "expected"), [({}, [1, 1, 3]), ({"x": "category"}, [5, 4, 2])])
def test_the_rule_is_stored_and_read_again(kinds: dict[str, str], expected: list[int]):
    features = fitted(pa.table({"x": ["NA", "Rome ", "Oslo", " NA", "Rome"]}), **kinds)
    again = Features.from_dict(features.to_dict())
    assert again.to_dict() == features.to_dict()
    assert codes(again, ["Rome ", "Rome", "NA"]) == expected


def test_many_unseen_values_are_counted_in_bounded_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("onecycle.tables.categories._MOST_UNSEEN", 10)
    features, unseen = fitted(pa.table({"x": ["a", "b", "a", None]})), UnseenValues()
    for i in range(20):
        features.transform(pa.table({"x": ["often", "a", None, *(f"{i}-{j}" for j in range(10))]}), unseen=unseen)
    assert unseen.messages() == [
        "column \"x\": 220 of 260 cells hold what the model does not know from training, most often 'often' (20); "
        "it knows 'a', 'b'"
    ]
    known = UnseenValues()
    features.transform(pa.table({"x": pa.array(["a", "zz", None]).dictionary_encode().slice(0, 1)}), unseen=known)
    assert known.messages() == []
