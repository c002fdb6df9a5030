"""Tables larger than memory: converted once, as the table in memory would be, and whole or not at all."""

import io
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onecycle.core.config import Config
from onecycle.errors import DataError, OutputError, SettingError
from onecycle.tables.cache import conversion
from onecycle.tables.cache.conversion import ConversionProgress, convert_if_larger
from onecycle.tables.cache.folder import RowWriter, TableCache
from onecycle.tables.cache.sizes import format_size
from onecycle.tables.features import Features
from onecycle.tables.profile import profile_columns
from onecycle.tables.read import read_table
from onecycle.tables.spec import TableSpec
from onecycle.tables.target import Target
from tables.cache.table_files import (
    RecordedProgress,
    aged,
    cache_path,
    converted,
    left_in,
    rows_of,
    split,
    table,
    write_as,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".ipc", ".csv", ".tsv", ".csv.gz"])
def test_the_files_hold_what_preparing_in_memory_gives(suffix: str, tmp_path: Path):
    path = write_as(table(), tmp_path / f"t{suffix}")
    entry = converted(path, drop=["part"], seed=5)
    features, target, columns = entry.manifest.fitted()
    whole = read_table(path)
    sets = split(whole.column_names, "auto", 0.2, 5).assign(whole, 0)
    train, valid = (whole.filter(pa.array(sets == code)) for code in (0, 1))
    assert columns == tuple(profile_columns(train.drop_columns(["part"]), TableSpec("y")))
    expected = Features.fit(train, columns)
    assert features is not None
    assert (features.names, features.sizes) == (expected.names, expected.sizes)
    for name, rows in (("train", train), ("valid", valid)):
        np.testing.assert_allclose(rows_of(entry, f"{name}_x"), expected.transform(rows), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(rows_of(entry, f"{name}_y"), Target.fit(train, ["y"]).transform(rows))
    assert target.classes == ["no", "yes"]
    assert (entry.manifest.rows("train"), entry.manifest.rows("test")) == (len(train), 0)


def test_unparsable_dates_are_missing_in_validation_rows_too(tmp_path: Path):
    days = [f"{datetime(2020, 1, 1) + timedelta(days=i):%Y-%m-%d}" for i in range(300)]
    y = np.random.default_rng(3).normal(size=300)
    row = int(np.flatnonzero(split(["day", "y"], "auto", 0.2, 0).assign(pa.table({"y": y}), 0) == 1)[0])
    days[row] = "yesterday"
    entry = converted(write_as(pa.table({"day": days, "y": y}), tmp_path / "t.csv"), "y")
    assert np.isfinite(rows_of(entry, "valid_x")).all()


def test_a_regression_is_standardised_by_its_training_rows(tmp_path: Path):
    random = np.random.default_rng(3)
    path = write_as(pa.table({"x": random.normal(size=500), "price": random.normal(1e6, 9, 500)}), tmp_path / "t.csv")
    entry = converted(path, "price")
    y, target = rows_of(entry, "train_y"), entry.manifest.fitted()[1]
    assert y.dtype == np.float32
    assert (abs(float(y.mean(dtype=float))), float(y.std(dtype=float))) == pytest.approx((0, 1), abs=1e-4)
    assert target.task == "regression"


def test_several_labels_are_columns_of_zeros_and_ones(tmp_path: Path):
    random = np.random.default_rng(3)
    labels = {name: random.integers(0, 2, 500) for name in ("hot", "wet")}
    path = write_as(pa.table({"x": random.normal(size=500), **labels}), tmp_path / "t.parquet")
    entry = converted(path, ["hot", "wet"])
    y = rows_of(entry, "train_y")
    assert (y.dtype, y.shape[1]) == (np.float32, 2)
    assert set(np.unique(y)) == {0, 1}


def test_kinds_and_a_split_by_a_column_reach_the_files(file: Path):
    entry = converted(file, kinds={"b": "category"}, drop=["who"], split="column:part")
    features, _, _ = entry.manifest.fitted()
    assert features is not None
    assert features.inputs == ["a", "b", "holes", "color", "day"]
    counts = dict(zip(*np.unique(np.array(table()["part"]), return_counts=True), strict=True))
    assert {name: entry.manifest.rows(name) for name in counts} == counts


def test_numpys_numbers_are_settings_too(file: Path):
    entry = converted(file, valid=np.float32(0.25), seed=np.int64(3))
    assert (entry.manifest.spec.valid, entry.manifest.spec.seed) == (0.25, 3)
    assert converted(file, valid=0.25, seed=3).folder == entry.folder


def test_a_category_of_a_csv_file_is_kept_as_written(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("zip,x,y\n" + "".join(f"{i % 3:03},{i},{i % 2}\n" for i in range(60)))
    features, _, _ = converted(path, kinds={"zip": "category", "x": "number"}).manifest.fitted()
    assert features is not None
    assert sorted(features.to_dict()["columns"][0]["values"]) == ["000", "001", "002"]


@pytest.mark.parametrize(("name", "where"), [("t.csv", "{path}:2982"), ("t.parquet", "row 2980, counted from 0")])
def test_a_missing_target_is_named_with_its_line(name: str, where: str, tmp_path: Path):
    y = [None if row in (2_980, 2_990) else row / 7 for row in range(3_000)]
    path = write_as(pa.table({"x": np.arange(3_000) % 11 / 3, "y": y}), tmp_path / name)
    with pytest.raises(DataError) as caught:
        converted(path)
    assert str(caught.value) == (
        f'target "y" is missing in 2 of 3,000 rows, first in {where.format(path=path)}; expected a value in each: drop '
        "the rows without one"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "z"}, 'there is no column "z" to predict; there are a, b, holes'),
        ({"drop": ["colour"]}, 'drop names "colour", but there is no such column; did you mean "color"?'),
        ({"kinds": {"aa": "number"}}, 'kinds names "aa", but there is no such column'),
        ({"kinds": {"a": "nummer"}}, "kinds sets \"a\" to 'nummer'; expected one of number, category, date, dropped"),
        ({"split": "group:whom"}, 'split "group:whom": the table has no column "whom"; did you mean "who"?'),
        ({"split": "randm"}, 'unknown split "randm"'),
        ({"valid": np.float32(0)}, "valid is np.float32(0.0); expected a fraction between 0 and 1"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"drop": ["y"]}, 'drop names "y", which is predicted; remove it from drop or from the target'),
        ({"task": "classify"}, "classify"),
    ],
)
def test_settings_are_checked_before_any_work(options: dict[str, Any], message: str, file: Path):
    progress = RecordedProgress()
    with pytest.raises(SettingError) as caught:
        converted(file, **{"target": "y", "progress": progress, **options})
    assert message in str(caught.value)
    assert progress.lines == []
    assert not cache_path().exists()


def test_other_content_or_settings_are_another_table(file: Path):
    folders = {
        converted(file).folder,
        converted(file, seed=1).folder,
        converted(file, drop=["a"]).folder,
        converted(file, "b").folder,
    }
    before = file.stat()
    content = bytearray(file.read_bytes())
    pq.write_table(table(seed=1), file)
    folders |= {converted(aged(file)).folder}
    assert len(folders) == 5
    file.write_bytes(content)
    os.utime(file, ns=(before.st_mtime_ns,) * 2)
    assert converted(file).folder in folders


CONVERT = """
import sys, pathlib
from onecycle.tables.cache.conversion import convert_if_larger
from onecycle.tables.spec import TableSpec
entry = convert_if_larger(pathlib.Path(sys.argv[1]), TableSpec("y"), memory_limit=1)
print(entry.folder)
"""


def converting(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CONVERT, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


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
    converted(small)  # another file: it sweeps, too
    assert not left.exists()
    progress = RecordedProgress()
    entry = converted(path, progress=progress)
    assert any("converting" in line for line in progress.lines)
    entry.manifest.check(entry.folder, content=True)


def test_two_processes_convert_a_file_once(tmp_path: Path):
    path = write_as(table(100_000), tmp_path / "large.parquet")
    processes = [converting(path) for _ in range(3)]
    found = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], found
    assert len({out for out, _ in found}) == 1
    assert sum("converting it" in err for _, err in found) == 1
    assert left_in(Config().home()) == [Path(found[0][0].strip()).name]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("when", ["pass 1", "pass 2", "pass 3"])
def test_what_ends_in_the_middle_leaves_nothing(stop: type[BaseException], when: str, file: Path):
    def end(activity: str, done: int) -> None:
        if when in activity:
            raise stop

    with pytest.raises(stop):
        converted(file, progress=RecordedProgress(end))
    assert left_in(Config().home()) == []
    assert converted(file).manifest.rows("train") > 0


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
        converted(file)
    assert str(caught.value) == (
        f"{cache_path()}: the disk became full; free some, or set ONECYCLE_HOME to a folder on another disk"
    )
    assert left_in(Config().home()) == []


def test_progress_goes_to_stderr(file: Path, capsys: pytest.CaptureFixture[str]):
    entry = convert_if_larger(file, TableSpec("y"), memory_limit=1)
    assert entry is not None
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{file}: larger than memory_limit; looking it up among the converted tables",
        f"{file}: converting it to files on the disk, once",
        f"converted to {format_size(entry.manifest.bytes)} in {entry.folder}",
    ]


def test_in_a_terminal_a_line_is_overwritten(monkeypatch: pytest.MonkeyPatch):
    clock = iter([100.0, 100.25, 100.25, 100.4])  # at the start, at an update that is due, and at one that is not
    monkeypatch.setattr(conversion, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    read, write = os.openpty()
    with os.fdopen(write, "w") as terminal, os.fdopen(read, "rb") as screen:
        progress = ConversionProgress(terminal)
        progress.update("preparing", 500, 2_000)
        progress.update("preparing", 600, 2_000)  # too soon
        progress.message("done")
        # up to the line's end: the terminal delivers what was written bit by bit
        assert screen.readline() == b"preparing: 500 of 2,000 rows (25%)\r" + b" " * 34 + b"\rdone\r\n"


def test_in_a_file_a_line_is_written_now_and_then(monkeypatch: pytest.MonkeyPatch):
    clock = iter([100.0, 109.0, 110.5, 110.5, 120.0, 121.0, 121.0])
    monkeypatch.setattr(conversion, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    log = io.StringIO()
    progress = ConversionProgress(log)
    for rows in (500, 600, 700, 800):
        progress.update("preparing", rows, None)
    progress.message("done")
    assert log.getvalue() == "preparing: 600 rows\npreparing: 800 rows\ndone\n"


PEAK = """
import sys, pathlib
from onecycle.tables.cache.conversion import convert_if_larger
from onecycle.tables.spec import TableSpec
entry = convert_if_larger(pathlib.Path(sys.argv[1]), TableSpec("y"), memory_limit="200 MB")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


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
