"""Let the k-th call of the system that writes fail, for every k: the old checkpoint stays, nothing temporary is left.

    python tests/durability/faults.py

Each of open, write, fsync, rename and mkdir is made to fail in turn with ENOSPC, EIO and EACCES while a checkpoint is
written over an older one. Then the same on a real file system that is full: a tmpfs of 1 MiB, where one can be mounted.
"""

import builtins
import errno
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from onecycle.core.archives import read_folder, write_folder
from onecycle.errors import OutputError

REASONS = (errno.ENOSPC, errno.EIO, errno.EACCES)
CALLS = {
    "open": (io, "open"),
    "fsync": (os, "fsync"),
    "rename": (os, "rename"),
    "mkdir": (os, "mkdir"),
    "write": (io, "open"),
}


class FailingFile:
    """A file whose first write fails after half of it."""

    def __init__(self, file: Any, fail: Callable[[], None]) -> None:
        self._file, self._fail = file, fail

    def write(self, data: bytes) -> int:
        """Write half, and fail where it is this one's turn."""
        try:
            self._fail()
        except OSError:
            self._file.write(data[: len(data) // 2])
            raise
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "FailingFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def failing(call: str, k: int, reason: int, below: Path) -> Generator[list[int]]:
    """The k-th such call on something below a folder fails; the list counts them."""
    home, name = CALLS[call]
    before, count = getattr(home, name), [0]

    def turn() -> None:
        count[0] += 1
        if count[0] == k:
            raise OSError(reason, os.strerror(reason))

    def stand_in(*args: Any, **options: Any) -> Any:
        path = args[0] if args else ""
        ours = call == "fsync" or (isinstance(path, str | os.PathLike) and str(path).startswith(str(below)))
        writes = call in ("rename", "mkdir", "fsync") or any("w" in str(mode) for mode in args[1:2])
        if not (ours and writes):
            return before(*args, **options)
        if call == "write":
            return FailingFile(before(*args, **options), turn)
        turn()
        return before(*args, **options)

    setattr(home, name, stand_in)
    opened = builtins.open
    if name == "open":
        builtins.open = stand_in
    try:
        yield count
    finally:
        setattr(home, name, before)
        builtins.open = opened


def checkpoint(value: float) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """Tensors and a state that say which one this is."""
    return {"model": {"w": torch.full((100, 100), value)}, "optimizer": {"m": torch.full((100, 100), value)}}, {
        "is": value
    }


def value_of(folder: Path) -> float:
    """Which one there is, whole."""
    state, tensors = read_folder(folder, "fit")
    assert all((part == state["is"]).all() for group in tensors.values() for part in group.values())
    return state["is"]


def torture(folder: Path) -> tuple[int, list[str]]:
    """How many faults there were, and what went wrong."""
    place, count, wrong = folder / "000", 0, list[str]()
    write_folder(place, "fit", *checkpoint(1.0), replace=True)
    for call in CALLS:
        for reason in REASONS:
            k = 0
            while True:
                k += 1
                what = f"{call} number {k}, {errno.errorcode[reason]}"
                error = None
                with failing(call, k, reason, folder) as calls:
                    try:
                        write_folder(place, "fit", *checkpoint(2.0), replace=True)
                    except OutputError as raised:
                        error = raised
                if calls[0] < k:
                    break  # there is no k-th
                count += 1
                if error is not None and str(place) not in str(error):
                    wrong.append(f"{what}: the error does not name the path: {error}")
                try:
                    found = value_of(place)
                    if error is None and found != 2.0:  # a fault that does not matter is none: the folder was there
                        wrong.append(f"{what}: no error")
                except Exception as broken:
                    wrong.append(f"{what}: {broken}")
                if left := [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]:
                    wrong.append(f"{what}: left {left}")
                write_folder(place, "fit", *checkpoint(1.0), replace=True)
    return count, wrong


def on_a_full_disk(folder: Path) -> list[str] | None:
    """What went wrong on a tmpfs of 1 MiB; None where none can be mounted."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        return None
    wrong = list[str]()
    try:
        write_folder(folder / "a", "fit", *checkpoint(1.0), replace=True)
        large = {"model": {"w": torch.zeros(400_000)}}
        for name in ("a", "b"):
            try:
                write_folder(folder / name, "fit", large, {"is": 3}, replace=True)
                wrong.append(f"{name}: no error")
            except OutputError as error:
                if "No space left" not in str(error) or str(folder / name) not in str(error):
                    wrong.append(str(error))
        if value_of(folder / "a") != 1.0 or sorted(path.name for path in folder.iterdir()) != ["a"]:
            wrong.append(f"left {[path.name for path in folder.iterdir()]}")
    finally:
        subprocess.run(["umount", folder], check=True)
    return wrong


def main() -> int:
    """Print what was found; 1 where something went wrong."""
    with TemporaryDirectory() as folder:
        count, wrong = torture(Path(folder))
    full = on_a_full_disk(Path(tempfile.mkdtemp()))
    print(*wrong, *(full or ()), sep="\n")
    disk = "no tmpfs could be mounted" if full is None else f"a full disk: {len(full)} faults"
    print(f"{count} calls failed, {len(wrong)} went wrong; {disk}")
    return int(bool(wrong or full))


if __name__ == "__main__":
    sys.exit(main())
