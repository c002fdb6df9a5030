"""Rows, runs and places that `predict` cannot use."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from bad_input.case import Capture, Case, copied, each, refused
from bad_input.makers import PIXELS, Make, X, csv_text, cut, good, npy, parquet, signed, written
from onecycle.core.files import with_checksum

pytestmark = pytest.mark.slow

PREDICT, WRITE = "predict table b.parquet", "predict table b.parquet -o out.parquet"
STATE, WEIGHTS = Path("table/model/state.json"), Path("table/model/model.safetensors")
MANIFEST = Path("table/model/manifest.json")


def rows(**columns: Any) -> Make:
    """Writes b.parquet: good rows, but for these columns."""
    return parquet("b.parquet", good(**columns))


def state(change: Callable[[dict[str, Any]], object]) -> Make:
    """Changes the JSON of the model of tables."""

    def edit() -> None:
        found = json.loads(STATE.read_text())
        change(found)
        STATE.write_text(json.dumps(found))
        signed(STATE.parent)

    return edit


def info(**changed: Any) -> Make:
    """Changes what the bundle says of the model."""
    return state(lambda found: found["info"].update(changed))


def manifest(change: Callable[[dict[str, Any]], object]) -> Make:
    """Changes the manifest, and signs it again."""

    def make() -> None:
        found = json.loads(MANIFEST.read_text())
        del found["sha256"]
        change(found)
        MANIFEST.write_text(with_checksum(found))

    return make


def one_digit() -> None:
    """Changes a size in the manifest."""
    MANIFEST.write_text(MANIFEST.read_text().replace('"bytes": ', '"bytes": 1', 1))


def one_bit() -> None:
    """Changes a weight."""
    content = bytearray(WEIGHTS.read_bytes())
    content[-5] ^= 1
    WEIGHTS.write_bytes(content)


ROWS = [
    Case(
        "a missing column",
        PREDICT,
        'b.parquet: the table has no column "age", which the model was trained with; there are',
        parquet("b.parquet", good().drop_columns(["age"])),
    ),
    Case(
        "a renamed column",
        WRITE,
        'the table has no column "town", which the model was trained with; did you mean "twon"?',
        parquet("b.parquet", good().rename_columns(["age", "twon", "group"])),
    ),
    Case(
        "text where a number is needed",
        WRITE,
        """b.parquet: row 0: column "age" is 'old'; expected a number""",
        rows(age=["old"] * 60),
    ),
    Case(
        "a word among numbers",
        "predict table b.csv -o out.csv",
        """b.csv:42: column "age" is 'old'; expected a number""",
        written("b.csv", csv_text() + "old,Ulm,a\n"),
    ),
    Case(
        "lists where a number is needed",
        WRITE,
        'b.parquet: column "age" holds list<element: int64>; expected numbers',
        rows(age=[[1]] * 60),
    ),
    Case(
        "two columns of a name",
        "predict table b.csv",
        'b.csv: more than one column is called "age"',
        written("b.csv", "age,age,town\n1,2,Ulm\n"),
    ),
    Case("no rows", WRITE, "b.parquet: no rows; expected at least one", parquet("b.parquet", good().slice(0, 0))),
    Case("a missing file", "predict table c.parquet -o out.parquet", "c.parquet: no such file"),
    Case("a damaged file", WRITE, "b.parquet: damaged or cut short", cut(rows(), "b.parquet")),
    Case(
        "an image for a table", "predict table photos/dark/1.png", "photos/dark/1.png: the model was trained on a table"
    ),
    Case("a folder for a table", "predict table photos", "photos: the model was trained on a table; expected one with"),
    Case(
        "pixels for a table",
        "predict table pixels.npz",
        "pixels.npz: holds an array of uint8 of shape (60, 4, 4); expected",
    ),
    Case("too few columns", "predict table b.npy", 'b.npy: the table has no column "age"', npy("b.npy", X[:, :1])),
    Case("a table for images", "predict images a.parquet", "a.parquet: expected a file ending in .npy, .npz"),
    Case(
        "pixels of another size",
        "predict images b.npy",
        "b.npy: holds an array of shape (60, 3, 4); expected (4, 4) or",
        npy("b.npy", PIXELS[:, 1:]),
    ),
    Case(
        "numbers that are no pixels",
        "predict images b.npy",
        "b.npy contains 300 at row 0 (960 such values); whole numbers",
        npy("b.npy", np.full((60, 4, 4), 300)),
    ),
    Case(
        "NaN for pixels",
        "predict images b.npy",
        "b.npy contains nan at row 0",
        npy("b.npy", np.full((60, 4, 4), np.nan)),
    ),
    Case(
        "a damaged image",
        "predict pictures photos",
        "photos/dark/3.png: a damaged image",
        cut(lambda: None, "photos/dark/3.png", 0.7),
    ),
    Case(
        "a folder without images",
        "predict pictures empty",
        "empty: no PNG or JPEG images in this folder",
        lambda: Path("empty").mkdir(),
    ),
]

RUNS = [
    Case("no such run", "predict nothing a.parquet", "nothing: no such folder; expected a bundle that onecycle wrote"),
    Case("no run in the folder", "predict photos a.parquet", "photos holds no run or bundle; expected a folder that"),
    Case("file and run changed", "predict a.parquet table", "a.parquet is a file; the RUN folder comes first"),
    Case(
        "a run without its model",
        "predict table a.parquet",
        "table/model: no such folder",
        lambda: shutil.rmtree("table/model"),
    ),
    Case(
        "weights that are cut short",
        WRITE,
        "bytes, not those of manifest.json); use another copy",
        cut(rows(), str(WEIGHTS), 0.9),
    ),
    Case("a bit of a weight changed", WRITE, f"{WEIGHTS}: damaged (its SHA-256 is not that of", one_bit),
    Case("weights gone", WRITE, f"{WEIGHTS}: cannot be read", lambda: WEIGHTS.unlink()),
    Case("no JSON", WRITE, f"{MANIFEST}: not a manifest that onecycle wrote", written(str(MANIFEST), "{")),
    Case("JSON gone", WRITE, f"{STATE}: cannot be read", lambda: STATE.unlink()),
    Case(
        "a manifest with another size",
        WRITE,
        f"{MANIFEST}: not a manifest that onecycle wrote (it does not have the SHA-256 that it says: it is damaged",
        one_digit,
    ),
    Case(
        "manifest with another size",
        WRITE,
        f"{WEIGHTS}: damaged",
        manifest(lambda found: found["files"]["model.safetensors"].update(bytes=1)),
    ),
    Case(
        "manifest of other files",
        WRITE,
        f"{MANIFEST}: names a file outside of the folder",
        manifest(lambda found: found.update(files={"../../a.parquet": {}})),
    ),
    Case(
        "manifest of no files",
        WRITE,
        f"{STATE}: not a state that onecycle wrote",
        manifest(lambda found: found.update(files={})),
    ),
    Case(
        "a checkpoint",
        WRITE,
        "table/model: holds a checkpoint; expected a bundle",
        manifest(lambda found: found.update(onecycle="checkpoint")),
    ),
    Case(
        "a format of the future",
        WRITE,
        "format 99 is newer than this onecycle reads",
        manifest(lambda found: found.update(format=99)),
    ),
    Case(
        "unknown architecture",
        WRITE,
        "unknown architecture 'os.system'; expected MLP or TabularModel",
        state(lambda found: found["architecture"].update(name="os.system")),
    ),
    Case(
        "an architecture of one layer more",
        WRITE,
        "table/model: describes a TabularModel of 94 weights; expected 74; take an undamaged copy",
        state(lambda found: found["architecture"].update(hidden=[4, 4])),
    ),
    Case(
        "a bundle without what it says",
        WRITE,
        "table/model: not a bundle that onecycle wrote",
        state(lambda found: found.pop("info")),
    ),
    Case(
        "damaged preprocessing", WRITE, "preprocessing.columns is None; expected a list", info(features={"format": 1})
    ),
    Case(
        "a damaged target",
        WRITE,
        "target.task is 'guess'; expected one of classes",
        state(lambda found: found["info"]["target"].update(task="guess")),
    ),
    Case(
        "which file is damaged",
        WRITE,
        "table/model: preprocessing.columns is None; expected a list; take an undamaged copy",
        info(features={"format": 1}),
    ),
    Case(
        "a column less than the model takes",
        WRITE,
        "table/model: the model has 2 inputs and 2 outputs, which does not match the preprocessing",
        state(lambda found: found["info"]["features"]["columns"].pop()),
    ),
    Case(
        "a class more than the model has",
        WRITE,
        "table/model: the model has 2 inputs and 2 outputs, which does not match the preprocessing",
        state(lambda found: found["info"]["target"]["classes"].append("z")),
    ),
    Case(
        "a class that no float holds",
        WRITE,
        "table/model: target.classes is [0, 1",
        state(lambda found: found["info"]["target"].update(classes=[0, 10**400])),
    ),
    Case(
        "a layer for which there is no memory",
        WRITE,
        "table/model: describes a TabularModel of 16,492,674,416,654 weights; expected 74",
        state(lambda found: found["architecture"].update(hidden=[2**40])),
    ),
    Case(
        "an architecture that is a number",
        WRITE,
        "table/model: architecture is 3, which onecycle never writes",
        state(lambda found: found.update(architecture=3)),
    ),
    Case(
        "an architecture with another part",
        WRITE,
        "does not describe a TabularModel (TabularModel.__init__() got an unexpected keyword argument 'depth')",
        state(lambda found: found["architecture"].update(depth=3)),
    ),
    Case("a loss that is a number", WRITE, "table/model: info.loss is 3, which onecycle never writes", info(loss=3)),
    Case(
        "classes that are a number",
        WRITE,
        "table/model: info.classes is 3, which onecycle never writes",
        info(classes=3),
    ),
    Case(
        "an input shape that is text",
        WRITE,
        "table/model: info.input_shape is 'wide', which onecycle never writes",
        info(input_shape="wide"),
    ),
]

PLACES = [
    Case(
        "out with an unknown suffix",
        "predict table a.parquet -o out.xlsx",
        "-o is out.xlsx; expected a name that ends in .parquet",
    ),
    Case("out with a slip in its suffix", "predict table a.parquet -o out.prquet", 'did you mean ".parquet"?'),
    Case(
        "out exists",
        "predict table a.parquet -o out.csv",
        "out.csv exists; give another -o, or --force to replace it",
        written("out.csv", "mine"),
    ),
    Case("out is the input", "predict table a.parquet -o a.parquet", "a.parquet exists; give another -o"),
    Case(
        "out is a folder",
        "predict table a.parquet -o out.csv --force",
        "out.csv is a folder; expected the name of a file",
        lambda: Path("out.csv").mkdir(),
        code=1,
    ),
    Case("out is in a file", "predict table a.parquet -o a.parquet/out.csv", "cannot be written", code=1),
    Case("folders that would be made", "predict table c.parquet -o deep/er/out.csv", "c.parquet: no such file"),
    Case(
        "out of a failure",
        "predict table b.parquet -o out.csv --force",
        'no column "age"',
        lambda: [parquet("b.parquet", good().drop_columns(["age"]))(), written("out.csv", "mine")()],
    ),
    Case("no file", "predict table", "missing argument 'FILE'; see onecycle predict --help"),
    Case("unknown device", "predict table a.parquet --device cud", 'unknown device "cud"'),
]


@pytest.mark.parametrize("case", each(ROWS + RUNS + PLACES))
def test_what_predict_refuses(case: Case, runs: Path, place: Path, capsys: Capture) -> None:
    copied(runs)
    if "b.parquet" in case.command:
        rows()()
    case.make()
    refused(case, [case.command], place, capsys)


def test_a_failure_in_the_middle_leaves_no_half_of_a_table(runs: Path, place: Path, capsys: Capture) -> None:
    copied(runs)
    many = pa.concat_tables([good()] * 2000)
    ages = pa.array([*map(str, many["age"].to_pylist()[:-1]), "old"])
    pa.csv.write_csv(many.set_column(0, "age", ages), "b.csv")
    case = Case("", "", """column "age" is 'old'; expected a number""")
    refused(case, ["predict table b.csv -o out.csv", "predict table b.csv -o out.parquet"], place, capsys)
