"""A folder of `folder.py` as one zip file: stored, always the same bytes for the same content, and read with bounds."""

import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from onecycle.core.files import atomic_write, unwritable
from onecycle.core.folders import MANIFEST, Tensors, check_replaceable, read_folder, read_manifest, write_folder
from onecycle.core.reading import open_for_reading
from onecycle.errors import FileError

_MOST_FILES = 64
_LARGEST_MANIFEST = 2**20
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say
_BLOCK = 2**20
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError)  # what zipfile raises for it
_ADVICE = "take an undamaged copy, or export the model again"


def is_zip(path: Path) -> bool:
    """Whether a bundle of this name is a zip file."""
    return path.suffix.lower() == ".zip" and not path.is_dir()


def check_zip_place(path: Path, kind: str, replace: bool) -> None:
    """Raises OutputError where something is at `path` that may not be replaced."""
    check_replaceable(path, kind, replace, read=_read_packed_manifest)


def _read_packed_manifest(path: Path, kind: str) -> None:
    """Raises FileError where `path` is no zip file of this kind."""
    try:
        with tempfile.TemporaryDirectory() as there, zipfile.ZipFile(path) as packed:
            _unpack(path, packed, Path(there), only=MANIFEST)
            read_manifest(Path(there), kind)
    except FileError:
        raise
    except (OSError, *_DAMAGE) as error:
        raise FileError(f"{path}: no zip file, or a damaged one ({error}); {_ADVICE}") from error


def write_zip(path: Path, kind: str, tensors: Mapping[str, Tensors], state: Mapping[str, Any], replace: bool) -> None:
    """Write what `write_folder` writes, as one file: whole or not at all. Raises OutputError as that does."""
    check_zip_place(path, kind, replace)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise unwritable(path, error) from error
    with beside as there:
        folder = Path(there) / "bundle"
        write_folder(folder, kind, tensors, state, replace=False)
        names = sorted((file.name for file in folder.iterdir()), key=lambda name: (name != MANIFEST, name))
        with atomic_write(path) as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
                for name in names:
                    about = zipfile.ZipInfo(name, _DATE)
                    about.external_attr, about.create_system = 0o644 << 16, 3  # a file of everyone's, made anywhere
                    with (folder / name).open("rb") as source, packed.open(about, "w", force_zip64=True) as target:
                        while block := source.read(_BLOCK):
                            target.write(block)
            _sign(file)


def read_zip(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """What `read_folder` gives. Raises FileError where the file is missing, damaged, or packed by another hand.

    Nothing in it is inflated, so it takes no more room than it has; names are those of its manifest, and name no
    folder.
    """
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there) / "bundle"
        folder.mkdir()
        with open_for_reading(path) as file:
            try:
                _check_signature(path, file)
                with zipfile.ZipFile(file) as packed:
                    names = _unpack(path, packed, folder)
            except FileError:
                raise
            except _DAMAGE as error:
                raise FileError(f"{path}: no zip file, or a damaged one ({error}); {_ADVICE}") from error
        try:
            if strange := names - {MANIFEST, *read_manifest(folder, kind)}:
                raise FileError(f"{folder}: holds {min(strange)!a}, which is not in its {MANIFEST}; {_ADVICE}")
            return read_folder(folder, kind)
        except FileError as error:  # it speaks of the file, not of where it was unpacked
            raise FileError(str(error).replace(f"{folder}/", f"{path}/").replace(str(folder), str(path))) from error


# The file ends with a comment, the SHA-256 of all that is before it and its length: zip's own fields have no check.
_END, _END_SIZE = b"PK\x05\x06", 22  # the record at a zip file's end, without a comment
_COMMENT = 64
_COMMENT_SIZE = _COMMENT.to_bytes(2, "little")


def _sign(file: BinaryIO) -> None:
    """Give a zip file without a comment one."""
    size = file.seek(0, os.SEEK_END) - len(_COMMENT_SIZE)
    file.seek(0)
    total = sha256()
    for block in _blocks(file, size):
        total.update(block)
    file.seek(size)
    file.write(_COMMENT_SIZE + total.hexdigest().encode())


def _check_signature(path: Path, file: BinaryIO) -> None:
    """Raises FileError where the file is not as it was written. One that was packed by hand has no comment."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _END_SIZE - _COMMENT, 0))
    tail = file.read()
    file.seek(0)
    if tail[-_END_SIZE:].startswith(_END) and tail.endswith(bytes(len(_COMMENT_SIZE))):
        return
    total, rest = sha256(), size - _COMMENT - len(_COMMENT_SIZE)
    for block in _blocks(file, rest):
        total.update(block)
    file.seek(0)
    if not tail.startswith(_END) or tail[_END_SIZE - 2 :] != _COMMENT_SIZE + total.hexdigest().encode():
        raise FileError(
            f"{path}: no bundle that onecycle wrote, or a damaged one (it does not end with its SHA-256); {_ADVICE}"
        )


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The first `size` bytes of the file."""
    while size > 0 and (block := file.read(min(size, _BLOCK))):
        size -= len(block)
        yield block


def _unpack(path: Path, packed: zipfile.ZipFile, folder: Path, only: str | None = None) -> set[str]:
    """Write the files in `packed` (or `only` one) to `folder`; their names. Raises FileError before it writes any."""
    entries, size = packed.infolist(), path.stat().st_size
    if len(entries) > _MOST_FILES:
        raise FileError(f"{path}: holds {len(entries):,} files; expected at most {_MOST_FILES}; {_ADVICE}")
    names = {entry.filename for entry in entries}
    if len({name.lower() for name in names}) < len(entries):
        raise FileError(f"{path}: holds a file twice; {_ADVICE}")
    for entry in entries:
        name = entry.filename
        if name != Path(name).name or name.startswith(".") or "\\" in name or ":" in name:
            raise FileError(f"{path}: names {name!a}, which is outside of the bundle; nothing was unpacked; {_ADVICE}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise FileError(f"{path}: {name} is compressed or encrypted, which onecycle never does; {_ADVICE}")
    if sum(entry.file_size for entry in entries) > size:
        raise FileError(f"{path}: says that it holds more bytes than it has; {_ADVICE}")
    if MANIFEST in names and packed.getinfo(MANIFEST).file_size > _LARGEST_MANIFEST:
        raise FileError(f"{path}: its {MANIFEST} has more than {_LARGEST_MANIFEST:,} bytes; {_ADVICE}")
    for entry in entries:
        if only in (None, entry.filename):
            with packed.open(entry) as source, (folder / entry.filename).open("xb") as target:
                while block := source.read(_BLOCK):
                    target.write(block)
    return names
