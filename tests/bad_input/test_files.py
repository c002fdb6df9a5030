"""Files that cannot be read: each is refused by every command in the same words."""

import os
from pathlib import Path

import numpy as np
import pytest

from bad_input.case import Capture, Case, each, refused
from bad_input.makers import (
    PIXELS,
    Evil,
    X,
    Y,
    bomb_npz,
    both,
    csv_text,
    cut,
    feather,
    good,
    gzipped,
    idx,
    npy,
    npz,
    parquet,
    pickled,
    written,
    zstd,
)

pytestmark = pytest.mark.slow

COMMANDS = ("train {} --target group", "lr-find {} --target group --out curve.png", "inspect {}")
GIT_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
XML = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code></Error>\n'

# name, file, message, how it is made
PLACES = [
    Case("missing", "sales.csv", "sales.csv: no such file; check the path"),
    Case("missing, with a near name", "sales.csv", 'did you mean "sale.csv"?', written("sale.csv", csv_text())),
    Case("in a missing folder", "deep/sales.csv", "no such file; the folder deep does not exist either"),
    Case("neither a data set nor a file", "sales", 'unknown data set "sales"; expected mnist, or the path of a file'),
    Case(
        "a link to nothing",
        "sales.csv",
        "sales.csv: a link to gone.csv, which",
        lambda: Path("sales.csv").symlink_to("gone.csv"),
    ),
    Case(
        "a link to itself",
        "sales.csv",
        "sales.csv: ",
        lambda: Path("sales.csv").symlink_to("sales.csv"),
        unsaid="did you mean",
    ),
    Case(
        "a folder of Parquet parts",
        "sales.parquet",
        "sales.parquet: a folder; expected a file",
        both(lambda: Path("sales.parquet").mkdir(), parquet("sales.parquet/part-0.parquet")),
    ),
    Case(
        "the empty name",
        "''",
        "expected mnist, or the path of a file or folder",
    ),
    Case("of Excel", "sales.xlsx", "sales.xlsx: not a kind of file that is known", written("sales.xlsx", b"PK\3\4")),
    Case("without a suffix", "sales", "sales: not a kind of file that is known", written("sales", csv_text())),
    Case("one image", "a.png", "a.png: not a kind of file that is known; expected a folder", written("a.png", b"PNG")),
    Case(
        "with a slip in its suffix",
        "sales.cvs",
        'did you mean ".csv"?',
        written("sales.cvs", csv_text()),
    ),
]

DAMAGED = [
    Case("empty CSV", "a.csv", "a.csv: empty; expected data; copy or download it again", written("a.csv", "")),
    Case("empty gzip", "a.csv.gz", "a.csv.gz: empty; expected data", written("a.csv.gz", "")),
    Case("empty Parquet", "a.parquet", "a.parquet: empty; expected Parquet", written("a.parquet", "")),
    Case("empty Arrow", "a.feather", "a.feather: empty; expected Arrow", written("a.feather", "")),
    Case("empty npy", "a.npy", "a.npy: damaged or not a .npy array", written("a.npy", "")),
    Case("empty npz", "a.npz", "a.npz: damaged or not a .npz file", written("a.npz", "")),
    Case("empty pickle", "a.pkl", "a.pkl: empty; expected data", written("a.pkl", "")),
    Case("empty IDX", "a.idx", "a.idx: empty; expected data", written("a.idx", "")),
    Case(
        "gzip that is cut short",
        "a.csv.gz",
        "a.csv.gz: damaged gzip after 0 unpacked bytes (Truncated compressed stream); expected a whole gzip file",
        cut(gzipped("a.csv.gz", csv_text(2000)), "a.csv.gz", 0.9),
    ),
    Case(
        "zst that is cut short",
        "a.csv.zst",
        "a.csv.zst: damaged zstd after",
        cut(zstd("a.csv.zst", csv_text(2000)), "a.csv.zst", 0.9),
    ),
    Case(
        "pickle in a gzip that is cut short",
        "a.pkl.gz",
        "a.pkl.gz: damaged gzip after",
        cut(gzipped("a.pkl.gz", bytes(9000)), "a.pkl.gz"),
    ),
    Case(
        "Parquet that is cut short",
        "a.parquet",
        "a.parquet: damaged or cut short (Parquet magic bytes not found",
        cut(parquet("a.parquet"), "a.parquet"),
    ),
    Case(
        "Arrow that is cut short",
        "a.arrow",
        "a.arrow: damaged or cut short (",
        cut(feather("a.arrow"), "a.arrow"),
    ),
    Case("npy that is cut short", "a.npy", "a.npy: damaged or not a .npy array (", cut(npy("a.npy", X), "a.npy")),
    Case("npz that is cut short", "a.npz", "a.npz: damaged or not a .npz file (", cut(npz("a.npz", x=X, y=Y), "a.npz")),
    Case(
        "IDX that is cut short",
        "a.idx",
        "a.idx: 488 bytes; expected 976 for shape (60, 4, 4) of uint8; copy or download it again",
        cut(written("a.idx", idx(PIXELS)), "a.idx"),
    ),
    Case(
        "IDX of no numbers in a shape too large",
        "a.idx",
        "a.idx: shape (4278190080, 4294967295, 0) is too large",
        written("a.idx", bytes([0, 0, 8, 3, 255, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0])),
    ),
    Case(
        "pickle that is cut short",
        "a.pkl",
        "a.pkl: is cut short: 1,440 bytes should follow, 923 do",
        cut(pickled("a.pkl", (X, Y)), "a.pkl"),
    ),
    Case(
        "npz that unpacks to 3 GiB",
        "a.npz",
        "a.npz: takes more than the cap of 2,147,483,648 bytes when unpacked; if you trust this file",
        bomb_npz("a.npz"),
    ),
]

UNSAFE = [
    Case("unsafe pickle", "a.pkl", "a.pkl: asks for posix.system, which arrays never need", pickled("a.pkl", Evil())),
    Case("unsafe old pickle", "a.pkl", "nothing of it was run", pickled("a.pkl", {"x": [Evil()]}, 0)),
    Case(
        "unsafe pickle in gzip",
        "a.pkl.gz",
        "a.pkl.gz: asks for posix.system",
        both(pickled("b.pkl", Evil()), lambda: gzipped("a.pkl.gz", Path("b.pkl").read_bytes())()),
    ),
    Case(
        "npz of Python objects",
        "a.npz",
        "a.npz: holds an array of Python objects, which could run code when loaded; expected numbers",
        npz("a.npz", x=X, y=np.array([Evil()] * 60)),
    ),
    Case(
        "npy of Python objects",
        "a.npy",
        "a.npy: holds an array of Python objects, which could run code",
        npy("a.npy", np.array([Evil()])),
    ),
]

OTHER_FORMATS = [
    Case("CSV that is gzip", "a.csv", "a.csv: looks like gzip; expected CSV", gzipped("a.csv", csv_text())),
    Case("CSV that is Parquet", "a.csv", "a.csv: looks like Parquet; expected CSV", parquet("a.csv")),
    Case("CSV that is HTML", "a.csv", "a.csv: looks like an HTML page", written("a.csv", "\n<!DOCTYPE html>\n<html>")),
    Case("CSV that is Excel", "a.csv", "looks like a zip archive, as Excel's .xlsx is", written("a.csv", b"PK\3\4..")),
    Case("CSV that is an image", "a.csv", "looks like a PNG image", written("a.csv", b"\x89PNG\r\n\x1a\n")),
    Case(
        "CSV that is JSON",
        "a.csv",
        "a.csv: looks like JSON; expected CSV",
        written("a.csv", '[{"age": 1, "group": "a"},\n{"age": 2, "group": "b"}]\n'),
    ),
    Case(
        "CSV that is XML",
        "a.csv",
        "a.csv: looks like XML; expected CSV",
        written("a.csv", XML),
    ),
    Case(
        "CSV that Git has elsewhere",
        "a.csv",
        "git lfs pull",
        written("a.csv", GIT_LFS),
    ),
    Case("gzip that is plain", "a.csv.gz", "expected a gzip file, as its name says", written("a.csv.gz", csv_text())),
    Case("Parquet that is CSV", "a.parquet", "a.parquet: begins with b'age,", written("a.parquet", csv_text())),
    Case("Arrow that is CSV", "a.arrow", "a.arrow: begins with b'age,", written("a.arrow", csv_text())),
    Case("npy that is CSV", "a.npy", "a.npy: damaged or not a .npy array", written("a.npy", csv_text())),
    Case("npz that is CSV", "a.npz", "a.npz: damaged or not a .npz file", written("a.npz", csv_text())),
    Case("pickle that is CSV", "a.pkl", "is damaged or not a pickle of NumPy arrays", written("a.pkl", csv_text())),
    Case("pickle that is npy", "a.pkl", "a.pkl: a NumPy .npy file", both(npy("a.npy", X), lambda: renamed())),
    Case(
        "IDX that is CSV", "a.idx", "starts with the bytes 61 67 65 2c; expected an IDX", written("a.idx", csv_text())
    ),
    Case(
        "IDX without its labels",
        "t-images-idx3-ubyte",
        "its labels are looked for in t-labels-idx1-ubyte, which is not there",
        written("t-images-idx3-ubyte", idx(PIXELS)),
    ),
]

TEXT = [
    Case(
        "a row too short",
        "a.csv",
        "a.csv:42: 2 cells; expected 3 as in the header (age, town, group)",
        written("a.csv", csv_text() + "1,U\n"),
    ),
    Case("a row too long", "a.csv", "a.csv:42: 4 cells; expected 3", written("a.csv", csv_text() + "1,U,a,b\n")),
    Case("a row too short, packed", "a.csv.gz", "a.csv.gz:42: 2 cells", gzipped("a.csv.gz", csv_text() + "1,U\n")),
    Case(
        "a quote left open",
        "a.csv",
        "a.csv:42: 2 cells; expected 3 as in the header (age, town, group); is a quote",
        written("a.csv", csv_text() + '1,"U,a\n'),
    ),
    Case(
        "a cell that is no number",
        "a.csv",
        """a.csv:42: column "age" is 'old'; expected a number, as in 40 of its""",
        written("a.csv", csv_text() + "old,U,a\n"),
    ),
    Case(
        "how to take words for numbers",
        "a.csv",
        "--kind age=category",
        written("a.csv", csv_text() + "old,U,a\n"),
    ),
    Case(
        "Latin-1",
        "a.csv",
        "a.csv:42: byte 0xfc at position 419 is not UTF-8; expected text in UTF-8",
        written("a.csv", (csv_text() + "30,Zürich,a\n").encode("latin-1")),
    ),
    Case("UTF-16", "a.csv", "a.csv: looks like UTF-16 text", written("a.csv", csv_text().encode("utf-16"))),
    Case("a zero byte", "a.csv", "with zero bytes; expected CSV", written("a.csv", csv_text() + "1,\0,a\n")),
    Case("a header only", "a.csv", "a.csv: no rows below the header", written("a.csv", "age,town,group\n")),
    Case("empty lines only", "a.csv", "a.csv: no header line; expected the names", written("a.csv", "\n\r\n\n")),
    Case("no header", "a.csv", "a.csv:1: the first line is 1, 2, 3, all numbers", written("a.csv", "1,2,3\n4,5,6\n")),
    Case(
        "two columns of a name",
        "a.csv",
        'a.csv: more than one column is called "age"; expected each name once',
        written("a.csv", "age,age,group\n1,2,a\n"),
    ),
    Case(
        "a column without a name",
        "a.csv",
        "a.csv: column 1 of 3 has no name; expected a name for each",
        written("a.csv", ",age,group\n1,2,a\n"),
    ),
]

CONTENT = [
    Case("Parquet without rows", "a.parquet", "a.parquet: no rows", parquet("a.parquet", good().slice(0, 0))),
    Case(
        "Parquet with structs",
        "a.parquet",
        'a.parquet: column "town" holds values of type struct<zip: int64>; expected one number, text or date',
        parquet("a.parquet", good(town=[{"zip": 1}] * 60)),
    ),
    Case(
        "Parquet with bytes",
        "a.parquet",
        'a.parquet: column "town" holds bytes that are not UTF-8 text',
        parquet("a.parquet", good(town=[b"\xff"] * 60)),
    ),
    Case("pickle of a number", "a.pkl", "a.pkl: holds a int; expected rows and targets", pickled("a.pkl", 3)),
    Case(
        "pickle of other things",
        "a.pkl",
        'a.pkl: column "lr" is 0.1, of type float; expected a list',
        pickled("a.pkl", {"lr": 0.1, "epochs": 3}),
    ),
    Case(
        "npz without targets",
        "a.npz",
        'a.npz: column "x" has shape (60, 3); expected one value for each row',
        npz("a.npz", x=X),
    ),
    Case("npy of rows alone", "a.npy", "a.npy: holds an array of shape (60, 3); expected rows and", npy("a.npy", X)),
]

FILES = PLACES + DAMAGED + UNSAFE + OTHER_FORMATS + TEXT + CONTENT


def renamed() -> None:
    """Calls a.npy a.pkl."""
    Path("a.npy").rename("a.pkl")


@pytest.mark.parametrize("case", each(FILES))
def test_every_command_refuses_the_file(case: Case, place: Path, capsys: Capture) -> None:
    case.make()
    refused(case, [command.format(case.command) for command in COMMANDS], place, capsys)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(place: Path, capsys: Capture) -> None:
    written("a.csv", csv_text())()
    Path("a.csv").chmod(0)
    case = Case("", "", "a.csv: cannot be read (Permission denied); check that you may read this file")
    refused(case, [command.format("a.csv") for command in COMMANDS], place, capsys)
