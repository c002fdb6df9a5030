"""How large the table or the arrays in a file are, without reading all of it."""

import math
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from onecycle.errors import SettingError
from onecycle.tables.cache.arrays import array_parts, column_names, is_array_file
from onecycle.tables.csv_file import inspect_csv
from onecycle.tables.file_bytes import COMPRESSIONS, DecompressedFile
from onecycle.tables.read import stream_table

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_UNKNOWN = 4 * 10**9  # half of what a machine has that does not say


def parse_size(value: Any, name: str) -> int:
    """A number of bytes from a number, or from text such as "500 MB", "2 GB" or "1.5 GiB".

    Raises SettingError for anything else.
    """
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]i?)?b?\s*", value.lower())
        with suppress(ValueError):  # 1.2.3
            value = float(found[1]) * _UNITS[found[2] or ""] if found else value
    if isinstance(value, bool) or not isinstance(value, Real) or not 1 <= float(value) < 2**63:
        raise SettingError(f'{name} is {value!r}; expected a number of bytes, or a size such as "500 MB" or "2 GB"')
    return int(float(value))


def size_text(count: float) -> str:
    """A number of bytes in words: "2.1 GB", "840 MB"."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"


def default_memory_limit() -> int:
    """Half of the memory that is available now: of the machine, or of the container where it has less."""
    found = [read() for read in (_available, _container, _physical)]
    known = [count for count in found[:2] if count is not None] or [count for count in found[2:] if count is not None]
    return min(known) // 2 if known else _UNKNOWN


def _available() -> int | None:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    return None


def _container() -> int | None:
    """What a container may still take, where Linux says so."""
    pairs = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    for most, used in pairs:
        with suppress(OSError, ValueError):  # "max" where there is no limit
            folder = Path("/sys/fs/cgroup")
            return max(int((folder / most).read_text()) - int((folder / used).read_text()), 2**28)
    return None


def _physical() -> int | None:
    """Half of the memory of a machine that does not say how much is available."""
    with suppress(AttributeError, OSError, ValueError):
        ask: Callable[[str], int] = os.sysconf
        return ask("SC_PHYS_PAGES") * ask("SC_PAGE_SIZE")
    return None


_PARQUET, _ARROW = (".parquet", ".pq"), (".arrow", ".feather", ".ipc")
_LOOKED_AT = 10_000  # rows
_HEAD = 2**20  # bytes
_CELL, _FLOAT = 8, 4  # bytes
_COPIES = 2  # of the table: as it was read, and its training rows


@dataclass(frozen=True)
class Shape:
    """The columns of a file, the bytes of a row in memory and, about, the number of rows.

    `as_is`: the inputs are an array that is taken as it is, such as of images; the columns are those of the target.
    """

    names: list[str]
    row_bytes: int
    rows: int
    as_is: bool = False

    @property
    def working_bytes(self) -> int:
        """About how much memory preparing it takes: the table, its training rows, and their matrix of float32."""
        return self.rows * (_COPIES * self.row_bytes + _FLOAT * len(self.names))


def shape_of(path: Path) -> Shape:
    """The shape of a file, by the footer of Parquet and Arrow, the headers of arrays, the size and head of CSV.

    Raises what reading raises, and ValueError for arrays that cannot be streamed.
    """
    name = path.name.lower()
    if is_array_file(path):
        parts = array_parts(path)
        names, as_is = column_names(parts)
        row = sum(part.dtype.itemsize * math.prod(part.shape[1:]) for part in parts)
        return Shape(names, row, parts[0].shape[0], as_is)
    if not name.endswith((*_PARQUET, *_ARROW)):
        return _of_csv(path, ".tsv" in "".join(Path(name).suffixes[-2:]))
    batch = next(stream_table(path, rows=_LOOKED_AT))
    row = max(batch.nbytes // batch.num_rows, 1)
    rows = _parquet_rows(path) if name.endswith(_PARQUET) else _arrow_rows(path)
    return Shape(batch.schema.names, row, rows or path.stat().st_size // row)


def _parquet_rows(path: Path) -> int:
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs] -- it has none

    return pq.read_metadata(path).num_rows


def _arrow_rows(path: Path) -> int | None:
    """None for a stream, which has no footer."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    import pyarrow.dataset  # pyright: ignore[reportMissingTypeStubs] -- it has none

    try:
        return pyarrow.dataset.dataset(str(path), format="ipc").count_rows()
    except pa.ArrowException:
        return None


def _of_csv(path: Path, tabs: bool) -> Shape:
    names = inspect_csv(path, "\t" if tabs else None, None).names
    with DecompressedFile(path) as content:
        head = content.read(_HEAD)
    line = len(head) / max(head.count(b"\n"), head.count(b"\r"), 1)
    rows = path.stat().st_size * _expansion(path) / line
    return Shape(names, int(max(line, _CELL * len(names))), int(rows))


def _expansion(path: Path) -> float:
    """How many times larger the content of a file is than the file, from its first bytes."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    packing = COMPRESSIONS.get(path.suffix.lower())
    if packing is None:
        return 1.0
    with path.open("rb") as file:
        packed = file.read(_HEAD)
    stream, found = pa.CompressedInputStream(pa.BufferReader(packed), packing), 0
    with suppress(OSError):  # it ends in the middle
        while piece := stream.read(2**16):
            found += len(piece)
    return max(found / len(packed), 1.0)
