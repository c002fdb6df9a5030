"""Settings that cannot be used, for a file that can."""

import sys
from pathlib import Path

import pytest

from bad_input.case import Capture, Case, copied, each, refused
from bad_input.makers import both, parquet, written

TRAIN = "train a.parquet --target group"
VALID = "expected a share between 0 and 1, or a whole number of rows"
EPOCHS = "expected a whole number of at least 0, or auto"
SIZES = "expected sizes from 1 to 1,000,000, separated by commas: 256,128"

NAMES = [
    Case(
        "target with a near name",
        "train a.parquet --target gruop",
        'there is no column "gruop" to predict; did you mean "group"?',
    ),
    Case("target in capitals", "train a.parquet --target GROUP", 'did you mean "group"?'),
    Case(
        "unknown target", "train a.parquet --target price", 'no column "price" to predict; there are age, town, group'
    ),
    Case("one of two targets", "train a.parquet --target age,price", 'there is no column "price" to predict'),
    Case("a target twice", "train a.parquet --target age,age", "expected a list of different column names"),
    Case(
        "no target",
        "train a.parquet",
        "--target is missing, which says what is predicted; the columns are age, town, group",
    ),
    Case("an empty target", "train a.parquet --target ''", '--target is ""; expected names of columns'),
    Case(
        "unknown column to leave out",
        f"{TRAIN} --drop twon",
        '"twon", but there is no such column; did you mean "town"?',
    ),
    Case(
        "a column to leave out, far from any",
        f"{TRAIN} --drop zzz",
        "age, town",
        unsaid="there are zzz",
    ),
    Case(
        "the target left out",
        f"{TRAIN} --drop group",
        '"group", which is predicted',
    ),
    Case(
        "unknown column of a kind",
        f"{TRAIN} --kind twon=category",
        '"twon", but there is no such column; did you mean "town"?',
    ),
    Case("a kind of the target", f"{TRAIN} --kind group=number", '"group", which is predicted'),
    Case(
        "unknown kind",
        f"{TRAIN} --kind town=categroy",
        "--kind of town is categroy; expected number, category, date or dropped; did",
    ),
    Case("a kind without a column", f"{TRAIN} --kind number", "--kind is number; expected NAME=KIND"),
    Case("unknown split", f"{TRAIN} --split radnom", 'group:COLUMN, column:COLUMN; did you mean "random"?'),
    Case(
        "a split without its column",
        f"{TRAIN} --split time",
        "--split is time; expected one of auto, random, stratified",
    ),
    Case("a split by an unknown column", f"{TRAIN} --split group:twon", 'has no column "twon"; did you mean "town"?'),
    Case(
        "unknown task",
        f"{TRAIN} --task clases",
        "--task is clases; expected classes, regression or multilabel; did you mean",
    ),
    Case(
        "unknown model", f"{TRAIN} --model resnet", "--model is resnet; expected auto, mlp:256,128 or tabular:256,128"
    ),
    Case("a model with words for widths", f"{TRAIN} --model mlp:wide", f"--model is mlp:wide; {SIZES}"),
    Case("a model of width 0", f"{TRAIN} --model mlp:8,0", f"--model is mlp:8,0; {SIZES}"),
    Case("unknown option", f"{TRAIN} --epoch 3", 'unknown option "--epoch"; did you mean "--epochs"?'),
    Case("an option of another command", "inspect a.parquet --lr 1", 'unknown option "--lr"'),
    Case("unknown command", "trian a.parquet", 'unknown command "trian"; did you mean "train"?'),
    Case("an option without its value", "train a.parquet --target", "option '--target' requires an argument"),
    Case("two sources", "train a.parquet b.parquet --target group", "got unexpected extra argument(s) (b.parquet)"),
    Case("unknown device", f"{TRAIN} --device gpu", 'unknown device "gpu"; expected cpu, cuda, cuda:N or mps'),
    Case(
        "image size of a table",
        f"{TRAIN} --image-size 8",
        "--image-size is for a folder of images; a.parquet is a file",
    ),
]

NUMBERS = [
    *(
        Case(f"epochs {text}", f"{TRAIN} --epochs {text}", f"--epochs is {text}; {EPOCHS}")
        for text in ("-1", "1.5", "abc", "9" * 20)
    ),
    *(
        Case(f"lr {text}", f"{TRAIN} --lr {text}", f"--lr is {text}; expected a number above 0, or auto")
        for text in ("0", "-1e-3", "nan", "inf", "fast")
    ),
    *(
        Case(f"bs {text}", f"{TRAIN} --bs {text}", f"--bs is {text}; expected a whole number of at least 1")
        for text in ("0", "-8", "1e3")
    ),
    *(
        Case(f"valid {text}", f"{TRAIN} --valid {text}", f"--valid is {text}; {VALID}")
        for text in ("0", "1.0", "-0.2", "2.5", "nan")
    ),
    Case("wd -1", f"{TRAIN} --wd -1", "--wd is -1; expected a number of at least 0"),
    Case("seed x", f"{TRAIN} --seed x", "--seed is x; expected a whole number of at least 0"),
    Case(
        "a learning rate that makes NaN",
        f"{TRAIN} --lr 1e30 --epochs 2 --bs 8 --model mlp:4",
        "the loss became",
        code=1,
        told=True,
    ),
]

PLACES = [
    Case(
        "out is not empty",
        f"{TRAIN} --out old",
        "old is not empty; give another --out, or --force to replace",
        both(lambda: Path("old").mkdir(), written("old/notes.txt", "mine")),
    ),
    Case(
        "out is a file",
        f"{TRAIN} --out a.parquet",
        "a.parquet is a file; expected a folder: give another --out",
        code=1,
    ),
    Case(
        "out is in a file", f"{TRAIN} --out a.parquet/run", "a.parquet/run: cannot be written (Not a directory)", code=1
    ),
    Case(
        "a model of somebody else's",
        f"{TRAIN} --out old --force",
        "old/model exists and is not a bundle that onecycle wrote",
        both(lambda: Path("old/model").mkdir(parents=True), written("old/model/mine", "mine")),
        code=1,
    ),
    Case(
        "a plot that is no PNG",
        "lr-find a.parquet --target group --out curve.jpg",
        "--out is curve.jpg; expected a name that",
    ),
    Case(
        "a plot where the table is",
        "lr-find a.parquet --target group --out a.parquet",
        "--out is a.parquet; expected a name that",
    ),
    Case("folders that would be made", "train a.parquet --target gruop --out deep/er", 'did you mean "group"?'),
    Case("folders for a plot", "lr-find a.parquet --target gruop --out deep/er/a.png", 'did you mean "group"?'),
]


@pytest.mark.parametrize("case", each(NAMES + NUMBERS + PLACES))
def test_settings_that_cannot_be_used(case: Case, place: Path, capsys: Capture) -> None:
    parquet("a.parquet")()
    case.make()
    refused(case, [case.command], place, capsys)


@pytest.mark.parametrize(
    "command",
    [
        "train a.parquet --target group --out table --lr 1e30 --epochs 2 --model mlp:4 --force",
        "train a.parquet --target gruop --out table --force",
        "train a.parquet --target group --out table",
    ],
)
def test_a_run_that_fails_keeps_the_earlier_one(command: str, runs: Path, place: Path, capsys: Capture) -> None:
    copied(runs)
    code = 1 if "1e30" in command else 2
    refused(Case("", command, "", code=code, told=code == 1), [command], place, capsys)


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_model_that_does_not_fit_into_memory(place: Path, capsys: Capture) -> None:
    import resource

    parquet("a.parquet")()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    case = Case("", f"{TRAIN} --model mlp:1000000,1000000", "a layer of 1,000,000 x 1,000,000 weights does not fit")
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**31, hard))
    try:
        refused(case, [case.command], place, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
