"""Tables larger than memory: converted once, as the table in memory would be, and whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onecycle.core.config import Config
from onecycle.errors import DataError, FileError, OutputError, SettingError
from onecycle.tables.cache import folder as cache_folder
from onecycle.tables.cache import source as cache_source
from onecycle.tables.cache.cache import cached
from onecycle.tables.cache.conversion import RowWriter
from onecycle.tables.cache.folder import Entry, TableCache, default_cache_limit
from onecycle.tables.cache.manifest import DamagedCacheError, Manifest
from onecycle.tables.cache.progress import Progress
from onecycle.tables.cache.rowwise_split import RowwiseSplit
from onecycle.tables.cache.sizes import default_memory_limit, parse_size, shape_of, size_text
from onecycle.tables.features import Features
from onecycle.tables.profile import profile_columns
from onecycle.tables.read import read_table
from onecycle.tables.spec import TableSpec
from onecycle.tables.target import Target

pytestmark = pytest.mark.slow

ROWS = 3_000


def table(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Numbers, some missing, categories, dates, a target of two classes, groups and marks."""
    random = np.random.default_rng(seed)
    a, b = random.normal(size=rows), random.integers(0, 9, rows)
    holes = np.where(random.random(rows) < 0.1, np.nan, random.normal(3, 2, rows))
    return pa.table(
        {
            "a": a,
            "b": b,
            "holes": pa.array(holes, from_pandas=True),
            "color": pa.array(random.choice(["red", "green", "blue"], rows)),
            "day": pa.array([datetime(2020, 1, 1) + timedelta(hours=int(h)) for h in random.integers(0, 9_999, rows)]),
            "who": pa.array([f"p{i}" for i in random.integers(0, 200, rows)]),
            "part": pa.array(random.choice(["train", "train", "valid", "test"], rows)),
            "y": np.where(a + b / 9 + random.normal(size=rows) > 0.5, "yes", "no"),
        }
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(table(), path, row_group_size=700)
    return aged(path)


def aged(path: Path) -> Path:
    """A file that nobody has written to for an hour."""
    os.utime(path, (time.time() - 3600,) * 2)
    return path


class Told(Progress):
    """Keeps what is said; calls `at` when rows are read."""

    def __init__(self, at: Any = None) -> None:
        super().__init__(silent=True)
        self.lines: list[str] = []
        self.at = at

    def say(self, text: str) -> None:
        self.lines.append(text)

    def update(self, what: str, done: int, total: int | None) -> None:
        if self.at is not None:
            self.at(what, done)


def made(path: Path, target: Any = "y", **options: Any) -> Entry:
    """The entry of a file that is larger than memory_limit."""
    options.setdefault("progress", Told())
    found = cached(path, target, memory_limit=1, **options)
    assert found is not None
    return found


def rows_of(entry: Entry, part: str) -> np.ndarray:
    file = entry.manifest.files[part]
    return np.fromfile(entry.folder / file.name, file.dtype).reshape(file.shape)


def left_in(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "cache").iterdir())


def cache_path() -> Path:
    return Config().home() / "cache"


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [
        *((1, 1), (2.5e9, 2_500_000_000), ("2 GB", 2 * 10**9), ("500mb", 5 * 10**8), ("1.5 GiB", 3 * 2**29)),
        *(("12", 12), ("3k", 3_000), ("1 TB", 10**12), (" 7 B ", 7), (np.int64(9), 9)),
    ],
)
def test_a_size_is_bytes_or_text(text: Any, count: int):
    assert parse_size(text, "memory_limit") == count


@pytest.mark.parametrize("text", [0, -1, True, None, "", "2 XB", "1.2.3 GB", "GB", float("nan"), float("inf"), [1]])
def test_other_sizes_are_refused(text: Any):
    with pytest.raises(SettingError) as caught:
        parse_size(text, "memory_limit")
    assert str(caught.value) == (
        f'memory_limit is {text!r}; expected a number of bytes, or a size such as "500 MB" or "2 GB"'
    )


def test_sizes_are_shown_in_three_digits():
    assert [size_text(n) for n in (0, 999, 999_600, 2.13e9, 84e6, 20e9, 3e12)] == [
        *("0 bytes", "999 bytes", "1 MB", "2.13 GB", "84 MB", "20 GB", "3 TB")
    ]


def test_by_default_half_of_the_memory_that_is_available():
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(lines["MemTotal"].split()[0]) * 1024
    assert 2**26 < default_memory_limit() <= total // 2


def test_the_cache_may_take_20_gb_or_a_tenth_of_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    tenth = shutil.disk_usage(tmp_path).total // 10
    assert default_cache_limit(tmp_path / "not" / "there") == max(20 * 10**9, tenth)
    monkeypatch.setenv("ONECYCLE_CACHE_LIMIT", "3 GB")
    assert default_cache_limit(tmp_path) == 3 * 10**9
    monkeypatch.setenv("ONECYCLE_CACHE_LIMIT", "much")
    with pytest.raises(SettingError, match="ONECYCLE_CACHE_LIMIT is 'much'; expected a number of bytes"):
        default_cache_limit(tmp_path)


# --- what is larger than memory --------------------------------------------------------------------------------------


def write_as(found: pa.Table, path: Path) -> Path:
    suffix = "".join(path.suffixes)
    if suffix == ".parquet":
        pq.write_table(found, path)
    elif suffix == ".arrow":
        with pa.ipc.new_file(path, found.schema) as sink:
            sink.write_table(found)
    elif suffix == ".ipc":
        with pa.ipc.new_stream(path, found.schema) as sink:
            sink.write_table(found)
    else:
        packing = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
        with pa.CompressedOutputStream(path, packing) if packing else pa.OSFile(str(path), "wb") as sink:
            pc.write_csv(found, sink, pc.WriteOptions(delimiter="\t" if ".tsv" in suffix else ","))
    return aged(path)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".ipc", ".csv", ".tsv", ".csv.gz", ".csv.zst"])
def test_how_large_a_table_is_can_be_told_without_reading_it(suffix: str, tmp_path: Path):
    whole = table(20_000)
    shape = shape_of(write_as(whole, tmp_path / f"t{suffix}"))
    assert shape.names == whole.column_names
    assert shape.rows == pytest.approx(20_000, rel=0.2)
    assert shape.row_bytes == pytest.approx(whole.nbytes / 20_000, rel=0.5)
    matrix = 20_000 * 8 * 4
    assert shape.working_bytes == pytest.approx(2 * whole.nbytes + matrix, rel=0.5)


def test_what_fits_is_left_to_memory(file: Path):
    takes = shape_of(file).working_bytes
    assert cached(file, "y", memory_limit=takes) is None
    assert cached(file, "y") is None  # half of what is available
    assert not cache_path().exists()
    assert cached(file, "y", memory_limit=takes - 1, progress=Told()) is not None


def test_what_cannot_be_looked_into_is_left_to_those_who_explain_it(tmp_path: Path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    np.save(tmp_path / "plain.npy", np.zeros((5, 5)))
    np.savez(tmp_path / "odd.npz", a=np.zeros((5, 5)))
    np.savez(tmp_path / "objects.npz", x=np.array([[1], [None]], object), y=np.zeros(2))
    (tmp_path / "text.txt").write_text("a,b\n1,2\n")
    for name in ("broken.parquet", "plain.npy", "odd.npz", "objects.npz", "text.txt", "missing.csv", "."):
        assert cached(tmp_path / name, "y", memory_limit=1) is None


def test_a_bad_limit_is_refused(file: Path):
    with pytest.raises(SettingError, match="memory_limit is 'lots'"):
        cached(file, "y", memory_limit="lots")
    with pytest.raises(SettingError, match="cache_limit is -1"):
        cached(file, "y", memory_limit=1, cache_limit=-1)


# --- what is made of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".ipc", ".csv", ".tsv", ".csv.gz"])
def test_the_files_hold_what_preparing_in_memory_gives(suffix: str, tmp_path: Path):
    path = write_as(table(), tmp_path / f"t{suffix}")
    entry = made(path, drop=["part"], seed=5)
    features, target, columns = entry.manifest.fitted()
    whole = read_table(path)
    places = RowwiseSplit("auto", 0.2, 5, whole.column_names).of(whole, 0)
    train, valid = (whole.filter(pa.array(places == side)) for side in (0, 1))
    assert columns == tuple(profile_columns(train.drop_columns(["part"]), TableSpec("y")))
    expected = Features.fit(train, columns)
    assert features is not None
    assert (features.names, features.sizes) == (expected.names, expected.sizes)
    for side, rows in (("train", train), ("valid", valid)):
        np.testing.assert_allclose(rows_of(entry, f"{side}_x"), expected.transform(rows), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(rows_of(entry, f"{side}_y"), Target.fit(train, ["y"]).transform(rows))
    assert target.classes == ["no", "yes"]
    assert entry.manifest.class_counts == np.bincount(rows_of(entry, "train_y")).tolist()
    assert (entry.manifest.rows("train"), entry.manifest.rows("test")) == (len(train), 0)


def test_text_that_is_no_date_is_missing_in_rows_that_validate_too(tmp_path: Path):
    days = [f"{datetime(2020, 1, 1) + timedelta(days=i):%Y-%m-%d}" for i in range(300)]
    y = np.random.default_rng(3).normal(size=300)
    where = int(np.flatnonzero(RowwiseSplit("auto", 0.2, 0, ["day", "y"]).of(pa.table({"y": y}), 0) == 1)[0])
    days[where] = "yesterday"
    entry = made(write_as(pa.table({"day": days, "y": y}), tmp_path / "t.csv"), "y")
    assert np.isfinite(rows_of(entry, "valid_x")).all()


def test_a_regression_is_standardised_by_its_training_rows(tmp_path: Path):
    random = np.random.default_rng(3)
    path = write_as(pa.table({"x": random.normal(size=500), "price": random.normal(1e6, 9, 500)}), tmp_path / "t.csv")
    entry = made(path, "price")
    y, target = rows_of(entry, "train_y"), entry.manifest.fitted()[1]
    assert y.dtype == np.float32
    assert (abs(float(y.mean(dtype=float))), float(y.std(dtype=float))) == pytest.approx((0, 1), abs=1e-4)
    assert target.task == "regression"
    assert entry.manifest.class_counts is None


def test_several_labels_are_columns_of_zeros_and_ones(tmp_path: Path):
    random = np.random.default_rng(3)
    labels = {name: random.integers(0, 2, 500) for name in ("hot", "wet")}
    path = write_as(pa.table({"x": random.normal(size=500), **labels}), tmp_path / "t.parquet")
    entry = made(path, ["hot", "wet"])
    y = rows_of(entry, "train_y")
    assert (y.dtype, y.shape[1]) == (np.float32, 2)
    assert entry.manifest.class_counts == y.sum(0).tolist()


def test_kinds_and_a_split_by_a_column_reach_the_files(file: Path):
    entry = made(file, kinds={"b": "category"}, drop=["who"], split="column:part")
    features, _, _ = entry.manifest.fitted()
    assert features is not None
    assert features.inputs == ["a", "b", "holes", "color", "day"]
    counts = dict(zip(*np.unique(np.array(table()["part"]), return_counts=True), strict=True))
    assert {side: entry.manifest.rows(side) for side in counts} == counts


def test_numpys_numbers_are_settings_too(file: Path):
    entry = made(file, valid=np.float32(0.25), seed=np.int64(3))
    assert (entry.manifest.settings["valid"], entry.manifest.settings["seed"]) == (0.25, 3)
    assert made(file, valid=0.25, seed=3).folder == entry.folder


def test_a_category_of_a_csv_file_is_kept_as_written(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("zip,x,y\n" + "".join(f"{i % 3:03},{i},{i % 2}\n" for i in range(60)))
    features, _, _ = made(path, kinds={"zip": "category", "x": "number"}).manifest.fitted()
    assert features is not None
    assert sorted(features.to_dict()["columns"][0]["values"]) == ["000", "001", "002"]


# --- NumPy's files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_numbers_are_columns(save: Any, tmp_path: Path):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(3_000, 4)), random.integers(0, 3, 3_000)
    save(tmp_path / "a.npz", x=x, y=y, more=np.zeros((2, 2)))
    entry = made(tmp_path / "a.npz", seed=1)
    places = RowwiseSplit("auto", 0.2, 1, ["x0"]).of(pa.table({"x0": x[:, 0]}), 0)
    train = x[places == 0].astype(np.float32)
    features, _, _ = entry.manifest.fitted()
    assert features is not None
    assert features.names == ["x0", "x1", "x2", "x3"]
    np.testing.assert_allclose(rows_of(entry, "train_x"), (train - train.mean(0)) / train.std(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(rows_of(entry, "valid_y"), y[places == 1])


def test_images_stay_bytes_of_their_shape(tmp_path: Path):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (500, 6, 5), np.uint8), random.integers(0, 3, 500)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    entry = made(tmp_path / "a.npz", "label", seed=1)
    places = RowwiseSplit("auto", 0.2, 1, ["y"]).of(pa.table({"y": y}), 0)
    np.testing.assert_array_equal(rows_of(entry, "train_x"), x[places == 0])
    np.testing.assert_array_equal(rows_of(entry, "train_y"), y[places == 0])
    assert rows_of(entry, "train_x").dtype == np.uint8
    assert entry.manifest.fitted()[0] is None


def test_an_array_a_column_and_structured_arrays_are_tables(tmp_path: Path):
    random = np.random.default_rng(0)
    columns = {"a": random.normal(size=400), "y": random.integers(0, 2, 400)}
    np.savez(tmp_path / "a.npz", **columns)
    both = np.zeros(400, [(name, column.dtype.newbyteorder(">")) for name, column in columns.items()])
    for name, column in columns.items():
        both[name] = column
    np.save(tmp_path / "a.npy", both)
    one, other = made(tmp_path / "a.npz"), made(tmp_path / "a.npy")
    for part in one.manifest.files:
        np.testing.assert_array_equal(rows_of(one, part), rows_of(other, part))
    assert one.manifest.rows("train") + one.manifest.rows("valid") == 400


def test_arrays_that_cannot_be_streamed_are_refused(tmp_path: Path):
    path = tmp_path / "a.npz"
    x, y = np.zeros((300, 3)), np.arange(300) % 2
    np.savez(path, x=np.asfortranarray(np.random.default_rng(0).normal(size=(300, 3))), y=y)
    with pytest.raises(DataError) as caught:
        made(path)
    assert str(caught.value) == (
        f"{path}: x is stored column by column, so its rows cannot be read one after another; save "
        "np.ascontiguousarray of it, or raise memory_limit"
    )
    np.savez(path, x=x, y=y[:-1])
    with pytest.raises(DataError) as caught:
        made(path)
    assert str(caught.value) == f"{path}: x has 300 rows and y has 299 rows; expected as many"
    x[7, 2] = np.nan
    np.savez(path, x=x, y=y)
    with pytest.raises(DataError) as caught:
        made(path)
    assert str(caught.value) == (
        f"{path}: x contains nan at row 7, position [2]; expected finite numbers: drop or fill them first"
    )


# --- the split -------------------------------------------------------------------------------------------------------


@given(cuts=st.lists(st.integers(0, 1_000), max_size=9), how=st.sampled_from(["random", "group:who", "column:part"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_split_is_the_same_however_the_rows_come_in_pieces(cuts: list[int], how: str):
    whole = table(1_000)
    sides = RowwiseSplit(how, 0.3, 1, whole.column_names)
    ends = sorted({0, *cuts, 1_000})
    parts = [sides.of(whole.slice(a, b - a), a) for a, b in zip(ends, ends[1:], strict=False)]
    np.testing.assert_array_equal(np.concatenate(parts), sides.of(whole, 0))


def test_a_random_split_has_the_share_and_follows_the_seed():
    whole = pa.table({"a": np.zeros(200_000)})
    places = RowwiseSplit("random", 0.3, 1, ["a"]).of(whole, 0)
    assert places.mean() == pytest.approx(0.3, abs=0.005)
    assert abs(np.corrcoef(places[:-65_536], places[65_536:])[0, 1]) < 0.01  # each chunk has its own numbers
    np.testing.assert_array_equal(places, RowwiseSplit("auto", 0.3, 1, ["a"]).of(whole, 0))
    assert (places != RowwiseSplit("random", 0.3, 2, ["a"]).of(whole, 0)).mean() == pytest.approx(0.42, abs=0.01)


def test_groups_stay_together_whatever_their_type():
    who = np.random.default_rng(0).integers(0, 3_000, 30_000)
    texts = pa.array([None if i == 7 else str(i) for i in who])
    numbers = pa.array(np.where(who == 7, np.nan, who), from_pandas=True)
    sides = RowwiseSplit("group:who", 0.25, 4, ["who"])
    places = sides.of(pa.table({"who": texts}), 0)
    np.testing.assert_array_equal(places, sides.of(pa.table({"who": numbers}), 0))
    np.testing.assert_array_equal(places, sides.of(pa.table({"who": texts.dictionary_encode()}), 0))
    by_group = {group: set(places[who == group].tolist()) for group in np.unique(who)}
    assert all(len(found) == 1 for found in by_group.values())
    assert np.mean([found.pop() for found in by_group.values()]) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("how", ["time:day", "stratified", [1, 2, 3]])
def test_a_split_that_needs_the_whole_table_is_refused(how: Any, file: Path):
    with pytest.raises(SettingError) as caught:
        made(file, split=how)
    shown = f'split "{how}"' if isinstance(how, str) else "a split by given rows"
    assert str(caught.value) == (
        f"{shown} needs the table in memory, but it is larger than memory_limit; raise that, or use auto, random, "
        "group:COLUMN or column:COLUMN"
    )
    assert not cache_path().exists()


@pytest.mark.parametrize("valid", [0, 1, 0.0, 1.0, 500, True, "0.2", None])
def test_the_share_must_be_one(valid: Any, file: Path):
    with pytest.raises(SettingError) as caught:
        made(file, valid=valid)
    assert str(caught.value) == (
        f"valid is {valid!r}; expected a share between 0 and 1, since the table is larger than memory_limit"
    )


@pytest.mark.parametrize(("name", "where"), [("t.csv", "{path}:2982"), ("t.parquet", "row 2980, counted from 0")])
def test_a_missing_target_is_named_with_its_line(name: str, where: str, tmp_path: Path):
    y = [None if row in (2_980, 2_990) else row / 7 for row in range(3_000)]
    path = write_as(pa.table({"x": np.arange(3_000) % 11 / 3, "y": y}), tmp_path / name)
    with pytest.raises(DataError) as caught:
        made(path)
    assert str(caught.value) == (
        f'target "y" is missing in 2 of 3,000 rows, first in {where.format(path=path)}; expected a value in each: drop '
        "the rows without one"
    )


def test_marks_that_are_none_are_named_with_their_row(tmp_path: Path):
    marks = ["train"] * 70_000 + ["valid", "trian"]
    whole = pa.table({"x": np.arange(70_002) % 7, "y": np.arange(70_002) % 2, "part": marks})
    path = write_as(whole, tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        made(path, split="column:part")
    assert str(caught.value) == (
        'split "column:part": column "part" is \'trian\' in row 70001; expected train, valid or test, or true or 1 '
        'for validation; did you mean "train"?'
    )
    path = write_as(pa.table({**{k: whole[k] for k in "xy"}, "part": [*marks[:-1], None]}), tmp_path / "u.parquet")
    with pytest.raises(DataError, match='column "part" is missing in row 70001; expected train, valid or test'):
        made(path, split="column:part")


def test_a_side_without_rows_is_refused(tmp_path: Path):
    whole = pa.table({"x": np.arange(300) % 7, "y": np.arange(300) % 2, "g": ["one"] * 300, "part": ["train"] * 300})
    path = write_as(whole, tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        made(path, split="column:part")
    assert str(caught.value) == (
        'split "column:part": column "part" leaves no row to validate; expected at least one on each side: mark some'
    )
    with pytest.raises(DataError, match=r'split "group:g": column "g" leaves no row to (validate|train on); expected'):
        made(path, split="group:g")
    assert left_in(Config().home()) in ([], ["hashes.json"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "z"}, 'there is no column "z" to predict; there are a, b, holes'),
        ({"drop": ["colour"]}, 'drop names "colour", but there is no such column; did you mean "color"?'),
        ({"kinds": {"aa": "number"}}, 'kinds names "aa", but there is no such column'),
        ({"kinds": {"a": "nummer"}}, "kinds sets \"a\" to 'nummer'; expected one of number, category, date, dropped"),
        ({"split": "group:whom"}, 'split "group:whom": the table has no column "whom"; did you mean "who"?'),
        ({"split": "randm"}, 'unknown split "randm"'),
        ({"valid": np.float32(0)}, "valid is np.float32(0.0); expected a share between 0 and 1"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
    ],
)
def test_settings_are_checked_before_any_work(options: dict[str, Any], message: str, file: Path):
    told = Told()
    with pytest.raises(SettingError) as caught:
        made(file, **{"target": "y", "progress": told, **options})
    assert message in str(caught.value)
    assert told.lines == []
    assert not cache_path().exists()


# --- finding it again ------------------------------------------------------------------------------------------------


def test_what_was_made_is_found_again_without_reading_the_file(file: Path, monkeypatch: pytest.MonkeyPatch):
    first = made(file)
    monkeypatch.setattr(cache_source, "stream_table", None)
    monkeypatch.setattr(cache_source, "sha256", None)
    told = Told()
    second = made(file, progress=told)
    assert (second.folder, told.lines) == (first.folder, [])


def test_the_same_content_elsewhere_is_the_same_table(file: Path, tmp_path: Path):
    first, told = made(file), Told()
    copy = tmp_path / "copy.parquet"
    shutil.copy(file, copy)
    assert made(copy, progress=told).folder == first.folder
    assert told.lines == [f"{copy}: larger than memory_limit; looking for what was made of it before"]


def test_other_content_or_settings_are_another_table(file: Path):
    folders = {made(file).folder, made(file, seed=1).folder, made(file, drop=["a"]).folder, made(file, "b").folder}
    before = file.stat()
    content = bytearray(file.read_bytes())
    pq.write_table(table(seed=1), file)
    folders |= {made(aged(file)).folder}
    assert len(folders) == 5
    file.write_bytes(content)
    os.utime(file, ns=(before.st_mtime_ns,) * 2)
    assert made(file).folder in folders


def test_a_file_that_was_just_written_is_not_known_by_its_time(file: Path):
    first = made(file)
    pq.write_table(table(seed=1).slice(0, ROWS), file, row_group_size=700)
    told = Told()
    assert made(file, progress=told).folder != first.folder
    made(file, progress=told)
    assert sum("looking for what was made" in line for line in told.lines) == 2  # looked into both times


def test_a_damaged_list_of_hashes_is_as_none(file: Path):
    first = made(file)
    for content in ("{", "[]", "3", json.dumps({str(file): [1]}), "\0"):
        (cache_path() / "hashes.json").write_text(content)
        assert made(file).folder == first.folder


def test_a_file_that_changes_while_it_is_read_is_refused(file: Path):
    def change(what: str, done: int) -> None:
        if "pass 2" in what:
            os.utime(file)

    with pytest.raises(FileError) as caught:
        made(file, progress=Told(change))
    assert str(caught.value) == f"{file}: was changed while it was read; try again when nothing writes to it"
    assert left_in(Config().home()) == ["hashes.json"]


# --- damage ----------------------------------------------------------------------------------------------------------


def cut(entry: Entry) -> None:
    with (entry.folder / "train_x.bin").open("rb+") as file:
        file.truncate(1_000)


def flip(entry: Entry, part: str = "valid_y") -> None:
    with (entry.folder / f"{part}.bin").open("rb+") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))


def edit_manifest(entry: Entry) -> None:
    path = entry.folder / "manifest.json"
    path.write_text(path.read_text().replace('"train_y.bin"', '"valid_y.bin"'))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "train_x.bin has 1,000 bytes instead of "),
        (flip, "valid_y.bin was changed"),
        (edit_manifest, "manifest.json was changed"),
        (lambda entry: (entry.folder / "train_y.bin").unlink(), "train_y.bin cannot be read (No such file"),
        (lambda entry: (entry.folder / "manifest.json").unlink(), "manifest.json cannot be read ("),
        (lambda entry: (entry.folder / "manifest.json").write_bytes(b"\xff{"), "manifest.json cannot be read ("),
    ],
)
def test_a_damaged_entry_is_made_again(damage: Any, reason: str, file: Path):
    first = made(file)
    expected = {part: rows_of(first, part) for part in first.manifest.files}
    damage(first)
    told = Told()
    second = made(file, progress=told)
    assert told.lines[0].startswith(f"the cache of this file is damaged ({reason}")
    assert told.lines[1:] == [
        f"{file}: preparing it on the disk, once",
        f"prepared {size_text(second.manifest.bytes)} in {second.folder}",
    ]
    for part, rows in expected.items():
        np.testing.assert_array_equal(rows_of(second, part), rows)
    assert left_in(Config().home()) == [second.key, "hashes.json"]


def test_a_copy_of_the_cache_is_whole_whatever_its_times(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = made(file)
    shutil.copytree(Config().home(), tmp_path / "moved", copy_function=shutil.copyfile)
    monkeypatch.setenv("ONECYCLE_HOME", str(tmp_path / "moved"))
    told = Told()
    second = made(file, progress=told)
    assert (second.key, told.lines) == (first.key, [])
    assert Manifest.read(second.folder) == second.manifest  # with the new times: not looked into again


def test_a_change_that_hides_is_found_by_the_content(file: Path):
    entry = made(file)
    path = entry.folder / "valid_y.bin"
    times = path.stat()
    flip(entry)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    entry.manifest.check(entry.folder)
    with pytest.raises(DamagedCacheError, match=r"valid_y.bin was changed"):
        entry.manifest.check(entry.folder, content=True)


# --- ends in the middle ----------------------------------------------------------------------------------------------

CONVERT = """
import sys, pathlib
from onecycle.tables.cache.cache import cached
entry = cached(pathlib.Path(sys.argv[1]), "y", memory_limit=1)
print(entry.folder)
"""


def converting(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CONVERT, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_killed_conversion_leaves_nothing_that_is_used(tmp_path: Path):
    path = write_as(table(400_000), tmp_path / "large.parquet")
    process = converting(path)
    home = Config().home()
    deadline = time.monotonic() + 60
    while not any(found.stat().st_size for found in home.glob("cache/.*.tmp/train_x.bin")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    (left,) = home.glob("cache/.*.tmp")
    assert TableCache().entries() == []
    small = tmp_path / "small.parquet"
    pq.write_table(table(), small)
    made(small)  # another file: it sweeps, too
    assert not left.exists()
    told = Told()
    entry = made(path, progress=told)
    assert any("preparing" in line for line in told.lines)
    entry.manifest.check(entry.folder, content=True)


@pytest.mark.slow
def test_two_processes_convert_a_file_once(tmp_path: Path):
    path = write_as(table(100_000), tmp_path / "large.parquet")
    processes = [converting(path) for _ in range(3)]
    found = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], found
    assert len({out for out, _ in found}) == 1
    assert sum("preparing it" in err for _, err in found) == 1
    assert left_in(Config().home()) == [Path(found[0][0].strip()).name, "hashes.json"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("when", ["pass 1", "pass 2", "pass 3"])
def test_what_ends_in_the_middle_leaves_nothing(stop: type[BaseException], when: str, file: Path):
    def end(what: str, done: int) -> None:
        if when in what:
            raise stop

    with pytest.raises(stop):
        made(file, progress=Told(end))
    assert left_in(Config().home()) == ["hashes.json"]
    assert made(file).manifest.rows("train") > 0


def test_a_full_disk_in_the_middle_leaves_nothing(file: Path, monkeypatch: pytest.MonkeyPatch):
    write, calls = RowWriter.write, []

    def fills(self: RowWriter, rows: np.ndarray) -> None:
        calls.append(rows)
        if len(calls) == 3:
            with Path("/dev/full").open("wb", buffering=0) as full:
                full.write(b"x")
        write(self, rows)

    monkeypatch.setattr(RowWriter, "write", fills)
    with pytest.raises(OutputError) as caught:
        made(file)
    assert str(caught.value) == (
        f"{cache_path()}: the disk became full; free some, or set ONECYCLE_HOME to a folder on another disk"
    )
    assert left_in(Config().home()) == ["hashes.json"]


def test_a_cache_that_cannot_be_written_is_refused(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("ONECYCLE_HOME", str(tmp_path / "home"))
    with pytest.raises(OutputError, match=r"cannot be written \((Not a directory|File exists)\)"):
        made(file)


# --- room ------------------------------------------------------------------------------------------------------------


def age(entry: Entry, seconds: float) -> None:
    os.utime(entry.folder / "manifest.json", (time.time() - seconds,) * 2)


def keys() -> set[str]:
    return {entry.key for entry in TableCache().entries()}


def let_go(entry: Entry) -> str:
    assert entry.held is not None
    entry.held.release()
    return entry.key


def test_the_least_recently_used_make_room(file: Path):
    one, two, three = (made(file, seed=seed) for seed in range(3))
    limit = int(one.bytes * 3.5)
    for entry, seconds in ((one, 30), (two, 10), (three, 20)):
        age(entry, seconds)
    assert [entry.key for entry in TableCache().entries()] == [two.key, three.key, one.key]
    let_go(one), let_go(two), let_go(three)
    let_go(made(file, seed=0))  # used now
    four = made(file, seed=3, cache_limit=limit)
    assert keys() == {one.key, two.key, four.key}
    again = made(file, seed=1)  # held
    age(again, 99)
    five = made(file, seed=4, cache_limit=limit)
    assert keys() == {two.key, four.key, five.key}
    assert not [path for path in cache_path().iterdir() if path.name.startswith(".")]


def test_a_damaged_entry_goes_first(file: Path):
    one, other = made(file, seed=0), made(file, seed=1)
    age(one, 100)
    (other.folder / "manifest.json").unlink()
    let_go(one), let_go(other)
    new = made(file, seed=2, cache_limit=int(one.bytes * 2.5))
    assert (keys(), other.folder.exists()) == ({one.key, new.key}, False)


def test_a_table_larger_than_the_cache_is_refused(file: Path):
    with pytest.raises(OutputError) as caught:
        made(file, cache_limit="50 kB")
    message = str(caught.value)
    assert message.startswith(f"{cache_path()}: ")
    assert message.endswith(
        "kB are needed, and cache_limit is 50 kB; raise cache_limit (or set ONECYCLE_CACHE_LIMIT), or give more memory "
        "with memory_limit"
    )
    assert left_in(Config().home()) == ["hashes.json"]


def test_what_is_in_use_is_not_removed_for_room(file: Path):
    entry = made(file, seed=0)
    limit = int(entry.bytes * 1.5)
    with pytest.raises(OutputError, match=r"are in use by other processes; wait for them, or raise cache_limit"):
        made(file, seed=1, cache_limit=limit)
    assert keys() == {entry.key}
    let_go(entry)
    made(file, seed=1, cache_limit=limit)
    assert entry.key not in keys()


def test_a_disk_without_room_is_found_before_anything_is_written(file: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(file)
    monkeypatch.setattr(cache_folder.shutil, "disk_usage", lambda path: usage._replace(free=64 * 2**20 + 1_000))
    told = Told(lambda what, done: pytest.fail("written") if "pass 3" in what else None)
    with pytest.raises(OutputError, match=r"are needed, and 67\.1 MB are free on its disk; free some, or set ONECYCLE"):
        made(file, progress=told)
    assert left_in(Config().home()) == ["hashes.json"]


def test_clearing_removes_only_what_is_ours_and_unused(file: Path):
    used, unused = made(file, seed=0), made(file, seed=1)
    size = unused.bytes
    let_go(unused)
    (cache_path() / "notes.txt").write_text("mine")
    (cache_path() / "folder").mkdir()
    (cache_path() / ("a" * 40)).symlink_to(file.parent, target_is_directory=True)
    (cache_path() / f".{'b' * 40}.left.tmp").mkdir()
    assert TableCache().clear() == (1, size)
    assert left_in(Config().home()) == sorted([used.key, "notes.txt", "folder", "a" * 40, "hashes.json"])
    assert file.exists()
    let_go(used)
    assert TableCache().clear()[0] == 1
    assert TableCache().clear() == (0, 0)


def test_an_empty_cache_is_no_error():
    assert TableCache().entries() == []
    assert TableCache().clear() == (0, 0)


# --- progress --------------------------------------------------------------------------------------------------------


def test_progress_goes_to_stderr(file: Path, capsys: pytest.CaptureFixture[str]):
    entry = cached(file, "y", memory_limit=1)
    assert entry is not None
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{file}: larger than memory_limit; looking for what was made of it before",
        f"{file}: preparing it on the disk, once",
        f"prepared {size_text(entry.manifest.bytes)} in {entry.folder}",
    ]


def test_in_a_terminal_a_line_moves():
    read, write = os.openpty()
    with os.fdopen(write, "w") as terminal, os.fdopen(read, "rb") as screen:
        progress = Progress(terminal)
        time.sleep(0.25)
        progress.update("preparing", 500, 2_000)
        progress.update("preparing", 600, 2_000)  # too soon
        progress.say("done")
        assert screen.read1() == b"preparing: 500 of 2,000 rows (25%)\r" + b" " * 34 + b"\rdone\r\n"


# --- memory ----------------------------------------------------------------------------------------------------------

PEAK = """
import sys, pathlib
from onecycle.tables.cache.cache import cached
entry = cached(pathlib.Path(sys.argv[1]), "y", memory_limit="200 MB")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_converting_takes_no_more_memory_than_the_limit_and_500_mb(tmp_path: Path):
    path = tmp_path / "large.parquet"
    random = np.random.default_rng(0)
    names = [f"n{i}" for i in range(20)]
    with pq.ParquetWriter(path, pa.schema([*((name, pa.float32()) for name in names), ("y", pa.int64())])) as writer:
        for _ in range(10):
            x = random.normal(size=(20, 200_000)).astype(np.float32)
            writer.write_table(pa.table({**dict(zip(names, x, strict=True)), "y": (x[0] > 0).astype(np.int64)}))
    command = [sys.executable, "-c", PEAK, path]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(found.stdout) * 1024 < 700 * 10**6
