"""Entries of the cache: damage, room, removal."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onecycle.core.config import Config
from onecycle.errors import OutputError
from onecycle.tables.cache import folder as cache_folder
from onecycle.tables.cache.folder import CacheEntry, DamagedCacheError, TableCache
from onecycle.tables.cache.sizes import format_size
from tables.cache.table_files import RecordedProgress, cache_path, converted, left_in, looked_up, rows_of

pytestmark = pytest.mark.slow


def cut(entry: CacheEntry) -> None:
    with (entry.folder / "train_x.bin").open("rb+") as file:
        file.truncate(1_000)


def flip(entry: CacheEntry, part: str = "valid_y") -> None:
    with (entry.folder / f"{part}.bin").open("rb+") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))


def edit_manifest(entry: CacheEntry) -> None:
    path = entry.folder / "manifest.json"
    path.write_text(path.read_text().replace('"train_y.bin"', '"valid_y.bin"'))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "train_x.bin has 1,000 bytes instead of "),
        (flip, "valid_y.bin was changed"),
        (edit_manifest, "manifest.json is damaged (it does not have the SHA-256 that it says"),
        (lambda entry: (entry.folder / "train_y.bin").unlink(), "train_y.bin cannot be read (No such file"),
        (lambda entry: (entry.folder / "manifest.json").unlink(), "manifest.json cannot be read (No such file"),
        (lambda entry: (entry.folder / "manifest.json").write_bytes(b"\xff{"), "manifest.json is damaged ("),
    ],
)
def test_a_damaged_entry_is_converted_again(damage: Any, reason: str, file: Path):
    first = converted(file)
    expected = {part: rows_of(first, part) for part in first.manifest.files}
    damage(first)
    progress = RecordedProgress()
    second = converted(file, progress=progress)
    assert progress.lines[0] == looked_up(file)
    assert progress.lines[1].startswith(f"warning: the converted table is damaged ({reason}")
    assert progress.lines[2:] == [
        f"{file}: converting it to files on the disk, once",
        f"converted to {format_size(second.manifest.bytes)} in {second.folder}",
    ]
    for part, rows in expected.items():
        np.testing.assert_array_equal(rows_of(second, part), rows)
    assert left_in(Config().home()) == [second.key]


def test_a_copy_of_the_cache_is_whole_whatever_its_times(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = converted(file)
    shutil.copytree(Config().home(), tmp_path / "moved", copy_function=shutil.copyfile)
    monkeypatch.setenv("ONECYCLE_HOME", str(tmp_path / "moved"))
    progress = RecordedProgress()
    second = converted(file, progress=progress)
    assert (second.key, progress.lines) == (first.key, [looked_up(file)])


@pytest.mark.parametrize("part", ["train_x", "train_y", "valid_x", "valid_y"])
def test_a_flipped_bit_behind_the_file_s_time_is_not_trained_on(part: str, file: Path):
    entry = converted(file)
    expected, path = rows_of(entry, part), entry.folder / f"{part}.bin"
    times = path.stat()
    flip(entry, part)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    entry.manifest.check(entry.folder, content=False)
    with pytest.raises(DamagedCacheError, match=rf"{part}.bin was changed"):
        entry.manifest.check(entry.folder, content=True)
    progress = RecordedProgress()
    np.testing.assert_array_equal(rows_of(converted(file, progress=progress), part), expected)
    assert progress.lines[1] == (
        f"warning: the converted table is damaged ({part}.bin was changed); converting it again"
    )


def age(entry: CacheEntry, seconds: float) -> None:
    os.utime(entry.folder / "manifest.json", (time.time() - seconds,) * 2)


def keys() -> set[str]:
    return {entry.key for entry in TableCache().entries()}


def release(entry: CacheEntry) -> str:
    assert entry.lock is not None
    entry.lock.release()
    return entry.key


def test_the_least_recently_used_make_room(file: Path, monkeypatch: pytest.MonkeyPatch):
    one, two, three = (converted(file, seed=seed) for seed in range(3))
    monkeypatch.setenv("ONECYCLE_CACHE_LIMIT", str(int(one.bytes * 3.5)))
    for entry, seconds in ((one, 30), (two, 10), (three, 20)):
        age(entry, seconds)
    assert [entry.key for entry in TableCache().entries()] == [two.key, three.key, one.key]
    release(one), release(two), release(three)
    release(converted(file, seed=0))  # used now
    four = converted(file, seed=3)
    assert keys() == {one.key, two.key, four.key}
    again = converted(file, seed=1)  # held
    age(again, 99)
    five = converted(file, seed=4)
    assert keys() == {two.key, four.key, five.key}
    assert not [path for path in cache_path().iterdir() if path.name.startswith(".")]


def test_a_damaged_entry_goes_first(file: Path, monkeypatch: pytest.MonkeyPatch):
    one, other = converted(file, seed=0), converted(file, seed=1)
    age(one, 100)
    (other.folder / "manifest.json").unlink()
    release(one), release(other)
    monkeypatch.setenv("ONECYCLE_CACHE_LIMIT", str(int(one.bytes * 2.5)))
    new = converted(file, seed=2)
    assert (keys(), other.folder.exists()) == ({one.key, new.key}, False)


def test_a_table_larger_than_the_cache_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONECYCLE_CACHE_LIMIT", "50 kB")
    with pytest.raises(OutputError) as caught:
        converted(file)
    message = str(caught.value)
    assert message.startswith(f"{cache_path()}: ")
    assert message.endswith(
        "kB are needed, but the cache may use 50 kB; set ONECYCLE_CACHE_LIMIT to more, or give more memory with "
        "memory_limit"
    )
    assert left_in(Config().home()) == []


def test_an_entry_in_use_is_not_removed_for_room(file: Path, monkeypatch: pytest.MonkeyPatch):
    entry = converted(file, seed=0)
    monkeypatch.setenv("ONECYCLE_CACHE_LIMIT", str(int(entry.bytes * 1.5)))
    with pytest.raises(OutputError, match=r"are in use by other processes; wait for them, or set ONECYCLE_CACHE_LIMIT"):
        converted(file, seed=1)
    assert keys() == {entry.key}
    release(entry)
    converted(file, seed=1)
    assert entry.key not in keys()


def test_a_disk_without_room_is_found_before_anything_is_written(file: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(file)
    monkeypatch.setattr(cache_folder.shutil, "disk_usage", lambda path: usage._replace(free=64 * 2**20 + 1_000))
    progress = RecordedProgress(lambda activity, done: pytest.fail("written") if "pass 3" in activity else None)
    with pytest.raises(OutputError, match=r"are needed, and 67\.1 MB are free on its disk; free some, or set ONECYCLE"):
        converted(file, progress=progress)
    assert left_in(Config().home()) == []


def test_clearing_removes_only_what_is_ours_and_unused(file: Path):
    used, unused = converted(file, seed=0), converted(file, seed=1)
    size = unused.bytes
    release(unused)
    (cache_path() / "notes.txt").write_text("mine")
    (cache_path() / "folder").mkdir()
    (cache_path() / ("a" * 40)).symlink_to(file.parent, target_is_directory=True)
    (cache_path() / f".{'b' * 40}.left.tmp").mkdir()
    assert TableCache().clear() == (1, size)
    assert left_in(Config().home()) == sorted([used.key, "notes.txt", "folder", "a" * 40])
    assert file.exists()
    release(used)
    assert TableCache().clear()[0] == 1
    assert TableCache().clear() == (0, 0)


def test_what_others_put_into_an_entry_is_not_deleted(file: Path):
    entry = converted(file)
    folder = cache_path() / release(entry)
    shutil.rmtree(folder / "train_x.bin", ignore_errors=True)
    (folder / "train_x.bin").unlink()
    (folder / "train_x.bin").mkdir()
    for place in (folder, folder / "train_x.bin"):
        (place / "mine.txt").write_text("mine")
    release(converted(file))  # it is damaged, and made again
    TableCache().clear()
    assert keys() == set()
    assert sorted(path.read_text() for path in cache_path().rglob("mine.txt")) == ["mine", "mine"]
    assert not [path for path in cache_path().rglob("*") if path.is_file() and path.name != "mine.txt"]


def test_an_entry_that_is_a_link_is_not_followed(file: Path, tmp_path: Path):
    key = release(converted(file))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "in_use").write_text("")
    (cache_path() / key).rename(tmp_path / "moved")
    (cache_path() / key).symlink_to(outside)
    times = {path: path.stat().st_mtime_ns for path in (outside, *outside.iterdir())}
    release(converted(file))
    assert not (cache_path() / key).is_symlink()
    assert times == {path: path.stat().st_mtime_ns for path in (outside, *outside.iterdir())}


def test_an_empty_cache_is_no_error():
    assert TableCache().entries() == []
    assert TableCache().clear() == (0, 0)


def test_a_cache_that_cannot_be_written_is_refused(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("ONECYCLE_HOME", str(tmp_path / "home"))
    with pytest.raises(OutputError, match=r"cannot be written \((Not a directory|File exists)\)"):
        converted(file)
