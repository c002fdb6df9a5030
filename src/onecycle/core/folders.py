"""A folder of tensors and JSON that is there whole or not at all, and that is checked when it is read.

`.safetensors` files hold tensors, `state.json` the rest, `manifest.json` the size and SHA-256 of each. Nothing in it
can run code.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import safetensors
from safetensors.torch import load, save
from torch import Tensor

from onecycle.core.files import sync_folder, temporary_beside, unwritable, with_checksum
from onecycle.core.record import to_jsonable
from onecycle.errors import FileError, OutputError

MANIFEST = "manifest.json"
FORMAT = 1
_ADVICE = "use another copy"


def manifest_text(kind: str, files: dict[str, bytes]) -> str:
    """The manifest of a folder of this kind with these files, as text."""
    return with_checksum(
        {"onecycle": kind, "format": FORMAT, "files": {name: _digest(data) for name, data in files.items()}}
    )


def read_verified(folder: Path, kind: str, only: str | None = None) -> dict[str, bytes]:
    """The content of the files of a folder (or of `only` one), each checked against the manifest.

    Raises FileError, naming the file, where something is missing, damaged or of another kind.
    """
    files = read_manifest(folder, kind)
    return {name: _checked(folder / name, known) for name, known in files.items() if only in (None, name)}


def read_manifest(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """The names of the files, with the size and SHA-256 of each. Raises FileError as `read_verified` does."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder; expected a {kind} that onecycle wrote")
    text = read_bytes(path)
    try:
        found = json.loads(text)
        files = found["files"]
        if not (isinstance(found["format"], int) and isinstance(found["onecycle"], str) and isinstance(files, dict)):
            raise ValueError("unexpected content")
        del found["sha256"]
        again = with_checksum(found).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileError(f"{path}: not a manifest that onecycle wrote ({error}); {_ADVICE}") from error
    if found["format"] > FORMAT:
        raise FileError(f"{folder}: format {found['format']} is newer than this onecycle reads ({FORMAT}); upgrade it")
    if again != text:
        raise FileError(f"{path}: damaged (it does not have the SHA-256 that it says); {_ADVICE}")
    if found["onecycle"] != kind:
        raise FileError(f"{folder}: holds a {found['onecycle']}; expected a {kind}")
    if any(name != Path(name).name or name in ("", ".", "..") for name in files):  # never outside the folder
        raise FileError(f"{path}: names a file outside of the folder; {_ADVICE}")
    return files


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises FileError where it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        raise FileError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); {_ADVICE}") from error


def _checked(path: Path, expected: Any) -> bytes:
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        raise FileError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); {_ADVICE}") from error
    if not isinstance(expected, dict) or size != expected.get("bytes"):  # before what may be huge is read
        raise FileError(f"{path}: damaged ({size:,} bytes, not those of {MANIFEST}); {_ADVICE}")
    if _digest(data := read_bytes(path)) != expected:
        raise FileError(f"{path}: damaged (its SHA-256 is not that of {MANIFEST}); {_ADVICE}")
    return data


def _digest(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


Tensors: TypeAlias = Mapping[str, Tensor]
_STATE = "state.json"
_LOAD_ERRORS = (KeyError, RuntimeError, AssertionError)  # a dtype that torch has not, sizes beyond what it counts


def write_folder(
    folder: Path, kind: str, tensors: Mapping[str, Tensors], state: Mapping[str, Any], replace: bool
) -> None:
    """Write `folder` with a safetensors file for each item of `tensors`, and `state` as JSON.

    It is made beside its place, synced to the disk, and renamed. With `replace` an older folder that this function
    wrote is replaced; while the two change places, the older one is kept as `.NAME.replaced`. Raises OutputError where
    something else is in the way, or nothing can be written.
    """
    check_replaceable(folder, kind, replace)
    replaced = _replaced(folder)
    check_replaceable(replaced, kind, replace=True)
    temporary = temporary_beside(folder)
    try:
        temporary.mkdir(parents=True)
        files = {f"{name}.safetensors": save(_plain(group)) for name, group in tensors.items()}
        files[_STATE] = json.dumps(state, indent=1, allow_nan=False, default=to_jsonable).encode()
        for name, data in [*files.items(), (MANIFEST, manifest_text(kind, files).encode())]:
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(temporary)
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)  # left by a writer that was stopped; `folder` is whole
            folder.rename(replaced)
        temporary.rename(folder)
        sync_folder(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_folder(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """The state and the tensors that `write_folder` wrote, every file checked against the manifest.

    Raises FileError, naming the file, where something is missing, damaged or of another kind.
    """
    if not folder.exists() and _replaced(folder).exists():
        folder = _replaced(folder)  # the writer was stopped while the two changed places
    files = read_verified(folder, kind)
    state = _state(folder, files)
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, data in files.items():
        try:
            tensors[Path(name).stem] = load(data)
        except (safetensors.SafetensorError, *_LOAD_ERRORS) as error:
            raise FileError(f"{folder / name}: not a safetensors file ({error})") from error
    return state, tensors


def read_state(folder: Path, kind: str) -> dict[str, Any]:
    """The state alone, verified; the tensors are not looked at. Raises FileError as `read_folder` does."""
    return _state(folder, read_verified(folder, kind, only=_STATE))


def _state(folder: Path, files: dict[str, bytes]) -> dict[str, Any]:
    try:
        state = json.loads(files.pop(_STATE, b""))
        if not isinstance(state, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise FileError(f"{folder / _STATE}: not a state that onecycle wrote ({error})") from error
    return state


def check_replaceable(folder: Path, kind: str, replace: bool, read: Callable[[Path, str], Any] = read_manifest) -> None:
    """Raises OutputError where something is in the way at `folder` that may not be replaced.

    `read` raises FileError where that is not of this kind.
    """
    if not folder.exists():
        return
    if not replace:
        raise OutputError(f"{folder} exists; give another name, or ask for it to be replaced (overwrite=True)")
    try:
        read(folder, kind)
    except FileError as error:
        raise OutputError(f"{folder} exists and is no {kind} that onecycle wrote; give another name") from error


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def _plain(tensors: Tensors) -> dict[str, Tensor]:
    """On the CPU, sharing no memory, as safetensors wants them (tied weights do share).

    Copied only where that is needed: a copy made by the thread of a fit's checkpoints would start threads of its own,
    and OpenMP then lets those of the training sleep between any two kernels, which takes several times as long.
    """
    to_jsonable, taken = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage()
        if memory.data_ptr() in taken or memory.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        taken.add(tensor.untyped_storage().data_ptr())
        to_jsonable[name] = tensor
    return to_jsonable
