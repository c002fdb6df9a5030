"""Replace every value in every JSON file that the library reads by every other kind of value, with checksums that fit.

    python tests/durability/json_kinds.py [--every N] [--only FILE] [--show]

A file is refused with one of the library's errors, which names it; or it means the same as before. Where a value is
replaced by one of its own kind (a number by a number), or by null where that has a meaning, the file says something
else, and it may be read as that. Any other exception, a read that takes more than 20 seconds, and another answer after
a value of another kind are faults.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

from bad_input import formats
from bad_input.makers import signed
from durability.malice_files import ROWS, make_good, own_learner
from onecycle import DataBunch, Learner, Record, load_predictor
from onecycle.checkpoint.run_folder import RunFolder
from onecycle.cli.app import run as command
from onecycle.cli.run_files import load_settings
from onecycle.core.files import with_checksum
from onecycle.errors import DataError, FileError, OneCycleError
from onecycle.tables.cache.folder import DamagedCacheError, Manifest

SECONDS = 20
LITERALS = {"<1e400>": "1e400", "<nan>": "NaN", "<huge>": "9" * 400}
KINDS: dict[str, Any] = {
    **{"null": None, "true": True, "int": 3, "negative": -1, "1e400": "<1e400>", "NaN": "<nan>", "huge": "<huge>", "float": 0.5},
    **{"empty": "", "text": "x", "long": "x" * 100_000, "list": [], "nested": [[[]]], "deep": None, "object": {}, "members": {"a": 1}},
}  # fmt: skip
for _ in range(150):
    KINDS["deep"] = [KINDS["deep"]]


class Own(nn.Module):
    """A model that is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(20, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x).relu().reshape(-1, 2, 2).mean(2)


@dataclass(frozen=True)
class Target:
    """A JSON file in a folder that was written by the library: its path there, how it is signed, who reads it."""

    name: str
    folder: str
    file: str
    sign: Callable[[Path, str], None]
    read: Callable[[Path], Any]


def archive(kind: str) -> Callable[[Path, str], None]:
    """Write a file of an archive and its manifest."""

    def sign(path: Path, text: str) -> None:
        path.write_text(text)
        signed(path.parent, kind)

    return sign


def with_sum(path: Path, text: str) -> None:
    """Write a file with its own checksum, as far as its values have one."""
    try:
        values = json.loads(text)
        values.pop("sha256", None)
        text = with_checksum(values)
    except (ValueError, AttributeError, TypeError):
        pass  # NaN, for one, is never in such a file
    path.write_text(text)


def loaded(folder: Path) -> Any:
    learn = own_learner()
    learn.model_dir = folder.parent
    learn.load(folder.name)
    return learn.get_preds("valid")[0]


def resumed(folder: Path) -> Any:
    learn = own_learner()
    learn.resume(folder.parents[1])
    return learn.get_preds("valid")[0]


def recorded(folder: Path) -> Any:
    record = Record.load(folder / "record.json")
    printed("report", folder)
    return [*record.rows(), printed("runs", folder.parent)]


def printed(*args: str | Path) -> str:
    """What a command prints; a bug is one here too."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        command([*map(str, args)])
    if "this is a bug" in err.getvalue():
        raise RuntimeError(err.getvalue())
    return out.getvalue()


def failed(folder: Path) -> Any:
    printed("runs", folder)
    if (found := RunFolder(folder).read_failure()) is None:
        raise FileError(f"{folder}: it says nothing")
    return found


def cached(folder: Path) -> Any:
    try:
        manifest = Manifest.read(folder)
        manifest.check(folder, content=True)
        manifest.fitted()
    except DamagedCacheError as error:
        raise FileError(f"{folder}: {error}") from error
    except DataError as error:  # it names the source that was prepared, not the folder
        raise FileError(str(error).replace(str(manifest.source), str(folder))) from error
    return manifest


def predicted(rows: Any) -> Callable[[Path], Any]:
    return lambda folder: load_predictor(folder, device="cpu").get_preds(rows)[0]


def targets() -> list[Target]:
    """Every JSON file."""
    found = [
        Target("bundle", "bundle", "state.json", archive("bundle"), predicted(ROWS)),
        Target("bundle of a table", "table", "state.json", archive("bundle"), predicted(formats.table())),
        Target("bundle of a program", "program", "state.json", archive("bundle"), predicted(ROWS)),
        Target("checkpoint", "checkpoint", "state.json", archive("checkpoint"), loaded),
        Target("run", "run/checkpoints/0000000031", "state.json", archive("fit"), resumed),
        Target("settings", "cli/settings", "state.json", archive("settings"), lambda folder: load_settings(folder.parent)),
        Target("record.json", "records", "record.json", with_sum, recorded),
        Target("failure.json", "failed", "failure.json", with_sum, failed),
        Target("cache", "cache", "manifest.json", with_sum, cached),
    ]  # fmt: skip
    manifests = {"bundle": found[0], "checkpoint": found[3], "fit": found[4], "settings": found[5]}
    return found + [
        Target(f"manifest of a {kind}", target.folder, "manifest.json", with_sum, target.read)
        for kind, target in manifests.items()
    ]


def make_all(folder: Path) -> None:
    """Write everything."""
    make_good(folder)
    torch.manual_seed(0)
    data = DataBunch.create((np.ones((20, 20), np.float32), np.arange(20) % 2), bs=8, device="cpu")
    Learner(data, Own(), silent=True).export(folder / "program")
    (folder / "records").mkdir()
    shutil.copy(folder / "record.json", folder / "records")
    RunFolder(folder / "failed").path.mkdir()
    Record().save(folder / "failed" / "record.json")
    RunFolder(folder / "failed").write_failure(FileError("it failed"))
    (folder / "rows.csv").write_text("a,b,y\n" + "\n".join(f"{i % 7},{'uv'[i % 2]},{i % 3}" for i in range(90)) + "\n")
    os.environ["ONECYCLE_HOME"] = str(folder / "home")
    args = ["--target", "y", "--epochs", "1", "--lr", "0.01", "--device", "cpu"]
    printed("train", folder / "rows.csv", *args, "--out", folder / "cli", "--checkpoint-every", "1")
    printed("train", folder / "rows.csv", *args, "--memory-limit", "1k", "--out", folder / "streamed")
    entry = next(path.parent for path in (folder / "home").rglob("manifest.json"))
    shutil.copytree(entry, folder / "cache")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value, and where it is; of a long list only some of its items."""
    if path:
        yield path, value
    items = [*value.items()] if isinstance(value, dict) else [*enumerate(value)] if isinstance(value, list) else []
    for key, item in items if len(items) <= 40 else random.Random(len(items)).sample(items, 8):
        if key != "sha256" or path:
            yield from places(item, (*path, key))


def kind_of(value: Any) -> str:
    """The kind of a JSON value."""
    if isinstance(value, str) and value in LITERALS:
        return "number"
    names = {bool: "bool", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), "null")


def replaced(found: Any, path: tuple[Any, ...], value: Any) -> str:
    """The text of the file with another value at a place."""
    *steps, last = path
    inner = found
    for step in steps:
        inner = inner[step]
    before, inner[last] = inner[last], value
    text = json.dumps(found, indent=1)
    inner[last] = before
    for mark, literal in LITERALS.items():
        text = text.replace(f'"{mark}"', literal)
    return text


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    return type(one) is type(other) and repr(one) == repr(other)


def outcome(target: Target, place: Path, good: Any, stated: bool) -> str:
    """What happens when a file is read."""

    def late(*_: object) -> None:
        raise TimeoutError(f"it takes more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        answer = target.read(place)
    except OneCycleError as error:
        if any(str(path) in str(error) for path in (place, *place.parents[: len(Path(target.folder).parts) - 1])):
            return "refused"
        return "stated" if stated else f"nameless: {error}"[:200]
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:200]
    finally:
        signal.alarm(0)
    if same(answer, good):
        return "equal"
    return "stated" if stated else "another answer"


def may_be(name: str, at: str, new: Any) -> bool:
    """Whether a value of another kind is a statement of its own at a place, and the answer may differ."""
    return any(at.startswith(start) and kind_of(new) in kinds for start, kinds in OTHER_KINDS.get(name, {}).items())


# what the command line writes in one of two ways, and what a record only shows
_ANY = ("null", "bool", "number", "text", "list", "object")
OTHER_KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "bundle of a table": {"info.features": ("null",)},  # as of a folder of images
    "bundle of a program": {"program.calls": ("null",)},  # a layer without bias, for one
    "run": {"checkpoints.best": ("text",), "ended": ("text",)},
    "cache": {  # what `onecycle cache` shows of the settings
        **{f"manifest.spec.{name}": ("text", "list") for name in ("target", "drop", "split")},
        **{f"manifest.{name}": _ANY for name in ("spec.kinds", "spec.task", "features", "columns")},
    },
    "settings": {
        **{f"settings.{name}": ("null", "number") for name in ("lr", "bs", "epochs", "threads")},
        "every": ("null", "text"),
        "lr": ("null", "number"),
        **{f"settings.{name}": ("null", "text") for name in ("device", "memory_limit", "table.task")},
        **{f"settings.table.{name}": ("text", "list") for name in ("target", "drop")},
        "settings.model.hidden": ("null", "list"),
        "settings.image_size": ("null", "list"),
        "settings.table.kinds": ("object",),
        "curve": ("null", "object"),
    },
    "record.json": {
        **dict.fromkeys(("settings", "versions", "mistakes", "lr_curve"), _ANY),
        "stopped": ("null", "text"),
        **dict.fromkeys(("val_losses", "metrics", "moms"), ("null",)),
        **dict.fromkeys(
            ("lrs", "moms", "batch_losses", "losses", "nb_batches", "val_losses", "metrics", "seconds"),
            ("list", "null"),
        ),
    },
}


def main() -> int:
    """Print what was found; 1 if there are faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every N-th case")
    parser.add_argument("--only", default="", help="only files with this in their name")
    parser.add_argument("--show", action="store_true", help="print each case")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    faults, total, number = 0, Counter[str](), 0
    with TemporaryDirectory() as temporary:
        good = Path(temporary).resolve() / "good"
        good.mkdir()
        make_all(good)
        os.chdir(good)
        for target in targets():
            if options.only not in target.name:
                continue
            seen = Counter[str]()
            top = good / Path(target.folder).parts[0]
            place = Path(temporary).resolve() / "it"
            shutil.copytree(top, place / top.name)
            folder = place / target.folder
            path, before = folder / target.file, (folder / target.file).read_text()
            whole = target.read(folder)
            for where, old in [*places(json.loads(before))]:
                for name, new in KINDS.items():
                    number += 1
                    if number % options.every or (type(old) is type(new) and old == new):
                        continue
                    shutil.rmtree(place)
                    shutil.copytree(top, place / top.name)
                    at = ".".join(map(str, where))
                    target.sign(path, replaced(json.loads(before), where, new))
                    stated = kind_of(old) == kind_of(new) or may_be(target.name, at, new)
                    found = outcome(target, folder, whole, stated)
                    seen[found if found in ("refused", "equal", "stated") else "faults"] += 1
                    if options.show or found not in ("refused", "equal", "stated"):
                        print(f"{target.name}: {at} is {name}: {found}", flush=True)
            shutil.rmtree(place)
            faults += seen["faults"]
            total += seen
            print(f"{target.name:<24} {dict(seen)}", flush=True)
    print(f"{sum(total.values()):,} files: {dict(total)}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
