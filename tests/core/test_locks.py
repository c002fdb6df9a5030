"""Locks between processes."""

import os
from pathlib import Path

import pytest

from onecycle.core.locks import Lock, _locked
from onecycle.errors import OutputError


def test_the_holder_can_be_told(tmp_path: Path):
    path = tmp_path / ".lock"
    assert Lock.holder(path) is None
    lock = Lock.acquire(path)
    assert lock is not None
    assert Lock.holder(path) is None  # held, by one that did not sign
    lock.write_pid()
    assert Lock.holder(path) == os.getpid()
    assert Lock.acquire(path, wait=False) is None
    lock.release(remove=True)
    assert Lock.holder(path) is None
    assert not path.exists()


def test_a_free_lock_has_no_holder_whatever_is_in_its_file(tmp_path: Path):
    (tmp_path / ".lock").write_text("123")
    assert Lock.holder(tmp_path / ".lock") is None


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
        return _locked(descriptor, shared, wait)

    monkeypatch.setattr("onecycle.core.locks._locked", after_its_last_holder)
    held = Lock.acquire(path)
    assert held is not None
    assert len(asked) == 2
    assert Lock.acquire(path, wait=False) is None  # it is on the file that others see


def test_a_folder_is_no_lock(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot be written"):
        Lock.acquire(tmp_path)
