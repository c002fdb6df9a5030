"""Tables larger than memory: converted once, in streaming, to files that training reads from."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from onecycle.errors import OutputError
from onecycle.tables.cache.conversion import Conversion, Settings
from onecycle.tables.cache.folder import Entry, TableCache, default_cache_limit
from onecycle.tables.cache.manifest import FORMAT
from onecycle.tables.cache.progress import Progress
from onecycle.tables.cache.sizes import default_memory_limit, parse_size, size_text
from onecycle.tables.cache.source import Source
from onecycle.tables.file_bytes import COMPRESSIONS

_KEY = 40  # characters
_TRIES = 3


def cached(
    path: Path,
    target: str | Sequence[str] = "y",
    task: str | None = None,
    kinds: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    split: Any = "auto",
    valid: float = 0.2,
    seed: int = 0,
    memory_limit: int | str | None = None,
    cache_limit: int | str | None = None,
    progress: Progress | None = None,
) -> Entry | None:
    """The table or arrays in a file, prepared on the disk; None where they can be prepared in memory.

    What takes more than `memory_limit` (by default half of the memory that is available) while it is prepared is read
    piece by piece, three times, and its inputs and targets are written to a folder of the cache, under
    `Config().home() / "cache"`. The same file, by its content, with the same settings is only looked up. The cache
    holds at most `cache_limit` (by default 20 GB, or a tenth of the disk if that is more): entries used longest ago are
    removed for new ones. Sizes are bytes, or text such as "2 GB". Conversion needs memory for a few pieces of the
    table, whatever the limit.

    Rows are divided one by one: "auto" and "random" by `seed`, where `valid` is a probability, "group:COLUMN" and
    "column:COLUMN". Raises SettingError for other splits and for settings that cannot be used, FileError and DataError
    as reading and preparing the table in memory does, OutputError where the cache cannot be written or is too small.
    """
    limit = memory_limit_of(memory_limit)
    room = None if cache_limit is None else parse_size(cache_limit, "cache_limit")
    kinds = dict(kinds or {})
    source = Source.larger_than(path, limit, [name for name, kind in kinds.items() if kind == "category"])
    if source is None:
        return None
    names = [target] if isinstance(target, str) else list(target)
    settings = Settings(["y"] if source.shape.as_is else names, task, kinds, sorted({*drop}), split, valid, seed)
    return _open_or_make(source, settings, room, progress or Progress())


def larger_than_memory(
    path: Path, memory_limit: int | str | None = None, as_written: Sequence[str] = ()
) -> list[str] | None:
    """The columns of a file that takes more than the limit while it is prepared; None where it fits."""
    source = Source.larger_than(path, memory_limit_of(memory_limit), as_written)
    return None if source is None else source.shape.names


def memory_limit_of(memory_limit: int | str | None) -> int:
    """The limit in bytes. Raises SettingError for what is none."""
    return default_memory_limit() if memory_limit is None else parse_size(memory_limit, "memory_limit")


def _open_or_make(source: Source, settings: Settings, cache_limit: int | None, progress: Progress) -> Entry:
    cache = TableCache()
    work = Conversion(source, settings, progress)  # finds out what is wrong with the settings
    source_sha256 = source.sha256(cache.path, progress)
    key = _key(source, source_sha256, work.settings)
    room = default_cache_limit(cache.path) if cache_limit is None else cache_limit
    for _ in range(_TRIES):
        if (found := cache.open(key, progress.say)) is not None:
            return found
        with cache.building(key) as folder:
            if folder is not None:
                progress.say(f"{source.path}: preparing it on the disk, once")
                manifest = work.run(folder, source_sha256, lambda size: cache.make_room(size, room))
                manifest.write(folder)
                progress.say(f"prepared {size_text(manifest.bytes)} in {cache.path / key}")
    raise OutputError(f"{cache.path / key}: is removed as soon as it is made; see what else uses this folder")


def _key(source: Source, source_sha256: str, settings: Settings) -> str:
    """The name of the entry: a digest of all that decides what is in it."""
    from onecycle import __version__

    suffix = [suffix.lower() for suffix in source.path.suffixes if suffix.lower() not in COMPRESSIONS][-1:]
    parts = [FORMAT, __version__, suffix, source_sha256, vars(settings)]  # the suffix says how the content is read
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_KEY]
