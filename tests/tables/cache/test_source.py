"""The shape of a file, and the hash by which its content is known again."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from onecycle.core.config import Config
from onecycle.errors import FileError, SettingError
from onecycle.tables.cache.conversion import convert_if_larger
from onecycle.tables.cache.source import SourceFile, file_shape
from onecycle.tables.spec import TableSpec
from tables.cache.table_files import (
    ROWS,
    RecordedProgress,
    cache_path,
    converted,
    left_in,
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


def test_a_converted_file_is_found_again_without_reading_it(file: Path, monkeypatch: pytest.MonkeyPatch):
    first = converted(file)
    monkeypatch.setattr(SourceFile, "chunks", None)
    monkeypatch.setattr(SourceFile, "compute_sha256", None)
    progress = RecordedProgress()
    second = converted(file, progress=progress)
    assert (second.folder, progress.lines) == (first.folder, [])


def test_the_same_content_elsewhere_is_the_same_table(file: Path, tmp_path: Path):
    first, progress = converted(file), RecordedProgress()
    copy = tmp_path / "copy.parquet"
    shutil.copy(file, copy)
    assert converted(copy, progress=progress).folder == first.folder
    assert progress.lines == [f"{copy}: larger than memory_limit; looking it up among the converted tables"]


def test_a_file_that_was_just_written_is_not_known_by_its_time(file: Path):
    first = converted(file)
    pq.write_table(table(seed=1).slice(0, ROWS), file, row_group_size=700)
    progress = RecordedProgress()
    assert converted(file, progress=progress).folder != first.folder
    converted(file, progress=progress)
    assert sum("looking it up" in line for line in progress.lines) == 2  # looked into both times


def test_a_damaged_list_of_hashes_is_ignored(file: Path):
    first = converted(file)
    for content in ("{", "[]", "3", json.dumps({str(file): [1]}), "\0"):
        (cache_path() / "hashes.json").write_text(content)
        assert converted(file).folder == first.folder


def test_a_file_that_changes_while_it_is_read_is_refused(file: Path):
    def change(activity: str, done: int) -> None:
        if "pass 2" in activity:
            os.utime(file)

    with pytest.raises(FileError) as caught:
        converted(file, progress=RecordedProgress(change))
    assert str(caught.value) == f"{file}: was changed while it was read; try again when nothing writes to it"
    assert left_in(Config().home()) == ["hashes.json"]
