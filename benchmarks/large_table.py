"""A table larger than memory: what converting it and training from it take, and its speed beside training in memory.

    python benchmarks/large_table.py [--rows 20000000] [--format parquet|csv] [--memory-limit "1 GB"] [--rounds 5]
                                     [--folder FOLDER] [--out benchmarks/large_table]

Makes the file from a seed, piece by piece, in a temporary folder; each phase is a process of its own, whose peak memory
is the kernel's VmHWM: "first" converts and trains an epoch, "again" trains another from what was made, with the files
dropped from the page cache, "speed" trains on a part of the rows from the disk and from memory in turn, and the ratio
of the medians counts. Needs Linux and three times the disk space of the file.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS, COUNTS, CATEGORIES = 20, 2, (5, 50, 800)
PIECE = 500_000  # rows
PART = 2_500_000  # training rows, at most, of which both kinds of training are timed
ALLOWED = 500 * 10**6  # bytes above the limit


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


# --- the file --------------------------------------------------------------------------------------------------------


def pieces(rows: int, digits: int | None) -> Iterator[Any]:
    """The table's record batches: numbers, counts, categories, a date, and a target of two classes."""
    import pyarrow as pa

    weights = np.random.default_rng(0).normal(size=NUMBERS)
    for number, start in enumerate(range(0, rows, PIECE)):
        random, count = np.random.default_rng([1, number]), min(PIECE, rows - start)
        x = random.normal(size=(NUMBERS, count)).astype(np.float32)
        codes = [random.integers(0, size, count) for size in CATEGORIES]
        score = weights @ x / 4 + x[0] * x[1] + np.sin(codes[1]) + random.normal(size=count)
        x = x if digits is None else x.astype(float).round(digits)
        columns: dict[str, Any] = {f"n{i}": x[i] for i in range(NUMBERS)}
        columns |= {f"k{i}": random.integers(0, 1_000, count) for i in range(COUNTS)}
        for i, found in enumerate(codes):
            names = pa.array([f"v{code}" for code in range(CATEGORIES[i])])
            columns[f"c{i}"] = pa.DictionaryArray.from_arrays(pa.array(found.astype(np.int32)), names).cast(pa.string())
        moments = np.datetime64("2015-01-01", "s") + random.integers(0, 3 * 10**8, count).astype("m8[s]")
        yield pa.record_batch({**columns, "date": pa.array(moments), "y": pa.array(np.where(score > 0, "yes", "no"))})


def make(path: Path, rows: int) -> None:
    """Write the table as the suffix of `path` says."""
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    writer = None
    for batch in pieces(rows, 2 if path.suffix == ".csv" else None):
        if writer is None:
            kind = pc.CSVWriter if path.suffix == ".csv" else pq.ParquetWriter
            writer = kind(path, batch.schema)
        writer.write_batch(batch)
    assert writer is not None
    writer.close()


# --- what is measured, each in a process of its own -------------------------------------------------------------------


def peak() -> int:
    """The most memory that this process had at a time, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def opened(path: Path, limit: str) -> Any:
    """The converted table."""
    from onecycle.data.disk_loader import open_stream
    from onecycle.tables.spec import TableSpec

    found = open_stream(path, TableSpec("y"), limit)
    if found is None:
        raise SystemExit(f"{path} is smaller than {limit}: give a lower --memory-limit or more --rows")
    return found


def bunch(stream: Any, device: str = "cpu") -> Any:
    """The DataBunch of a converted table."""
    import torch

    from onecycle import DataBunch
    from onecycle.data.from_table import default_bs

    bs = default_bs(stream.rows)
    data = DataBunch(**stream.loaders(bs, bs, torch.device(device), seed=1), device=device, seed=1)
    data.features, data.target, data.columns = stream.fitted
    return data


def epoch(data: Any) -> dict[str, Any]:
    """An epoch of the default model."""
    from onecycle import Learner, accuracy

    learn = Learner(data, metrics=accuracy, silent=True)
    started = time.perf_counter()
    learn.fit_one_cycle(1, 3e-3)
    seconds = time.perf_counter() - started
    rows = len(data.train_ds)
    return {
        "epoch_seconds": seconds,
        "rows_per_second": (rows + len(data.valid_ds)) / seconds,
        "accuracy": learn.recorder.metrics[-1][0],
        "peak_training": peak(),
    }


def first(path: Path, limit: str, **_: Any) -> dict[str, Any]:
    """Convert, and train an epoch."""
    started = time.perf_counter()
    stream = opened(path, limit)
    figures = {"convert_seconds": time.perf_counter() - started, "peak_converting": peak()}
    manifest = stream.entry.manifest
    figures |= {"train_rows": stream.rows, "valid_rows": manifest.rows("valid"), "cache_bytes": manifest.bytes}
    return {**figures, **epoch(bunch(stream))}


def again(path: Path, limit: str, **_: Any) -> dict[str, Any]:
    """Find what was made, and train an epoch with nothing of it in the page cache."""
    started = time.perf_counter()
    stream = opened(path, limit)
    figures = {"open_seconds": time.perf_counter() - started}
    for file in stream.entry.folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return {**figures, **epoch(bunch(stream))}


def speed(path: Path, limit: str, rounds: int = 5) -> dict[str, Any]:
    """Epochs over the first rows of the files, from disk and memory in turn; the first round is not counted."""
    from onecycle import MLP, DataBunch, Learner
    from onecycle.data.disk_loader import DiskDataset, TableStream

    stream = opened(path, limit)
    manifest = stream.entry.manifest
    most = {part: PART if part.startswith("train") else PART // 10 for part in manifest.files}
    files = {
        part: replace(file, shape=(min(file.shape[0], most[part]), *file.shape[1:]))
        for part, file in manifest.files.items()
    }
    part = TableStream(replace(stream.entry, manifest=replace(manifest, files=files)), stream.buffer_bytes)
    on_disk = bunch(part)

    def held(side: str) -> Any:
        rows = DiskDataset(part.entry, side)
        return rows.read([range(len(rows))])

    bs = on_disk.train_dl.batch_size
    in_memory = DataBunch.create(held("train"), held("valid"), bs=bs, seed=1, device="cpu")
    in_memory.features, in_memory.target = on_disk.features, on_disk.target
    width = files["train_x"].shape[1]
    models: dict[str, Any] = {"TabularModel": lambda: None, f"MLP({width}, 50, 2)": lambda: MLP(width, 50, 2)}
    found: dict[str, Any] = {}
    for name, model in models.items():
        learners = {
            kind: Learner(data, model(), silent=True, engine="fast")  # as "auto" decides where there are many steps
            for kind, data in (("disk", on_disk), ("memory", in_memory))
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in learners}
        for number in range(rounds + 1):
            for kind, learn in learners.items():
                started = time.perf_counter()
                learn.fit(1, 1e-3)
                if number:
                    seconds[kind].append(time.perf_counter() - started)
            say(f"{name}, round {number} of {rounds}: {[f'{kind} {times[-1:]}' for kind, times in seconds.items()]}")
        medians = {kind: statistics.median(times) for kind, times in seconds.items()}
        found[name] = {"seconds": seconds, "ratio": medians["memory"] / medians["disk"]}
        found[name] |= {f"{kind}_rows_per_second": len(in_memory.train_ds) / median for kind, median in medians.items()}
    return {"rows": len(in_memory.train_ds), "batch_size": bs, "models": found}


PHASES = {"first": first, "again": again, "speed": speed}


# --- all of it -------------------------------------------------------------------------------------------------------


def measured(phase: str, path: Path, options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """What a phase gives, in a process of its own."""
    say(f"{phase} …")
    command = [sys.executable, __file__, "--phase", phase, "--file", path, "--rounds", str(options.rounds)]
    threads = {"OMP_NUM_THREADS": str(options.threads)}
    found = subprocess.run(
        [*map(str, command), "--memory-limit", options.memory_limit, "--threads", str(options.threads)],
        env={**os.environ, **threads, "ONECYCLE_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(found.stdout.splitlines()[-1])


def all_phases(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the file, measure, and say what was found."""
    from onecycle.tables.cache.sizes import parse_size

    path = folder / f"rows.{options.format}"
    say(f"making {options.rows:,} rows in {path} …")
    make(path, options.rows)
    limit = parse_size(options.memory_limit, "memory_limit")
    about = {"rows": options.rows, "columns": NUMBERS + COUNTS + len(CATEGORIES) + 1, "format": options.format}
    about |= {"file_bytes": path.stat().st_size, "memory_limit": limit, "threads": options.threads}
    figures = {phase: measured(phase, path, options, folder / "home") for phase in PHASES}
    peaks = [figures["first"]["peak_converting"], figures["first"]["peak_training"], figures["again"]["peak_training"]]
    return {**about, **figures, "within_limit_and_500_mb": max(peaks) <= limit + ALLOWED}


def markdown(found: dict[str, Any]) -> str:
    """The figures as a page."""
    one, two, speed = found["first"], found["again"], found["speed"]
    mb, gb = (lambda count: f"{count / 10**6:,.0f} MB"), (lambda count: f"{count / 10**9:.2f} GB")
    lines = [
        f"{found['rows']:,} rows of {found['columns']} columns and a target, {found['format']}, "
        f"{gb(found['file_bytes'])}; memory_limit {gb(found['memory_limit'])}; {found['threads']} thread(s).",
        "",
        "| | |",
        "| --- | ---: |",
        f"| conversion, once | {one['convert_seconds']:.0f} s |",
        f"| size on disk | {gb(one['cache_bytes'])} |",
        f"| opening the converted table again | {two['open_seconds']:.2f} s |",
        f"| peak memory, conversion | {mb(one['peak_converting'])} |",
        f"| peak memory, training after the conversion | {mb(one['peak_training'])} |",
        f"| peak memory, training from the converted table | {mb(two['peak_training'])} |",
        f"| allowed: the limit plus 500 MB | {mb(found['memory_limit'] + ALLOWED)} |",
        f"| epoch of {one['train_rows']:,} rows, validation included | {one['epoch_seconds']:.0f} s |",
        f"| the same, with an empty page cache | {two['epoch_seconds']:.0f} s |",
        f"| accuracy | {one['accuracy']:.4f} |",
        "",
        f"Training speed on {speed['rows']:,} rows, batches of {speed['batch_size']:,}, alternating in one process:",
        "",
        "| model | from disk | in memory | ratio |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, model in speed["models"].items():
        rates = [f"{model[f'{kind}_rows_per_second']:,.0f} rows/s" for kind in ("disk", "memory")]
        lines.append(f"| {name} | {' | '.join(rates)} | {model['ratio']:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the arguments; measure, or do one phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--memory-limit", default="1 GB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the files lie while it runs")
    parser.add_argument("--out", type=Path, help="writes OUT.md and OUT.json")
    parser.add_argument("--phase", choices=tuple(PHASES), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        import torch

        torch.set_num_threads(options.threads)
        given = {"rounds": options.rounds} if options.phase == "speed" else {}
        print(json.dumps(PHASES[options.phase](options.file, options.memory_limit, **given)))
        return
    folder = Path(tempfile.mkdtemp(prefix="onecycle-large-", dir=options.folder))
    try:
        found = all_phases(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(markdown(found))
    if options.out:
        options.out.with_suffix(".md").write_text(markdown(found))
        options.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
