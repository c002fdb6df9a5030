"""Tensors and JSON as a folder or a zip file, written whole or not at all, and verified when read.

`.safetensors` files hold the tensors, `state.json` the rest, `manifest.json` the size and SHA-256 of each file and, as
all JSON of ours, its own. A zip file also ends with a SHA-256, since zip's own fields have no checksum. Nothing in
them can run code.
"""

import io
import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, TypeAlias

import safetensors
from safetensors.torch import load, save
from torch import Tensor

from onecycle.core.files import (
    atomic_write,
    discard,
    flush_to_disk,
    read_own,
    sync_folder,
    temporary_beside,
    unwritable,
    verify_checksum,
    with_checksum,
)
from onecycle.core.reading import open_for_reading
from onecycle.core.record import to_jsonable
from onecycle.errors import FileError, OutputError, SettingError

MANIFEST = "manifest.json"
FORMAT = 1
Tensors: TypeAlias = Mapping[str, Tensor]
Place: TypeAlias = Path | IO[bytes]
"""Where an archive is: a folder, a file that ends in .zip, or a file-like object such as BytesIO."""
Content: TypeAlias = tuple[dict[str, Any], dict[str, dict[str, Tensor]]]
_READERS = {
    "bundle": "load_predictor and load_learner read it",
    "checkpoint": "learn.load reads it",
    "fit": "learn.resume reads it, given the folder of the run",
    "settings": "onecycle train --resume reads it, given the folder of the run",
}
"""Which function reads what, by the kind of archive."""
_STATE = "state.json"
_ADVICE = "use another copy"
_LOAD_ERRORS = (KeyError, RuntimeError, AssertionError)  # a dtype that torch does not have, sizes beyond 64 bits

_MAX_FILES = 64  # in a zip file
_MAX_MANIFEST_BYTES = 2**20
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest of the format: equal content gives equal bytes
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError)  # for a damaged file
_ZIP_END, _ZIP_END_SIZE = b"PK\x05\x06", 22  # the record at the end of a zip file without a comment
_DIGEST_SIZE = 64  # of a SHA-256 in hexadecimal, which is the comment of our zip files
_COMMENT_LENGTH = _DIGEST_SIZE.to_bytes(2, "little")


def as_place(place: Any, folder: Path | None = None) -> Place:
    """Return a path, relative to `folder`, or a file-like object as it is. Raises SettingError for anything else."""
    if isinstance(place, str | os.PathLike):
        return (folder or Path()) / place
    if hasattr(place, "read") or hasattr(place, "write"):
        return place
    hint = "; give io.BytesIO(data)" if isinstance(place, bytes | bytearray | memoryview) else ""
    raise SettingError(f"a {type(place).__name__} is no place for a file; expected a path, or an open file{hint}")


def place_name(place: Place) -> Path:
    """Return the path of a place, or how messages call a file-like object."""
    return place if isinstance(place, Path) else Path(f"<{type(place).__name__}>")


def is_zip(path: Path) -> bool:
    """Whether a bundle of this name is a zip file."""
    return path.suffix.lower() == ".zip" and not path.is_dir()


def describe_folder(path: Path) -> str | None:
    """Return what `path` holds and which function reads it, or None if it is missing or nothing of ours."""
    with suppress(OSError, ValueError, KeyError, TypeError, UnicodeDecodeError):
        if path.is_file() and zipfile.is_zipfile(path) and MANIFEST in zipfile.ZipFile(path).namelist():
            return "a zip file of onecycle's; give it a name that ends in .zip"
        if path.is_file():
            return "a file; if torch.save wrote it, use learn.model.load_state_dict(torch.load(...))"
        if (path / MANIFEST).is_file():
            kind = json.loads(read_own(path / MANIFEST, _MAX_MANIFEST_BYTES))["onecycle"]
            return f"a {kind}; {_READERS[kind]}"
        if (path / "checkpoints").is_dir():
            model = path / "model"
            bundle = f", and load_predictor({str(model)!r}) its model" if (model / MANIFEST).is_file() else ""
            return f"the folder of a run; learn.resume continues it{bundle}"
        names = sorted(entry.name for entry in path.iterdir())
        inner = [name for name in names if not name.startswith(".") and (path / name / MANIFEST).is_file()]
        return f"a folder that holds {', '.join(inner[:3])}; name one of them" if inner else None if names else "empty"
    return None


def check_replaceable(path: Path, kind: str, replace: bool) -> None:
    """Raise OutputError if `path` exists, unless `replace` is set and it holds nothing but a `kind` of onecycle's."""
    if not os.path.lexists(path):
        return
    if not replace:
        raise OutputError(f"{path} exists; give another name, or ask for it to be replaced (overwrite=True)")
    try:
        if is_zip(path):
            with open_for_reading(path) as file:
                _parse_manifest(path, kind, _files_in_zip(path, file, only=MANIFEST))
            return
        own = {MANIFEST, *read_manifest(path, kind)}
    except FileError as error:
        raise OutputError(f"{path} exists and is not a {kind} that onecycle wrote; give another name") from error
    if foreign := sorted(entry.name for entry in path.iterdir() if entry.name not in own or entry.is_dir()):
        raise OutputError(f"{path}: holds {foreign[0]!a}, which onecycle did not write; move it away")


def remove_folder(folder: Path, kind: str) -> None:
    """Remove what `write_folder` wrote, if anything. Raises OutputError for anything else, which stays."""
    check_replaceable(folder, kind, replace=True)
    discard(folder)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_archive(
    place: Place, kind: str, tensors: Mapping[str, Tensors], state: Mapping[str, Any], replace: bool
) -> None:
    """Write a folder, or a zip file if that is what `place` is named, or the bytes of one to a file-like object.

    Raises OutputError if something else is in the way, or nothing can be written.
    """
    if isinstance(place, Path):
        (write_zip if is_zip(place) else write_folder)(place, kind, tensors, state, replace)
        return
    content = io.BytesIO()
    _write_zip(content, kind, tensors, state)
    write_bytes(place, content.getvalue())


def write_bytes(place: Place, content: bytes) -> None:
    """Write a file, atomically, or to a file-like object. Raises OutputError if that fails."""
    if isinstance(place, Path):
        with atomic_write(place) as file:
            file.write(content)
        return
    try:
        place.write(content)
    except (OSError, ValueError, TypeError, AttributeError) as error:  # closed, not for writing, or of text
        raise OutputError(
            f"{place_name(place)}: cannot be written ({error}); expected a file that is open for writing bytes"
        ) from error


def write_folder(
    folder: Path, kind: str, tensors: Mapping[str, Tensors], state: Mapping[str, Any], replace: bool
) -> None:
    """Write `folder` with a safetensors file for each item of `tensors`, and `state` as JSON.

    It is written beside its place, synced to the disk, and renamed. With `replace` an older folder that this function
    wrote is replaced; while the two change places, the older one is called `.NAME.replaced`. Raises OutputError if
    something else is in the way, or nothing can be written.
    """
    check_replaceable(folder, kind, replace)
    replaced = _replaced(folder)
    check_replaceable(replaced, kind, replace=True)
    try:
        with temporary_beside(folder, Path.mkdir) as temporary:
            for name, data in _files(kind, tensors, state).items():
                with (temporary / name).open("xb") as file:
                    file.write(data)
                    flush_to_disk(file)
            sync_folder(temporary)
            if os.path.lexists(folder):
                discard(replaced)  # left by a writer that was stopped; `folder` is whole
                folder.rename(replaced)
            temporary.rename(folder)
        sync_folder(folder.parent)
        discard(replaced)
    except OSError as error:
        raise unwritable(folder, error) from error


def write_zip(path: Path, kind: str, tensors: Mapping[str, Tensors], state: Mapping[str, Any], replace: bool) -> None:
    """Write the files of `write_folder` as one zip file. Raises OutputError as that does."""
    check_replaceable(path, kind, replace)
    with atomic_write(path) as file:
        _write_zip(file, kind, tensors, state)


def _write_zip(file: IO[bytes], kind: str, tensors: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in _files(kind, tensors, state).items():
            entry = zipfile.ZipInfo(name, _ZIP_DATE)
            entry.external_attr, entry.create_system = 0o644 << 16, 3  # the same on every system and umask
            with archive.open(entry, "w", force_zip64=True) as target:
                target.write(data)
    size = file.seek(0, os.SEEK_END) - len(_COMMENT_LENGTH)  # the last two bytes say that there is no comment
    digest = _digest_of_first(size, file)
    file.seek(size)
    file.write(_COMMENT_LENGTH + digest)


def manifest_text(kind: str, files: Mapping[str, bytes]) -> str:
    """Return the manifest of an archive of this kind with these files."""
    return with_checksum(
        {"onecycle": kind, "format": FORMAT, "files": {name: _entry(data) for name, data in files.items()}}
    )


def _files(kind: str, tensors: Mapping[str, Tensors], state: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of an archive by name, the manifest first."""
    files = {f"{name}.safetensors": save(_unshared(group)) for name, group in tensors.items()}
    files[_STATE] = json.dumps(state, indent=1, allow_nan=False, default=to_jsonable).encode()
    return {MANIFEST: manifest_text(kind, files).encode(), **dict(sorted(files.items()))}


def _unshared(tensors: Tensors) -> dict[str, Tensor]:
    """Return the tensors on the CPU, sharing no memory, as safetensors requires (tied weights do share).

    A tensor is copied only if it must be: a copy made by the thread of a fit's checkpoints would start threads of its
    own, and OpenMP then lets those of the training sleep between any two kernels, which takes several times as long.
    """
    unshared, seen = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        unshared[name] = tensor
    return unshared


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def _entry(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": sha256(data).hexdigest()}


# --- reading ----------------------------------------------------------------------------------------------------------


def read_archive(place: Place, kind: str) -> Content:
    """Return the state and the tensors that `write_archive` wrote. Raises FileError as `read_folder` does.

    A file-like object is read from where it stands to its end.
    """
    if isinstance(place, Path):
        return (read_zip if is_zip(place) else read_folder)(place, kind)
    name = place_name(place)
    try:
        content: Any = place.read()
    except (OSError, ValueError, AttributeError) as error:  # closed, or not for reading
        raise FileError(f"{name}: cannot be read ({error}); expected a file that is open for reading bytes") from error
    if not isinstance(content, bytes | bytearray | memoryview):
        raise FileError(f'{name}: holds text; expected bytes: open the file with mode "rb"')
    if not content:
        raise FileError(f"{name}: nothing is left to read; go to where the {kind} begins: seek(0)")
    return _read_zip(name, io.BytesIO(content), kind)


def read_folder(folder: Path, kind: str) -> Content:
    """Return the state and the tensors that `write_folder` wrote, every file checked against the manifest.

    Raises FileError, naming the file, if something is missing, damaged or of another kind.
    """
    if not folder.exists() and _replaced(folder).exists():
        folder = _replaced(folder)  # the writer was stopped while the two changed places
    return _content(folder, _read_listed(folder, read_manifest(folder, kind)))


def read_state(folder: Path, kind: str) -> dict[str, Any]:
    """Return the state alone, verified, without looking at the tensors. Raises FileError as `read_folder` does."""
    entries = {name: entry for name, entry in read_manifest(folder, kind).items() if name == _STATE}
    return _state(folder, _read_listed(folder, entries).get(_STATE, b""))


def read_zip(path: Path, kind: str) -> Content:
    """Return the state and the tensors that `write_zip` wrote.

    Raises FileError as `read_folder` does, and for entries that are compressed or not in the manifest. Nothing is
    inflated or written to the disk, so reading takes no more memory than the file has bytes.
    """
    with open_for_reading(path) as file:
        return _read_zip(path, file, kind)


def _read_zip(path: Path, file: IO[bytes], kind: str) -> Content:
    files = _files_in_zip(path, file)
    entries = _parse_manifest(path, kind, files)
    if unlisted := files.keys() - entries.keys() - {MANIFEST}:
        raise FileError(f"{path}: holds {min(unlisted)!a}, which is not in its {MANIFEST}; {_ADVICE}")
    for name, entry in entries.items():
        _verified(path / name, _required(path, files, name), entry)
    return _content(path, {name: files[name] for name in entries})


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """Return the entry of each file of a folder. Raises FileError as `read_folder` does."""
    expected = f"expected a {kind} that onecycle wrote"
    if not folder.exists():
        raise FileError(f"{folder}: no such folder; {expected}")
    if not folder.is_dir() or not ((folder / MANIFEST).is_file() or (folder / _STATE).is_file()):
        found = describe_folder(folder) or f"a folder without {MANIFEST}"
        raise FileError(f"{folder}: {found}; {expected}")
    return _parse_manifest(folder, kind, {MANIFEST: _read_file(folder / MANIFEST)})


def _parse_manifest(path: Path, kind: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the entries of the manifest among the files of `path`. Raises FileError if it is not one of this kind."""
    content = _required(path, files, MANIFEST)
    try:
        manifest = verify_checksum(content)
        written_kind, version, entries = manifest["onecycle"], manifest["format"], manifest["files"]
        if not (isinstance(written_kind, str) and isinstance(version, int) and isinstance(entries, dict)):
            raise ValueError("unexpected content")
    except (ValueError, KeyError) as error:
        raise FileError(f"{path / MANIFEST}: not a manifest that onecycle wrote ({error}); {_ADVICE}") from error
    if version > FORMAT:
        raise FileError(f"{path}: format {version} is newer than this onecycle reads ({FORMAT}); upgrade it")
    if written_kind != kind:
        reader = f"; {_READERS[written_kind]}" if written_kind in _READERS else ""
        raise FileError(f"{path}: holds a {written_kind}; expected a {kind}{reader}")
    if any(name != Path(name).name or name in ("", ".", "..") for name in entries):
        raise FileError(f"{path / MANIFEST}: names a file outside of the folder; {_ADVICE}")
    return entries


def _required(path: Path, files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise FileError(f"{path / name}: cannot be read (it is not in the zip file); {_ADVICE}")
    return files[name]


def _read_listed(folder: Path, entries: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the content of the files with these manifest entries, verified."""
    return {name: _verified(folder / name, _read_file(folder / name, entry), entry) for name, entry in entries.items()}


def _read_file(path: Path, entry: Any = None) -> bytes:
    """Return the content of a file; its size is compared with its manifest entry first, as it may be huge."""
    try:
        if entry is not None:
            _verify_size(path, path.stat().st_size, entry)
        return read_own(path, _MAX_MANIFEST_BYTES if entry is None else entry["bytes"])
    except FileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        advice = "copy it with the files themselves (cp -RL)" if path.is_symlink() else _ADVICE
        raise FileError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); {advice}") from error


def _verified(path: Path, data: bytes, entry: Any) -> bytes:
    """Return the content of a file. Raises FileError if its size or SHA-256 is not that of its manifest entry."""
    _verify_size(path, len(data), entry)
    if _entry(data) != entry:
        raise FileError(f"{path}: damaged (its SHA-256 is not that of {MANIFEST}); {_ADVICE}")
    return data


def _verify_size(path: Path, size: int, entry: Any) -> None:
    if not isinstance(entry, dict) or size != entry.get("bytes"):
        raise FileError(f"{path}: damaged ({size:,} bytes, not those of {MANIFEST}); {_ADVICE}")


def _content(path: Path, files: dict[str, bytes]) -> Content:
    """Return the state and the tensors in the verified files of an archive."""
    state = _state(path, files.pop(_STATE, b""))
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, data in files.items():
        try:
            tensors[Path(name).stem] = load(data)
        except (safetensors.SafetensorError, *_LOAD_ERRORS) as error:
            raise FileError(f"{path / name}: not a safetensors file ({error})") from error
    return state, tensors


def _state(path: Path, data: bytes) -> dict[str, Any]:
    try:
        state = json.loads(data)
        if not isinstance(state, dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path / _STATE}: not a state that onecycle wrote ({error})") from error
    return state


def _files_in_zip(path: Path, file: IO[bytes], only: str | None = None) -> dict[str, bytes]:
    """Return the files in a zip file (or `only` one) by name. Raises FileError if it is damaged or not one of ours."""
    try:
        if only is None:
            _check_zip_digest(path, file)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_zip_entries(path, entries, file.seek(0, os.SEEK_END))
            return {entry.filename: archive.read(entry) for entry in entries if only in (None, entry.filename)}
    except _ZIP_ERRORS as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path}: not a zip file, or a damaged one ({error}); {_ADVICE}") from error


def _check_zip_entries(path: Path, entries: list[zipfile.ZipInfo], size: int) -> None:
    """Raise FileError for entries that onecycle does not write, before any of them is read."""
    if len(entries) > _MAX_FILES:
        raise FileError(f"{path}: holds {len(entries):,} files; expected at most {_MAX_FILES}; {_ADVICE}")
    if len({entry.filename.lower() for entry in entries}) < len(entries):
        raise FileError(f"{path}: holds a file twice; {_ADVICE}")
    for entry in entries:
        name = entry.filename
        if name != Path(name).name or name.startswith(".") or "\\" in name or ":" in name:
            raise FileError(f"{path}: names {name!a}, which is outside of the bundle; nothing was unpacked; {_ADVICE}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise FileError(f"{path}: {name} is compressed or encrypted, which onecycle never does; {_ADVICE}")
        if name == MANIFEST and entry.file_size > _MAX_MANIFEST_BYTES:
            raise FileError(f"{path}: its {MANIFEST} has more than {_MAX_MANIFEST_BYTES:,} bytes; {_ADVICE}")
    if sum(entry.file_size for entry in entries) > size:
        raise FileError(f"{path}: says that it holds more bytes than it has; {_ADVICE}")


def _check_zip_digest(path: Path, file: IO[bytes]) -> None:
    """Raise FileError if a zip file does not end with its SHA-256. One that was packed by hand has no comment."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _ZIP_END_SIZE - _DIGEST_SIZE, 0))
    tail = file.read()
    if tail[-_ZIP_END_SIZE:].startswith(_ZIP_END) and tail.endswith(bytes(len(_COMMENT_LENGTH))):
        return
    digest = _digest_of_first(size - _DIGEST_SIZE - len(_COMMENT_LENGTH), file)
    if not tail.startswith(_ZIP_END) or tail[_ZIP_END_SIZE - 2 :] != _COMMENT_LENGTH + digest:
        raise FileError(
            f"{path}: not a bundle that onecycle wrote, or a damaged one (it does not end with its SHA-256); {_ADVICE}"
        )


def _digest_of_first(size: int, file: IO[bytes]) -> bytes:
    """Return the SHA-256, in hexadecimal, of the first `size` bytes of a file."""
    digest = sha256()
    file.seek(0)
    while size > 0 and (block := file.read(min(size, 2**20))):
        size -= len(block)
        digest.update(block)
    return digest.hexdigest().encode()
