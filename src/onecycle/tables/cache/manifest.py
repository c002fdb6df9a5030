"""What a folder of the cache holds, as JSON, and whether it still holds it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import file_digest, sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from onecycle.core.files import write_text
from onecycle.tables.features import Features
from onecycle.tables.profile import ColumnProfile
from onecycle.tables.target import Target

MANIFEST = "manifest.json"
FORMAT = 1


class DamagedCacheError(Exception):
    """A folder of the cache does not hold what was written; the message says what is wrong with it."""


@dataclass(frozen=True)
class RowFile:
    """Rows of numbers, one after another, little-endian and nothing else: a file in a folder of the cache."""

    name: str
    dtype: str  # NumPy's name
    shape: tuple[int, ...]  # rows first
    sha256: str
    mtime_ns: int

    @property
    def bytes(self) -> int:
        """How long the file is."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def check(self, folder: Path, content: bool = False) -> "RowFile":
        """The file, with the time at which it is known to be whole.

        The content is looked at where it is asked for, and where the file was written to since. Raises
        DamagedCacheError where it is not what was written.
        """
        path = folder / self.name
        try:
            found = path.stat()
            if found.st_size != self.bytes:
                raise DamagedCacheError(f"{self.name} has {found.st_size:,} bytes instead of {self.bytes:,}")
            if content or found.st_mtime_ns != self.mtime_ns:
                with path.open("rb") as file:
                    if file_digest(file, "sha256").hexdigest() != self.sha256:
                        raise DamagedCacheError(f"{self.name} was changed")
        except OSError as error:
            raise DamagedCacheError(f"{self.name} cannot be read ({error.strerror or error})") from error
        return replace(self, mtime_ns=found.st_mtime_ns)


@dataclass(frozen=True)
class Manifest:
    """What was made of which source, and the settings that it was made with."""

    source: str  # the path it had
    source_sha256: str
    settings: dict[str, Any]
    files: dict[str, RowFile]  # by part: train_x, train_y, valid_x, …
    target: dict[str, Any]
    features: dict[str, Any] | None  # None for inputs that are taken as they are
    columns: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    class_counts: list[int] | None = None  # training rows of each class or label

    @property
    def bytes(self) -> int:
        """What the files take."""
        return sum(file.bytes for file in self.files.values())

    def rows(self, side: str) -> int:
        """How many rows there are to train on, validate or test."""
        return self.files[f"{side}_y"].shape[0] if f"{side}_y" in self.files else 0

    def fitted(self) -> tuple[Features | None, Target, tuple[ColumnProfile, ...]]:
        """How raw rows become inputs and targets. Raises DataError for what this version did not write."""
        features = None if self.features is None else Features.from_dict(self.features)
        return features, Target.from_dict(self.target), tuple(ColumnProfile(**column) for column in self.columns)

    def write(self, folder: Path) -> None:
        """Write it to `folder`, whole or not at all."""
        text = _canonical(asdict(self))
        written = {"format": FORMAT, "sha256": sha256(text.encode()).hexdigest(), "manifest": json.loads(text)}
        write_text(folder / MANIFEST, json.dumps(written, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of `folder`. Raises DamagedCacheError where there is none that this version wrote."""
        try:
            written = json.loads((folder / MANIFEST).read_text("utf-8"))
            found = written["manifest"]
            if written["format"] != FORMAT or sha256(_canonical(found).encode()).hexdigest() != written["sha256"]:
                raise DamagedCacheError(f"{MANIFEST} was changed")
            files = {part: RowFile(**file | {"shape": tuple(file["shape"])}) for part, file in found["files"].items()}
            return cls(**found | {"files": files})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedCacheError(f"{MANIFEST} cannot be read ({error})") from error

    def check(self, folder: Path, content: bool = False) -> "Manifest":
        """The manifest, as it is to be written where files are whole but have other times, as copies do.

        Raises DamagedCacheError where a file in `folder` is not what was written.
        """
        return replace(self, files={part: file.check(folder, content) for part, file in self.files.items()})


def column_dicts(columns: Sequence[ColumnProfile]) -> list[dict[str, Any]]:
    """Columns as plain JSON."""
    return [asdict(column) for column in columns]


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))  # in its order, which means something
