"""The manifest of a folder: the size and SHA-256 of each of its files, and of the manifest itself."""

import hashlib
import json
from pathlib import Path
from typing import Any

from onecycle.core.errors import FileError
from onecycle.core.signed import signed

MANIFEST = "manifest.json"
FORMAT = 1
_ADVICE = "use another copy"


def manifest_text(kind: str, files: dict[str, bytes]) -> str:
    """The manifest of a folder of this kind with these files, as text."""
    return signed({"onecycle": kind, "format": FORMAT, "files": {name: _print(data) for name, data in files.items()}})


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
        again = signed(found).encode()
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
    if _print(data := read_bytes(path)) != expected:
        raise FileError(f"{path}: damaged (its SHA-256 is not that of {MANIFEST}); {_ADVICE}")
    return data


def _print(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
