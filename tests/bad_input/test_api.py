"""Bad input that only Python can give: objects, row numbers, settings of another type."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch.utils.data import Dataset

from bad_input.case import snapshot
from bad_input.makers import PIXELS, WORDS, X, Y, csv_text, good, parquet, written
from onecycle import DataBunch, load_learner, load_pickle
from onecycle.errors import DataError, DeviceError, FileError, OneCycleError, SettingError

TABLE = {"age": X[:, 0], "town": ["Ulm", "Bonn", "Kiel"] * 20, "y": WORDS}
NO_TABLE = "is not a table; expected the path of a file"


class Rows(Dataset[Any]):
    """A torch data set."""

    def __init__(self, count: int, row: Callable[[int], Any]) -> None:
        self.count, self.row = count, row

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Any:
        return self.row(i)


class Endless(Dataset[Any]):
    """A torch data set that does not say how long it is."""

    def __getitem__(self, i: int) -> Any:
        return X[0], 0


@dataclass(frozen=True)
class Call:
    """A source, settings of `DataBunch.from_table`, the error and its words."""

    name: str
    source: Any
    settings: dict[str, Any]
    error: type[OneCycleError]
    message: str


SOURCES = [
    Call("unequal x and y", (X, Y[:50]), {}, DataError, "tuple: x has 60 rows and y has 50; expected equal lengths"),
    Call("unequal lists", [X.tolist(), Y.tolist()[:50]], {}, DataError, "list: x has 60 rows and y has 50"),
    Call("unequal images and y", (PIXELS, Y[:50]), {}, DataError, "tuple: x has 60 rows and y has 50"),
    Call("unequal validation", ((X, Y), (X, Y[:3])), {}, DataError, "tuple, valid: x has 60 rows and y has 3"),
    Call("unequal columns", {"x": [1, 2, 3], "y": [1, 2]}, {}, DataError, 'dict: column "y" has 2 rows, column "x" has 3'),
    Call("rows of different lengths", ([[1, 2], [3]], [0, 1]), {}, DataError, "tuple: x has rows of different lengths; expected equal lengths"),
    Call("rows alone", X, {}, DataError, f"numpy.ndarray {NO_TABLE}"),
    Call("rows alone, and what is missing", X, {}, DataError, "or rows and targets as a pair (x, y)"),
    Call("three arrays", (X, Y, Y), {}, DataError, f"tuple {NO_TABLE}"),
    Call("a number", 3, {}, DataError, f"int {NO_TABLE}"),
    Call("nothing", None, {}, DataError, f"NoneType {NO_TABLE}"),
    Call("an empty list", [], {}, DataError, f"list {NO_TABLE}"),
    Call("an empty dict", {}, {}, DataError, "dict: no columns; expected at least one"),
    Call("an empty frame", pd.DataFrame({"x": [], "y": []}), {}, DataError, "pandas.DataFrame: no rows; expected at least one"),
    Call("the empty path", "", {}, FileError, 'the path is ""'),
    Call("a missing path", "sales.csv", {}, FileError, "sales.csv: no such file"),
    Call("a lazy frame", pl.LazyFrame({"y": WORDS}), {}, DataError, "polars.LazyFrame is not a table; call its collect() first"),
    Call("numbers for columns", {"x": 1, "y": 2}, {}, DataError, 'dict: column "x" is 1, of type int; expected a list'),
    Call("a column of mixed types", {"x": [1, "a"], "y": [1, 2]}, {}, DataError, "row 0 is 1, row 1 is 'a'; expected values of one type"),
    Call("a column of two dimensions", {"a": X, "y": Y}, {}, DataError, 'column "a" has shape (60, 3); expected one value'),
    Call("two columns of a name", pd.DataFrame(X[:, :2], columns=["y", "y"]), {}, DataError, 'more than one column is called "y"'),
    Call("NaN among rows", (np.where(X > 1, np.nan, X), Y), {}, DataError, "tuple: x contains nan at row 2, column 0"),
    Call("text for targets of images", (PIXELS, WORDS), {}, DataError, "tuple: y has dtype <U1"),
    Call("a data set of objects", Rows(3, lambda i: Path()), {}, DataError, "Rows: its rows cannot be put into one tensor"),
    Call("a data set of rows that differ", Rows(3, lambda i: (np.zeros(i + 1), i)), {}, DataError, "cannot be put into one tensor"),
    Call("a data set without length", Endless(), {}, DataError, "Endless: its rows cannot be put into one tensor"),
    Call("an empty data set", Rows(0, lambda i: i), {}, DataError, "Rows: no rows; expected at least one"),
    Call("kinds of an array", (PIXELS, Y), {"kinds": {"y": "number"}}, SettingError, "kinds is for the columns of a table; these are images or arrays"),
    Call("a split of what is split", ((X, Y), (X, Y)), {"split": "random"}, SettingError, "split is 'random', but the data has its own split"),
    Call("narrower rows in validation", ((X, Y), (X[:, :2], Y)), {}, DataError, "valid: a row of x has shape (2,); expected (3,)"),
]  # fmt: skip

SETTINGS = [
    Call("no target", TABLE, {"target": []}, SettingError, "the target is []; expected a list of different column names"),
    Call("unknown target", TABLE, {"target": "Y"}, SettingError, 'there is no column "Y" to predict; did you mean "y"?'),
    Call("target twice", TABLE, {"target": ["y", "y"]}, SettingError, "the target is ['y', 'y']; expected a list of different"),
    Call("target that is a number", TABLE, {"target": 3}, SettingError, "the target is 3; expected the name of a column, or a list of names"),
    Call("target that is None", TABLE, {"target": None}, SettingError, "the target is None; expected the name of a column, or a list of names"),
    Call("targets that are numbers", TABLE, {"target": [3]}, SettingError, "the target is [3]; expected the name of a column, or a list of names"),
    Call("unknown task", TABLE, {"task": "clas"}, SettingError, 'unknown task "clas"; expected one of classes, regression, multilabel'),
    Call("task that is a number", TABLE, {"task": 3}, SettingError, 'unknown task "3"; expected one of classes'),
    Call("drop of one name", TABLE, {"drop": "twon"}, SettingError, 'drop names "twon", but there is no such column; did you mean "town"?'),
    Call("drop of numbers", TABLE, {"drop": [3]}, SettingError, "drop is [3]; expected the name of a column, or a list of names"),
    Call("unknown kind", TABLE, {"kinds": {"town": "text"}}, SettingError, "sets \"town\" to 'text'; expected one of number, category"),
    Call("kinds that are a list", TABLE, {"kinds": ["town"]}, SettingError, "kinds is ['town']; expected a dict of names"),
    Call("unknown way to split", TABLE, {"split": "ramdom"}, SettingError, 'unknown split "ramdom"'),
    Call("split that is a number", TABLE, {"split": 3.5}, SettingError, "the valid rows are 3.5; expected row numbers, a mask, or auto"),
    Call("split by words", TABLE, {"split": ["a"]}, SettingError, "the valid rows are <U1 of shape (1,); expected row numbers"),
    Call("a row beyond the table", TABLE, {"split": [60]}, DataError, "valid row 60 is not in the table, which has 60 rows (0-59)"),
    Call("a row twice", TABLE, {"split": [1, 1]}, DataError, "valid row 1 is named more than once; expected each row once"),
    Call("a row on both sides", TABLE, {"split": ([1, 2], [2, 3])}, DataError, "split: 1 row in two sets (the first: row 2)"),
    Call("a mask of another length", TABLE, {"split": [True, False]}, DataError, "the mask of valid rows has 2 values; the table has 60"),
    Call("no rows to validate", TABLE, {"split": []}, DataError, "split: no row is for valid; expected at least one"),
    Call("no rows to train on", TABLE, {"split": range(60)}, DataError, "split: no row is for train; expected at least one"),
    Call("a share that is true", TABLE, {"valid": True}, SettingError, "valid is True; expected a share between 0 and 1"),
    Call("a share that is text", TABLE, {"valid": "0.2"}, SettingError, "valid is '0.2'; expected a share between 0 and 1"),
    Call("a share above 1", TABLE, {"valid": 2.5}, SettingError, "valid is 2.5; expected a share between 0 and 1"),
    Call("all rows to validate", TABLE, {"valid": 60}, SettingError, "the table has 60 rows: expected 1 to 59 rows, or a share"),
    Call("batches of no rows", TABLE, {"bs": 0}, SettingError, "bs is 0; expected a whole number of at least 1"),
    Call("batches of text", TABLE, {"bs": "8"}, SettingError, "bs is '8'; expected a whole number of at least 1"),
    Call("a seed below 0", TABLE, {"seed": -1}, SettingError, "seed is -1; expected a whole number of at least 0"),
    Call("unknown device", TABLE, {"device": "gpu"}, DeviceError, 'unknown device "gpu"; expected cpu, cuda, cuda:N or mps'),
]  # fmt: skip


@pytest.mark.parametrize("call", [pytest.param(call, id=call.name) for call in SOURCES + SETTINGS])
def test_from_table(call: Call, place: Path) -> None:
    before = snapshot(place)
    with pytest.raises(call.error) as caught:
        DataBunch.from_table(call.source, **{"bs": 4, "device": "cpu", "seed": 0, **call.settings})
    assert call.message in str(caught.value)
    assert type(caught.value) is call.error
    assert snapshot(place) == before


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (
            good().drop_columns(["age"]),
            DataError,
            'the table has no column "age", which the model was trained with',
        ),
        (good(age=["old"] * 60), DataError, """row 0: column "age" is 'old'; expected a number"""),
        ([{"age": 1.0}], DataError, 'the table has no column "town"'),
        (good().slice(0, 0), DataError, "no rows; expected at least one"),
        (torch.zeros(3), DataError, 'no column "age", which the model was trained with; there are x0, x1, x2'),
        (torch.zeros(2, 3), DataError, "rows have shape (1, 2, 3); expected (n, columns)"),
        ("sales.csv", FileError, "sales.csv: no such file"),
        (3, DataError, "3, of type int, cannot be predicted"),
        ([1, 2], DataError, "[1, 2], of type list, cannot be predicted"),
    ],
)
def test_rows_that_a_model_cannot_predict(runs: Path, rows: Any, error: type[OneCycleError], message: str) -> None:
    learn = load_learner(runs / "table/model", device="cpu")
    with pytest.raises(error) as caught:
        learn.predict(rows)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: load_learner("nothing"), "nothing: no such folder; expected a bundle that onecycle wrote"),
        (lambda: load_learner("a.parquet"), "a.parquet: a file; if torch.save wrote it"),
        (lambda: load_learner("."), ".: a folder without manifest.json; expected a bundle that onecycle wrote"),
        (lambda: load_pickle("nothing.pkl"), "nothing.pkl: no such file; check the path"),
        (lambda: load_pickle("."), ".: a folder; expected a file; name a file inside it"),
        (lambda: load_pickle("a.csv"), "is damaged or not a pickle of NumPy arrays"),
    ],
)
def test_what_cannot_be_loaded(read: Callable[[], object], message: str, place: Path) -> None:
    parquet("a.parquet")()
    written("a.csv", csv_text())()
    before = snapshot(place)
    with pytest.raises(FileError) as caught:
        read()
    assert message in str(caught.value)
    assert snapshot(place) == before
