"""A folder of tensors and JSON that is there whole or not at all, and that is checked when it is read.

`tensors.safetensors` files hold tensors, `state.json` the rest, with the size and SHA-256 of each tensor file. Nothing
in it can run code.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import safetensors
from safetensors.torch import load, save
from torch import Tensor

from onecycle.core.errors import FileError, OutputError
from onecycle.core.files import sync_folder, unwritable
from onecycle.core.record import plain

Tensors: TypeAlias = Mapping[str, Tensor]
FORMAT = 1
_STATE = "state.json"


def write_folder(
    folder: Path, kind: str, tensors: Mapping[str, Tensors], state: Mapping[str, Any], replace: bool
) -> None:
    """Write `folder` with a safetensors file for each item of `tensors`, and `state` as JSON.

    It is made beside its place, synced to the disk, and renamed. With `replace` an older folder that this function
    wrote is replaced; while the two change places, the older one is kept as `.NAME.replaced`. Raises OutputError where
    something else is in the way, or nothing can be written.
    """
    check_place(folder, kind, replace)
    replaced = _replaced(folder)
    check_place(replaced, kind, replace=True)
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
        temporary.chmod(0o755)  # mkdtemp makes folders that only their owner can read
        files = {f"{name}.safetensors": save(_plain(group)) for name, group in tensors.items()}
        listed = {name: _fingerprint(data) for name, data in files.items()}
        about = {"onecycle": kind, "format": FORMAT, "files": listed, **state}
        files[_STATE] = json.dumps(about, indent=1, allow_nan=False, default=plain).encode()
        for name, data in files.items():
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
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def read_folder(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """The state and the tensors that `write_folder` wrote, every file checked against its size and SHA-256.

    Raises FileError, naming the file, where something is missing, damaged or of another kind.
    """
    if not folder.exists() and _replaced(folder).exists():
        folder = _replaced(folder)  # the writer was stopped while the two changed places
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder; expected a {kind} that onecycle wrote")
    state = _read_state(folder, kind)
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, expected in state["files"].items():
        data = _read(folder / Path(name).name)  # never outside the folder
        if _fingerprint(data) != expected:
            raise FileError(f"{folder / name}: damaged (size or SHA-256 differ from {_STATE}'s); use another copy")
        try:
            tensors[Path(name).stem] = load(data)
        except safetensors.SafetensorError as error:
            raise FileError(f"{folder / name}: not a safetensors file ({error})") from error
    return state, tensors


def _read_state(folder: Path, kind: str) -> dict[str, Any]:
    try:
        state = json.loads(_read(folder / _STATE))
        found, files = state["onecycle"], state["files"].items()
        if not isinstance(state["format"], int) or not all(isinstance(name, str) for name, _ in files):
            raise ValueError("unexpected content")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileError(f"{folder / _STATE}: not a state that onecycle wrote ({error})") from error
    if found != kind:
        raise FileError(f"{folder}: holds a {found}; expected a {kind}")
    if state["format"] > FORMAT:
        raise FileError(f"{folder}: format {state['format']} is newer than this onecycle reads ({FORMAT}); upgrade it")
    return state


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        raise FileError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _fingerprint(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def check_place(folder: Path, kind: str, replace: bool) -> None:
    """Raises OutputError where something is in the way at `folder` that may not be replaced."""
    if not folder.exists():
        return
    if not replace:
        raise OutputError(f"{folder} exists; give another name, or ask for it to be replaced (overwrite=True)")
    try:
        _read_state(folder, kind)
    except FileError as error:
        raise OutputError(f"{folder} exists and is no {kind} that onecycle wrote; give another name") from error


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def _plain(tensors: Tensors) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory, as safetensors wants them (tied weights do share)."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
