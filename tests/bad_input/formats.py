"""What the fuzzers feed: a good file of each format, and the function that reads it."""

import gzip
import io
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import torch
from PIL import Image

from bad_input.makers import signed
from onecycle import DataBunch, Learner, TabularModel, load_learner, load_pickle
from onecycle.data.sources import open_source

ROWS = 24


@dataclass(frozen=True)
class Format:
    """A format: the name of a file of it, its content, what else lies beside it, and who reads it."""

    file: str
    good: Callable[[], bytes]
    read: Callable[[Path], Any] = open_source
    beside: Callable[[Path], object] = Path.exists  # writes what a file needs around it; by default nothing

    def feed(self, content: bytes, folder: Path) -> Any:
        """Read a file of this `content`, in `folder`."""
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (path.parent / ".made").exists():
            self.beside(folder)
            (path.parent / ".made").touch()
        path.write_bytes(content)
        return self.read(path)


def table() -> pa.Table:
    """Rows with a column of each kind."""
    random = np.random.default_rng(0)
    return pa.table(
        {
            "age": pa.array([None, *random.normal(40, 9, ROWS - 1).round(1)]),
            "town": ["Ulm", "Bonn", "Köln"] * (ROWS // 3),
            "member": [True, False] * (ROWS // 2),
            "joined": pa.array(range(19_000, 19_000 + ROWS), pa.int32()).cast(pa.date32()),
            "group": ["a", "b"] * (ROWS // 2),
        }
    )


def csv_bytes(delimiter: str = ",") -> bytes:
    """`table` as CSV."""
    sink = io.BytesIO()
    pa.csv.write_csv(table(), sink, pa.csv.WriteOptions(delimiter=delimiter))
    return sink.getvalue()


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    """Rows of numbers and their classes."""
    return {"x": np.arange(ROWS * 3, dtype=np.float32).reshape(ROWS, 3), "y": np.arange(ROWS) % 2}


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """An array of bytes as IDX."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def image_bytes(form: str, shade: int = 90) -> bytes:
    """A small image."""
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) + shade
    return _written(lambda file: Image.fromarray(pixels).save(file, form))


def bundle(folder: Path) -> Path:
    """A bundle of a model of `table`, at `folder`."""
    data = DataBunch.from_table(table(), "group", bs=8, device="cpu", seed=0)
    assert data.features is not None
    torch.manual_seed(0)  # the state names the weights by their hash
    model = TabularModel(data.features.numbers, data.features.sizes, data.c, hidden=[4])
    Learner(data, model, silent=True).export(folder)
    return folder


def _written(write: Callable[[Any], object]) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


def _arrow(compression: str) -> bytes:
    return _written(lambda file: pyarrow.feather.write_feather(table(), file, compression=compression))


def _stream() -> bytes:
    with (sink := pa.BufferOutputStream()), pa.ipc.new_stream(sink, table().schema) as writer:
        writer.write_table(table().combine_chunks())
    return sink.getvalue().to_pybytes()


def _dictionaries() -> bytes:
    coded = table().set_column(1, "town", table()["town"].dictionary_encode())
    return _written(lambda file: pyarrow.feather.write_feather(coded, file, compression="uncompressed"))


def _labels(folder: Path) -> None:
    (folder / "i-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(ROWS) % 2))


def _images(folder: Path) -> None:
    for label, shade in (("dark", 0), ("light", 150)):
        (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        (folder / "photos" / label / "0.png").write_bytes(image_bytes("PNG", shade))


def _read_photos(path: Path) -> Any:
    return open_source(path.parent.parent)


def _state() -> bytes:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        return (bundle(Path(folder) / "model") / "state.json").read_bytes()


def _weights(folder: Path) -> None:
    shutil.rmtree(folder / "model")  # made for the state, which is written next
    bundle(folder / "model")


def _read_bundle(path: Path) -> Any:
    signed(path.parent)
    learn = load_learner(path.parent, device="cpu")
    return learn.features, learn.target, learn.predict(table())


def _train(path: Path) -> Any:
    """All that `onecycle train` does with a table before the first step."""
    found = open_source(path)
    names: list[str] = found.column_names
    return DataBunch.from_table(found, names[-1], device="cpu", seed=0).one_batch()


_PAIR = (arrays()["x"], arrays()["y"])

FORMATS = {
    "csv": Format("a.csv", csv_bytes),
    "csv-semicolons": Format("a.csv", lambda: csv_bytes(";").replace(b".", b",")),
    "tsv": Format("a.tsv", lambda: csv_bytes("\t")),
    "csv-gz": Format("a.csv.gz", lambda: gzip.compress(csv_bytes(), mtime=0)),
    "csv-zst": Format("a.csv.zst", lambda: pa.compress(csv_bytes(), "zstd", asbytes=True)),
    "parquet": Format("a.parquet", lambda: _written(lambda file: pq.write_table(table(), file))),
    "parquet-plain": Format(
        "a.parquet", lambda: _written(lambda file: pq.write_table(table(), file, compression="none"))
    ),
    "arrow": Format("a.arrow", lambda: _arrow("uncompressed")),
    "arrow-zstd": Format("a.arrow", lambda: _arrow("zstd")),
    "arrow-stream": Format("a.arrow", _stream),
    "arrow-dictionaries": Format("a.arrow", _dictionaries),
    "npy": Format(
        "a.npy", lambda: _written(lambda file: np.save(file, np.array([(1, 2.0)] * 4, [("a", "i4"), ("b", "f8")])))
    ),
    "npz": Format("a.npz", lambda: _written(lambda file: np.savez(file, **arrays()))),
    "npz-compressed": Format("a.npz", lambda: _written(lambda file: np.savez_compressed(file, **arrays()))),
    "idx": Format("i-images-idx3-ubyte", lambda: idx_bytes(np.zeros((ROWS, 3, 3))), beside=_labels),
    "pickle": Format("a.pkl", lambda: pickle.dumps(_PAIR, 4)),
    "pickle-2": Format("a.pkl", lambda: pickle.dumps(_PAIR, 2)),
    "pickle-0": Format("a.pkl", lambda: pickle.dumps((np.arange(4.0), [1, "a", None]), 0), load_pickle),
    "pickle-gz": Format("a.pkl.gz", lambda: gzip.compress(pickle.dumps(_PAIR, 5), mtime=0), load_pickle),
    "png": Format("photos/dark/1.png", lambda: image_bytes("PNG"), _read_photos, _images),
    "jpeg": Format("photos/dark/1.jpg", lambda: image_bytes("JPEG"), _read_photos, _images),
    "bundle": Format("model/state.json", _state, _read_bundle, _weights),
    "train": Format("a.csv", csv_bytes, _train),
}


def good_state() -> dict[str, Any]:
    """The state of a bundle, read from its JSON."""
    return json.loads(_state())
