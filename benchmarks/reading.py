"""Reading and preparing a CSV file of 1,000,000 rows and 20 columns, beside pyarrow's read and one pass over the data.

    python benchmarks/reading.py [--rows 1000000] [--rounds 5]

"Ours" is DataBunch.from_table: kinds of columns found, rows split, statistics fitted, tensors made. "Theirs" is
pyarrow.csv.read_csv and one pass that makes a float32 matrix of it and takes the mean of each column. In turn, in one
process; the ratio of the medians counts.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from onecycle import DataBunch


def make(path: Path, rows: int) -> None:
    """Sixteen numbers, two categories, a time and a target of two classes."""
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {f"n{i}": random.normal(size=rows).round(4) for i in range(13)}
    columns |= {f"k{i}": random.integers(0, 1_000, rows) for i in range(3)}
    columns |= {"color": random.choice(["red", "green", "blue"], rows)}
    columns |= {"shop": np.array([f"v{i}" for i in range(200)])[random.integers(0, 200, rows)]}
    columns |= {"sold": np.datetime64("2015-01-01", "s") + random.integers(0, 3 * 10**8, rows).astype("m8[s]")}
    columns |= {"y": np.where(columns["n0"] + random.normal(size=rows) > 0, "yes", "no")}
    csv.write_csv(pa.table(columns), path)


def read(path: Path) -> Any:
    """What pyarrow takes by itself."""
    return csv.read_csv(path)


def read_and_pass(path: Path) -> Any:
    """The same, a matrix of it, and the means."""
    table = read(path)
    matrix = np.empty((table.num_rows, table.num_columns), np.float32)
    for i, column in enumerate(table.columns):
        if pa.types.is_string(column.type):
            column = pc.index_in(column.combine_chunks(), pc.unique(column))
        matrix[:, i] = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column.to_numpy()
    return matrix.mean(0, dtype=float)


def ours(path: Path) -> Any:
    """From the file to batches."""
    return DataBunch.from_table(path, target="y", seed=1, device="cpu")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ways: tuple[Callable[[Path], Any], ...] = (read, read_and_pass, ours)
    with tempfile.TemporaryDirectory() as folder:
        make(path := Path(folder, "rows.csv"), options.rows)
        seconds: dict[str, list[float]] = {way.__name__: [] for way in ways}
        for number in range(options.rounds + 1):
            for way in ways:
                started = time.perf_counter()
                way(path)
                if number:  # the first round warms up
                    seconds[way.__name__].append(time.perf_counter() - started)
        size = path.stat().st_size
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{options.rows:,} rows of 20 columns, {size / 1e6:.0f} MB, medians of {options.rounds}")
    for name, median in medians.items():
        print(f"{name:>14} {median:6.2f} s   {median / medians['read_and_pass']:.2f} of read_and_pass")


if __name__ == "__main__":
    main()
