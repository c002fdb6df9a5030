"""The shape of a file, and the hash by which its content is known again."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from onecycle.core.config import Config
from onecycle.errors import FileError, SettingError
from onecycle.tables.cache.conversion import convert_if_larger
from onecycle.tables.cache.source import SourceFile, file_shape
from onecycle.tables.spec import TableSpec
from tables.cache.table_files import (
    RecordedProgress,
    cache_path,
    converted,
    left_in,
    looked_up,
    rows_of,
    table,
    write_as,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".ipc", ".csv", ".tsv", ".csv.gz", ".csv.zst"])
def test_the_shape_of_a_file_is_known_without_reading_all_of_it(suffix: str, tmp_path: Path):
    whole = table(20_000)
    shape = file_shape(write_as(whole, tmp_path / f"t{suffix}"))
    assert shape.names == whole.column_names
    assert shape.rows == pytest.approx(20_000, rel=0.2)
    assert shape.row_bytes == pytest.approx(whole.nbytes / 20_000, rel=0.5)
    matrix = 20_000 * 8 * 4
    assert shape.working_bytes == pytest.approx(2 * whole.nbytes + matrix, rel=0.5)


def test_a_file_that_fits_is_not_converted(file: Path):
    takes = file_shape(file).working_bytes
    assert convert_if_larger(file, TableSpec("y"), memory_limit=takes) is None
    assert convert_if_larger(file, TableSpec("y")) is None  # half of what is available
    assert not cache_path().exists()
    assert convert_if_larger(file, TableSpec("y"), memory_limit=takes - 1, progress=RecordedProgress()) is not None


def test_a_file_that_cannot_be_streamed_is_left_to_reading_in_memory(tmp_path: Path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    np.save(tmp_path / "plain.npy", np.zeros((5, 5)))
    np.savez(tmp_path / "odd.npz", a=np.zeros((5, 5)))
    np.savez(tmp_path / "objects.npz", x=np.array([[1], [None]], object), y=np.zeros(2))
    (tmp_path / "text.txt").write_text("a,b\n1,2\n")
    for name in ("broken.parquet", "plain.npy", "odd.npz", "objects.npz", "text.txt", "missing.csv", "."):
        assert convert_if_larger(tmp_path / name, TableSpec("y"), memory_limit=1) is None


def test_a_bad_limit_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SettingError, match="memory_limit is 'lots'"):
        convert_if_larger(file, TableSpec("y"), memory_limit="lots")
    monkeypatch.setenv("ONECYCLE_CACHE_LIMIT", "-1")
    progress = RecordedProgress()
    with pytest.raises(SettingError, match="ONECYCLE_CACHE_LIMIT is '-1'"):
        convert_if_larger(file, TableSpec("y"), memory_limit=1, progress=progress)
    assert progress.lines == []


def test_a_converted_file_is_found_again_without_reading_its_rows(file: Path, monkeypatch: pytest.MonkeyPatch):
    first = converted(file)
    monkeypatch.setattr(SourceFile, "chunks", None)
    progress = RecordedProgress()
    second = converted(file, progress=progress)
    assert (second.folder, progress.lines) == (first.folder, [looked_up(file)])


def test_the_same_content_elsewhere_is_the_same_table(file: Path, tmp_path: Path):
    first = converted(file)
    copy = tmp_path / "copy.parquet"
    shutil.copy(file, copy)
    assert converted(copy).folder == first.folder


def test_an_edit_of_the_same_size_and_times_is_another_table(tmp_path: Path):
    """As rsync --times and unpacked archives leave files."""
    rows = table()
    file = write_as(rows, tmp_path / "rows.ipc")
    first, before = converted(file), file.stat()
    write_as(rows.set_column(1, "b", pa.array(8 - rows["b"].to_numpy())), file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    second = converted(file)
    assert second.folder != first.folder
    assert not np.array_equal(rows_of(second, "train_x"), rows_of(first, "train_x"))


def test_an_edit_behind_the_file_s_times_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Some file systems say nothing of a change through a mapping; the content does."""
    file = write_as(table(), tmp_path / "rows.ipc")
    monkeypatch.setattr(SourceFile, "_stat", lambda self: [])

    def change(activity: str, done: int) -> None:
        if "pass 2" in activity:
            write_as(table(seed=1), file)

    with pytest.raises(FileError, match="was changed while it was read"):
        converted(file, progress=RecordedProgress(change))
    assert left_in(Config().home()) == []


def test_a_file_that_changes_while_it_is_read_is_refused(file: Path):
    def change(activity: str, done: int) -> None:
        if "pass 2" in activity:
            os.utime(file)

    with pytest.raises(FileError) as caught:
        converted(file, progress=RecordedProgress(change))
    assert str(caught.value) == f"{file}: was changed while it was read; try again when nothing writes to it"
    assert left_in(Config().home()) == []
