import os
import stat
from pathlib import Path

import pytest

from onecycle import Config
from onecycle.core.files import atomic_write, write_text
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


def test_the_librarys_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("ONECYCLE_HOME", str(tmp_path))
    path = Config().data_path() / "mnist"
    path.mkdir(parents=True)
    (path / "b").touch()
    (path / "a").touch()
    assert path.ls() == [tmp_path / "data" / "mnist" / name for name in "ab"]
    assert repr(path.ls()[0]).startswith("PosixPath(")
    monkeypatch.delenv("ONECYCLE_HOME")
    assert Config().home().name == "onecycle"
