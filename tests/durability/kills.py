"""kill -9 at random moments of a training that keeps itself constantly, then resume, until it is finished.

    python tests/durability/kills.py [--kills 500] [--seed 0]

A checkpoint that can be seen is whole, or it counts as lost; so does a newest one that is older than the newest before
the kill. Each finished training must equal one that was never killed, bit for bit.
"""

import argparse
import os
import random
import signal
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from durability.training import digest, forked, go_on
from onecycle.checkpoint.run_folder import RunFolder
from onecycle.errors import FileError

LONGEST = 0.6  # seconds until a kill


@dataclass
class Found:
    """What came of it."""

    kills: int = 0
    in_writing: int = 0  # kills that left something half written, which nobody uses
    finished: int = 0
    lost: int = 0
    different: int = 0


def train(run: Path, engine: str) -> None:
    """Go on to the end, and write what came of it."""
    (run.parent / "digest").write_text(digest(go_on(run, 1, engine)))


def never_killed(engine: str, folder: Path) -> str:
    """The digest of a training that was left alone."""
    (folder / "alone").mkdir()
    os.waitpid(forked(train, folder / "alone" / "run", engine), 0)
    return (folder / "alone" / "digest").read_text()


def lost(run: RunFolder, newest: str) -> int:
    """How many checkpoints are damaged, or gone."""
    count = 0
    for name in run.names():
        try:
            run.read(name)
        except FileError as error:
            print(f"lost: {error}")
            count += 1
    return count + int(max(run.names(), default="") < newest)


def torture(kills: int, seed: int, folder: Path) -> Found:
    """Kill so often, in trainings of both engines in turn."""
    found, generator = Found(), random.Random(seed)
    expected = {}
    for engine in ("eager", "fast"):
        (folder / engine).mkdir()
        expected[engine] = never_killed(engine, folder / engine)
    while found.kills < kills:
        engine = ("eager", "fast")[found.finished % 2]
        place = folder / f"{found.finished}"
        place.mkdir()
        run, newest = RunFolder(place / "run"), ""
        while not (place / "digest").exists():
            pid = forked(train, run.path, engine)
            time.sleep(generator.uniform(0, LONGEST))
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
            if os.WIFSIGNALED(status):
                found.kills += 1
                found.in_writing += bool(list(run.checkpoints.glob(".*.tmp")))
            found.lost += lost(run, newest)
            newest = max(run.names(), default="")
            if found.kills >= 2 * kills:
                break
        found.finished += 1
        if (place / "digest").exists():
            found.different += (place / "digest").read_text() != expected[engine]
    return found


def main() -> int:
    """Print what was found; 1 where something was lost or differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with TemporaryDirectory() as folder:
        found = torture(options.kills, options.seed, Path(folder))
    print(
        f"{found.kills} kills, {found.in_writing} of them while a checkpoint was written; {found.finished} trainings "
        f"finished; {found.lost} checkpoints lost, {found.different} results different"
    )
    return int(bool(found.lost or found.different))


if __name__ == "__main__":
    sys.exit(main())
