"""`onecycle cache`: list the tables that were prepared on disk, check them, and clear them."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onecycle.cli.terminal import print_lines, print_table
from onecycle.tables.cache.folder import CacheEntry, DamagedCacheError, TableCache
from onecycle.tables.cache.sizes import cache_limit, format_size

_SETS = ("train", "valid", "test")


def cache(clear: bool, check: bool, as_json: bool) -> int:
    """List the entries of the cache, or `clear` it of those that nobody uses. Return the exit code.

    With `check` their content is read too. The exit code is 1 if an entry is damaged. Raise OutputError if the folder
    cannot be read or changed.
    """
    folder = TableCache()
    if clear:
        return _clear(folder, as_json)
    folder.sweep()
    entries = folder.entries()
    damage = {entry.key: _find_damage(entry, check) for entry in entries}
    limit, used = cache_limit(folder.path), sum(entry.bytes for entry in entries)
    if as_json:
        described = [_describe(entry, damage[entry.key]) for entry in entries]
        print(json.dumps({"folder": str(folder.path), "bytes": used, "limit": limit, "entries": described}))
    elif entries:
        rows = [[*_row(entry), damage[entry.key] or "whole"] for entry in entries]
        print_table(rows, ["file", "target", "rows", "size", "last used", "state"], right=(2, 3))
        print_lines(f"{format_size(used)} of at most {format_size(limit)} in {folder.path}")
    else:
        print_lines(f"nothing is in {folder.path}")
    return int(any(damage.values()))


def _clear(folder: TableCache, as_json: bool) -> int:
    removed, freed = folder.clear()
    left = len(folder.entries())
    if as_json:
        print(json.dumps({"folder": str(folder.path), "removed": removed, "bytes": freed, "left": left}))
    else:
        in_use = f"; {left} in use stay{'s' * (left == 1)}" if left else ""
        print_lines(f"removed {removed} of {removed + left} entries, {format_size(freed)}, from {folder.path}{in_use}")
    return 0


def _find_damage(entry: CacheEntry, read_content: bool) -> str | None:
    try:
        entry.manifest.check(entry.folder, read_content)
    except DamagedCacheError as error:
        return f"damaged: {error}"
    return None


def _row(entry: CacheEntry) -> list[str]:
    manifest = entry.manifest
    rows = sum(manifest.rows(side) for side in _SETS)
    last_used = _last_used(entry).astimezone().strftime("%Y-%m-%d %H:%M")
    target = ", ".join(manifest.spec.targets)
    return [Path(manifest.source).name, target, f"{rows:,}", format_size(entry.bytes), last_used]


def _describe(entry: CacheEntry, damage: str | None) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "key": entry.key,
        "source": manifest.source,
        "settings": asdict(manifest.spec),
        "rows": {side: manifest.rows(side) for side in _SETS},
        "bytes": entry.bytes,
        "used": _last_used(entry).isoformat(timespec="seconds"),
        "fault": damage,
    }


def _last_used(entry: CacheEntry) -> datetime:
    return datetime.fromtimestamp(entry.last_used, UTC)
