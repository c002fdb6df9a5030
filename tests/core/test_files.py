"""Atomic writing, checksums and locks."""

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecycle.core.files import (
    Lock,
    _flock,
    atomic_write,
    discard,
    read_json,
    sweep,
    verify_checksum,
    with_checksum,
    write_json,
    write_text,
)
from onecycle.errors import OutputError


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path):
    target = tmp_path / "folder" / "file.bin"
    with pytest.raises(ZeroDivisionError), atomic_write(target) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert list(target.parent.iterdir()) == []
    write_text(target, "one")
    with pytest.raises(ZeroDivisionError), atomic_write(target) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert target.read_text() == "one"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_says_who_can_read_what_is_written(tmp_path: Path, mask: int):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_the_umask_of_other_threads_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask is the whole process'"))
    write_text(tmp_path / "file", "x")


def test_writers_at_once_have_a_file_each(tmp_path: Path):
    target = tmp_path / "file"
    with atomic_write(target) as one, atomic_write(target) as two:
        one.write(b"one")
        two.write(b"two")
        assert len(list(tmp_path.glob(".file.*.tmp"))) == 2
    assert target.read_bytes() == b"one"  # the last to end
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OutputError, match=r"file/below: cannot be written \(.*\); choose a folder that you may write to"
    ):
        write_text(tmp_path / "file" / "below", "x")


def test_a_folder_is_no_place_for_a_file(here: Path):
    for path in (Path(), here):
        with pytest.raises(OutputError, match="cannot be written"):
            write_text(path, "x")
    assert not list(here.iterdir())


@pytest.mark.parametrize("target", ["thesis.txt", "missing"])
def test_a_link_is_replaced_and_what_it_names_stays(tmp_path: Path, target: str):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "link").symlink_to(target)
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").read_text() == "x"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert not (tmp_path / "missing").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_pipes_and_devices_are_neither_replaced_nor_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for name, found in {"pipe": "a pipe", "null": "a link to /dev/null, a device"}.items():
        before = (tmp_path / name).lstat().st_mode
        with pytest.raises(OutputError, match=rf"{name}: cannot be written \({found}\); give another path"):
            write_text(tmp_path / name, "x")
        with pytest.raises(OutputError, match=f"{name}: cannot be written"):
            Lock.acquire(tmp_path / name)
        with pytest.raises(OSError, match="a pipe|a link"):
            read_json(tmp_path / name)
        assert Lock.owner_pid(tmp_path / name) is None
        assert (tmp_path / name).lstat().st_mode == before
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_killed_writer_left_is_removed_and_a_live_ones_stays(tmp_path: Path):
    left = [tmp_path / f".{name}.0123456789abcdef.tmp" for name in ("file", "other")]
    for path in left:
        path.mkdir()
        (path / "half").touch()
    (tmp_path / ".file.swp.tmp").touch()  # of another program
    (tmp_path / ".file.0123456789abcde0.tmp").symlink_to("other")
    with atomic_write(tmp_path / "file") as file:
        assert [path.exists() for path in left] == [False, True]
        live = {path.name for path in tmp_path.glob(".file.*")}
        sweep(tmp_path)
        assert {path.name for path in tmp_path.glob(".file.*")} == live
        assert not left[1].exists()
        file.write(b"x")
    assert {path.name for path in tmp_path.iterdir()} == {"file", ".file.swp.tmp", ".file.0123456789abcde0.tmp"}


def test_discarding_a_link_leaves_what_it_names(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    discard(tmp_path / "link")
    discard(tmp_path / "nothing")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


# --- checksums -------------------------------------------------------------------------------------------------------


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
VALUES = st.dictionaries(st.text().filter(lambda key: key != "sha256"), JSON, max_size=4)


@given(VALUES)
def test_there_and_back(values: dict[str, object]):
    assert verify_checksum(with_checksum(values)) == values
    assert json.loads(with_checksum(values)).keys() == {*values, "sha256"}


@given(VALUES, st.data())
def test_any_flipped_bit_shows(values: dict[str, object], data: st.DataObject):
    content = bytearray(with_checksum(values).encode())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError):  # noqa: PT011 -- what is not UTF-8 or not JSON has messages of its own
        verify_checksum(content.decode())


@pytest.mark.parametrize("text", ["[]", "{}", '{"a": 1}', "3", '{"a": NaN, "sha256": ""}'])
def test_texts_that_nobody_signed(text: str):
    with pytest.raises(ValueError, match="SHA-256|JSON"):
        verify_checksum(text)


def test_json_is_read_as_it_was_written(tmp_path: Path):
    write_json(tmp_path / "new" / "a.json", {"b": [1, None]})
    assert read_json(tmp_path / "new" / "a.json") == {"b": [1, None]}
    (tmp_path / "new" / "a.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "new" / "a.json")


# --- locks -----------------------------------------------------------------------------------------------------------


def test_the_holder_can_be_told(tmp_path: Path):
    path = tmp_path / ".lock"
    assert Lock.owner_pid(path) is None
    lock = Lock.acquire(path)
    assert lock is not None
    assert Lock.owner_pid(path) is None  # held, by one that did not sign
    lock.write_pid()
    assert Lock.owner_pid(path) == os.getpid()
    assert Lock.acquire(path, wait=False) is None
    lock.release(remove=True)
    assert Lock.owner_pid(path) is None
    assert not path.exists()


@pytest.mark.parametrize("target", ["thesis.txt", "missing"])
def test_a_lock_that_is_a_link_is_refused(tmp_path: Path, target: str):
    (tmp_path / "thesis.txt").write_text("12")
    (tmp_path / ".lock").symlink_to(target)
    with pytest.raises(OutputError, match=rf"\.lock: cannot be written \(a link to {target}; no link is followed here"):
        Lock.acquire(tmp_path / ".lock")
    assert Lock.owner_pid(tmp_path / ".lock") is None
    assert (tmp_path / "thesis.txt").read_text() == "12"
    assert not (tmp_path / "missing").exists()


def test_the_lock_of_another_program_keeps_what_it_says(tmp_path: Path):
    (tmp_path / ".lock").write_text("host: a, user: b")
    with (
        Lock.acquire(tmp_path / ".lock") as lock,
        pytest.raises(OutputError, match="not a lock of onecycle; remove it"),
    ):
        lock.write_pid()
    assert (tmp_path / ".lock").read_text() == "host: a, user: b"


def test_a_free_lock_has_no_holder_whatever_is_in_its_file(tmp_path: Path):
    (tmp_path / ".lock").write_text("123")
    assert Lock.owner_pid(tmp_path / ".lock") is None


def test_shared_locks_exclude_others_only(tmp_path: Path):
    one, two = (Lock.acquire(tmp_path / "l", shared=True) for _ in range(2))
    assert one is not None
    assert two is not None
    assert Lock.acquire(tmp_path / "l", wait=False) is None


@pytest.mark.parametrize("made_anew", [True, False])
def test_a_file_that_goes_between_opening_and_locking_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_anew: bool
):
    path = tmp_path / ".lock"
    asked: list[int] = []

    def after_its_last_holder(descriptor: int, shared: bool, wait: bool) -> bool:
        asked.append(descriptor)
        if len(asked) == 1:
            path.unlink()
            if made_anew:
                path.touch()
        return _flock(descriptor, shared, wait)

    monkeypatch.setattr("onecycle.core.files._flock", after_its_last_holder)
    held = Lock.acquire(path)
    assert held is not None
    assert len(asked) == 2
    assert Lock.acquire(path, wait=False) is None  # it is on the file that others see


def test_a_folder_is_no_lock(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot be written"):
        Lock.acquire(tmp_path)
