import gzip
import io
import struct
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onecycle import DataBunch
from onecycle.data.arrays import as_tensor, read_idx, read_npy, read_npz
from onecycle.errors import DataError, FileError, UnsafeFileError


def idx_bytes(array: np.ndarray, code: int) -> bytes:
    """The IDX file of an array, by the format's description."""
    big = array.astype(array.dtype.newbyteorder(">"))
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()


# IDX


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("code", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")])
def test_idx_round_trip(tmp_path, code, dtype, compress):
    array = np.arange(-12, 12).astype(dtype).reshape(2, 3, 4)
    content = idx_bytes(array, code)
    (tmp_path / "x.idx").write_bytes(gzip.compress(content, mtime=0) if compress else content)
    found = read_idx(tmp_path / "x.idx")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert found.dtype.isnative
    assert found.flags.writeable


def test_idx_without_items(tmp_path):
    (tmp_path / "x.idx").write_bytes(idx_bytes(np.zeros((0, 28, 28), "u1"), 8))
    assert read_idx(tmp_path / "x.idx").shape == (0, 28, 28)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x08", "starts with the bytes 00 00 08; expected an IDX file"),
        (b"\x01\0\x08\x01", "starts with the bytes 01 00 08 01"),
        (b"\0\0\x0a\x01", "starts with the bytes 00 00 0a 01"),
        (b"\0\0\x08\0", "expected an IDX file"),
        (b"\0\0\x08\x01\0\0", r"6 bytes; expected 8 for shape \(0,\) of uint8"),
        (b"\0\0\x08\x01\0\0\0\x05abcd", r"12 bytes; expected 13 for shape \(5,\) of uint8"),
        (b"\0\0\x0b\x01\0\0\0\x02abcde", r"13 bytes; expected 12 for shape \(2,\) of int16"),
        (b"\0\0\x0e\x03" + b"\xff" * 12, "16 bytes; expected 633,825,"),
        (b"\0\0\x08\x28" + bytes(160), "40 dimensions; expected at most 32"),
        (b"", "empty; expected data"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x01a", mtime=0)[:-3], "damaged gzip"),
    ],
)
def test_damaged_idx(tmp_path, content, message):
    (tmp_path / "x.idx").write_bytes(content)
    with pytest.raises(FileError, match=rf"x\.idx: .*{message}"):
        read_idx(tmp_path / "x.idx")


def test_idx_over_the_cap(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(10_000, "u1"), 8)))
    with pytest.raises(FileError, match=r"takes more than the cap of 5,000 bytes .*max_bytes="):
        read_idx(tmp_path / "x.gz", max_bytes=5000)


@pytest.mark.parametrize("read", [read_idx, read_npy, read_npz])
def test_what_cannot_be_opened(tmp_path, read):
    (tmp_path / "train.bin").touch()
    with pytest.raises(FileError, match=r'trian\.bin: no such file; did you mean "train\.bin"\?'):
        read(str(tmp_path / "trian.bin"))
    with pytest.raises(FileError, match="a folder; expected a file"):
        read(tmp_path)
    with pytest.raises(FileError, match=r"train\.bin: "):
        read(tmp_path / "train.bin")


# npy and npz


@pytest.mark.parametrize("dtype", ["?", "i1", ">i4", "f8", "c8"])
def test_npy_round_trip(tmp_path, dtype):
    array = np.asfortranarray(np.arange(6).astype(dtype).reshape(2, 3))
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), array)


def test_npz_round_trip(tmp_path):
    images, labels = np.arange(12, dtype="u1").reshape(3, 4), np.arange(3)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", images=images, labels=labels)
        found = read_npz(tmp_path / "x.npz")
        assert list(found) == ["images", "labels"]
        np.testing.assert_array_equal(found["images"], images)
        np.testing.assert_array_equal(found["labels"], labels)


def test_object_arrays_are_refused(tmp_path):
    objects = np.array([{}, []], object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", good=np.zeros(3), bad=objects)
    for name, read in (("x.npy", read_npy), ("x.npz", read_npz)):
        with pytest.raises(UnsafeFileError, match=rf"{name}: holds an array of Python objects, which could run code"):
            read(tmp_path / name)


def saved(save, **keywords) -> bytes:
    file = io.BytesIO()
    save(file, **keywords)
    return file.getvalue()


NPY = saved(np.save, arr=np.arange(40.0).reshape(5, 8))
NPZ = saved(np.savez_compressed, x=np.arange(40.0), y=np.arange(5))


@pytest.mark.parametrize(("read", "content"), [(read_npy, NPY), (read_npz, NPZ)])
def test_every_npy_truncation_is_reported(tmp_path, read, content):
    for end in range(len(content)):
        (tmp_path / "x").write_bytes(content[:end])
        with pytest.raises(FileError, match=r"x: damaged or not a \.np[yz] "):
            read(tmp_path / "x")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([(read_npy, NPY), (read_npz, NPZ)]), st.floats(0, 0.999), st.integers(0, 255))
def test_flipped_npy_bytes_never_surprise(tmp_path, reader_and_content, place, byte):
    read, content = reader_and_content
    changed = bytearray(content)
    changed[int(place * len(content))] = byte
    (tmp_path / "x").write_bytes(changed)
    with suppress(DataError):
        read(tmp_path / "x")


def test_an_npz_bomb(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(1_000_000))
    with pytest.raises(FileError, match=r"x\.npz: takes more than the cap of 1,000,000 bytes when unpacked"):
        read_npz(tmp_path / "x.npz", max_bytes=1_000_000)


def test_an_npz_with_something_else_inside(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(FileError, match=r"x\.npz: damaged or not a \.npy array"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("descr", ["|u1", "|a1"])  # the second is an old name of bytes
def test_npy_files_of_python_2_are_read_without_a_warning(descr: str, tmp_path):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (3L,), }}".encode().ljust(117) + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"abc")
    assert read_npy(tmp_path / "x.npy").tobytes() == b"abc"


def test_values_that_no_dtype_of_torch_holds_are_refused():
    for array, message in (
        (np.array([2**64 - 1, 1], np.uint64), "x contains 18446744073709551615; expected whole numbers below 2**63"),
        (np.ma.array([1.0, 2.0], mask=[0, 1]), "x has 1 masked values; expected a value in each place"),
        (np.array([np.longdouble("1e4000"), 1]), "x contains inf at row 0"),
    ):
        with pytest.raises(DataError) as caught:
            as_tensor(array, "x")
        assert str(caught.value).startswith(message)
    assert as_tensor(np.array([1.5], np.longdouble), "x").tolist() == [1.5]
    assert as_tensor(np.array([2**63 - 1], np.uint64), "x").tolist() == [2**63 - 1]
    assert as_tensor(np.ma.array([1.0, 2.0]), "x").tolist() == [1.0, 2.0]


X = np.random.default_rng(0).normal(size=(40, 3))


@pytest.mark.parametrize(("scale", "offset"), [(1e-50, 0), (1e-310, 0), (1, 1e9), (1e-4, 1e4)])
def test_targets_that_float32_cannot_tell_apart_are_refused(scale: float, offset: float):
    with pytest.raises(DataError, match="train.y is from .*, and float32 cannot tell such numbers apart; subtract"):
        DataBunch.create((X, X[:, 0] * scale + offset), bs=8)
    with pytest.raises(DataError, match="train.y, column 1, is from"):
        DataBunch.create((X, X[:, :2] * [1, scale] + [0, offset]), bs=8)
    with pytest.warns(
        UserWarning, match=r"train.x, column [02], is from .*, and float32 cannot tell such numbers apart"
    ):
        DataBunch.create((X * (scale if offset == 0 else [1, 1, scale]) + [0, 0, offset], X[:, 0]), bs=8)


@pytest.mark.parametrize("scale", [1e39, 1e300])
def test_numbers_beyond_float32_are_named(scale: float):
    with pytest.raises(DataError, match=r"train.y contains .*e\+\d+, which float32 cannot hold; divide it first"):
        DataBunch.create((X, X[:, 0] * scale), bs=8)
    with pytest.raises(DataError, match=r"train.x contains .*e\+\d+, which float32 cannot hold; divide it first"):
        DataBunch.create((X * scale, X[:, 0]), bs=8)


@pytest.mark.parametrize(
    "x",
    [
        X * 1e-30,
        X * 1e37,
        X + 1e3,
        X * 0 + 0.1,  # constant
        np.where(X > 0, 0.3, 0.1 + 0.2),  # constant but for rounding
        np.hstack([X, X[:, :1] * 1e-60]),  # nothing beside the others
        2.0**30 + np.round(X) * 128,  # exact in float32
    ],
)
def test_other_numbers_are_taken_as_they_are(x: np.ndarray):
    data = DataBunch.create((x, X[:, 0]), bs=8)
    assert torch.equal(data.inputs, torch.from_numpy(x).float())


def test_float64_holds_them():
    torch.set_default_dtype(torch.float64)
    try:
        data = DataBunch.create((X, X[:, 0] * 1e-50), bs=8)
        assert data.targets.tolist() == (X[:, 0] * 1e-50).tolist()
    finally:
        torch.set_default_dtype(torch.float32)
