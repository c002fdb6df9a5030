"""NumPy's files, converted."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from onecycle.errors import DataError, SettingError
from tables.cache.table_files import converted, rows_of, split

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_numbers_are_columns(save: Any, tmp_path: Path):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(3_000, 4)), random.integers(0, 3, 3_000)
    save(tmp_path / "a.npz", x=x, y=y, more=np.zeros((2, 2)))
    entry = converted(tmp_path / "a.npz", seed=1)
    sets = split(["x0"], "auto", 0.2, 1).assign(pa.table({"x0": x[:, 0]}), 0)
    train = x[sets == 0].astype(np.float32)
    features, _, _ = entry.manifest.fitted()
    assert features is not None
    assert features.names == ["x0", "x1", "x2", "x3"]
    np.testing.assert_allclose(rows_of(entry, "train_x"), (train - train.mean(0)) / train.std(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(rows_of(entry, "valid_y"), y[sets == 1])


def test_images_stay_bytes_of_their_shape(tmp_path: Path):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (500, 6, 5), np.uint8), random.integers(0, 3, 500)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    entry = converted(tmp_path / "a.npz", "label", seed=1)
    sets = split(["y"], "auto", 0.2, 1).assign(pa.table({"y": y}), 0)
    np.testing.assert_array_equal(rows_of(entry, "train_x"), x[sets == 0])
    np.testing.assert_array_equal(rows_of(entry, "train_y"), y[sets == 0])
    assert rows_of(entry, "train_x").dtype == np.uint8
    assert entry.manifest.fitted()[0] is None


def test_an_array_a_column_and_structured_arrays_are_tables(tmp_path: Path):
    random = np.random.default_rng(0)
    columns = {"a": random.normal(size=400), "y": random.integers(0, 2, 400)}
    np.savez(tmp_path / "a.npz", **columns)
    both = np.zeros(400, [(name, column.dtype.newbyteorder(">")) for name, column in columns.items()])
    for name, column in columns.items():
        both[name] = column
    np.save(tmp_path / "a.npy", both)
    one, other = converted(tmp_path / "a.npz"), converted(tmp_path / "a.npy")
    for part in one.manifest.files:
        np.testing.assert_array_equal(rows_of(one, part), rows_of(other, part))
    assert one.manifest.rows("train") + one.manifest.rows("valid") == 400


def test_arrays_that_cannot_be_streamed_are_refused(tmp_path: Path):
    path = tmp_path / "a.npz"
    x, y = np.zeros((300, 3)), np.arange(300) % 2
    np.savez(path, x=np.asfortranarray(np.random.default_rng(0).normal(size=(300, 3))), y=y)
    with pytest.raises(DataError) as caught:
        converted(path)
    assert str(caught.value) == (
        f"{path}: x is stored column by column, so its rows cannot be read one after another; save "
        "np.ascontiguousarray of it, or raise memory_limit"
    )
    np.savez(path, x=x, y=y[:-1])
    with pytest.raises(DataError) as caught:
        converted(path)
    assert str(caught.value) == f"{path}: x has 300 rows and y has 299 rows; expected equal lengths"
    x[7, 2] = np.nan
    np.savez(path, x=x, y=y)
    with pytest.raises(DataError) as caught:
        converted(path)
    assert str(caught.value) == (
        f"{path}: x contains nan at row 7, position [2]; expected finite numbers: drop or fill them first"
    )


@pytest.mark.parametrize("option", [{"kinds": {"a": "number"}}, {"drop": ["y"]}])
def test_images_have_no_columns_for_settings(option: dict[str, Any], tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=np.zeros((300, 6, 5), np.uint8), y=np.arange(300) % 2)
    (name,) = option
    with pytest.raises(SettingError, match=f"^{name} is for the columns of a table; these are images or arrays"):
        converted(tmp_path / "a.npz", **option)
