"""The cache's folder: converted tables, each written whole or not at all, the least recently used removed for new ones.

An entry is a folder of row files (raw little-endian numbers) with a manifest that has their sizes and SHA-256.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from errno import EDQUOT, ENOSPC
from hashlib import file_digest, sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from onecycle.core.choices import SetName
from onecycle.core.config import Config
from onecycle.core.files import (
    LOCKS_SUPPORTED,
    Lock,
    open_unlinked,
    read_json,
    sync_folder,
    unwritable,
    with_checksum,
    write_text,
)
from onecycle.errors import DataError, OutputError
from onecycle.tables.cache.sizes import format_size
from onecycle.tables.features import Features
from onecycle.tables.profile import ColumnProfile
from onecycle.tables.spec import TableSpec
from onecycle.tables.target import Target
from onecycle.tables.values import Array

FORMAT = 3
KEY_LENGTH = 40  # hexadecimal digits
_MANIFEST = "manifest.json"
_IN_USE = "in_use"  # a file of an entry, on which each reader of the entry holds a shared lock
_SETS: tuple[SetName, ...] = ("train", "valid", "test")
_HEX = frozenset("0123456789abcdef")
_RESERVE = 64 * 2**20  # bytes that stay free on the disk
_ABANDONED_AFTER = 86_400  # seconds until an unfinished entry counts as abandoned, if there are no locks
_FREE_DISK = "free some, or set ONECYCLE_HOME to a folder on another disk"


class DamagedCacheError(Exception):
    """An entry does not hold what was written; the message says which file, and what is wrong with it."""


@dataclass(frozen=True)
class RowFile:
    """A file of rows of numbers, little-endian and without a header."""

    name: str
    dtype: str  # NumPy's name
    shape: tuple[int, ...]  # rows first
    sha256: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def bytes(self) -> int:
        """Length of the file."""
        return self.shape[0] * self.row_bytes

    def check(self, folder: Path, content: bool) -> None:
        """Raise DamagedCacheError if the file in `folder` is not what was written; `content` hashes it."""
        path = folder / self.name
        try:
            if (size := path.stat().st_size) != self.bytes:
                raise DamagedCacheError(f"{self.name} has {size:,} bytes instead of {self.bytes:,}")
            if content:
                with open(path, "rb", opener=open_unlinked) as file:
                    if file_digest(file, "sha256").hexdigest() != self.sha256:
                        raise DamagedCacheError(f"{self.name} was changed")
        except OSError as error:
            raise DamagedCacheError(f"{self.name} cannot be read ({error.strerror or error})") from error


class RowWriter:
    """Writes rows of the dtype and shape of `sample`'s to a new file."""

    def __init__(self, path: Path, sample: Array) -> None:
        self._path, self._dtype, self._row_shape = path, sample.dtype.newbyteorder("<"), sample.shape[1:]
        self._file, self._rows, self._sha256 = path.open("xb"), 0, sha256()

    def write(self, rows: Array) -> None:
        """Append rows."""
        content = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data
        self._sha256.update(content)
        self._file.write(content)
        self._rows += len(rows)

    def finish(self) -> RowFile:
        """Sync the file to the disk, close it, and return its description."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return RowFile(self._path.name, self._dtype.name, (self._rows, *self._row_shape), self._sha256.hexdigest())

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@dataclass(frozen=True)
class Manifest:
    """The source of an entry, the settings that it was converted with, its files, and the fitted preprocessing."""

    source: str  # its path at that time
    source_sha256: str
    spec: TableSpec
    files: dict[str, RowFile]  # by set and part: train_x, train_y, valid_x, …
    target: dict[str, Any]
    features: dict[str, Any] | None  # None for inputs that are used unchanged
    columns: list[ColumnProfile]

    @property
    def bytes(self) -> int:
        """Length of all row files."""
        return sum(file.bytes for file in self.files.values())

    def rows(self, name: SetName) -> int:
        """Return the number of rows of the set `name`."""
        return self.files[f"{name}_y"].shape[0] if f"{name}_y" in self.files else 0

    def fitted(self) -> tuple[Features | None, Target, tuple[ColumnProfile, ...]]:
        """Return the preprocessing (None for unchanged inputs), the target and the columns.

        Raises DataError for what this version did not write.
        """
        try:
            features = None if self.features is None else Features.from_dict(self.features)
            return features, Target.from_dict(self.target), tuple(self.columns)
        except DataError as error:
            raise DataError(f"the prepared copy of {self.source}: {error}") from error

    def write(self, folder: Path) -> None:
        """Write the manifest to `folder`, whole or not at all."""
        write_text(folder / _MANIFEST, with_checksum({"format": FORMAT, "manifest": asdict(self)}))

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of `folder`. Raises DamagedCacheError unless this version wrote it."""
        try:
            content = read_json(folder / _MANIFEST)
            if content["format"] != FORMAT:
                raise DamagedCacheError(f"{_MANIFEST} has format {content['format']} instead of {FORMAT}")
            values = content["manifest"]
            values["spec"] = TableSpec(**values["spec"])
            values["columns"] = [ColumnProfile(**column) for column in values["columns"]]
            values["files"] = {
                part: RowFile(**file | {"shape": tuple(file["shape"])}) for part, file in values["files"].items()
            }
            manifest = cls(**values)
            manifest._check_types()
            return manifest
        except OSError as error:
            raise DamagedCacheError(f"{_MANIFEST} cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedCacheError(f"{_MANIFEST} is damaged ({error})") from error

    def _check_types(self) -> None:
        """Raise ValueError for values that are not of the types that were written."""
        files, columns = [*self.files.values()], self.columns
        texts: list[Any] = [self.source, self.source_sha256, *self.spec.targets, *self.spec.dropped]
        texts += [text for file in files for text in (file.name, file.dtype, file.sha256)]
        texts += [text for column in columns for text in (column.name, column.kind, column.why)]
        counts: list[Any] = [self.spec.seed, *(count for file in files for count in file.shape)]
        counts += [column.missing for column in columns]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a name or text is none")
        if not all(type(count) is int and 0 <= count < 2**63 for count in counts):
            raise ValueError("a count is none")
        if not all(file.shape for file in files):
            raise ValueError("a shape is empty")
        for file in files:
            np.dtype(file.dtype)  # raises TypeError if there is no such dtype
        if not all(isinstance(names, str | list | tuple) for names in (self.spec.target, self.spec.drop)):
            raise ValueError("target or drop is no list of names")
        if type(self.spec.valid) not in (int, float) or not isinstance(self.spec.split, str | list):
            raise ValueError("the split is none")

    def check(self, folder: Path, content: bool) -> None:
        """Raise DamagedCacheError if a file in `folder` is not what was written; `content` hashes all of them."""
        for file in self.files.values():
            file.check(folder, content)


@dataclass(frozen=True)
class CacheEntry:
    """A converted table in the cache."""

    folder: Path
    manifest: Manifest
    last_used: float  # seconds since 1970
    lock: Lock | None = None  # protects it from removal while this object exists; None in a list of entries

    @property
    def key(self) -> str:
        """The digest of source and settings that names the folder."""
        return self.folder.name

    @property
    def bytes(self) -> int:
        """Bytes of all files in the folder."""
        return _folder_bytes(self.folder)


class TableCache:
    """The entries in the library's cache folder `path`, each a folder named by its key.

    Unfinished entries are folders that begin with a dot. Anything else in `path` is left alone.
    """

    def __init__(self) -> None:
        self.path = Config().home() / "cache"

    def entries(self) -> list[CacheEntry]:
        """Return the entries with an undamaged manifest, the most recently used first."""
        entries: list[CacheEntry] = []
        for folder in self._folders():
            with suppress(DamagedCacheError, OSError):  # OSError: removed meanwhile
                entries.append(CacheEntry(folder, Manifest.read(folder), (folder / _MANIFEST).stat().st_mtime))
        return sorted(entries, key=lambda entry: entry.last_used, reverse=True)

    def open_or_build(
        self, key: str, build: Callable[[Path], Manifest], on_damage: Callable[[str], None]
    ) -> CacheEntry:
        """Return the entry `key`, locked so that it is not removed; if it is missing or damaged, `build` it first.

        `build` writes the row files to a temporary folder, which becomes the entry when it returns, while other
        processes that need the entry wait. `on_damage` is called with the reason why an entry is built again. Raises
        OutputError if the cache cannot be written.
        """
        lock = folder = None
        try:
            if (entry := self._open(key, on_damage)) is not None:
                return entry
            self.path.mkdir(parents=True, exist_ok=True)
            lock = Lock.acquire(self.path / f".{key}.lock")
            self.sweep(key)
            if (entry := self._open(key)) is not None:  # another process built it meanwhile
                return entry
            folder = self._make_temporary(key)
            (folder / _IN_USE).touch()
            build(folder).write(folder)
            sync_folder(folder)
            self._remove(self.path / key)  # a damaged one
            folder.rename(self.path / key)
            sync_folder(self.path)
            if (entry := self._open(key)) is None:
                raise OutputError(f"{self.path / key}: was removed at once; see what else uses this folder")
            return entry
        except OutputError:
            raise
        except OSError as error:
            if error.errno in (ENOSPC, EDQUOT):
                raise OutputError(f"{self.path}: the disk became full; {_FREE_DISK}") from error
            raise unwritable(self.path, error) from error
        finally:
            if folder is not None:
                _delete(folder)
            if lock is not None:
                lock.release(remove=True)

    def _open(self, key: str, on_damage: Callable[[str], None] | None = None) -> CacheEntry | None:
        """Return the entry, locked and marked as used now; None if it is missing or damaged."""
        folder = self.path / key
        if folder.is_symlink() or (lock := Lock.acquire(folder / _IN_USE, shared=True)) is None:
            return None
        try:
            manifest = Manifest.read(folder)
            manifest.check(folder, content=True)
            os.utime(folder / _MANIFEST, follow_symlinks=False)
        except BaseException as error:
            lock.release()
            if not isinstance(error, DamagedCacheError):
                raise
            if on_damage is not None:
                on_damage(str(error))
            return None
        return CacheEntry(folder, manifest, time.time(), lock)

    def make_room(self, size: int, limit: int) -> None:
        """Remove the entries used longest ago until `size` more bytes fit into `limit`, and on the disk.

        Entries in use stay. Raises OutputError if that is not enough.
        """
        if size > limit:
            raise OutputError(
                f"{self.path}: {format_size(size)} are needed, but the cache may use {format_size(limit)}; set "
                "ONECYCLE_CACHE_LIMIT to more, or give more memory with memory_limit"
            )
        whole = [entry.folder for entry in reversed(self.entries())]
        damaged = [folder for folder in self._folders() if folder not in whole]
        for folder in [*damaged, *whole]:
            if self._used() + size <= limit and self._free() >= size + _RESERVE:
                return
            self.remove(folder)
        if (free := self._free()) < size + _RESERVE:
            raise OutputError(
                f"{self.path}: {format_size(size)} are needed, and {format_size(free)} are free on its disk; "
                f"{_FREE_DISK}"
            )
        if (used := self._used()) + size > limit:
            raise OutputError(
                f"{self.path}: {format_size(size)} are needed, and of the {format_size(limit)} that the cache may use "
                f"{format_size(used)} are in use by other processes; wait for them, or set ONECYCLE_CACHE_LIMIT to more"
            )

    def remove(self, folder: Path) -> bool:
        """Remove an entry unless it is in use; return whether it was removed."""
        lock = Lock.acquire(folder / _IN_USE, wait=False)
        if lock is None:
            return False
        with lock:
            return self._remove(folder)

    def clear(self) -> tuple[int, int]:
        """Remove all entries that are not in use; return how many were removed, and their bytes."""
        before = self._used()
        count = sum(map(self.remove, [*self._folders()]))
        self.sweep()
        return count, before - self._used()

    def sweep(self, locked_key: str = "") -> None:
        """Remove what stopped processes left unfinished; the caller holds the lock of `locked_key`."""
        for folder in self._unfinished():
            key = folder.name[1 : KEY_LENGTH + 1]
            lock = None if key == locked_key else Lock.acquire(self.path / f".{key}.lock", wait=False)
            if lock is None and key != locked_key:
                continue  # another process is building it
            with suppress(OSError):  # removed meanwhile
                if LOCKS_SUPPORTED or time.time() - folder.stat().st_mtime > _ABANDONED_AFTER:
                    _delete(folder)
            if lock is not None:
                lock.release(remove=True)

    def _make_temporary(self, key: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f".{key}.", suffix=".tmp", dir=self.path))

    def _remove(self, folder: Path) -> bool:
        """Move a folder away in one step, then delete its files. What is not of an entry stays where it was moved."""
        if not os.path.lexists(folder):
            return False
        temporary = self._make_temporary(folder.name)
        with suppress(OSError):  # Windows cannot move open files
            folder.rename(temporary / folder.name)
        _delete(temporary)
        return not os.path.lexists(folder)

    def _folders(self) -> Iterator[Path]:
        for folder in self._subfolders():
            if len(folder.name) == KEY_LENGTH and _HEX.issuperset(folder.name):
                yield folder

    def _unfinished(self) -> Iterator[Path]:
        for folder in self._subfolders():
            if folder.match(".*.tmp") and _HEX.issuperset(folder.name[1 : KEY_LENGTH + 1]):
                yield folder

    def _subfolders(self) -> list[Path]:
        try:
            return [path for path in self.path.iterdir() if path.is_dir() and not path.is_symlink()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _used(self) -> int:
        return sum(map(_folder_bytes, [*self._folders(), *self._unfinished()]))

    def _free(self) -> int:
        return shutil.disk_usage(self.path).free


def row_file(name: SetName, part: str) -> str:
    """Return the name of the file with the inputs (part x) or targets (y) of a set."""
    return f"{name}_{part}.bin"


def _delete(folder: Path) -> None:
    """Delete the files of an entry, finished or not, wherever they are in it, and folders that are empty then."""
    own = {_MANIFEST, _IN_USE, *(row_file(name, part) for name in _SETS for part in "xy")}
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                _delete(path)
            elif path.name in own or path.name.startswith(f".{_MANIFEST}."):  # one that was begun
                path.unlink(missing_ok=True)
        folder.rmdir()


def _folder_bytes(folder: Path) -> int:
    with suppress(OSError):  # it is being removed
        return sum(file.stat().st_size for file in folder.rglob("*"))
    return 0
