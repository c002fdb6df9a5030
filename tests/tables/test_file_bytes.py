"""Encodings, compression and formats, by the bytes of a file."""

import gzip
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from onecycle.errors import DataError, FileError
from onecycle.tables.read import read_table, stream_table
from table_files import assert_refused, write_file, write_table


@pytest.mark.parametrize("rows", [15, 400_000])  # beyond the first bytes too
def test_errors_name_line_and_byte_of_other_encodings(tmp_path, rows):
    text = "a,b\n" + "1,xyz\n" * rows + "2,café\n1,ü\n"
    message = f":{rows + 2}: byte 0xe9 at position {4 + 6 * rows + 5:,} is not UTF-8; expected text in UTF-8; save the file as UTF-8"
    assert_refused(write_file(tmp_path, text.encode("latin-1")), message, FileError)
    assert_refused(write_file(tmp_path, text.replace("\n", "\r").encode("latin-1")), message, FileError)
    assert_refused(
        write_file(tmp_path, text.encode()[:-2]), f":{rows + 3}: byte 0xc3 at position", FileError
    )  # cut in a character
    with pytest.raises(FileError, match="byte 0xe9"):
        read_table(write_file(tmp_path, text.encode("latin-1")), text_columns=["b"])
    assert read_table(write_file(tmp_path, text.encode("utf-8-sig"))).column_names == ["a", "b"]
    assert_refused(
        write_file(tmp_path, text.encode("utf-16")),
        ": looks like UTF-16 text; expected CSV, which is text in UTF-8",
        FileError,
    )
    assert_refused(
        write_file(tmp_path, text.encode("utf-16-le")),
        ": looks like a binary file or UTF-16 text, with zero bytes",
        FileError,
    )


def test_a_header_in_another_encoding(tmp_path):
    assert_refused(
        write_file(tmp_path, "größe,b\n1,2\n".encode("latin-1")), ":1: byte 0xf6 at position 2 is not UTF-8", FileError
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<!DOCTYPE html>\n<html>404</html>", "an HTML page"),
        (b"PK\x03\x04\x14\0", "a zip archive, as Excel's .xlsx is"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "gzip"),
        (pickle.dumps({"a": 1}), "a pickle"),
        (b"SQLite format 3\0", "an SQLite database"),
    ],
)
def test_another_format_than_the_suffix_says(tmp_path, content, found, suffix):
    assert_refused(write_file(tmp_path, content, f"x{suffix}"), f": looks like {found}; expected ", FileError)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_that_are_cut_short_or_damaged(tmp_path, suffix):
    write_table(pa.table({"x": np.random.default_rng(0).normal(size=50_000)}), tmp_path / f"x.csv{suffix}")
    whole, form = (tmp_path / f"x.csv{suffix}").read_bytes(), {".gz": "gzip", ".zst": "zstd"}[suffix]
    advice = f"); expected a whole {form} file; copy or download it again"
    for length in (3, 40, len(whole) // 2, len(whole) - 4):
        path = write_file(tmp_path, whole[:length], f"cut.csv{suffix}")
        assert_refused(path, f": damaged {form} after ", FileError)
        assert_refused(path, advice, FileError)
    damaged = write_file(tmp_path, whole[:-100] + b"\xff" * 100, f"damaged.csv{suffix}")
    assert_refused(damaged, f": damaged {form} after ", FileError)


def test_files_that_decompress_to_more_than_the_cap(tmp_path):
    path = write_file(tmp_path, gzip.compress(b"a,b\n" + b"1,2\n" * 100_000, mtime=0), "bomb.csv.gz")
    with pytest.raises(
        FileError, match=r"bomb\.csv\.gz: takes more than the cap of 50,000 bytes when unpacked; .*max_bytes="
    ):
        read_table(path, max_bytes=50_000)
    assert read_table(path, max_bytes=401_000).num_rows == 100_000
    pq.write_table(pa.table({"x": np.zeros(1_000_000)}), tmp_path / "x.parquet")
    with pytest.raises(FileError, match="takes more than the cap of 7,000,000 bytes"):
        read_table(tmp_path / "x.parquet", max_bytes=7_000_000)
    pyarrow.feather.write_feather(pa.table({"x": np.zeros(1_000_000)}), str(tmp_path / "x.arrow"), compression="zstd")
    with pytest.raises(FileError, match="takes more than the cap of 7,000,000 bytes"):
        read_table(tmp_path / "x.arrow", max_bytes=7_000_000)
    pyarrow.feather.write_feather(
        pa.table({"x": np.zeros(100_000)}), str(tmp_path / "y.arrow"), compression="uncompressed"
    )
    assert read_table(tmp_path / "y.arrow", max_bytes=1000).num_rows == 100_000  # mapped: it takes no memory


def test_a_gzip_bomb_takes_no_more_memory_than_the_cap(tmp_path):
    with gzip.open(tmp_path / "bomb.csv.gz", "wb") as file:
        file.write(b"a,b\n1,2\n3,")
        for _ in range(64):
            file.write(b"4" * 2**20)
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match="bomb"):
        read_table(tmp_path / "bomb.csv.gz", max_bytes=2**22)
    assert pa.default_memory_pool().max_memory() - before < 2**29
    with pytest.raises(DataError, match="has a cell of more than 131,072 characters"):
        list(stream_table(tmp_path / "bomb.csv.gz"))
