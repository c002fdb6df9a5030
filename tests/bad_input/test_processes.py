"""Bad input met by real processes: exit codes, streams, what is left behind, and how much memory it takes."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bad_input.case import Case, check_refusal, copied, snapshot
from bad_input.makers import Evil, Make, bomb_gz, bomb_npz, csv_text, parquet, pickled, written
from onecycle.errors import OneCycleError
from onecycle.tables.read import read_table, stream_table

pytestmark = pytest.mark.slow

PROCESSES = [
    Case("a missing file", "train sales.csv --target price", "sales.csv: no such file; check the path"),
    Case("a cell that is no number", "inspect a.csv", 'a.csv:42: column "age"', written("a.csv", csv_text() + "old,U,a\n")),
    Case("an unsafe pickle", "train a.pkl", "nothing of it was run", pickled("a.pkl", Evil())),
    Case("a row too long", "predict table b.csv -o out.csv", "b.csv:42: 4 cells; expected 3",
         written("b.csv", csv_text() + "1,U,a,b\n")),
    Case("a learning rate that makes NaN", "train a.parquet --target group --lr 1e30 --epochs 2 --bs 8 --model mlp:4",
         "the loss became", code=1, told=True),
]  # fmt: skip

BOMBS = [
    Case("a line of 2 GiB", "inspect a.csv.gz", "a.csv.gz: the row after that of line 1 has a cell of more than",
         bomb_gz("a.csv.gz", b"age,group\n", b"0", 2)),
    Case("zeros of 3 GiB", "inspect a.npz", "a.npz: takes more than the cap of 2,147,483,648 bytes", bomb_npz("a.npz")),
]  # fmt: skip


# the peak of a process counts from that of its parent, and this one is large
SMALL_PARENT = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


def finished(command: str, place: Path) -> tuple[int, str, str, int]:
    """Exit code, stdout and stderr of a command, and the bytes of memory that it took at most."""
    used = place / "used"
    words = [sys.executable, "-c", SMALL_PARENT, used, sys.executable, "-m", "onecycle", *command.split()]
    found = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    taken = int(used.read_text())
    used.unlink()
    return found.returncode, found.stdout, found.stderr, taken * 1024


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in PROCESSES])
def test_processes_refuse_bad_input(case: Case, runs: Path, place: Path) -> None:
    copied(runs)
    case.make()
    before = snapshot(place)
    check_refusal(case, *finished(case.command, place)[:3])
    assert snapshot(place) == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in BOMBS])
def test_bombs_take_little_memory(case: Case, place: Path) -> None:
    case.make()
    code, out, err, taken = finished(case.command, place)
    check_refusal(case, code, out, err)
    assert taken < 700 * 2**20  # of which torch's import takes 250
    assert [path.name for path in Path().iterdir()] == [case.command.split()[1]]


CAP = 2**23
POOLS: list[Any] = []  # that live on: pyarrow may give memory back to one long after


@contextmanager
def arrow_memory() -> Generator[Any]:
    """A pool of pyarrow that counts what is taken inside."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    POOLS.append(pool)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(before)


def one_batch(name: str, table: pa.Table) -> Make:
    """Writes an Arrow file of one batch, packed."""

    def make() -> None:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.OSFile(name, "wb") as file, pa.ipc.new_file(file, table.schema, options=options) as writer:
            writer.write_table(table)

    return make


def arrow(name: str, column: pa.Array, edit: tuple[int, int] | None = None, **options: Any) -> Make:
    """Writes a column as an Arrow file; `edit` replaces a number of 64 bits, as a length that it states."""

    def make() -> None:
        table = pa.table({"a": column})
        settings = pa.ipc.IpcWriteOptions(allow_64bit=True, **options)
        with pa.OSFile(name, "wb") as file, pa.ipc.new_file(file, table.schema, options=settings) as writer:
            writer.write_table(table)
        if edit is not None:
            old, new = (number.to_bytes(8, "little") for number in edit)
            content = Path(name).read_bytes()
            assert old in content
            Path(name).write_bytes(content.replace(old, new))

    return make


def few_texts(rows: int) -> Make:
    """Writes rows of one long text as a Parquet file, which has it once."""

    def make() -> None:
        codes = pa.array(np.zeros(rows, np.int32))
        table = pa.table({"a": pa.DictionaryArray.from_arrays(codes, pa.array(["x" * 2**16]))})
        pq.write_table(table, "few.parquet", store_schema=False)

    return make


def views(rows: int) -> pa.Array:
    """Views of all of the same values."""
    return pa.ListViewArray.from_arrays(np.zeros(rows, np.int32), np.full(rows, rows, np.int32), np.arange(rows))


def text_views(rows: int) -> pa.Array:
    """Views of the same text."""
    _, one, data = pa.array(["x" * 2**16], pa.string_view()).buffers()
    many = pa.py_buffer(np.tile(np.frombuffer(one, np.int32), (rows, 1)).tobytes())
    return pa.Array.from_buffers(pa.string_view(), rows, [None, many, data])


def runs(end: int, value: Any) -> pa.Array:
    return pa.RunEndEncodedArray.from_arrays(pa.array([end], pa.int64()), pa.array([value]))


FAR = 2**40  # rows, or bytes
ZEROS = np.zeros(1_000, np.int64)
SMALL_BOMBS = [
    ("few.parquet", few_texts(2**14), 2 * CAP),
    ("nulls.parquet", parquet("nulls.parquet", pa.table({"a": pa.nulls(2**22)})), CAP),
    ("null_lists.parquet", parquet("null_lists.parquet", pa.table({"a": [[None] * 2**20] * 80}, pa.schema([("a", pa.list_(pa.int8()))]))), 2 * CAP),
    ("runs.arrow", arrow("runs.arrow", runs(FAR, 1)), CAP),
    ("text_runs.arrow", arrow("text_runs.arrow", runs(2**14, "x" * 2**16)), CAP),
    ("views.arrow", arrow("views.arrow", views(2**13)), CAP),
    ("text_views.arrow", arrow("text_views.arrow", text_views(2**14)), CAP),
    ("nulls.arrow", arrow("nulls.arrow", pa.nulls(1_234_567), (1_234_567, FAR)), CAP),
    ("stated.arrow", arrow("stated.arrow", pa.array(ZEROS), (8_000, FAR), compression="zstd"), CAP),
    ("stated_values.arrow", arrow("stated_values.arrow", pa.DictionaryArray.from_arrays([0], ZEROS), (8_000, FAR), compression="lz4"), CAP),
    # rows are parsed while they are unpacked: four bytes of text are two numbers of eight
    ("rows.csv.gz", bomb_gz("rows.csv.gz", b"a,b\n", b"0,0\n", 2**26 / 2**30), 6 * CAP),
    ("numbers.parquet", parquet("numbers.parquet", pa.table({"a": np.zeros(2**23), "b": np.arange(2**23) % 2})), 2 * CAP),
    ("batch.arrow", one_batch("batch.arrow", pa.table({"a": np.zeros(2**23)})), CAP),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "most"), SMALL_BOMBS, ids=[name for name, _, _ in SMALL_BOMBS])
def test_what_unpacks_to_more_than_the_cap_is_stopped(name: str, make: Make, most: int, place: Path) -> None:
    make()
    with arrow_memory() as pool:
        with pytest.raises(OneCycleError, match="takes more than the cap of 8,388,608 bytes"):
            read_table(name, max_bytes=CAP)
        assert pool.max_memory() < most


HUGE = [
    ("few.parquet", few_texts(2**15 + 2**10), "takes more than the cap of 2,147,483,648 bytes"),
    ("runs.arrow", arrow("runs.arrow", runs(FAR, 1)), "1,099,511,627,776 rows in"),
    ("nulls.arrow", arrow("nulls.arrow", pa.nulls(1_234_567), (1_234_567, FAR)), "1,099,511,627,776 rows in"),
    ("views.arrow", arrow("views.arrow", views(2**15)), "takes more than the cap of 2,147,483,648 bytes"),
    ("stated.arrow", arrow("stated.arrow", pa.array(ZEROS), (8_000, FAR), compression="zstd"), "takes more than the cap"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "message"), HUGE, ids=[name for name, _, _ in HUGE])
def test_a_stream_of_far_more_than_its_file_is_stopped(name: str, make: Make, message: str, place: Path) -> None:
    make()
    with arrow_memory() as pool:
        with pytest.raises(OneCycleError, match=message):
            list(stream_table(name))
        assert pool.max_memory() < 2 * CAP
