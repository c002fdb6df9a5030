"""`onecycle cache`: the tables that were prepared on the disk, and how to be rid of them."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onecycle.cli.layout import print_columns
from onecycle.tables.cache.folder import CacheEntry, DamagedCacheError, TableCache
from onecycle.tables.cache.sizes import cache_limit, format_size


def cache(clear: bool, check: bool, as_json: bool) -> int:
    """List the cache's entries, or `clear` it of those that nobody uses; the exit code.

    `check` reads their content too, and gives 1 where one is damaged. Raises OutputError where the folder cannot be
    read or changed.
    """
    folder = TableCache()
    if clear:
        return _clear(folder, as_json)
    folder.sweep()
    entries = folder.entries()
    faults = {entry.key: _fault(entry, check) for entry in entries}
    limit, taken = cache_limit(folder.path), sum(entry.bytes for entry in entries)
    if as_json:
        shown = [_described(entry, faults[entry.key]) for entry in entries]
        print(json.dumps({"folder": str(folder.path), "bytes": taken, "limit": limit, "entries": shown}))
    elif entries:
        rows = [[*_row(entry), faults[entry.key] or "whole"] for entry in entries]
        print_columns(["file", "target", "rows", "size", "last used", "state"], rows, right=(2, 3))
        print(f"{format_size(taken)} of at most {format_size(limit)} in {folder.path}")
    else:
        print(f"nothing is in {folder.path}")
    return int(any(faults.values()))


def _clear(folder: TableCache, as_json: bool) -> int:
    removed, freed = folder.clear()
    left = len(folder.entries())
    if as_json:
        print(json.dumps({"folder": str(folder.path), "removed": removed, "bytes": freed, "left": left}))
    else:
        stay = f"; {left} in use stay{'s' * (left == 1)}" if left else ""
        print(f"removed {removed} of {removed + left} entries, {format_size(freed)}, from {folder.path}{stay}")
    return 0


def _fault(entry: CacheEntry, content: bool) -> str | None:
    try:
        entry.manifest.check(entry.folder, content)
    except DamagedCacheError as error:
        return f"damaged: {error}"
    return None


def _row(entry: CacheEntry) -> list[str]:
    manifest = entry.manifest
    rows = sum(manifest.rows(side) for side in ("train", "valid", "test"))
    used = _used(entry).astimezone().strftime("%Y-%m-%d %H:%M")
    return [
        Path(manifest.source).name,
        ", ".join(manifest.spec.targets),
        f"{rows:,}",
        format_size(entry.bytes),
        used,
    ]


def _described(entry: CacheEntry, fault: str | None) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "key": entry.key,
        "source": manifest.source,
        "settings": asdict(manifest.spec),
        "rows": {side: manifest.rows(side) for side in ("train", "valid", "test")},
        "bytes": entry.bytes,
        "used": _used(entry).isoformat(timespec="seconds"),
        "fault": fault,
    }


def _used(entry: CacheEntry) -> datetime:
    return datetime.fromtimestamp(entry.last_used, UTC)
