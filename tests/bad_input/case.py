"""A case of bad input, and what always holds when one is refused."""

import hashlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onecycle.cli.app import run

Capture = pytest.CaptureFixture[str]


def nothing() -> None:
    """Makes no files."""


@dataclass(frozen=True)
class Case:
    """What is in the folder, what is asked for, and the words and the exit code with which it is refused.

    `unsaid` must not be in the message. `told` says that lines of progress come before the error.
    """

    name: str
    command: str
    message: str
    make: Callable[[], object] = nothing
    code: int = 2
    unsaid: str = ""
    told: bool = False


def each(cases: Iterable[Case]) -> list[Any]:
    """The cases as pytest's parameters."""
    found = [*cases]
    assert len({case.name for case in found}) == len(found)
    return [pytest.param(case, id=case.name) for case in found]


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """All that is below `folder`: of files kind, content, mode and when they were written."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
            found[str(path)] = (about.st_mode,)
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = (about.st_mode, about.st_mtime_ns, content)
    return found


def changes(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> list[str]:
    """The paths of what differs between two snapshots."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def refused(case: Case, commands: Sequence[str], place: Path, capsys: Capture) -> None:
    """Each of `commands` is refused as the case says, and leaves everything as it was."""
    capsys.readouterr()
    before = snapshot(place)
    for command in commands:
        code = run(shlex.split(command))
        out, err = capsys.readouterr()
        check_refusal(case, code, out, err)
        differing = changes(before, snapshot(place))
        assert not differing, f"left behind or overwritten by {command}: {differing}"


def check_refusal(case: Case, code: int, out: str, err: str) -> None:
    """One line that says what is wrong comes last on stderr; stdout, which is data, is empty."""
    assert case.message in err
    assert code == case.code, err
    assert out == ""
    *told, last = err.splitlines()
    assert last.startswith("error: ")
    assert case.message in last
    assert not told or case.told, told
    assert not any("error" in line.lower() or "Traceback" in line for line in told)
    for word in ("Traceback", "this is a bug", "onecycle.core", "<class", "object at 0x"):
        assert word not in last
    assert not case.unsaid or case.unsaid not in last


def copied(runs: Path) -> None:
    """Put a copy of everything in `runs` into the current folder."""
    shutil.copytree(runs, Path(), dirs_exist_ok=True)
