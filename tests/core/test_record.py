import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecycle import Record
from onecycle.core.files import with_checksum
from onecycle.core.record import Smoother, format_value
from onecycle.errors import FileError, OutputError, SettingError

NUMBERS = st.lists(st.floats(), max_size=5)


def example() -> Record:
    return Record(
        losses=[0.5, 0.25],
        nb_batches=[1, 1],
        epochs=[0, 1],
        val_losses=[0.5, None],
        metrics=[[0.875], [None]],
        seconds=[61.4, 3.6],
        metric_names=["accuracy"],
    )


def test_the_table_is_the_lessons():
    record = example()
    assert record.column_names == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert record.rows() == [
        ["0", "0.500000", "0.500000", "0.875000", "01:01"],
        ["1", "0.250000", "#na#", "#na#", "00:04"],
    ]


def test_rows_count_from_the_last_one_too():
    assert example().row() == example().row(-1) == example().row(1)
    assert example().row(-2) == example().row(0)


@pytest.mark.parametrize(("record", "index", "epochs"), [(Record(), -1, 0), (example(), 2, 2), (example(), -3, 2)])
def test_a_row_that_is_not_there(record: Record, index: int, epochs: int):
    with pytest.raises(SettingError, match=f"there is no row {index}; the record has {epochs} epochs"):
        record.row(index)


@given(losses=NUMBERS, val_losses=NUMBERS, stopped=st.none() | st.text(max_size=5))
def test_json_and_back(losses: list[float], val_losses: list[float], stopped: str | None):
    n = len(val_losses)
    record = Record(
        losses=losses, epochs=list(range(n)), val_losses=list(val_losses), stopped=stopped, lr_curve={"lrs": losses}
    )
    text = record.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert repr(Record.from_json(text)) == repr(record)


def test_files_and_back(tmp_path: Path):
    example().save(tmp_path / "new" / "record.json")
    assert Record.load(tmp_path / "new" / "record.json") == example()


def test_unknown_keys_of_a_later_version_are_left_out():
    assert Record.from_json('{"epochs": [0], "colour": "red"}') == Record(epochs=[0])


DAMAGED = [
    *(
        "",
        "[]",
        "{",
        "3",
        "[" * 100_000,
        '{"losses": ["a"]}',
        '{"losses": [1], "lrs": 5}',
        '{"losses": [1], "lrs": [1, 2]}',
    ),
    *('{"settings": [1]}', '{"mistakes": 1}', '{"epochs": [0], "metrics": [1]}', '{"losses": {}}'),
]


@pytest.mark.parametrize("text", DAMAGED)
def test_files_that_are_no_record(tmp_path: Path, text: str):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(FileError, match=r"record\.json: not a readable record"):
        Record.load(tmp_path / "record.json")


@pytest.mark.parametrize("text", ['{"losses": [1], "lrs": [1, 2]}', '{"epochs": [0], "metrics": [1]}'])
def test_a_record_that_was_made_up(tmp_path: Path, text: str):
    (tmp_path / "record.json").write_text(with_checksum(json.loads(text)))
    with pytest.raises(FileError, match=r"record\.json: not a readable record \((lrs|metrics) is not a list"):
        Record.load(tmp_path / "record.json")


def test_a_record_that_was_changed(tmp_path: Path):
    path = tmp_path / "record.json"
    example().save(path)
    path.write_text(path.read_text().replace("0.875", "0.975"))
    with pytest.raises(
        FileError, match=r"record\.json: .* does not have the SHA-256 that it says: it is damaged, or was"
    ):
        Record.load(path)


def test_a_record_that_is_not_there(tmp_path: Path):
    with pytest.raises(FileError, match="none.json: not a readable record .*No such file"):
        Record.load(tmp_path / "none.json")


def test_a_record_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/record\.json: cannot be written"):
        example().save(tmp_path / "file" / "record.json")


def test_smoothing_is_carried_on():
    whole, parts = Smoother(), Smoother()
    assert whole.add([1.0, 2.0, 3.0]) == parts.add([1.0]) + parts.add([2.0, 3.0])
    assert Smoother().add([3.0]) == pytest.approx([3.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.000000"), (1.5, "1.500000"), (6e-7, "0.000001"), (1.23456e-50, "1.2346e-50"), (-3e-8, "-3.0000e-08")],
)
def test_a_number_too_small_for_six_decimals_is_not_shown_as_0(value: float, text: str):
    assert format_value(value) == text
