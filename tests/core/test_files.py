import os
import stat
from pathlib import Path

import pytest

from onecycle import Config
from onecycle.core.errors import OutputError
from onecycle.core.files import atomic_write, write_text


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


def test_others_can_read_what_is_written(tmp_path: Path):
    write_text(tmp_path / "file", "x")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OutputError, match=r"file/below: cannot be written \(.*\); choose a folder that you may write to"
    ):
        write_text(tmp_path / "file" / "below", "x")


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
