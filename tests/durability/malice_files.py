"""Files that mean harm, each with the reader that it is meant for: pickles, arrays, zip files, tensors.

Zip files are in malice_zips.py, tensors in malice_tensors.py, JSON in malice_json.py; malice.py feeds them all. Every payload would touch the file "canary".
"""

import gzip
import io
import pickle
import shutil
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from bad_input import formats
from bad_input.makers import bomb_npz, signed
from data.pickle_samples import CALLS, DAMAGED, RECONSTRUCT, SAMPLE, UNSAFE, python_2_array
from durability.training import learner
from onecycle import CheckpointConfig, Learner, load_pickle, load_predictor
from onecycle import GradientClip as Clip
from onecycle.data.sources import open_source

REFUSED, EITHER, READ = "refused", "either", "read"
BOMB = 2**28  # bytes, twice what the readers let a small packed file give
ROWS = torch.zeros(3, 20)


@dataclass(frozen=True)
class Case:
    """A file: `write` puts it into the current folder, taking what is good from another one; `read` reads it there.

    `expected` is that it is refused; where it does no harm either will do, and what is whole must be read.
    """

    kind: str
    name: str
    write: Callable[[Path], object]
    read: Callable[[], object]
    expected: str = REFUSED


def make_good(folder: Path) -> None:
    """Write one good thing of each kind: a fit that was stopped in its epoch, a checkpoint, bundles, a record."""

    def interrupts(_self: Any, fit: Any) -> None:
        if fit.iteration == 40:
            raise InterruptedError

    learn = learner()
    learn.path, learn.model_dir = folder, "."
    learn.callbacks = [Clip(1.0)]
    Clip.on_batch_end = interrupts  # of a class of the library, whose code is not compared
    with suppress(InterruptedError):
        learn.fit_one_cycle(1, 1e-2, checkpoint=CheckpointConfig(folder / "run", every=31, keep=1))
    del Clip.on_batch_end
    learn = learner()
    learn.path, learn.model_dir = folder, "."
    learn.fit(1, 1e-3)
    learn.save("checkpoint")
    learn.export("bundle")
    learn.export("bundle.zip")
    formats.bundle(folder / "table")
    learn.recorder.record.save(folder / "record.json")
    np.savez(folder / "a.npz", x=np.ones((6, 2)), y=np.arange(6) % 2)


@cache
def own_learner() -> Learner:
    """Who loads a checkpoint, and resumes a run."""
    learn = learner()
    learn.path = Path()
    return learn


@dataclass(frozen=True)
class Place:
    """A folder that the library wrote: what its manifest calls it, where it is, who reads it."""

    kind: str
    good: str
    folder: str
    read: Callable[[], object]


PLACES = {
    "bundle": Place("bundle", "bundle", "it", lambda: load_predictor("it", device="cpu").get_preds(ROWS)[0]),
    "zip": Place("bundle", "bundle", "it", lambda: load_predictor("it.zip", device="cpu").get_preds(ROWS)[0]),
    "checkpoint": Place("checkpoint", "checkpoint", "models/it", lambda: own_learner().load("it")),
    "run": Place("fit", "run/checkpoints/0000000031", "it/checkpoints/0000000031", lambda: own_learner().resume("it")),
}


def put(place: Place, change: Callable[[Path], object], good: Path, sign: bool = True, good_is: str = "") -> None:
    """Copy what is good, change it, and sign it as one who knows how."""
    folder = Path(place.folder)
    shutil.copytree(good / (good_is or place.good), folder)
    change(folder)
    if sign:
        signed(folder, place.kind)
    if place is PLACES["zip"]:
        with zipfile.ZipFile("it.zip", "w") as packed:
            for path in sorted(folder.iterdir()):
                packed.write(path, path.name)


# --- pickles ----------------------------------------------------------------------------------------------------------


def pickles() -> Iterator[Case]:
    """The tables of data/test_safe_pickle.py, in every protocol; cut short; bombs."""
    contents = {name: content for table in (UNSAFE, DAMAGED) for name, (content, _) in table.items()}
    for protocol in range(6):
        for name, (value, _) in CALLS.items():
            with suppress(TypeError, pickle.PicklingError):  # what has no form in an old protocol
                contents[f"{name}, protocol {protocol}"] = pickle.dumps([np.arange(2), value], protocol)
        whole = pickle.dumps(SAMPLE, protocol)
        contents |= {f"{end} bytes of protocol {protocol}": whole[:end] for end in range(1, len(whole), 37)}
    many = b"c_codecs\nencode\nh\x00Vlatin1\n\x86R"
    contents |= {
        "text that becomes many bytes": b"X\x20\xa1\x07\x00" + b"x" * 500_000 + b"q\x00(" + many * 300 + b"t.",
        "an array many times": python_2_array(bytes(4_000_000), b"J\x40\x42\x0f\x00\x85")[:-1]
        + b"q\x06b0(" + (RECONSTRUCT + b"h\x06b") * 60 + b"l.",
        "a million dicts": b"}" * 2_000_000 + b".",
        "zeros": bytes(2**26),
    }  # fmt: skip
    for name, content in contents.items():
        yield _pickle(name, content)
    for name, content in [*UNSAFE.items(), ("zeros", (bytes(BOMB),)), ("dicts", (b"}" * 2_000_000 + b".",))]:
        yield _pickle(f"{name}, packed", gzip.compress(content[0], 1, mtime=0))
    packed = gzip.compress(pickle.dumps(SAMPLE, 4))
    for end in range(2, len(packed), 41):
        yield _pickle(f"{end} packed bytes", packed[:end])
    yield _pickle("a good one", pickle.dumps(SAMPLE, 4), READ)


def _pickle(name: str, content: bytes, expected: str = REFUSED) -> Case:
    return Case("pickle", name, partial(_write, "a.pkl", content), lambda: load_pickle("a.pkl"), expected)


def _write(name: str, content: bytes, good: Path | None = None) -> None:
    Path(name).write_bytes(content)


# --- arrays -----------------------------------------------------------------------------------------------------------


def npy(header: str | bytes, body: bytes = bytes(96), version: tuple[int, int] = (1, 0), length: int = -1) -> bytes:
    """A .npy file of any header."""
    header = header.encode() if isinstance(header, str) else header
    size = struct.pack("<H" if version[0] == 1 else "<I", len(header) if length < 0 else length)
    return b"\x93NUMPY" + bytes(version) + size + header + body


def about(descr: str = "'<f8'", order: str = "False", shape: str = "(6, 2)") -> str:
    """The header that says this."""
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def _objects(name: str) -> bytes:
    np.save(sink := io.BytesIO(), np.array([CALLS[name][0]] * 6, object), allow_pickle=True)
    return sink.getvalue()


CODE = "__import__('os').system('touch canary')"
ARRAYS: dict[str, tuple[bytes, str]] = {
    **{f"objects that call {name}": (_objects(name), REFUSED) for name in ("system", "eval", "exec", "Popen", "open")},
    **{f"shape {shape}": (npy(about(shape=shape)), REFUSED) for shape in (
        "(10**12,)", "(1000000000000,)", "(1000000000, 1000000000)", "(9223372036854775807,)", "(9223372036854775808,)",
        f"({'9' * 4000},)", f"({'9' * 9000},)", "(-1,)", "(-6, -2)", "(True, 12)", "(6.0, 2.0)", "'62'", "6", "[6, 2]",
        "(6, (2,))", f"({'1, ' * 65}12)", f"({'1, ' * 3000}12)", "(2147483648, 2)", "(300000000,)", "(0, 1" + "0" * 18 + ")",
        CODE, "(6 * 2,)",
    )},
    **{f"dtype {descr[:30]}": (npy(about(descr)), REFUSED) for descr in (
        "'|O'", "'|O8'", "['O']", "[('a', '|O'), ('b', '<f8')]", "[('a', [('b', '|O')])]", "('|O', (2,))", "'|V2147483647'",
        "'<U2147483647'", "'|S0'", "'f99'", "''", "None", "3", "{}", "'<M8[as]'", CODE, f"({CODE},)", "'f8,' * 9999",
        "[" * 150 + "]" * 150, "[" * 4000 + "]" * 4000, "(" * 9000, "'<f8', 'descr': '|O'",
        "[('a', '<f8', (1000000000, 1000000000))]", "('<f8', (99999999999,))",
    )},
    **{f"header {name}": (npy(header), REFUSED) for name, header in {
        "is code": CODE, "calls": f"{{**{CODE}}}", "lambda": f"(lambda: {CODE})()", "of f-text": f"f'{{{CODE}}}'",
        "list": "[]", "empty": "", "text": "'x'", "more keys": about()[:-2] + "'code': 1}", "open": "{'descr': '<f8'",
        "long": about() + " " * 30_000, "signs": "-" * 9_000 + "1", "nots": "not " * 2_000 + "1", "sums": "1+" * 4_000 + "1j",
        "brackets": "(" * 4_000 + ")" * 4_000, "lists": "[" * 199 + "]" * 199, "NUL": about() + "\0", "not text": b"\xff\xfe{}",
        "order": about(order="3"), "two lines": "\n" * 60_000, "tabs": "{\n\t'a':\n  1}", "quotes": "'''" * 999, "powers": "9**9**9**9",
    }.items()},
    "header longer than the file": (npy(about(), length=60_000), REFUSED),
    "header of 4 GiB": (npy(about(), version=(2, 0), length=2**32 - 1), REFUSED),
    "header of 1 GiB, version 3": (npy(about(), version=(3, 0), length=2**30), REFUSED),
    "version 9": (npy(about(), version=(9, 0)), REFUSED),
    "nothing after the header": (npy(about(), b""), REFUSED),
    "cut short": (npy(about(), bytes(95)), REFUSED),
    **{f"{end} bytes": (npy(about())[:end], REFUSED) for end in (0, 1, 5, 6, 7, 8, 9, 10, 30, 70)},
    "a pickle": (pickle.dumps(CALLS["system"][0]), REFUSED),
    "HTML": (b"<html>", REFUSED),
}  # fmt: skip


def arrays() -> Iterator[Case]:
    """Arrays alone, and in npz files; npz files that are no good themselves."""
    for name, (content, expected) in ARRAYS.items():
        yield Case("npy", name, partial(_write, "a.npy", content), lambda: open_source("a.npy"), expected)
        yield _npz(
            name, lambda good, content=content: _packed({"x.npy": content, "y.npy": npy(about(shape="(6,)"))}), expected
        )
    structured = npy(about("[('a', '<f8'), ('b', '<f8')]", shape="(6,)"))
    yield Case("npy", "a good one", partial(_write, "a.npy", structured), lambda: open_source("a.npy"), READ)
    whole = {"x.npy": npy(about()), "y.npy": npy(about(shape="(6,)"), bytes(48))}
    yield _npz("a good one", lambda good: _packed(whole), READ)
    yield _npz("3 GiB of zeros", lambda good: (bomb_npz("b.npz")(), Path("b.npz").rename("a.npz"), None)[-1])
    for name, method in (("deflated", zipfile.ZIP_DEFLATED), ("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        bomb = {"x.npy": npy(about(), bytes(3 * 10**7)), "y.npy": b""}
        yield _npz(f"a bomb, {name}", lambda good, bomb=bomb, method=method: _packed(bomb, method))


def _npz(name: str, content: Callable[[Path], bytes | None], expected: str = REFUSED) -> Case:
    def write(good: Path) -> None:
        if (found := content(good)) is not None:
            Path("a.npz").write_bytes(found)

    return Case("npz", name, write, lambda: open_source("a.npz"), expected)


def _packed(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    with warnings.catch_warnings(), zipfile.ZipFile(sink := io.BytesIO(), "w", method) as packed:
        warnings.simplefilter("ignore")  # names that come twice
        for name, content in files.items():
            packed.writestr(name, content)
    return sink.getvalue()
