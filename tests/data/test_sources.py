"""Whatever people bring becomes a table or arrays."""

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from onecycle.data.sources import Arrays, open_source
from onecycle.errors import DataError, FileError

X = np.linspace(0, 1, 30).reshape(10, 3)
Y = np.arange(10) % 2


class Rows(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.tensor(X[i]), int(Y[i])


def expected() -> pa.Table:
    return pa.table({"x0": X[:, 0], "x1": X[:, 1], "x2": X[:, 2], "y": Y})


@pytest.mark.parametrize(
    "source",
    [
        (X, Y),
        [X, Y],
        (torch.tensor(X), torch.tensor(Y)),
        {"x": X, "y": Y},
        TensorDataset(torch.tensor(X), torch.tensor(Y)),
        Rows(),
    ],
)
def test_rows_of_numbers_become_a_table(source: Any):
    found = open_source(source)
    assert found.schema.names == ["x0", "x1", "x2", "y"]
    assert np.allclose(found["x1"].to_numpy(), X[:, 1])
    assert found["y"].to_pylist() == Y.tolist()


def test_targets_may_be_text_or_several():
    assert open_source((X, ["a"] * 5 + ["b"] * 5))["y"].to_pylist()[4:6] == ["a", "b"]
    assert open_source((X, np.stack([Y, Y], 1))).schema.names[3:] == ["y0", "y1"]


@pytest.mark.parametrize(
    "frame", [pd.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [1, 2]}), {"a": [1, 2]}, [{"a": 1}, {"a": 2}]]
)
def test_tables_stay_tables(frame: Any):
    assert open_source(frame).to_pydict() == {"a": [1, 2]}


def test_files_by_their_suffix(tmp_path: Path):
    pq.write_table(expected(), tmp_path / "a.parquet")
    np.savez(tmp_path / "b.npz", x=X, y=Y)
    with gzip.open(tmp_path / "c.pkl.gz", "wb") as file:
        pickle.dump((X, Y), file)
    np.savez(tmp_path / "d.npz", age=X[:, 0], city=np.array(["u", "v"] * 5))
    np.save(tmp_path / "e.npy", np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f4")]))
    for name in ("a.parquet", "b.npz", "c.pkl.gz"):
        assert open_source(tmp_path / name).schema.names == ["x0", "x1", "x2", "y"]
    assert open_source(str(tmp_path / "d.npz")).schema.names == ["age", "city"]
    assert open_source(tmp_path / "e.npy").to_pydict() == {"a": [1, 3], "b": [2.0, 4.0]}


def test_images_stay_bytes(tmp_path: Path):
    pixels = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4)
    found = open_source((pixels, Y[:6]))
    assert isinstance(found, Arrays)
    assert found.train[0].dtype is torch.uint8
    assert found.pixel_scale == 256
    for name, image in zip(("cat/1.png", "cat/2.png", "dog/1.png"), pixels, strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / name)
    folder = open_source(tmp_path)
    assert folder.classes == ["cat", "dog"]
    assert folder.train[1].tolist() == [0, 0, 1]


def test_the_lessons_three_pairs_keep_their_split(tmp_path: Path):
    with gzip.open(tmp_path / "mnist.pkl.gz", "wb") as file:
        pickle.dump(((X, Y), (X[:4], Y[:4]), (X[:2], Y[:2])), file)
    found = open_source(tmp_path / "mnist.pkl.gz")
    assert isinstance(found, Arrays)
    assert found.valid is not None
    assert found.test is not None
    assert [len(x) for x, _ in (found.train, found.valid, found.test)] == [10, 4, 2]


def test_idx_images_find_their_labels(tmp_path: Path):
    def idx(array: np.ndarray) -> bytes:
        head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        return head + array.tobytes()

    images = tmp_path / "train-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(idx(np.zeros((4, 2, 2), np.uint8))))
    with pytest.raises(FileError, match="its labels are looked for in train-labels-idx1-ubyte.gz, which is not there"):
        open_source(images)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(4, dtype=np.uint8) % 2)))
    assert open_source(images).train[1].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((X, Y[:5]), "tuple: x has 10 rows and y has 5; expected equal lengths"),
        (3, "int is not a table; expected the path of a file"),
        (np.zeros((3, 2)), "numpy.ndarray is not a table"),
        ("sales.doc", "sales.doc: no such file"),
    ],
)
def test_what_is_no_source_is_named(source: Any, message: str, here: Path):
    with pytest.raises(DataError, match=message):
        open_source(source)


def test_files_of_another_kind_and_without_targets(tmp_path: Path):
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(
        DataError, match=r"a\.doc: not a kind of file that is known; expected a folder of images, or one of \.csv"
    ):
        open_source(tmp_path / "a.doc")
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(DataError, match=r"a\.npy: holds an array of shape \(10, 3\); expected rows and targets"):
        open_source(tmp_path / "a.npy")


def test_a_data_set_whose_rows_are_no_tensors_is_named():
    class Texts(Rows):
        def __getitem__(self, i: int) -> Any:
            return object(), 1

    with pytest.raises(DataError, match="its rows cannot be put into one tensor"):
        open_source(Texts())
