"""Put a link, a pipe, a device or a folder in the place of every file that the library opens.

    python tests/durability/odd_files.py [--every N] [--show]

Which files those are is recorded first: all that is opened below the working folder by training, resuming, predicting,
exporting, saving, loading, logging, reports and the cache. Each is then replaced by each odd thing, and the same is done
again in a process of its own. It must end, within time and memory, with one of the library's errors or as if nothing
were odd; and nothing outside of the working folder may be changed, made or removed.
"""

import argparse
import contextlib
import io
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not come along when a process is forked

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.ipc
import pyarrow.parquet as pq
import torch
from PIL import Image

from durability.malice import ROOM, memory
from durability.training import forked, learner
from onecycle import CheckpointConfig, CSVLog, DataBunch, load_learner, load_predictor
from onecycle.cli import cache, predict, report, runs, train  # before the forks, so that each has them
from onecycle.cli.app import run as onecycle
from onecycle.core.record import Record
from onecycle.errors import OneCycleError
from onecycle.predictor import Predictor

COMMANDS = (cache, predict, report, runs, train)
PATIENCE = 30  # seconds after which something is taken for a thing that never ends
MOST = 512  # MB; drawing takes most of it
TEXT = "years of work\n"
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
TRAIN = ["--target", "y", "--epochs", "1", "--lr", "0.01", "--bs", "32", "--device", "cpu", "--model", "mlp:4"]


def pipe(path: Path, _: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(path)


def link(path: Path, outside: Path, name: str = "") -> None:
    """A link to what is outside of the working folder, or to a device."""
    path.symlink_to(name or outside / "thesis.txt")


def dangling(path: Path, outside: Path) -> None:
    """A link to a file outside that is not there."""
    path.symlink_to(outside / "missing")


def folder_link(path: Path, outside: Path) -> None:
    """A link to a folder of somebody else's."""
    path.symlink_to(outside / "photos")


def folder(path: Path, _: Path) -> None:
    """A folder that holds something."""
    path.mkdir()
    (path / "mine.txt").write_text(TEXT)


# folders that the user names, or keeps elsewhere: links to them are followed
NAMED = ("new", "run", "begun", "killed", "python", "home", "home/cache", "models", "images")
ODD: dict[str, Callable[[Path, Path], None]] = {
    "link": link,
    "dangling link": dangling,
    "link to a folder": folder_link,
    "pipe": pipe,
    "link to /dev/zero": partial(link, name="/dev/zero"),
    "folder": folder,
}


def command(*args: str) -> None:
    """The command line; raises what it says of an error."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = onecycle([*args])
    if "this is a bug" in err.getvalue() or code not in (0, 1, 2):
        raise RuntimeError(err.getvalue())
    if code:
        raise OneCycleError(err.getvalue())


def saved() -> Any:
    """A learner whose saves go to the working folder."""
    learn = learner()
    learn.path = Path()
    return learn


def fit_with_log() -> None:
    """A fit in Python over an older one, with a log that grows."""
    learn = saved()
    checkpoint = CheckpointConfig("python", "1 epoch", overwrite=True)
    learn.fit(1, 1e-2, checkpoint=checkpoint, callbacks=CSVLog("log.csv", append=True))


def from_disk() -> None:
    """A table that is prepared on the disk, and read from there."""
    data = DataBunch.from_table("t.csv", "y", memory_limit=1)
    next(iter(data.train_dl))


def rewrite() -> None:
    """Save, export and draw over what is there."""
    learn = saved()
    learn.fit(0, 1e-2)
    for write in (
        lambda: learn.save("saved"),
        lambda: learn.export("bundle", overwrite=True),
        lambda: learn.export("bundle.zip", overwrite=True),
        lambda: learn.recorder.record.save("record.json"),
    ):
        with contextlib.suppress(OneCycleError):
            write()


def read_all() -> None:
    """Load what was saved, exported and recorded."""
    for read in (
        lambda: saved().load("saved"),
        lambda: load_predictor("bundle"),
        lambda: load_predictor("bundle.zip"),
        lambda: load_learner("bundle"),
        lambda: Record.load("record.json"),
        lambda: Predictor.predict(load_predictor("run/model"), "t.csv"),
    ):
        with contextlib.suppress(OneCycleError):
            read()


ACTIONS: dict[str, Callable[[], None]] = {
    "train": partial(command, "train", "t.csv", *TRAIN, "--out", "new"),
    "train --force": partial(command, "train", "t.csv", *TRAIN, "--out", "run", "--force", "--checkpoint-every", "4"),
    "train again": partial(command, "train", "t.csv", *TRAIN, "--out", "begun"),
    "train --resume": partial(command, "train", "--resume", "killed"),
    **{
        f"train on {name}": partial(command, "train", name, *args, "--out", "new")
        for name, args in {
            "t.npz": TRAIN[2:],
            "t.parquet": TRAIN,
            "t.arrow": TRAIN,
            "t.csv.gz": TRAIN,
            "images": TRAIN[2:],
        }.items()
    },
    "predict": partial(command, "predict", "run", "t.csv", "-o", "out.csv", "--force"),
    "report": partial(command, "report", "run"),
    "runs": partial(command, "runs", "."),
    "cache": partial(command, "cache", "--check"),
    "cache --clear": partial(command, "cache", "--clear"),
    "lr-find": partial(command, "lr-find", "t.csv", *TRAIN[:2], *TRAIN[6:], "--out", "curve.png"),
    "fit": fit_with_log,
    "resume": lambda: saved().resume("python"),
    "from disk": from_disk,
    "write": rewrite,
    "read": read_all,
}


def quick_drawing() -> None:
    """One small figure instead of six, and a report without pictures."""

    def draw() -> Any:
        return plt.figure(figsize=(1, 1))

    train.drawable = lambda record: {"losses": draw}
    train.write_report = lambda record, path: record.save(path)


def make_good(place: Path) -> None:
    """One of everything, in the current folder."""
    os.chdir(place)
    os.environ["ONECYCLE_HOME"] = str(place / "home")
    warnings.simplefilter("ignore")
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 3)).astype(np.float32)
    names = np.where(x[:, 0] > 0, "yes", "no")
    table = pa.table({**{f"x{i}": x[:, i] for i in range(3)}, "y": names})
    text = "x0,x1,x2,y\n" + "".join(f"{a},{b},{c},{y}\n" for (a, b, c), y in zip(x, names, strict=True))
    Path("t.csv").write_text(text)
    pq.write_table(table, "t.parquet")
    with pa.ipc.new_file("t.arrow", table.schema) as file:
        file.write_table(table)
    with pa.CompressedOutputStream("t.csv.gz", "gzip") as packed:
        packed.write(text.encode())
    np.savez("t.npz", x=x, y=x.argmax(1))
    for number in range(16):
        Path(f"images/{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(f"images/{number % 2}/{number}.png")
    command("train", "t.csv", *TRAIN, "--out", "run", "--checkpoint-every", "4")
    shutil.copytree("run", "killed")
    for name in ("record.json", "report.html"):
        Path("killed", name).unlink()
    shutil.copytree("killed", "begun")
    shutil.rmtree("begun/checkpoints")
    shutil.rmtree("begun/model")
    fit_with_log()
    rewrite()
    from_disk()
    Path("out.csv").touch()


def opened_by(action: Callable[[], None], place: Path) -> list[str]:
    """What an action opens below the working folder: files, folders, and the places of temporary ones."""
    os.chdir(place)
    os.environ["ONECYCLE_HOME"] = str(place / "home")
    warnings.simplefilter("ignore")
    quick_drawing()
    found = set[str]()

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir", "os.rename", "os.mkdir") and args:
            for path in args[: 2 if event == "os.rename" else 1]:
                if isinstance(path, str | bytes | os.PathLike):
                    found.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 -- links are not followed

    sys.addaudithook(look)
    with contextlib.suppress(OneCycleError):
        action()
    below = [os.path.relpath(path, place) for path in found if path.startswith(f"{place}{os.sep}")]
    return sorted({path for path in below if not TEMPORARY.search(path)})


def in_child(work: Callable[[], Any]) -> tuple[Any, str]:
    """What `work` returns in a process of its own, and how that ended if it returned nothing."""
    ours, theirs = os.pipe()
    pid = forked(lambda: os.write(theirs, json.dumps(work()).encode()))
    os.close(theirs)
    said, ended = b"", "never ends"
    while select.select([ours], [], [], PATIENCE)[0]:
        if not (part := os.read(ours, 2**16)):
            ended = "ended"
            break
        said += part
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(ours)
    status = os.waitpid(pid, 0)[1]
    if ended == "ended" and os.WIFSIGNALED(status):
        ended = f"ended by signal {os.WTERMSIG(status)}"
    return (json.loads(said), "") if said else (None, ended)


def done(action: Callable[[], None], place: Path) -> dict[str, Any]:
    """What comes of an action, in the process that is here for it alone."""
    sys.stderr = io.StringIO()
    os.chdir(place)
    os.environ["ONECYCLE_HOME"] = str(place / "home")
    warnings.simplefilter("ignore")
    quick_drawing()
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + ROOM,) * 2)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, outcome, error = memory("VmRSS"), "went on", ""
    try:
        action()
    except OneCycleError as refused:
        outcome, error = "refused", str(refused)
    except BaseException as other:
        outcome = error = f"{type(other).__name__}: {other}"[:300]
    return {"outcome": outcome, "error": error, "memory": memory("VmHWM") - before}


def state_of(outside: Path) -> dict[str, tuple[float, str]]:
    """Time and content of everything outside."""
    return {
        str(path): (path.stat().st_mtime, path.read_bytes().hex() if path.is_file() else "")
        for path in sorted([outside, *outside.rglob("*")])
    }


def put(odd: str, path: Path, outside: Path) -> None:
    """Replace what is in a place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    ODD[odd](path, outside)


def torture(options: argparse.Namespace, base: Path) -> tuple[int, int, Counter[str], list[str], float]:
    """How many files and cases there were, what came of them, what went wrong, and the most memory in MB."""
    good, place, outside = base / "good", base / "work" / "place", base / "outside"
    for path in (place, outside / "photos" / "2024"):
        path.mkdir(parents=True)
    (outside / "thesis.txt").write_text(TEXT)
    (outside / "photos" / "2024" / "a.jpg").write_text(TEXT)
    if os.waitpid(forked(make_good, place), 0)[1]:  # made where it is used, since some of it holds its own path
        raise SystemExit("nothing good could be made")
    place.rename(good)
    places = list[tuple[str, str]]()
    for name, action in ACTIONS.items():
        shutil.copytree(good, place, symlinks=True)
        found, ended = in_child(partial(opened_by, action, place))
        if found is None:
            raise SystemExit(f"{name}: {ended}")
        places += [(name, path) for path in found]
        shutil.rmtree(place)
    every = [(name, path, odd) for name, path in places for odd in ODD]
    cases = [case for case in every if not (case[1] in NAMED and case[2] == "link to a folder")][:: options.every]
    outcomes, wrong, most = Counter[str](), list[str](), 0.0
    expected = state_of(outside)
    for name, path, odd in cases:
        shutil.copytree(good, place, symlinks=True)
        put(odd, place / path, outside)
        result, ended = in_child(partial(done, ACTIONS[name], place))
        what = f"{name}: {odd} at {path}"
        result = result or {"outcome": ended, "error": "", "memory": 0}
        outcomes[result["outcome"]] += 1
        most = max(most, result["memory"] / 1e6)
        if result["outcome"] not in ("went on", "refused"):
            wrong.append(f"{what}: {result['outcome']}")
        if result["memory"] > MOST * 1e6:
            wrong.append(f"{what}: {result['memory'] / 1e6:.0f} MB")
        if (now := state_of(outside)) != expected:
            wrong.append(f"{what}: changed {sorted(dict(now.items() ^ expected.items()))}")
            expected = now
        if odd == "folder" and not list(place.rglob("mine.txt")):  # it may have been moved, with what is damaged
            wrong.append(f"{what}: what it held is gone")
        if options.show:
            print(f"{what} | {result}", flush=True)
        shutil.rmtree(place)
    return len(set(places)), len(cases), outcomes, wrong, most


def main() -> int:
    """Print what was found; 1 where something hung, grew, failed otherwise or changed what is outside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every N-th case")
    parser.add_argument("--show", action="store_true", help="print each case")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        places, count, outcomes, wrong, most = torture(options, Path(name).resolve())
    print(*wrong, sep="\n")
    shown = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common(2))
    print(f"{places:,} opened files and folders, {count:,} cases: {shown}; at most {most:.0f} MB; {len(wrong)} faults")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
