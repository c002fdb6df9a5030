"""Files are read with limits, and with errors that say what to do."""

import gzip
import os
import socket
from pathlib import Path

import pytest

from onecycle.core.reading import MAX_BYTES, Budget, effective_limit, open_for_reading, read_bytes, read_unpacked
from onecycle.errors import FileError


def test_plain_and_packed_files(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"abc"))
    assert read_bytes(tmp_path / "a") == read_unpacked(tmp_path / "a", 3) == read_unpacked(tmp_path / "a.gz", 3)
    with pytest.raises(FileError, match="takes more than the cap of 2 bytes when unpacked"):
        read_unpacked(tmp_path / "a.gz", 2)


def test_what_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "train.csv").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"abc" * 100)[:20])
    for name, message in {
        "trian.csv": 'no such file; did you mean "train.csv"',
        "zzz": "no such file; check the path",
        "no/a": r"no such file; the folder .*no does not exist either",
        "link": "a link to nowhere, which is not there",
        ".": "a folder; expected a file",
        "a\0b": "cannot be read .*; check the path",
    }.items():
        with pytest.raises(FileError, match=message), open_for_reading(tmp_path / name):
            pass
    with pytest.raises(FileError, match="empty; expected data"):
        read_unpacked(tmp_path / "train.csv", 10)
    with pytest.raises(FileError, match="damaged gzip after"):
        read_unpacked(tmp_path / "cut.gz", 1000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_only_regular_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without waiting for a pipe's other end, or for the end of /dev/zero."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    os.mkfifo("pipe")
    Path("link to pipe").symlink_to("pipe")
    Path("zero").symlink_to("/dev/zero")
    Path("good").symlink_to("file")
    Path("file").write_text("x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name, found in {
            "pipe": "a pipe",
            "link to pipe": "a link to pipe, a pipe",
            "zero": "a link to /dev/zero, a device",
            "/dev/null": "a device",
            "socket": "a socket",
        }.items():
            with pytest.raises(FileError, match=f"{name}: {found}; expected a file; write what it holds to one"):
                read_bytes(Path(name))
    assert read_bytes(Path("good")) == b"x"


def test_a_budget_is_spent_once():
    budget = Budget(Path("a"), 10, slack=5)
    budget.spend(15)
    with pytest.raises(FileError, match="the cap of 10 bytes"):
        budget.spend(1)


def test_a_limit_that_was_set_holds():
    assert effective_limit(5, 7, 100) == 100
    assert effective_limit(5, 7, MAX_BYTES) == 7
    assert effective_limit(9, 7, MAX_BYTES) == 9
