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
    read_json,
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
