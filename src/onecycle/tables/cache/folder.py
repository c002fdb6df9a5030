"""The folder of the cache: its entries, made whole or not at all, the least recently used removed for new ones."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from pathlib import Path

from onecycle.core.config import Config
from onecycle.core.files import LOCKS_SUPPORTED, Lock, sync_folder, unwritable
from onecycle.errors import OutputError
from onecycle.tables.cache.manifest import MANIFEST, DamagedCacheError, Manifest
from onecycle.tables.cache.sizes import parse_size, size_text

_IN_USE = "in_use"  # a file of an entry; who reads from the entry has a shared lock on it
_HEX = frozenset("0123456789abcdef")
_KEY = 40  # characters of a key
_SPARE = 64 * 2**20  # bytes that stay free on the disk
_LIMIT, _SHARE = 20 * 10**9, 0.1  # of the disk
_OLD = 86_400  # seconds after which, without locks, a folder is taken for left behind

Say = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """One converted table: a folder of the cache, held so that it is not removed while it is read."""

    folder: Path
    manifest: Manifest
    used: float  # when it was last opened, in seconds since 1970
    held: Lock | None = None  # None in a list of entries

    @property
    def key(self) -> str:
        """What it is found by."""
        return self.folder.name

    @property
    def bytes(self) -> int:
        """What it takes on the disk."""
        return _size(self.folder)


class TableCache:
    """`path` holds a folder for each entry, named by its key, and for what is under way folders that begin with a dot.

    Whatever else is in it is left alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path if path is not None else Config().home() / "cache"

    def entries(self) -> list[Entry]:
        """What is in it and undamaged by its manifest, the most recently used first."""
        found: list[Entry] = []
        for folder in self._folders():
            with suppress(DamagedCacheError, OSError):  # one that is removed meanwhile
                found.append(Entry(folder, Manifest.read(folder), (folder / MANIFEST).stat().st_mtime))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def open(self, key: str, say: Say) -> Entry | None:
        """The entry, marked as used now; None where there is none, or a damaged one, of which a line is said."""
        folder = self.path / key
        held = Lock.acquire(folder / _IN_USE, shared=True)
        if held is None:
            return None
        try:
            found = Manifest.read(folder)
            checked = found.check(folder)
            if checked != found:  # copied
                checked.write(folder)
            os.utime(folder / MANIFEST)
        except DamagedCacheError as error:
            held.release()
            say(f"the cache of this file is damaged ({error}); making it again")
            return None
        except OSError as error:
            held.release()
            raise unwritable(folder, error) from error
        return Entry(folder, checked, time.time(), held)

    @contextmanager
    def building(self, key: str) -> Generator[Path | None]:
        """A temporary folder that becomes the entry `key` when the block ends without an error.

        Other processes that want the same wait; where one of them made it meanwhile, the folder is None. Raises
        OutputError where it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error
        lock = Lock.acquire(self.path / f".{key}.lock")
        assert lock is not None  # it waits
        folder = None
        try:
            self.sweep(key)
            if self._is_whole(key):
                yield None
                return
            folder = self._temporary(key)
            (folder / _IN_USE).touch()
            yield folder
            sync_folder(folder)
            self._remove(self.path / key)  # a damaged one
            folder.rename(self.path / key)
            sync_folder(self.path)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            if error.errno in (ENOSPC, EDQUOT):
                raise OutputError(f"{self.path}: the disk became full; {_MAKE_ROOM}") from error
            raise unwritable(self.path, error) from error
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            lock.release(remove=True)

    def make_room(self, wanted: int, limit: int) -> None:
        """Remove the entries used longest ago, until `wanted` more bytes fit into `limit`, and onto the disk.

        Entries in use stay. Raises OutputError where that is not enough.
        """
        if wanted > limit:
            raise OutputError(
                f"{self.path}: {size_text(wanted)} are needed, and cache_limit is {size_text(limit)}; raise "
                "cache_limit (or set ONECYCLE_CACHE_LIMIT), or give more memory with memory_limit"
            )
        known = [entry.folder for entry in reversed(self.entries())]
        for folder in [*(folder for folder in self._folders() if folder not in known), *known]:  # damaged ones first
            if self._taken() + wanted <= limit and self._free() >= wanted + _SPARE:
                return
            self.remove(folder)
        if (free := self._free()) < wanted + _SPARE:
            raise OutputError(
                f"{self.path}: {size_text(wanted)} are needed, and {size_text(free)} are free on its disk; {_MAKE_ROOM}"
            )
        if (taken := self._taken()) + wanted > limit:
            raise OutputError(
                f"{self.path}: {size_text(wanted)} are needed, and {size_text(taken)} of cache_limit, "
                f"{size_text(limit)}, are in use by other processes; wait for them, or raise cache_limit"
            )

    def remove(self, folder: Path) -> bool:
        """Remove an entry, unless it is in use. Whether it was there and is gone."""
        lock = Lock.acquire(folder / _IN_USE, wait=False)
        if lock is None:
            return False
        with lock:
            return self._remove(folder)

    def clear(self) -> tuple[int, int]:
        """Remove all that nobody uses: how many entries are gone, and how many bytes."""
        before = self._taken()
        count = sum(map(self.remove, [*self._folders()]))
        self.sweep()
        return count, before - self._taken()

    def sweep(self, mine: str = "") -> None:
        """Remove what processes that ended in the middle left behind. The caller holds the lock of the key `mine`."""
        for folder in self._under_way():
            key = folder.name[1 : _KEY + 1]
            lock = None if key == mine else Lock.acquire(self.path / f".{key}.lock", wait=False)
            with suppress(OSError):  # gone meanwhile
                old = LOCKS_SUPPORTED or time.time() - folder.stat().st_mtime > _OLD
                if old and (lock is not None or key == mine):
                    shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                lock.release(remove=True)

    def _is_whole(self, key: str) -> bool:
        try:
            Manifest.read(self.path / key).check(self.path / key)
        except DamagedCacheError:
            return False
        return (self.path / key / _IN_USE).exists()

    def _temporary(self, key: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f".{key}.", suffix=".tmp", dir=self.path))

    def _remove(self, folder: Path) -> bool:
        """Take a folder away in one step, then what is in it."""
        if not folder.exists():
            return False
        away = self._temporary(folder.name)
        with suppress(OSError):  # Windows keeps open files
            folder.rename(away / folder.name)
        shutil.rmtree(away, ignore_errors=True)
        return not folder.exists()

    def _folders(self) -> Iterator[Path]:
        for folder in self._children():
            if len(folder.name) == _KEY and _HEX.issuperset(folder.name):
                yield folder

    def _under_way(self) -> Iterator[Path]:
        for folder in self._children():
            if folder.name.startswith(".") and folder.suffix == ".tmp" and _HEX.issuperset(folder.name[1 : _KEY + 1]):
                yield folder

    def _children(self) -> list[Path]:
        try:
            return [child for child in self.path.iterdir() if child.is_dir() and not child.is_symlink()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _taken(self) -> int:
        return sum(map(_size, [*self._folders(), *self._under_way()]))

    def _free(self) -> int:
        return shutil.disk_usage(self.path).free


_MAKE_ROOM = "free some, or set ONECYCLE_HOME to a folder on another disk"


def default_cache_limit(path: Path) -> int:
    """What the cache may take: ONECYCLE_CACHE_LIMIT, else 20 GB or a tenth of its disk, whichever is more."""
    if given := os.environ.get("ONECYCLE_CACHE_LIMIT"):
        return parse_size(given, "ONECYCLE_CACHE_LIMIT")
    while not path.exists():
        path = path.parent
    return max(_LIMIT, int(shutil.disk_usage(path).total * _SHARE))


def _size(folder: Path) -> int:
    with suppress(OSError):  # one that is being removed
        return sum(file.stat().st_size for file in folder.rglob("*"))
    return 0
