"""Files of tables, and their conversion."""

import io
import os
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from onecycle.core.config import Config
from onecycle.tables.cache.conversion import ConversionProgress, convert_if_larger
from onecycle.tables.cache.folder import CacheEntry
from onecycle.tables.cache.rowwise_split import RowwiseSplit
from onecycle.tables.spec import TableSpec
from table_files import write_table

ROWS = 3_000


def table(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Numbers, some missing, categories, dates, a target of two classes, groups and marks."""
    random = np.random.default_rng(seed)
    a, b = random.normal(size=rows), random.integers(0, 9, rows)
    holes = np.where(random.random(rows) < 0.1, np.nan, random.normal(3, 2, rows))
    return pa.table(
        {
            "a": a,
            "b": b,
            "holes": pa.array(holes, from_pandas=True),
            "color": pa.array(random.choice(["red", "green", "blue"], rows)),
            "day": pa.array([datetime(2020, 1, 1) + timedelta(hours=int(h)) for h in random.integers(0, 9_999, rows)]),
            "who": pa.array([f"p{i}" for i in random.integers(0, 200, rows)]),
            "part": pa.array(random.choice(["train", "train", "valid", "test"], rows)),
            "y": np.where(a + b / 9 + random.normal(size=rows) > 0.5, "yes", "no"),
        }
    )


def aged(path: Path) -> Path:
    """A file that nobody has written to for an hour."""
    os.utime(path, (time.time() - 3600,) * 2)
    return path


class RecordedProgress(ConversionProgress):
    """Records the messages; calls `on_rows` when rows were read."""

    def __init__(self, on_rows: Any = None) -> None:
        super().__init__(io.StringIO())
        self.lines: list[str] = []
        self.on_rows = on_rows

    def message(self, text: str) -> None:
        self.lines.append(text)

    def update(self, activity: str, done: int, total: int | None) -> None:
        if self.on_rows is not None:
            self.on_rows(activity, done)


def converted(path: Path, target: Any = "y", progress: ConversionProgress | None = None, **settings: Any) -> CacheEntry:
    """The entry of a file that is larger than memory_limit; `settings` are a TableSpec's."""
    spec = TableSpec(target, **settings)
    entry = convert_if_larger(path, spec, memory_limit=1, progress=progress or RecordedProgress())
    assert entry is not None
    return entry


def looked_up(path: Path) -> str:
    """The message that is written before a file is hashed."""
    return f"{path}: larger than memory_limit; looking it up among the converted tables"


def split(names: list[str], kind: Any, valid: float, seed: int) -> RowwiseSplit:
    """A split of a table with these columns."""
    return RowwiseSplit(TableSpec("y", split=kind, valid=valid, seed=seed), names)


def rows_of(entry: CacheEntry, part: str) -> np.ndarray:
    """The content of a row file, such as train_x."""
    file = entry.manifest.files[part]
    return np.fromfile(entry.folder / file.name, file.dtype).reshape(file.shape)


def left_in(home: Path) -> list[str]:
    """The names in the cache under `home`."""
    return sorted(path.name for path in (home / "cache").iterdir())


def cache_path() -> Path:
    """The folder of the cache."""
    return Config().home() / "cache"


def write_as(found: pa.Table, path: Path) -> Path:
    """Write a table as the suffix of `path` says (.ipc: as a stream, which has no footer), aged."""
    if path.suffix == ".ipc":
        with pa.ipc.new_stream(path, found.schema) as sink:
            sink.write_table(found)
    else:
        write_table(found, path)
    return aged(path)
