"""SIGTERM and SIGINT at random moments of `onecycle train`: the step is finished and kept, the exit code is right.

    python tests/durability/signals.py [--times 100] [--seed 0]

Each training is then resumed, and must write the record of one that was never stopped. No process may be left.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.core.record import Record

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
TRAIN = ["--lr", "0.01", "--bs", "16", "--model", "mlp:16", "--device", "cpu"]


@dataclass
class Found:
    """What came of it."""

    signals: int = 0
    late: int = 0  # the training was over
    wrong: list[str] = field(default_factory=list[str])


def command(folder: Path, *args: str) -> "subprocess.Popen[str]":
    """`onecycle` in a group of its own, whose processes can be counted."""
    words = [sys.executable, "-m", "onecycle", *args]
    return subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )


def wait_for_training(process: "subprocess.Popen[str]", run: Path) -> None:
    """Wait until the settings are kept, which is just before the first step."""
    while process.poll() is None and not (run / "settings").exists():
        time.sleep(0.01)


def numbers(run: Path) -> tuple[object, ...]:
    """What of a record must be equal."""
    record = Record.load(run / "record.json")
    return record.batch_losses, record.losses, record.lrs, record.val_losses, record.metrics


def is_empty(group: int) -> bool:
    """Whether no process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def torture(times: int, seed: int, epochs: int, folder: Path) -> Found:
    """Stop so many trainings of so many epochs, and go on with them."""
    options = [*TRAIN, "--epochs", str(epochs), "--checkpoint-every", "1 h"]
    generator, found = random.Random(seed), Found()
    rows = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    np.savez(folder / "rows.npz", x=rows, y=rows[:, :3].argmax(1))
    alone = command(folder, "train", "rows.npz", *options, "--out", "alone")
    wait_for_training(alone, folder / "alone")
    started = time.monotonic()
    alone.communicate()
    longest = time.monotonic() - started
    expected = numbers(folder / "alone")
    while found.signals < times:
        number = generator.choice(list(CODES))
        run = folder / f"run-{found.signals + found.late}"
        process = command(folder, "train", "rows.npz", *options, "--out", run.name)
        wait_for_training(process, run)
        time.sleep(generator.uniform(0, longest * 0.6))
        process.send_signal(number)
        _, err = process.communicate()
        what = f"signal {found.signals} ({number.name})"
        is_over = (run / "report.html").exists() and numbers(run) == expected
        if process.returncode == 0 or (is_over and process.returncode == -number):
            found.late += 1  # the second: when all was written, and Python had put its handlers away
            continue
        found.signals += 1
        if process.returncode != CODES[number]:
            found.wrong.append(f"{what}: exit code {process.returncode}: {err[-300:]}")
        if not is_empty(process.pid):
            found.wrong.append(f"{what}: left a process")
        if not RunFolder(run).names():  # before the first step there is nothing to keep
            continue
        again = command(folder, "train", "--resume", run.name, "--json")
        out, err = again.communicate()
        if again.returncode or not json.loads(out):
            found.wrong.append(f"{what}: resuming gave {again.returncode}: {err[-300:]}")
        elif numbers(run) != expected:
            found.wrong.append(f"{what}: the resumed training differs")
    return found


def main() -> int:
    """Print what was found; 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=400, help="of a training")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = torture(options.times, options.seed, options.epochs, Path(folder))
    print(*found.wrong, sep="\n")
    print(f"{found.signals} signals ({found.late} more came too late), {len(found.wrong)} went wrong")
    return int(bool(found.wrong))


if __name__ == "__main__":
    sys.exit(main())
