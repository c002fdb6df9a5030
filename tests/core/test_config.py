"""The library's folders."""

from pathlib import Path

import pytest

from onecycle import Config


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
