"""Data that nothing can be learned from, in files that are well formed."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bad_input.case import Capture, Case, each, refused
from bad_input.makers import (
    PIXELS,
    WORDS,
    Make,
    X,
    Y,
    both,
    csv_text,
    good,
    image_bomb,
    npz,
    parquet,
    photos,
    pickled,
    written,
)
from onecycle.cli.app import run

pytestmark = pytest.mark.slow

TRAIN = "train a.parquet --target group"
PART = ["train"] * 40 + ["valid"] * 20
DATES = pa.array(range(60), pa.int32()).cast(pa.date32())
NAMES = [f"name {i}" for i in range(60)]


def but(row: int, value: float, values: np.ndarray = X[:, 0]) -> np.ndarray:
    """`values` with another one in a row."""
    return np.where(np.arange(60) == row, value, values)


def table(**columns: object) -> Make:
    """Writes a.parquet: a good table, but for these columns."""
    return parquet("a.parquet", good(**columns))


def only(**columns: object) -> Make:
    """Writes a.parquet of these columns and the target."""
    return parquet("a.parquet", pa.table({**columns, "group": WORDS}))


TARGETS = [
    Case("one class", TRAIN, """target "group" has only one class, 'a', in all 60 rows""", table(group=["a"] * 60)),
    Case(
        "one number", TRAIN, 'target "group" is 1.5 in all 60 rows; expected different numbers', table(group=[1.5] * 60)
    ),
    Case(
        "target missing in a row",
        TRAIN,
        'target "group" is missing in 1 of 60 rows, first in row 5, counted from 0; expected a value',
        table(group=but(5, np.nan)),
    ),
    Case(
        "class missing in rows",
        TRAIN,
        "is missing in 20 of 60 rows, first in row 1",
        table(group=["a", None, "b"] * 20),
    ),
    Case("target missing in all rows", TRAIN, "is missing in 60 of 60 rows", table(group=pa.nulls(60, pa.string()))),
    Case(
        "infinite target",
        TRAIN,
        'row 7: target "group" is inf (1 such values); expected finite numbers',
        table(group=but(7, np.inf)),
    ),
    Case("huge target", TRAIN, 'row 7: target "group" is 1e+200', table(group=but(7, 1e200))),
    Case(
        "a target of identifiers",
        TRAIN,
        'target "group" has another text in each of 60 rows; expected classes that',
        table(group=NAMES),
    ),
    Case(
        "a target of dates",
        TRAIN,
        'target "group" holds dates (date32[day]), which cannot be predicted',
        table(group=DATES),
    ),
    Case("regression of text", f"{TRAIN} --task regression", """column "group" is 'a'; expected a number""", table()),
    Case(
        "labels other than 0 and 1",
        "train a.parquet --target age --task multilabel",
        "other numbers than 0 and 1",
        table(),
    ),
    Case(
        "classes of measurements",
        "train a.parquet --target age --task classes",
        'target "age" has 60 different values in 60 rows; expected classes that occur again and again: did you mean '
        'task="regression", or --task regression?',
        table(),
    ),
]

COLUMNS = [
    Case(
        "all missing",
        TRAIN,
        'no column is left to learn from; dropped: "age" (all missing), "town" (all missing)',
        only(age=pa.nulls(60, pa.float64()), town=pa.nulls(60)),
    ),
    Case("all NaN", TRAIN, 'dropped: "age" (all missing)', only(age=np.full(60, np.nan))),
    Case(
        "all empty cells",
        "train a.csv --target group",
        'dropped: "age" (all missing)',
        written("a.csv", "age,group\n" + ",a\n,b\n" * 30),
    ),
    Case("identifiers only", TRAIN, 'dropped: "name" (identifier: 48 distinct texts in 48 rows)', only(name=NAMES)),
    Case("constants only", TRAIN, 'dropped: "age" (constant: always 3)', only(age=[3.0] * 60)),
    Case("the target only", TRAIN, "no column is left to learn from: each is predicted, left out with drop", only()),
    Case(
        "all left out", f"{TRAIN} --drop age,town", "no column is left to learn from: each is predicted, left", table()
    ),
    Case(
        "target missing in a line",
        "train a.csv --target price",
        'target "price" is missing in 2 of 40 rows, first in a.csv:5; expected a value in each: drop the rows without',
        written("a.csv", "age,price\n1,2.5\n\n2,3.5\n3,\n4,\n" + "5,1.5\n6,2.25\n" * 18),
    ),
    Case("words that are to be numbers", f"{TRAIN} --kind town=number", """'; expected a number""", table()),
    Case(
        "the row of such a word",
        f"{TRAIN} --kind town=number",
        """row 33: column "town" is 'Ulm'; expected a number""",
        table(town=["Ulm" if row == 33 else "7" for row in range(60)]),
    ),
    Case(
        "words that are to be dates", f"{TRAIN} --kind town=date", """'; expected a date such as 2024-01-31""", table()
    ),
    Case(
        "numbers that are to be dates", f"{TRAIN} --kind age=date", 'sets "age" to date, but it holds double', table()
    ),
]

SPLITS = [
    Case(
        "one row",
        TRAIN,
        "1 row; expected at least 2",
        parquet("a.parquet", good().slice(0, 1)),
    ),
    Case(
        "two rows",
        TRAIN,
        "of the rows to train on: target",
        parquet("a.parquet", good().slice(0, 2)),
    ),
    Case(
        "more rows to validate than there are",
        f"{TRAIN} --valid 60",
        "valid is 60; the table has 60 rows: expected 1 to 59",
        table(),
    ),
    Case(
        "more classes in validation",
        f"{TRAIN} --split column:part",
        """target "group" is 'c', which validation has and training lacks (there: 'a', 'b'); drop such rows""",
        table(part=PART, group=WORDS[:41] + ["c"] * 19),
    ),
    Case(
        "the row with another class",
        f"{TRAIN} --split column:part",
        """row 41: target "group" is 'c'""",
        table(part=PART, group=WORDS[:41] + ["c"] * 19),
    ),
    Case(
        "one class in training",
        f"{TRAIN} --split column:part",
        'target "group" has only one class',
        table(part=PART, group=["a"] * 41 + ["b"] * 19),
    ),
    Case(
        "a split by the target",
        f"{TRAIN} --split group:group",
        'split "group:group"',
        table(),
    ),
    Case(
        "no row that validates",
        f"{TRAIN} --split column:part",
        'column "part" has no row for validation; expected at least',
        table(part=["train"] * 60),
    ),
    Case(
        "a mark with a slip",
        f"{TRAIN} --split column:part",
        """is 'vaild' in row 40; expected train, valid or test""",
        table(part=PART[:40] + ["vaild"] * 20),
    ),
    Case(
        "a mark that is missing",
        f"{TRAIN} --split column:part",
        'column "part" is missing in row 40',
        table(part=PART[:40] + [None] * 20),
    ),
    Case(
        "one group",
        f"{TRAIN} --split group:part",
        """column "part" is 'u' in every row; expected at least two groups""",
        table(part=["u"] * 60),
    ),
    Case(
        "a time that is missing",
        f"{TRAIN} --split time:day",
        'column "day" is missing in 1 row (the first: row 0); expected',
        table(day=pa.array([None, *range(59)], pa.int32()).cast(pa.date32())),
    ),
    Case("a time that is none", f"{TRAIN} --split time:town", """column "town" is 'Ulm'; expected a date""", table()),
    Case(
        "strata of numbers",
        "train a.parquet --target age --split stratified",
        'split "stratified" needs a target that is classes',
        table(),
    ),
    Case(
        "strata of one row each",
        f"{TRAIN} --split stratified",
        'split "stratified": each class has one row',
        parquet("a.parquet", good(group=NAMES).slice(0, 10)),
    ),
]

ARRAYS = [
    Case(
        "fewer targets than rows",
        "train a.npz",
        "a.npz: x has 60 rows and y has 50; expected equal lengths",
        npz("a.npz", x=X, y=Y[:50]),
    ),
    Case(
        "fewer targets than images",
        "train a.npz",
        "a.npz: x has 60 rows and y has 50",
        npz("a.npz", x=PIXELS, y=Y[:50]),
    ),
    Case(
        "columns of different lengths",
        "train a.npz --target b",
        'a.npz: column "b" has 50 rows, column "a" has 60',
        npz("a.npz", a=X[:, 0], b=Y[:50]),
    ),
    Case(
        "NaN among arrays",
        "train a.npz",
        "a.npz: x contains nan at row 7, column 0 (3 such values); expected finite",
        npz("a.npz", x=np.where(np.arange(60)[:, None] == 7, np.nan, X), y=Y),
    ),
    Case(
        "infinity among images",
        "train a.npz",
        "a.npz: x contains inf at row 7, position [0, 0] (16 such values)",
        npz("a.npz", x=np.where(np.arange(60)[:, None, None] == 7, np.inf, PIXELS), y=Y),
    ),
    Case("text as rows", "train a.npz", "a.npz: x has dtype <U1", npz("a.npz", x=np.full((60, 2), "a"), y=Y)),
    Case("complex numbers", "train a.npz", "a.npz: x has dtype complex128", npz("a.npz", x=X * 1j, y=Y)),
    Case(
        "two targets of an image",
        "train a.npz",
        "y has shape (60, 2); expected one target for each row",
        npz("a.npz", x=PIXELS, y=np.stack([Y, Y], 1)),
    ),
    Case(
        "no rows",
        "train a.npz",
        "a.npz: no rows; expected at least one",
        npz("a.npz", x=PIXELS[:0], y=Y[:0]),
    ),
    Case(
        "images without pixels",
        "train a.npz",
        "a.npz: x has shape (60, 0, 4)",
        npz("a.npz", x=PIXELS[:, :0], y=Y),
    ),
    Case(
        "labels outside",
        "train a.pkl",
        'target "y" is 2, which validation has and training lacks (there: 0, 1)',
        pickled("a.pkl", ((X, Y), (X, Y + 1))),
    ),
    Case(
        "fewer targets in validation",
        "train a.pkl",
        "a.pkl, valid: x has 60 rows and y has 5",
        pickled("a.pkl", ((X, Y), (X, Y[:5]))),
    ),
    Case(
        "narrower rows in validation",
        "train a.pkl",
        "valid: a row of x has shape (2,); expected (3,), as in the training rows",
        pickled("a.pkl", ((X, Y), (X[:, :2], Y))),
    ),
    Case(
        "a split of what is split",
        "train a.pkl --split random",
        "split is 'random', but the data has its own split into train and valid; leave it out",
        pickled("a.pkl", ((X, Y), (X, Y))),
    ),
]

IMAGES = [
    Case(
        "a folder of Parquet parts",
        "train sales.parquet",
        "sales.parquet: a folder; expected a file; name a file inside it, or read a folder of Parquet parts with",
        both(lambda: Path("sales.parquet").mkdir(), parquet("sales.parquet/part-0.parquet")),
    ),
    Case(
        "an empty folder",
        "train photos",
        "photos: no sub-folders with PNG or JPEG images; expected a sub-folder of images",
        lambda: Path("photos").mkdir(),
    ),
    Case("empty classes", "train photos", "photos: no sub-folders with PNG or JPEG images", photos(count=0)),
    Case("images without classes", "train photos", "photos: no sub-folders with", photos(classes=["."])),
    Case("images of one class", "train photos", 'photos: one class, "dark"; expected', photos(classes=["dark"])),
    Case(
        "splits for classes",
        "train photos",
        "the sub-folders are train, valid, which are splits, not classes",
        photos(classes=["train", "valid"]),
    ),
    Case(
        "images of different sizes",
        "train photos",
        "photos/dark/1.png has 5 x 7 pixels (height x width), photos/dark/0.png has 6 x 6",
        photos(sizes=[(6, 6), (5, 7)]),
    ),
    Case(
        "how to make images one size",
        "train photos",
        "--image-size",
        photos(sizes=[(6, 6), (5, 7)]),
    ),
    Case(
        "a damaged image",
        "train photos",
        "photos/dark/3.png: a damaged image (image file is truncated)",
        both(photos(), lambda: Path("photos/dark/3.png").write_bytes(Path("photos/dark/2.png").read_bytes()[:80])),
    ),
    Case(
        "an image that is text",
        "train photos",
        "photos/dark/3.png: not a PNG or JPEG image, or a damaged one (begins with b'not foun')",
        both(photos(), lambda: Path("photos/dark/3.png").write_text("not found")),
    ),
    Case(
        "an image of 400 million pixels",
        "train photos",
        "photos/dark/3.png: an image too large to be read safely",
        both(photos(), image_bomb("photos/dark/3.png")),
    ),
    Case("the regression of images", "train photos --task regression", """is 'dark'; expected a number""", photos()),
]


@pytest.mark.parametrize("case", each(TARGETS + COLUMNS + SPLITS + ARRAYS + IMAGES))
def test_data_that_cannot_be_learned_from(case: Case, place: Path, capsys: Capture) -> None:
    case.make()
    refused(case, [case.command], place, capsys)


@pytest.mark.usefixtures("no_pictures", "place")
def test_validation_that_lacks_a_class_is_told(capsys: Capture) -> None:
    table(part=PART, group=WORDS[:40] + ["a"] * 20)()
    quick = ["--epochs", "1", "--lr", "0.01", "--model", "mlp:4", "--json"]
    assert run([*TRAIN.split(), "--split", "column:part", *quick]) == 0
    out, err = capsys.readouterr()
    assert "validation has no row of b" in err
    assert json.loads(out)["roc_auc"] is None  # one class has no order to get right


@pytest.mark.usefixtures("place")
def test_infinite_inputs_are_missing_values(capsys: Capture) -> None:
    pq.write_table(good(age=but(7, np.inf)), "a.parquet")
    assert run(["inspect", "a.parquet", "--json"]) == 0
    assert '"name": "age", "kind": "number", "type": "double", "missing": 1' in capsys.readouterr().out


@pytest.mark.usefixtures("place")
def test_inspect_shows_the_columns_of_what_it_refuses(capsys: Capture) -> None:
    written("a.csv", csv_text())()
    assert run(["inspect", "a.csv", "--target", "gruop"]) == 2
    out, err = capsys.readouterr()
    assert "town" in out
    assert err == 'error: there is no column "gruop" to predict; did you mean "group"?\n'
