"""JSON that means harm: records, manifests, states and programs, signed as they should be; malice.py feeds it."""

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data.pickle_samples import CALLS
from durability.malice_files import EITHER, PLACES, READ, REFUSED, Case, put
from onecycle import Record
from onecycle.checkpoint.run_folder import RunFolder
from onecycle.core.files import with_checksum
from onecycle.errors import FileError

CODE = "__import__('os').system('touch canary')"
HUGE = 10**30


def nested(depth: int, value: Any = 1) -> Any:
    """Lists in lists."""
    for _ in range(depth):
        value = [value]
    return value


TEXTS: dict[str, bytes] = {
    **{f"{text[:12]!r}": text for text in (
        b"", b"[]", b"null", b"3", b'"x"', b"{", b"{}", b"NaN", b"{'a': 1}", b'{"a": 1,}', b"// x\n{}", b"[" * 100_000, b'{"a":' * 100_000,
        b"[" * 90_000 + b"]" * 90_000, b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", b'{"a": ' + b"9" * 5_000 + b"}", b'{"a": 1e99999}',
        b'{"a": -Infinity}', b'{"a": "\xff"}', b'{"a": "\\ud800"}', b'{"sha256": 3}', b'{"sha256": "", "sha256": ""}', b'{"files": {}, "format": 1}',
        b"\xef\xbb\xbf{}", b" " * 10**7, bytes(10**6), CODE.encode(),
    )},
    "UTF-16": '{"a": 1}'.encode("utf-16"), "a pickle": pickle.dumps(CALLS["system"][0]),
    "a deep nest": b'{"a": ' + b"[" * (sys.getrecursionlimit() * 2) + b"]" * (sys.getrecursionlimit() * 2) + b"}",
}  # fmt: skip
ODD = (None, 3, -1, 1.5, HUGE, "x", "../../x", CODE, [], {}, [[]], [None], {"a": {}}, nested(150), True)


def at(path: str, value: Any) -> Callable[[Any], None]:
    """Put a value into nested lists and dicts: "a.0.b"."""

    def change(found: Any) -> None:
        *steps, last = (int(step) if step.lstrip("-").isdigit() else step for step in path.split("."))
        for step in steps:
            found = found[step]
        found[last] = value

    return change


def edited(name: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    """Change a JSON file of a folder."""

    def write(folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        change(found)
        (folder / name).write_text(json.dumps(found))

    return write


# --- records, manifests, failures -------------------------------------------------------------------------------------


def read_record() -> object:
    """The record and its table."""
    return Record.load("record.json").rows()


def write_record(change: Callable[[Any], object], good: Path) -> None:
    """A record that says something else, signed."""
    found = json.loads((good / "record.json").read_text())
    del found["sha256"]
    change(found)
    Path("record.json").write_text(with_checksum(found))


RECORDS = {
    **{f"{path} is {value!r}"[:50]: at(path, value) for path in ("lrs", "losses", "epochs", "metrics", "seconds", "settings", "lr_curve")
       for value in (3, "x", {"a": [1]}, [{}], [["x"]], nested(150), True) if not (path in ("settings", "lr_curve") and isinstance(value, dict))},
    **{f"{path} is {value!r}"[:50]: at(path, value) for path, value in (
        ("losses.0", "x"), ("losses.0", [1]), ("losses.0", CODE), ("val_losses.0", HUGE**20), ("seconds.0", "nan"), ("seconds.0", "inf"),
        ("seconds.0", HUGE**20), ("seconds.0", None), ("seconds", []), ("val_losses", []), ("metrics", []), ("nb_batches", []), ("nb_batches.0", -9),
        ("nb_batches.0", HUGE), ("nb_batches.0", 1.5), ("nb_batches.0", None), ("losses", []), ("epochs", [0] * 10**6), ("metric_names", 3),
        ("metric_names", [3]), ("metric_names", {}), ("metric_names", ["a"] * 10**6), ("stopped", 3), ("stopped", [[]]), ("versions", 3),
        ("metrics.0", 3), ("metrics.0", [[1]]), ("metrics.0.0", "x"), ("epochs.0", "x"), ("epochs.0", None), ("epochs.0", HUGE))},
}  # fmt: skip
RECORDS_THAT_DO_NO_HARM = (
    *(
        "val_losses.0 is",
        "seconds.0 is",
        "nb_batches.0 is",
        "nb_batches is []",
        "seconds is []",
        "val_losses is []",
        "metrics is []",
        "epochs.0 is",
        "metric_names is",
        "stopped is",
        "metrics is [",
        "lrs is True",
    ),
)


def manifests() -> dict[str, Callable[[Any], object]]:
    """What a manifest may say."""
    names = (
        "../slip",
        "../../slip",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/b",
        "./state.json",
        "x\0y",
        "n" * 300,
        "no such",
        "manifest.json",
    )
    entry = {"bytes": 5, "sha256": "0" * 64}
    return {
        **{f"files: {name[:12]!r}": at_file(name, entry) for name in names},
        **{f"files is {value!r}"[:40]: at("files", value) for value in ODD if value != {}},
        **{f"a file is {value!r}"[:40]: at_file("state.json", value) for value in ODD},
        **{
            f"its size is {value!r}"[:40]: at_file("state.json", {"bytes": value, "sha256": "0"})
            for value in (*ODD, 2**63, -1, 1e300)
        },
        **{f"format is {value!r}"[:40]: at("format", value) for value in (None, 9, HUGE, "1", [1], {}, 1.5)},
        **{f"onecycle is {value!r}"[:40]: at("onecycle", value) for value in (None, 3, "fit2", CODE, [], "x" * 10**6)},
        "30,000 files": lambda found: found["files"].update({f"f{i}": entry for i in range(30_000)}),
    }


def at_file(name: str, value: Any) -> Callable[[Any], object]:
    """An entry of a manifest."""
    return lambda found: found["files"].update({name: value})


def signed_manifest(change: Callable[[Any], object]) -> Callable[[Path], object]:
    """Change a manifest, and sign it again."""

    def write(folder: Path) -> None:
        found = json.loads((folder / "manifest.json").read_text())
        del found["sha256"]
        change(found)
        (folder / "manifest.json").write_text(with_checksum(found))

    return write


def records() -> Iterator[Case]:
    """Records, manifests, what a run failed with."""
    for name, content in TEXTS.items():
        yield Case("record.json", name, partial(the_file, "record.json", content), read_record)
        yield Case("failure.json", name, partial(the_file, "it/failure.json", content), read_failure)
        for kind, place in PLACES.items():
            yield Case(
                f"manifest, {kind}", name, partial(put, place, text("manifest.json", content), sign=False), place.read
            )
            yield Case(
                f"state, {kind}",
                name,
                partial(put, place, text("state.json", content)),
                place.read,
                EITHER if kind == "checkpoint" else REFUSED,
            )
    for name, change in RECORDS.items():
        harmless = name.startswith(RECORDS_THAT_DO_NO_HARM)
        yield Case("record.json", name, partial(write_record, change), read_record, EITHER if harmless else REFUSED)
    for value in ({}, {"failure": 3}, {"failure": "x" * 10**7}, {"failure": nested(150)}, {"other": 1}):
        write = partial(the_file, "it/failure.json", with_checksum(value).encode())
        yield Case("failure.json", f"{value!r}"[:40], write, read_failure, EITHER)
    yield Case("record.json", "a good one", partial(write_record, lambda found: None), read_record, READ)
    for kind in ("bundle", "checkpoint", "run"):
        for name, change in manifests().items():
            place = PLACES[kind]
            yield Case(f"manifest, {kind}", name, partial(put, place, signed_manifest(change), sign=False), place.read)


def text(name: str, content: bytes) -> Callable[[Path], object]:
    """Another text in place of a file."""
    return lambda folder: (folder / name).write_bytes(content)


def the_file(name: str, content: bytes, good: Path) -> None:
    """A file alone."""
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(content)


def read_failure() -> object:
    """What a run failed with; nothing is said where the file is not one that was written."""
    if (found := RunFolder("it").read_failure()) is None:
        raise FileError("it says nothing")
    return found
