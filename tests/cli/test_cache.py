"""`onecycle cache`: what is listed, and what is removed."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onecycle.cli.cache import cache
from onecycle.core.config import Config
from onecycle.errors import OutputError
from onecycle.tables.cache.conversion import convert_if_larger
from onecycle.tables.cache.folder import CacheEntry
from onecycle.tables.spec import TableSpec


def made(folder: Path, name: str, rows: int = 500, seed: int = 0) -> CacheEntry:
    random = np.random.default_rng(seed)
    pq.write_table(pa.table({"a": random.normal(size=rows), "y": random.integers(0, 2, rows)}), folder / name)
    entry = convert_if_larger(folder / name, TableSpec("y", seed=seed), memory_limit=1)
    assert entry is not None
    return entry


def let_go(entry: CacheEntry) -> None:
    assert entry.lock is not None
    entry.lock.release()


def asked(capsys: pytest.CaptureFixture[str], clear: bool = False, check: bool = False) -> dict[str, object]:
    cache(clear, check, as_json=True)
    return json.loads(capsys.readouterr().out)


def test_entries_are_listed_the_last_used_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old, new = made(tmp_path, "old.parquet", 500), made(tmp_path, "new.parquet", 1_500)
    os.utime(old.folder / "manifest.json", (time.time() - 86_400,) * 2)
    assert cache(clear=False, check=False, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "target", "rows", "size", "last", "used", "state"]
    used = datetime.fromtimestamp(new.last_used).strftime("%Y-%m-%d %H:%M").split()
    assert lines[1].split()[:3] == ["new.parquet", "y", "1,500"]
    assert lines[1].split()[5:] == [*used, "whole"]
    assert lines[2].split()[:3] == ["old.parquet", "y", "500"]
    assert lines[3].endswith(f"GB in {Config().home() / 'cache'}")
    assert len(lines) == 4


def test_an_empty_cache_says_so(capsys: pytest.CaptureFixture[str]):
    assert cache(clear=False, check=False, as_json=False) == 0
    assert capsys.readouterr().out == f"nothing is in {Config().home() / 'cache'}\n"
    assert cache(clear=True, check=False, as_json=False) == 0
    assert capsys.readouterr().out == f"removed 0 of 0 entries, 0 bytes, from {Config().home() / 'cache'}\n"


def test_json_has_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    entry = made(tmp_path, "t.parquet")
    found = asked(capsys)
    assert (found["folder"], found["bytes"]) == (str(Config().home() / "cache"), entry.bytes)
    assert found["limit"] == pytest.approx(20e9, rel=9)
    assert found["entries"] == [
        {
            "key": entry.key,
            "source": str(tmp_path / "t.parquet"),
            "settings": {
                **{"target": ["y"], "task": None, "kinds": {}, "drop": [], "split": "auto", "valid": 0.2, "seed": 0}
            },
            "rows": {side: entry.manifest.rows(side) for side in ("train", "valid", "test")},
            "bytes": entry.bytes,
            "used": datetime.fromtimestamp(entry.last_used, UTC).isoformat(timespec="seconds"),
            "fault": None,
        }
    ]


def test_a_damaged_entry_is_shown_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    entry = made(tmp_path, "t.parquet")
    path = entry.folder / "train_x.bin"
    times, content = path.stat(), bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cache(clear=False, check=False, as_json=False) == 0
    assert "whole" in capsys.readouterr().out
    assert cache(clear=False, check=True, as_json=False) == 1
    out = capsys.readouterr().out
    assert "damaged: train_x.bin" in out
    path.write_bytes(content[:-1])
    assert cache(clear=False, check=False, as_json=False) == 1


def test_clearing_removes_what_nobody_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    held, free = made(tmp_path, "held.parquet"), made(tmp_path, "free.parquet", 1_500)
    let_go(free)
    home = Config().home() / "cache"
    (home / "mine.txt").write_text("not yours")
    assert cache(clear=True, check=False, as_json=False) == 0
    out = capsys.readouterr().out
    assert out.startswith("removed 1 of 2 entries, ")
    assert out.endswith(f" kB, from {home}; 1 in use stays\n")
    assert sorted(path.name for path in home.iterdir()) == sorted([held.key, "mine.txt"])
    let_go(held)
    size = held.bytes
    assert asked(capsys, clear=True) == {"folder": str(home), "removed": 1, "bytes": size, "left": 0}


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONECYCLE_HOME", str(tmp_path))
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match=r"cache: cannot be written \(Not a directory\)"):
        cache(clear=False, check=False, as_json=False)
