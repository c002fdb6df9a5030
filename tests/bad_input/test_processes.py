"""Bad input met by real processes: exit codes, streams, what is left behind, and how much memory it takes."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bad_input.case import Case, check_refusal, copied, snapshot
from bad_input.makers import Evil, Make, bomb_gz, bomb_npz, csv_text, parquet, pickled, written
from onecycle.errors import OneCycleError
from onecycle.tables.read import read_table

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


SMALL_BOMBS = [
    # rows are parsed while they are unpacked: four bytes of text are two numbers of eight
    ("rows.csv.gz", bomb_gz("rows.csv.gz", b"a,b\n", b"0,0\n", 2**26 / 2**30), 6 * CAP),
    ("numbers.parquet", parquet("numbers.parquet", pa.table({"a": np.zeros(2**23), "b": np.arange(2**23) % 2})), 2 * CAP),
    # a batch is counted when it is there
    ("batch.arrow", one_batch("batch.arrow", pa.table({"a": np.zeros(2**23)})), 2**26 + 2 * CAP),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "most"), SMALL_BOMBS, ids=[name for name, _, _ in SMALL_BOMBS])
def test_what_unpacks_to_more_than_the_cap_is_stopped(name: str, make: Make, most: int, place: Path) -> None:
    make()
    with arrow_memory() as pool:
        with pytest.raises(OneCycleError, match="takes more than the cap of 8,388,608 bytes"):
            read_table(name, max_bytes=CAP)
        assert pool.max_memory() < most
