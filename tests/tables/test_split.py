import datetime as dt
import itertools
import random

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onecycle.errors import DataError, SettingError
from onecycle.tables import split as split_module
from onecycle.tables.spec import TableSpec
from onecycle.tables.split import Split, nearest_sum, split_rows

NUMBERS = pa.table({"x": np.arange(100)})


def rows_of(table: pa.Table, split: object = "auto", valid: object = 0.2, seed: int = 0, codes: object = None) -> Split:
    return split_rows(table, TableSpec("y", split=split, valid=valid, seed=seed), codes)


def sides(split: Split) -> tuple[list[int], list[int], list[int]]:
    return split.train.tolist(), split.valid.tolist(), split.test.tolist()


def assert_divides(split: Split, rows: int) -> None:
    for side in (split.train, split.valid, split.test):
        assert side.dtype == np.int64
        assert (np.diff(side) > 0).all()
    assert sorted(itertools.chain(*sides(split))) == list(range(rows))
    assert len(split.train)
    assert len(split.valid)


# --- random ----------------------------------------------------------------------------------------------------------


@given(rows=st.integers(2, 60), share=st.floats(0.001, 0.999), seed=st.integers(0, 2**40))
def test_random_takes_the_share_and_at_least_one_row_for_each_side(rows: int, share: float, seed: int):
    table = pa.table({"x": np.zeros(rows)})
    split = rows_of(table, "random", share, seed)
    assert_divides(split, rows)
    assert len(split.valid) == min(max(round(share * rows), 1), rows - 1)
    assert sides(rows_of(table, "random", share, seed)) == sides(split)


def test_valid_may_be_a_number_of_rows():
    assert len(rows_of(NUMBERS, "random", 7).valid) == 7
    assert len(rows_of(NUMBERS, "random", np.int64(99)).valid) == 99
    assert len(rows_of(NUMBERS, "time:x", 7).valid) == 7


@pytest.mark.parametrize("how", ["random", "stratified", "group:x"])
def test_the_seed_decides_and_the_global_generators_are_left_alone(how: str):
    table = pa.table({"x": np.arange(100) % 50})
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    first, again, other = (rows_of(table, how, seed=seed, codes=np.arange(100) % 3) for seed in (1, 1, 2))
    assert sides(first) == sides(again) != sides(other)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before[1:]


def test_the_choice_is_not_that_of_the_first_epochs_order():
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert sorted(order[:20].tolist()) != rows_of(NUMBERS, "random").valid.tolist()


# --- stratified ------------------------------------------------------------------------------------------------------


@given(
    codes=st.lists(st.integers(0, 5), min_size=2, max_size=80),
    share=st.floats(0.01, 0.6),
    seed=st.integers(0, 100),
)
def test_stratified_gives_each_class_its_share_to_the_row(codes: list[int], share: float, seed: int):
    target = np.array(codes)
    sizes = np.bincount(target)
    if sizes.max() < 2:
        return
    split = rows_of(pa.table({"y": codes}), "stratified", share, seed, codes=target)
    assert_divides(split, len(codes))
    wanted = min(max(round(share * len(codes)), 1), len(codes) - 1)
    found = np.bincount(target[split.valid], minlength=len(sizes))
    exact = wanted * sizes / len(codes)
    room = np.maximum(sizes - 1, 0)
    assert (found >= np.minimum(np.floor(exact), room)).all()
    assert (found <= np.minimum(np.floor(exact) + 1, room)).all()
    assert len(split.valid) == min(wanted, np.minimum(np.floor(exact) + 1, room).sum())


def test_a_class_with_one_row_is_trained_on_and_small_classes_validate_first():
    target = np.array([7] * 39 + [3] * 2 + [5] * 2 + [1])
    for seed in range(20):
        split = rows_of(pa.table({"y": target}), "auto", 0.2, seed, codes=target)
        assert np.unique(target[split.valid], return_counts=True)[1].tolist() == [1, 1, 7]
        assert set(target[split.train]) == {1, 3, 5, 7}


def test_stratified_draws_every_row_of_a_class_about_as_often():
    target = np.array([0, 1] * 10)
    counts = np.zeros(20)
    for seed in range(1000):
        counts[rows_of(pa.table({"y": target}), "stratified", 0.5, seed, codes=target).valid] += 1
    assert counts.min() > 430
    assert counts.max() < 570


def test_auto_is_stratified_for_classes_and_random_otherwise():
    target = np.arange(100) // 10
    assert np.bincount(target[rows_of(NUMBERS, codes=target).valid]).tolist() == [2] * 10
    assert sides(rows_of(NUMBERS)) == sides(rows_of(NUMBERS, "random"))
    each_its_own = rows_of(NUMBERS, codes=np.arange(100))
    assert sides(each_its_own) == sides(rows_of(NUMBERS, "random"))


# --- time ------------------------------------------------------------------------------------------------------------

DAY = dt.datetime(2024, 1, 1)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=50), st.integers(1, 49))
def test_time_validates_on_the_latest_rows_and_of_a_tie_on_those_further_down(days: list[int], cut: int):
    whens = [DAY + dt.timedelta(day) for day in days]
    table = pa.table({"when": pa.chunked_array([whens[:cut], whens[cut:]], pa.timestamp("us"))})
    split = rows_of(table, "time:when", 0.3)
    assert_divides(split, len(days))
    assert split.valid.tolist() == np.sort(np.argsort(days, kind="stable")[-len(split.valid) :]).tolist()


@pytest.mark.parametrize(
    "values",
    [
        pa.array([dt.date(2024, 1, 3), dt.date(2023, 1, 1), dt.date(2024, 1, 2)]),
        pa.array([dt.time(3), dt.time(1), dt.time(2)]),
        pa.array([dt.timedelta(3), dt.timedelta(-1), dt.timedelta(2)]),
        pa.array([DAY.replace(2025), DAY.replace(2023), DAY], pa.timestamp("s", "Europe/Paris")),
        pa.array([3, 1, 2]),
        pa.array([0.3, -0.1, 0.2]),
        pa.array(["2024-01-10", "2023-12-31", "2024-01-02 23:59:59"]),
        pa.array(["2024-01-10", "2023-12-31", "2024-01-02"], pa.large_string()),
        pa.array(["2024-01-10", "2023-12-31", "2024-01-02"], pa.string_view()),
        pa.array(["2024-01-10", "2023-12-31", "2024-01-02"]).dictionary_encode(),
        pa.array(["2024-01-02", "2024-01-01T10:00:00Z", "2024-01-02T01:00:00+02:00"]),
        pa.array(["2024-01-01T01:00:00Z", "2024-01-01T01:00:00+02:00", "2024-01-01T00:30:00Z"]),
    ],
    ids=lambda values: str(values.type),
)
def test_time_takes_dates_times_numbers_and_iso_text(values: pa.Array):
    split = rows_of(pa.table({"when": values}), "time:when", 0.4)
    assert sides(split) == ([1, 2], [0], [])


# --- groups ----------------------------------------------------------------------------------------------------------


@given(
    groups=st.lists(st.sampled_from(["a", "b", "c", "d", "e", None]), min_size=2, max_size=40),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 50),
    cut=st.integers(0, 40),
)
def test_groups_stay_whole_and_meet_the_share_as_nearly_as_they_can(
    groups: list[str | None], share: float, seed: int, cut: int
):
    distinct = sorted(set(groups), key=str)
    if len(distinct) < 2:
        return
    table = pa.table({"g": pa.chunked_array([groups[:cut], groups[cut:]], pa.string())})
    split = rows_of(table, "group:g", share, seed)
    assert_divides(split, len(groups))
    assert not {groups[row] for row in split.train} & {groups[row] for row in split.valid}
    wanted = min(max(round(share * len(groups)), 1), len(groups) - 1)
    sizes = [groups.count(group) for group in distinct]
    sums = [sum(some) for r in range(1, len(sizes)) for some in itertools.combinations(sizes, r)]
    assert abs(len(split.valid) - wanted) == min(abs(total - wanted) for total in sums)


@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.date32(), pa.float64(), pa.bool_()])
def test_groups_may_be_of_any_plain_kind(kind: pa.DataType):
    codes = pa.array([0, 1] * 10).cast(pa.int32()).cast(kind)
    assert len(rows_of(pa.table({"g": codes}), "group:g").valid) == 10


def test_many_groups_are_chosen_by_seed_and_quickly():
    codes = np.random.default_rng(0).integers(0, 50_000, 1_000_000)
    split = rows_of(pa.table({"g": codes}), "group:g", 0.2, seed=3)
    assert len(split.valid) == 200_000
    assert not set(codes[split.valid]) & set(codes[split.train])


def test_groups_that_cannot_meet_the_share_are_near_it_even_where_there_are_many():
    sizes = np.full(20_000, 50)
    chosen = nearest_sum(sizes, 200_013)
    assert len(set(chosen)) == len(chosen) == 4000
    sizes[7] = 400_000
    assert abs(sizes[nearest_sum(sizes, 500_010)].sum() - 500_010) <= 50


@settings(max_examples=200)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=60),
    share=st.floats(0.05, 0.95),
    search=st.integers(1, 200),
    slack=st.integers(0, 30),
)
def test_a_short_search_still_gives_some_of_the_groups_and_not_all(
    sizes: list[int], share: float, search: int, slack: int
):
    wanted = min(max(round(share * sum(sizes)), 1), sum(sizes) - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_module, "MAX_SEARCH", search)
        patch.setattr(split_module, "SEARCHED_TAIL", slack)
        chosen = nearest_sum(np.array(sizes), wanted)
    assert len(set(chosen)) == len(chosen)
    assert 0 < len(chosen) < len(sizes)
    assert abs(sum(sizes[i] for i in chosen) - wanted) <= max(sizes)


# --- a column that says it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["train", "valid", "test", "train"], ([0, 3], [1], [2])),
        (["TRAIN", " Val", "validation", "Test "], ([0], [1, 2], [3])),
        ([False, True, False, True], ([0, 2], [1, 3], [])),
        ([0, 1, 1, 0], ([0, 3], [1, 2], [])),
        ([0.0, 1.0, 1.0, 0.0], ([0, 3], [1, 2], [])),
        (["0", "1", "1", "0"], ([0, 3], [1, 2], [])),
        (pa.array(["train", "val", "train", "test"]).dictionary_encode(), ([0, 2], [1], [3])),
    ],
)
def test_a_column_says_which_rows_are_which(values: list[object], expected: tuple[list[int], ...]):
    assert sides(rows_of(pa.table({"set": values}), "column:set", valid=5.0)) == expected


# --- given rows ------------------------------------------------------------------------------------------------------

MASK = np.arange(10) >= 7


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ([9, 7, 8], ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9], [])),
        ([8, 9], ([0, 1, 2, 3, 4, 5, 6, 7], [8, 9], [])),
        (np.array([9, 7, 8], np.uint8), ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9], [])),
        (MASK, ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9], [])),
        (MASK.tolist(), ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9], [])),
        (torch.tensor([9, 7]), ([0, 1, 2, 3, 4, 5, 6, 8], [7, 9], [])),
        (pa.array([9, 7]), ([0, 1, 2, 3, 4, 5, 6, 8], [7, 9], [])),
        (pd.Series([9, 7]), ([0, 1, 2, 3, 4, 5, 6, 8], [7, 9], [])),
        (pl.Series([9, 7]), ([0, 1, 2, 3, 4, 5, 6, 8], [7, 9], [])),
        (range(8, 10), ([0, 1, 2, 3, 4, 5, 6, 7], [8, 9], [])),
        (([3, 1], [2]), ([1, 3], [2], [])),
        ([range(5), np.array([9])], ([0, 1, 2, 3, 4], [9], [])),
        ((~MASK, MASK), ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9], [])),
        (([0], MASK), ([0], [7, 8, 9], [])),
        (Split(np.array([0]), np.array([1]), np.array([2])), ([0], [1], [2])),
    ],
)
def test_rows_may_be_given(how: object, expected: tuple[list[int], ...]):
    split = rows_of(NUMBERS.slice(0, 10), how)
    assert sides(split) == expected
    assert split.train.dtype == split.valid.dtype == np.int64


# --- errors ----------------------------------------------------------------------------------------------------------

WAYS = "auto, random, stratified, time:COLUMN, group:COLUMN or column:COLUMN"
TABLE = pa.table(
    {
        "x": range(6),
        "date": pa.array([DAY, None, DAY, None, DAY, DAY]),
        "place": ["here"] * 6,
        "set": ["train", "valid", "trian", "train", "train", "train"],
        "gaps": ["train", "valid", None, "train", "train", "train"],
        "all_train": ["train"] * 6,
        "all_valid": [1] * 6,
        "level": [0, 1, 2, 0, 1, 2],
        "text": ["2024-01-01", "3rd May", "2024-01-01", "2024-01-01", "x", "y"],
        "marks": [*["2024-01-01"] * 5, "n/a"],
        "nan": [1.0, 2.0, float("nan"), 3.0, 4.0, 5.0],
        "lists": [[1]] * 6,
    }
)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("randum",), SettingError, f'unknown split "randum"; expected {WAYS}; did you mean "random"?'),
        (("tiem:date",), SettingError, f'unknown split "tiem:date"; expected {WAYS}; did you mean "time"?'),
        (("",), SettingError, f'unknown split ""; expected {WAYS}'),
        (("time",), SettingError, 'split "time" names no column; expected time:COLUMN'),
        (("group:",), SettingError, 'split "group:" names no column; expected group:COLUMN'),
        (("random:x",), SettingError, f'split "random:x": random takes no column; expected {WAYS}'),
        (("time:dat",), SettingError, 'split "time:dat": the table has no column "dat"; did you mean "date"?'),
        (
            ("group:zzz",),
            SettingError,
            'split "group:zzz": the table has no column "zzz"; there are x, date, place, set, gaps, all_train, all_valid, level, text, marks, …',
        ),
        (
            ("time:date",),
            DataError,
            'split "time:date": column "date" is missing in 2 rows (the first: row 1); expected a time in each: fill them, or drop these rows',
        ),
        (
            ("time:nan",),
            DataError,
            'split "time:nan": column "nan" is missing in 1 row (the first: row 2); expected a',
        ),
        (
            ("time:text",),
            DataError,
            "row 1: column \"text\" is '3rd May'; expected a date such as 2024-01-31 or 2024-01-31 18:30:00",
        ),
        (("time:marks",), DataError, 'split "time:marks": column "marks" is missing in 1 row (the first: row 5); ex'),
        (
            ("time:lists",),
            DataError,
            'split "time:lists": column "lists" holds list<item: int64>; expected dates, times or numbers',
        ),
        (
            ("group:place",),
            DataError,
            'split "group:place": column "place" is \'here\' in every row; expected at least two groups',
        ),
        (
            ("group:lists",),
            DataError,
            'split "group:lists": column "lists" holds list<item: int64>; expected text or whole numbers',
        ),
        (
            ("column:set",),
            DataError,
            'split "column:set": column "set" is \'trian\' in row 2; expected train, valid or test, or true or 1 for validation; did you mean "train"?',
        ),
        (("column:gaps",), DataError, 'split "column:gaps": column "gaps" is missing in row 2; expected train, valid'),
        (("column:level",), DataError, 'split "column:level": column "level" is 2 in row 2; expected train, valid'),
        (
            ("column:all_train",),
            DataError,
            'split "column:all_train": column "all_train" has no row for validation; expected at least one (valid, true or 1)',
        ),
        (
            ("column:all_valid",),
            DataError,
            'split "column:all_valid": column "all_valid" has no row for training; expected at least one (train, false or 0)',
        ),
        (("random", 1.5), SettingError, "valid is 1.5; expected a share between 0 and 1, or a whole number of rows"),
        (("random", 0.0), SettingError, "valid is 0.0; expected a share between 0 and 1"),
        (("random", float("nan")), SettingError, "valid is nan; expected a share between 0 and 1"),
        (("random", True), SettingError, "valid is True; expected a share between 0 and 1"),
        (("random", "20%"), SettingError, "valid is '20%'; expected a share between 0 and 1"),
        (("random", 6), SettingError, "valid is 6; the table has 6 rows: expected 1 to 5 rows, or a share"),
        (("random", 0), SettingError, "valid is 0; the table has 6 rows: expected 1 to 5 rows, or a share"),
        (("random", 0.2, -1), SettingError, "seed is -1; expected a whole number of at least 0"),
        (
            ("stratified",),
            DataError,
            'split "stratified" needs a target that is classes; use "random"',
        ),
        (
            ("stratified", 0.2, 0, np.arange(6)),
            DataError,
            'split "stratified": each class has one row, so none is left to validate; use "random"',
        ),
        (([6],), DataError, "split: valid row 6 is not in the table, which has 6 rows (0-5)"),
        (([-1, 2],), DataError, "split: valid row -1 is not in the table, which has 6 rows (0-5)"),
        (([1, 2, 1],), DataError, "split: valid row 1 is named more than once; expected each row once"),
        (
            (([0, 2, 3], [3, 2]),),
            DataError,
            "split: 2 rows in two sets (the first: row 2); expected each row in one",
        ),
        (([],), DataError, "split: no row is for valid; expected at least one"),
        ((range(6),), DataError, "split: no row is for train; expected at least one"),
        ((([], [1]),), DataError, "split: no row is for train; expected at least one"),
        (([True, False, True],), DataError, "split: the mask of valid rows has 3 values; the table has 6 rows"),
        (
            (np.array([0.5, 1.5]),),
            SettingError,
            f"split: the valid rows are float64 of shape (2,); expected row numbers, a mask, or {WAYS}",
        ),
        ((None,), SettingError, f"split: the valid rows are None; expected row numbers, a mask, or {WAYS}"),
        ((0.2,), SettingError, "split: the valid rows are 0.2; expected row numbers"),
        (([[1, 2], [3], [4, 5]],), SettingError, "split: the valid rows are not an array (setting an array element"),
    ],
)
def test_what_cannot_be_split_is_said(arguments: tuple[object, ...], error: type[Exception], text: str):
    with pytest.raises(error) as raised:
        rows_of(TABLE, *arguments)
    assert str(raised.value).startswith(text)


@pytest.mark.parametrize(("rows", "found"), [(0, "no rows"), (1, "1 row")])
@pytest.mark.parametrize("how", ["auto", "time:x", "column:x"])
def test_a_table_of_fewer_than_two_rows_cannot_be_split(rows: int, found: str, how: str):
    with pytest.raises(DataError, match=f"^the table has {found}; expected at least 2, one of them to validate$"):
        rows_of(NUMBERS.slice(0, rows), how)
