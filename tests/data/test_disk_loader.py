"""Rows on the disk: each once an epoch, well mixed, the same for a seed, whatever happens in between."""

import gc
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from onecycle import MLP, Callback, DataBunch, Learner
from onecycle.data.disk_loader import DiskDataset, DiskLoader, TableStream, open_stream
from onecycle.errors import FileError, SettingError
from onecycle.tables.cache.folder import TableCache
from onecycle.tables.spec import TableSpec

CPU = torch.device("cpu")
SPEC = TableSpec("y")
ROWS = 2_000


def numbered(folder: Path, rows: int = ROWS) -> TableStream:
    """A stream whose x is the number of the row as bytes, and y the number modulo 3: rows can be told apart."""
    x = np.arange(rows).astype("<u4").view(np.uint8).reshape(rows, 2, 2)
    np.savez(folder / f"{rows}.npz", x=x, y=np.arange(rows) % 3)
    stream = open_stream(folder / f"{rows}.npz", SPEC, memory_limit=1)
    assert stream is not None
    return stream


@pytest.fixture
def stream(tmp_path: Path) -> TableStream:
    return numbered(tmp_path)


def loader(stream: TableStream, bs: int = 64, side: str = "train", **options: Any) -> DiskLoader:
    return DiskLoader(DiskDataset(stream.entry, side), bs, CPU, options.pop("seed", 5), **options)


def number(x: torch.Tensor) -> list[int]:
    """The numbers of rows of `numbered`, whose bytes have become floats."""
    return (x.reshape(-1, 4).double() @ torch.tensor([1.0, 2**8, 2**16, 2**24], dtype=torch.double)).long().tolist()


def order(batches: Iterator[Any]) -> list[list[int]]:
    return [number(x) for x, _ in batches]


def flat(batches: Iterator[Any]) -> list[int]:
    return [row for batch in order(batches) for row in batch]


def rows_on(stream: TableStream, side: str = "train") -> list[int]:
    """The numbers of the rows on a side, in the order of the file."""
    content = np.fromfile(stream.entry.folder / f"{side}_x.bin", "<u4")
    return content.tolist()


# --- the batches -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(
    bs=st.integers(3, 700),
    buffer=st.sampled_from([1, 100, 1_000, 5_000, 10**6]),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    epoch=st.integers(0, 5),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_row_comes_once_an_epoch(
    bs: int, buffer: int, drop_last: bool, shuffle: bool, epoch: int, stream: TableStream
) -> None:
    dl = loader(stream, bs, shuffle=shuffle, drop_last=drop_last, buffer_bytes=buffer)
    rows, found = rows_on(stream), order(dl.epoch(epoch))
    whole = len(rows) // bs * bs if drop_last else len(rows)
    assert len(found) == len(dl)
    assert [len(batch) for batch in found[:-1]] == [bs] * (len(found) - 1)
    taken = [row for batch in found for row in batch]
    assert len(set(taken)) == len(taken) == whole
    assert set(taken) <= set(rows)
    if not shuffle:
        assert taken == rows[:whole]


def test_all_rows_in_order_of_a_loader_that_shuffles_and_drops(stream: TableStream):
    shuffled = loader(stream, 50, shuffle=True, drop_last=True)
    next(iter(shuffled))
    fix = DataBunch(shuffled, device="cpu").fix_dl
    assert fix is not None
    assert fix.dataset is shuffled.dataset
    assert flat(iter(fix)) == rows_on(stream)
    assert order(shuffled.epoch(0)) == order(loader(stream, 50, shuffle=True, drop_last=True).epoch(0))


def test_x_and_y_stay_together(stream: TableStream):
    for x, y in loader(stream, 50, shuffle=True, buffer_bytes=4_000):
        assert [row % 3 for row in number(x)] == y.tolist()


def test_an_epoch_is_a_function_of_seed_and_number(stream: TableStream):
    options = {"shuffle": True, "buffer_bytes": 4_000}
    one, other = loader(stream, **options), loader(stream, **options)
    assert order(one.epoch(3)) == order(other.epoch(3))
    assert order(one.epoch(3)) != order(one.epoch(4))
    assert order(one.epoch(3)) != order(loader(stream, seed=6, **options).epoch(3))


def test_iterating_by_hand_gives_the_epochs_in_turn(stream: TableStream):
    by_hand = loader(stream, shuffle=True)
    assert [order(iter(by_hand)), order(iter(by_hand))] == [order(by_hand.epoch(0)), order(by_hand.epoch(1))]


def test_the_global_generators_are_not_touched(stream: TableStream):
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    flat(loader(stream, shuffle=True).epoch(0))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()


def test_batches_stay_as_they_were_given(stream: TableStream):
    batches = [x for x, _ in loader(stream, shuffle=True, buffer_bytes=2_000)]
    kept = [batch.clone() for batch in batches]
    assert all(torch.equal(one, other) for one, other in zip(batches, kept, strict=True))
    assert sorted(row for batch in batches for row in number(batch)) == rows_on(stream)


def test_bytes_become_floats_divided_by_the_scale(stream: TableStream):
    x, _ = next(loader(stream).epoch(0))
    scaled, _ = next(loader(stream, pixel_scale=256.0).epoch(0))
    assert x.dtype is torch.float32
    assert torch.equal(scaled, x / 256)
    assert stream.pixel_scale == 256.0


def test_a_peek_moves_nothing(stream: TableStream):
    dl = loader(stream, shuffle=True)
    assert number(dl.peek()[0]) == rows_on(stream)[:2]
    assert order(iter(dl)) == order(loader(stream, shuffle=True).epoch(0))


# --- how well they are mixed -----------------------------------------------------------------------------------------


def test_one_buffer_mixes_all_rows(stream: TableStream):
    places = np.array(flat(loader(stream, shuffle=True).epoch(0)))
    assert abs(np.corrcoef(places, np.arange(len(places)))[0, 1]) < 0.1
    neighbours = [np.abs(np.diff(flat(loader(stream, shuffle=True).epoch(k)))) == 1 for k in range(20)]
    assert np.mean(neighbours) * len(places) == pytest.approx(1.6, abs=0.8)  # as in a random order


def test_small_buffers_mix_blocks_from_everywhere(tmp_path: Path):
    stream = numbered(tmp_path, 40_000)
    dl = loader(stream, 256, shuffle=True, buffer_bytes=40_000 * 12 // 10)  # a tenth of the rows
    assert (dl.buffers, dl.block_rows) == (8, 62)
    places = np.array(flat(dl.epoch(0)))
    assert abs(np.corrcoef(places, np.arange(len(places)))[0, 1]) < 0.15  # 64 of 640 blocks at a time
    parts = places[: len(places) // 256 * 256].reshape(-1, 256)
    assert parts.mean(1).std() < 0.2 * places.std()  # each batch has rows from all of the file
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.15
    again = np.array(flat(dl.epoch(1)))
    assert abs(np.corrcoef(places, again)[0, 1]) < 0.05


@pytest.mark.parametrize("shuffle", [False, True])
def test_writing_to_a_batch_reaches_neither_the_file_nor_later_batches(stream: TableStream, shuffle: bool):
    dl = loader(stream, shuffle=shuffle, buffer_bytes=2_000)
    expected, content = order(dl.epoch(0)), rows_on(stream)
    found = []
    for x, y in dl.epoch(0):
        found.append(number(x))
        x.zero_()
        y.zero_()
    dl.peek()[0].zero_()
    assert found == expected
    assert rows_on(stream) == content


# --- ends in the middle ----------------------------------------------------------------------------------------------


def open_files(stream: TableStream) -> int:
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(link.is_relative_to(stream.entry.folder) and link.suffix == ".bin" for link in links)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("onecycle-read")]


def test_leaving_an_epoch_ends_its_thread_and_leaves_no_file_open(stream: TableStream):
    dl = loader(stream, shuffle=True, buffer_bytes=2_000)
    batches = dl.epoch(0)
    next(batches)
    assert len(threads()) == 1
    batches.close()
    assert threads() == []
    with pytest.raises(RuntimeError, match="mine"):
        for _ in dl:
            raise RuntimeError("mine")
    gc.collect()
    assert threads() == []
    for _ in range(3):
        next(dl.epoch(0))
    assert threads() == []
    assert open_files(stream) == 0


def test_errors_of_the_reading_thread_are_raised_from_the_loader(stream: TableStream):
    dl = loader(stream, shuffle=False, buffer_bytes=2_000)
    batches = dl.epoch(0)
    next(batches)
    path = stream.entry.folder / "train_x.bin"
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(FileError) as caught:
        list(batches)
    assert str(caught.value) == (
        f"{stream.entry.folder}: cannot be read (cut short); start again, which converts the table again"
    )
    assert threads() == []
    path.unlink()
    with pytest.raises(FileError, match=r"cannot be read \(No such file or directory\)"):
        next(dl.epoch(0))
    with pytest.raises(FileError, match=r"cannot be read \(No such file or directory\)"):
        dl.peek()


HOLD = """
import sys, time, torch
from pathlib import Path
from onecycle.data.disk_loader import open_stream
from onecycle.tables.spec import TableSpec
stream = open_stream(Path(sys.argv[1]), TableSpec("y"), memory_limit=1)
batches = stream.loaders(8, 8, torch.device("cpu"), 1)["train_dl"].epoch(0)
next(batches)
print("holding", flush=True)
if len(sys.argv) > 2:
    for _ in batches:
        time.sleep(1)
"""


@pytest.mark.slow
def test_a_process_ends_with_an_epoch_open(tmp_path: Path):
    numbered(tmp_path)
    command = [sys.executable, "-c", HOLD, tmp_path / f"{ROWS}.npz"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (0, "holding\n"), found.stderr


@pytest.mark.slow
def test_ctrl_c_ends_a_process_at_once(tmp_path: Path):
    numbered(tmp_path)
    command = [sys.executable, "-c", HOLD, tmp_path / f"{ROWS}.npz", "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        (entry,) = TableCache().entries()
        assert TableCache().clear()[0] == 0  # in use there
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in err
    assert TableCache().clear()[0] == 1
    assert not entry.folder.exists()


# --- the rows --------------------------------------------------------------------------------------------------------


def test_rows_can_be_had_one_at_a_time(stream: TableStream):
    rows = DiskDataset(stream.entry, "valid")
    numbers = rows_on(stream, "valid")
    assert len(rows) == len(numbers) == stream.entry.manifest.rows("valid")
    for place in (0, 7, len(rows) - 1, -1, -len(rows)):
        x, y = rows[place]
        assert number(x) == [numbers[place]]
        assert (y.item(), y.dtype) == (numbers[place] % 3, torch.int64)
    for place in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError, match=f"row {place}; there are {len(rows)} rows"):
            rows[place]


def test_torchs_own_loader_takes_them(stream: TableStream):
    x, y = next(iter(DataLoader(DiskDataset(stream.entry, "valid"), 16, num_workers=0)))
    assert number(x) == rows_on(stream, "valid")[:16]
    assert y.shape == (16,)


def test_an_entry_is_in_use_as_long_as_its_data_set_exists(tmp_path: Path):
    stream = numbered(tmp_path)
    rows, folder = DiskDataset(stream.entry, "train"), stream.entry.folder
    del stream
    assert TableCache().clear()[0] == 0
    assert len(rows) > 0
    del rows
    gc.collect()
    assert TableCache().clear()[0] == 1
    assert not folder.exists()


# --- the whole way ---------------------------------------------------------------------------------------------------


def table(folder: Path, rows: int = 4_000) -> Path:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, rows))
    color = random.choice(["red", "green", "blue"], rows)
    found = pa.table({"a": a, "b": b, "color": color, "y": np.where(a + (color == "red") > 0.5, "yes", "no")})
    pq.write_table(found, folder / "t.parquet")
    return folder / "t.parquet"


def bunch(stream: TableStream, bs: int = 64) -> DataBunch:
    data = DataBunch(**stream.loaders(bs, bs, CPU, seed=1), device="cpu", seed=1)
    data.features, data.target, data.columns = stream.fitted
    return data


@pytest.fixture
def converted(tmp_path: Path) -> TableStream:
    found = open_stream(str(table(tmp_path)), SPEC, memory_limit="10 kB")
    assert found is not None
    return found


def learner(data: DataBunch, seed: int = 0) -> Learner:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Learner(data, silent=True)


def test_a_learner_trains_from_the_disk_as_from_memory(converted: TableStream):
    data = bunch(converted)
    assert (data.c, data.classes, data.task) == (2, ["no", "yes"], "classes")
    streamed = learner(data)
    streamed.fit_one_cycle(3, 1e-2)

    def all_of(side: str) -> TensorDataset:
        rows = DiskDataset(converted.entry, side)
        return TensorDataset(*rows.read([range(len(rows))]))

    held = DataBunch.create(all_of("train"), all_of("valid"), bs=64, seed=1, device="cpu")
    held.features, held.target = data.features, data.target
    in_memory = learner(held)
    in_memory.fit_one_cycle(3, 1e-2)
    assert streamed.recorder.val_losses[-1] == pytest.approx(in_memory.recorder.val_losses[-1], abs=0.02)
    assert streamed.recorder.val_losses[-1] < 0.05
    before = learner(data).validate()[0]  # the same weights on the same rows, whichever way these come
    assert before == pytest.approx(learner(held).validate()[0], rel=1e-6)


def test_same_seed_same_run_and_finding_leaves_no_trace(converted: TableStream):
    one, other = learner(bunch(converted)), learner(bunch(converted))
    other.lr_find(num_it=20)
    for each in (one, other):
        each.fit(2, 1e-2)
    assert one.recorder.losses == other.recorder.losses
    assert one.recorder.val_losses == other.recorder.val_losses


def test_predictions_are_in_the_order_of_the_rows(converted: TableStream):
    learn = learner(bunch(converted))
    _, y = learn.get_preds("train")
    assert y is not None
    assert y.tolist() == np.fromfile(converted.entry.folder / "train_y.bin", "<i8").tolist()
    preds, y = learn.get_preds("valid")
    assert len(preds) == converted.entry.manifest.rows("valid")
    assert learn.predict({"a": 2.0, "b": 0.0, "color": "red"})[0] in ("no", "yes")


def test_images_train_too(stream: TableStream):
    data = DataBunch(**stream.loaders(64, 64, CPU, seed=1), device="cpu", seed=1)
    assert stream.fitted[0] is None
    data.target, data.pixel_scale = stream.fitted[1], stream.pixel_scale
    learn = Learner(data, MLP(4, 8, 3), silent=True)
    learn.fit(1, 1e-2)
    assert np.isfinite(learn.recorder.val_losses[-1])


def test_the_loaders_are_those_of_a_bunch(converted: TableStream):
    loaders = converted.loaders(64, 128, CPU, seed=1)
    train, valid = loaders["train_dl"], loaders["valid_dl"]
    assert train is not None
    assert valid is not None
    assert loaders["test_dl"] is None
    assert (train.batch_size, valid.batch_size) == (64, 128)
    fix = DataBunch(**loaders, device="cpu").fix_dl
    assert fix is not None
    assert (len(train), len(fix)) == (converted.rows // 64, -(-converted.rows // 64))
    few = converted.loaders(10**6, 10**6, CPU, seed=1)["train_dl"]
    assert few is not None
    assert len(few) == 1  # fewer rows than a batch: one batch of them


def test_buffers_are_a_fraction_of_the_limit(tmp_path: Path):
    path = table(tmp_path)
    sizes = [1, "100 MB", "1 GB", "100 GB"]
    found = [open_stream(path, SPEC, memory_limit=size) for size in sizes]
    assert found[0] is not None
    assert found[1:] == [None] * 3
    assert found[0].buffer_bytes == 2**22


def test_a_table_in_memory_is_not_converted(tmp_path: Path):
    assert open_stream({"a": [1, 2], "y": [0, 1]}, SPEC, memory_limit=1) is None
    with pytest.raises(SettingError, match="memory_limit is 'x'"):
        open_stream({"a": [1, 2]}, SPEC, memory_limit="x")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_benchmark_runs_at_a_small_scale(tmp_path: Path):
    script = Path(__file__).parents[2] / "benchmarks" / "large_table.py"
    options = ["--rows", "20000", "--memory-limit", "5 MB", "--rounds", "1", "--format", "csv"]
    found = subprocess.run(
        [sys.executable, script, *options, "--folder", tmp_path, "--out", tmp_path / "found"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    figures = json.loads((tmp_path / "found.json").read_text())
    assert figures["first"]["train_rows"] + figures["first"]["valid_rows"] == 20_000
    assert 0.4 < figures["first"]["accuracy"] <= 1
    assert set(figures["speed"]["models"]) == {"TabularModel", "MLP(33, 50, 2)"}
    assert found.stdout == (tmp_path / "found.md").read_text() + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "found.md"]


def test_a_resumed_fit_reads_the_blocks_of_its_run(tmp_path: Path):
    """How large they are depends on the memory that is free at the moment."""
    stream = numbered(tmp_path, 20_000)

    def learner(buffer_bytes: int) -> Learner:
        data = DataBunch(loader(stream, shuffle=True, buffer_bytes=buffer_bytes), device="cpu", seed=5)
        torch.manual_seed(0)
        return Learner(data, nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), silent=True)

    class Stops(Callback):
        at = 100

        def on_batch_end(self, fit: Any) -> None:
            if fit.iteration == self.at:
                fit.stop("interrupted")

    plain, stopped, resumed = learner(2**15), learner(2**15), learner(2**20)
    plain.fit(2, 1e-3)
    stopped.fit(2, 1e-3, callbacks=[Stops()], checkpoint=tmp_path / "run")
    Stops.at = -1
    resumed.resume(tmp_path / "run", callbacks=[Stops()])
    assert resumed.recorder.losses == plain.recorder.losses
    assert resumed.data.train_dl.blocks == plain.data.train_dl.blocks


@pytest.mark.parametrize("blocks", [(0, 1), (10**9, 1), (1, 10**9), (5, 0)])
def test_blocks_that_cannot_be_are_refused(stream: TableStream, blocks: tuple[int, int]):
    with pytest.raises(ValueError, match="rows cannot be read in"):
        loader(stream).use_blocks(*blocks)
