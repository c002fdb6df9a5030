"""Feed every reader files that mean harm: each is refused, nothing of it runs, with bounded memory, within a second.

    python tests/durability/malice.py [--every N] [--seconds 1] [--only KIND] [--show]

Each file is read in a process of its own. What is looked at: that the reader raises one of the library's errors (files
that do no harm may be read as well, and whole ones must be); that no program was started, nothing unpickled, nothing
written, in or beside the working folder; how long the read took; and how much memory it took at most.
"""

import argparse
import gc
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not come along when a process is forked

import torch

from durability.malice_files import EITHER, READ, REFUSED, Case, arrays, make_good, own_learner, pickles
from durability.malice_json import records
from durability.malice_states import programs, states
from durability.malice_tensors import tensor_files
from durability.malice_zips import zips
from durability.training import forked
from onecycle.errors import OneCycleError

MOST = 256  # MB that a read may take. Most take less than 5; a zip file of 100,000 names, and files of 30 MB, more
PATIENCE = 60  # seconds after which a reader is taken for one that never ends
ROOM = 8 * 2**30  # bytes of address space for the reader, so that a fault found here does not take the machine along
LEFT = (".lock", "failure.json")  # what a run may leave that goes on, and fails
STARTED = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "subprocess.",
    "pickle.",
    "socket.connect",
    "ctypes.dlopen",
)


def cases() -> Iterator[Case]:
    """All of them."""
    for some in (pickles, arrays, zips, tensor_files, records, states, programs):
        yield from some()


def memory(field: str) -> int:
    """A field of what Linux says of this process, in bytes; 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def watched(place: Path) -> list[str]:
    """From now on, what was started, and what was written to outside of a folder."""
    seen = list[str]()

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(STARTED):
            seen.append(event)
        elif event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            path = os.path.realpath(os.fsdecode(args[0])) if isinstance(args[0], str | bytes) else ""
            if path and not path.startswith((str(place), "/dev/")):
                seen.append(f"wrote {path}")

    sys.addaudithook(look)
    return seen


def read(case: Case, place: Path) -> dict[str, Any]:
    """What happens when a case is read, in the process that is here for it alone."""
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + ROOM,) * 2)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    seen, before, outcome, error = watched(place), memory("VmRSS"), READ, ""
    started = time.perf_counter()
    try:
        case.read()
    except OneCycleError as refused:
        outcome, error = REFUSED, str(refused)
    except BaseException as other:
        outcome = error = f"{type(other).__name__}: {other}"[:300]
    seconds = time.perf_counter() - started
    return {
        "outcome": outcome,
        "error": error[:300],
        "length": len(error),
        "seconds": seconds,
        "seen": seen,
        "memory": memory("VmHWM") - before,
    }


def everything(place: Path) -> set[str]:
    """Every name in a folder, but for what a run writes that goes on."""
    return {str(path) for path in place.rglob("*") if "checkpoints" not in path.parts and path.name not in LEFT}


def fed(case: Case, good: Path, place: Path) -> dict[str, Any]:
    """What happens when a case is read, its file written by another process before."""
    os.chdir(place / "in")
    if os.waitpid(forked(case.write, good), 0)[1]:
        raise SystemExit(f"{case.kind}, {case.name}: cannot be written")
    before = everything(place)
    ours, theirs = os.pipe()

    def child() -> None:
        os.write(theirs, json.dumps(read(case, place)).encode())

    pid = forked(child)
    os.close(theirs)
    ready, _, _ = select.select([ours], [], [], PATIENCE)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    with open(ours, "rb") as pipe:  # noqa: PTH123 -- a pipe has no path
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    ended = (
        "never ends" if not ready else f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "ended"
    )
    result = (
        json.loads(said)
        if said
        else {"outcome": ended, "error": "", "seconds": PATIENCE, "seen": [], "memory": 0, "length": 0}
    )
    result["seen"] += sorted(path.removeprefix(str(place)) for path in everything(place) ^ before)
    os.chdir(place.parent)
    return result


def faults(case: Case, result: dict[str, Any], seconds: float) -> list[str]:
    """What is wrong with what happened."""
    outcome = result["outcome"]
    fits = outcome == case.expected or (case.expected == EITHER and outcome in (READ, REFUSED))
    return [
        *([] if fits else [outcome]),
        *([f"executed or written: {result['seen']}"] if result["seen"] else []),
        *([f"{result['seconds']:.2f} s"] if result["seconds"] > seconds else []),
        *([f"{result['memory'] / 1e6:.0f} MB"] if result["memory"] > MOST * 1e6 else []),
    ]


def torture(
    options: argparse.Namespace, folder: Path
) -> tuple[dict[str, list[tuple[Case, dict[str, Any]]]], list[str]]:
    """All results by kind, and what went wrong."""
    good, place, wrong = folder / "good", folder / "case", list[str]()
    good.mkdir()
    if os.waitpid(forked(make_good, good), 0)[1]:
        raise SystemExit("nothing good could be made")
    results = defaultdict[str, list[tuple[Case, dict[str, Any]]]](list)
    chosen = list(cases())[:: options.every]
    own_learner()
    gc.collect()
    gc.freeze()  # else a collection in a child copies all that it looks at
    for case in chosen:
        if options.only not in case.kind:
            continue
        for part in ("in", "tmp"):
            (place / part).mkdir(parents=True)
        tempfile.tempdir = str(place / "tmp")
        result = fed(case, good, place)
        results[case.kind].append((case, result))
        wrong += [f"{case.kind}, {case.name}: {fault}" for fault in faults(case, result, options.seconds)]
        if options.show:
            print(f"{case.kind} | {case.name} | {result}")
        shutil.rmtree(place)
    return results, wrong


def main() -> int:
    """Print what was found; 1 where something was not refused, ran, or took too long or too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every N-th case")
    parser.add_argument("--seconds", type=float, default=1.0, help="the longest that a read may take")
    parser.add_argument("--only", default="", help="only kinds with this in their name")
    parser.add_argument("--show", action="store_true", help="print each case")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        results, wrong = torture(options, Path(folder).resolve())
    print(*wrong, sep="\n")
    print(f"{'kind':<22} cases  refused  read  executed  longest (s)  most (MB)")
    for kind, found in results.items():
        outcomes = [result["outcome"] for _, result in found]
        executed = sum(bool(result["seen"]) for _, result in found)
        longest, most = (max(result[what] for _, result in found) for what in ("seconds", "memory"))
        print(
            f"{kind:<22} {len(found):>5} {outcomes.count(REFUSED):>8} {outcomes.count(READ):>5} {executed:>9} "
            f"{longest:>12.3f} {most / 1e6:>10.1f}"
        )
    print(f"{sum(map(len, results.values())):,} files, {len(wrong)} faults")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
