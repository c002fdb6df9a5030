"""Rows assigned to sets one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onecycle.core.config import Config
from onecycle.errors import DataError, SettingError
from tables.cache.table_files import cache_path, converted, left_in, split, table, write_as

pytestmark = pytest.mark.slow


@given(cuts=st.lists(st.integers(0, 1_000), max_size=9), kind=st.sampled_from(["random", "group:who", "column:part"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_split_is_the_same_however_the_rows_come_in_chunks(cuts: list[int], kind: str):
    whole = table(1_000)
    row_split = split(whole.column_names, kind, 0.3, 1)
    ends = sorted({0, *cuts, 1_000})
    parts = [row_split.assign(whole.slice(a, b - a), a) for a, b in zip(ends, ends[1:], strict=False)]
    np.testing.assert_array_equal(np.concatenate(parts), row_split.assign(whole, 0))


def test_a_random_split_has_the_fraction_and_follows_the_seed():
    whole = pa.table({"a": np.zeros(200_000)})
    sets = split(["a"], "random", 0.3, 1).assign(whole, 0)
    assert sets.mean() == pytest.approx(0.3, abs=0.005)
    assert abs(np.corrcoef(sets[:-65_536], sets[65_536:])[0, 1]) < 0.01  # each chunk has its own numbers
    np.testing.assert_array_equal(sets, split(["a"], "auto", 0.3, 1).assign(whole, 0))
    assert (sets != split(["a"], "random", 0.3, 2).assign(whole, 0)).mean() == pytest.approx(0.42, abs=0.01)


def test_groups_stay_together_whatever_their_type():
    who = np.random.default_rng(0).integers(0, 3_000, 30_000)
    texts = pa.array([None if i == 7 else str(i) for i in who])
    numbers = pa.array(np.where(who == 7, np.nan, who), from_pandas=True)
    row_split = split(["who"], "group:who", 0.25, 4)
    sets = row_split.assign(pa.table({"who": texts}), 0)
    np.testing.assert_array_equal(sets, row_split.assign(pa.table({"who": numbers}), 0))
    np.testing.assert_array_equal(sets, row_split.assign(pa.table({"who": texts.dictionary_encode()}), 0))
    by_group = {group: set(sets[who == group].tolist()) for group in np.unique(who)}
    assert all(len(found) == 1 for found in by_group.values())
    assert np.mean([found.pop() for found in by_group.values()]) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("kind", ["time:day", "stratified", [1, 2, 3]])
def test_a_split_that_needs_the_whole_table_is_refused(kind: Any, file: Path):
    with pytest.raises(SettingError) as caught:
        converted(file, split=kind)
    shown = f'split "{kind}"' if isinstance(kind, str) else "a split by given rows"
    assert str(caught.value) == (
        f"{shown} needs the table in memory, but it is larger than memory_limit; raise that, or use auto, random, "
        "group:COLUMN or column:COLUMN"
    )
    assert not cache_path().exists()


@pytest.mark.parametrize("valid", [0, 1, 0.0, 1.0, 500, True, "0.2", None])
def test_valid_must_be_a_fraction(valid: Any, file: Path):
    with pytest.raises(SettingError) as caught:
        converted(file, valid=valid)
    assert str(caught.value) == (
        f"valid is {valid!r}; expected a fraction between 0 and 1, since the table is larger than memory_limit"
    )


def test_unknown_marks_are_named_with_their_row(tmp_path: Path):
    marks = ["train"] * 70_000 + ["valid", "trian"]
    whole = pa.table({"x": np.arange(70_002) % 7, "y": np.arange(70_002) % 2, "part": marks})
    path = write_as(whole, tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        converted(path, split="column:part")
    assert str(caught.value) == (
        'split "column:part": column "part" is \'trian\' in row 70001; expected train, valid or test, or true or 1 '
        'for validation; did you mean "train"?'
    )
    path = write_as(pa.table({**{k: whole[k] for k in "xy"}, "part": [*marks[:-1], None]}), tmp_path / "u.parquet")
    with pytest.raises(DataError, match='column "part" is missing in row 70001; expected train, valid or test'):
        converted(path, split="column:part")


def test_a_set_without_rows_is_refused(tmp_path: Path):
    whole = pa.table({"x": np.arange(300) % 7, "y": np.arange(300) % 2, "g": ["one"] * 300, "part": ["train"] * 300})
    path = write_as(whole, tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        converted(path, split="column:part")
    assert str(caught.value) == (
        'split "column:part": column "part" leaves no row to validate; expected at least one in each set: mark some'
    )
    with pytest.raises(DataError, match=r'split "group:g": column "g" leaves no row to (validate|train on); expected'):
        converted(path, split="group:g")
    assert left_in(Config().home()) == []
