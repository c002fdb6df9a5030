"""Parquet and Arrow files."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq

from onecycle.errors import FileError
from onecycle.tables.read import read_table
from table_files import EXAMPLE, assert_refused, stream_as_table, write_file, write_table


def test_files_that_are_cut_short(tmp_path):
    for name in ("x.parquet", "x.arrow"):
        write_table(EXAMPLE, tmp_path / name)
        whole, form = (tmp_path / name).read_bytes(), {"x.parquet": "Parquet", "x.arrow": "Arrow"}[name]
        for length in (10, len(whole) // 2, len(whole) - 3):
            path = write_file(tmp_path, whole[:length], f"cut_{name}")
            assert_refused(path, ": damaged or cut short (", FileError)
            assert_refused(path, f"); expected a whole {form} file; copy or download it again", FileError)


def test_a_type_that_pyarrow_does_not_read_is_not_called_damage(tmp_path):
    table = pa.table({"wide": pa.array([1], pa.int64())})
    with pa.ipc.new_stream(tmp_path / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    content = (tmp_path / "x.arrow").read_bytes()
    place = content.index((64).to_bytes(4, "little"))  # the bits of an integer, in the schema
    wide = write_file(tmp_path, content[:place] + (128).to_bytes(4, "little") + content[place + 4 :], "wide.arrow")
    assert_refused(wide, ": holds what pyarrow does not read (Integers with more than 64 bits not implem", FileError)
    assert_refused(wide, "write the columns as other types, or leave them out", FileError)


def test_an_arrow_stream_with_any_suffix(tmp_path):
    with pa.ipc.new_stream(str(tmp_path / "data.arrow"), EXAMPLE.schema) as writer:
        writer.write_table(EXAMPLE, max_chunksize=100)
    assert read_table(tmp_path / "data.arrow").equals(EXAMPLE)
    assert stream_as_table(tmp_path / "data.arrow", rows=30).equals(EXAMPLE)
    cut = write_file(tmp_path, (tmp_path / "data.arrow").read_bytes()[:-500], "cut.arrow")
    assert_refused(cut, ": damaged or cut short (", FileError)


def test_the_first_feather_format(tmp_path):
    path = write_file(tmp_path, b"FEA1" + b"\0" * 60, "old.feather")
    assert_refused(path, ": looks like the first Feather format; expected Arrow", FileError)


def test_names_that_are_not_utf8(tmp_path):
    table = pa.table({"name": [1]})
    with pa.ipc.new_stream(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    content = (tmp_path / "x.arrow").read_bytes().replace(b"name", b"n\xffme")
    assert_refused(
        write_file(tmp_path, content, "x.arrow"),
        ": damaged or cut short ('utf-8' codec can't decode byte 0xff",
        FileError,
    )
    pq.write_table(table, tmp_path / "x.parquet", store_schema=False)
    content = (tmp_path / "x.parquet").read_bytes().replace(b"name", b"n\xffme")
    assert_refused(
        write_file(tmp_path, content, "x.parquet"), ": damaged or cut short ('utf-8' codec can't decode", FileError
    )


def test_invalid_text_and_dictionaries_in_arrow_files(tmp_path):
    """What pyarrow itself does not notice, and would follow out of the memory it has."""
    text = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 1], "i4")), pa.py_buffer(b"\xff"))
    write_table(pa.table({"s": text}), tmp_path / "x.ipc")
    assert_refused(tmp_path / "x.ipc", ": damaged or cut short (", FileError)
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 99]), pa.array(["a", "b"]), safe=False)
    write_table(pa.table({"d": codes}), tmp_path / "x.ipc")
    assert_refused(tmp_path / "x.ipc", ": damaged or cut short (", FileError)
