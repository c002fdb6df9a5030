"""kill -9 at random moments of `onecycle train`, from its start to its end: what it leaves is always good for something.

    python tests/durability/early_kills.py [--kills 60] [--seed 0]

Trainings with and without checkpoints in turn. After each kill `onecycle runs` lists the folder if there is one; then
the same command, or `train --resume`, in turn, ends the training with the record of one that was never killed, or says
that there is a result already. Nothing temporary is left by then.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from durability.signals import TRAIN, command, numbers
from onecycle.checkpoint.run_folder import RunFolder


def finished(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """The exit code and what was printed."""
    out, err = process.communicate()
    return process.returncode, out, err


def after_a_kill(folder: Path, words: list[str], resume: bool, expected: object) -> tuple[str, list[str]]:
    """What the kill left, and what is wrong with what can be done with it."""
    run, wrong = folder / "run", list[str]()
    there, names, over = run.exists(), RunFolder(run).names(), (run / "record.json").exists()
    state = "nothing" if not there else "a result" if over else "checkpoints" if names else "no checkpoint"
    _, out, err = finished(command(folder, "runs", ".", "--json"))
    listed = [found["state"] for found in json.loads(out)] if out else [err]
    if bool(listed) != (there and any(run.iterdir())):
        wrong.append(f"runs lists {listed} of {state}")
    if names and not over:
        resume = True  # the same command is refused then
    code, _, err = finished(command(folder, *(["train", "--resume", "run"] if resume else words)))
    said = "holds no training to resume" if resume else "is not empty"
    if code == 2 and over and said in err:
        pass  # it is finished; only the report may be missing
    elif code == 2 and resume and ("begin it again" in err or not there):
        code, _, err = finished(command(folder, *words))  # killed before it wrote what it was asked
    elif not names and code:
        wrong.append(
            f"{'--resume' if resume else 'the same command'} with {state} and {listed} gave {code}: {err[-300:]}"
        )
    if not code and numbers(run) != expected:
        wrong.append(f"with {state} and {listed}, the training differs")
    if over and code:
        code, _, err = finished(command(folder, "report", "run"))
    if code:
        wrong.append(f"with {state} and {listed}: {err[-300:]}")
    if left := [path for path in run.rglob(".*") if path.suffix == ".tmp" or path.name == ".lock"]:
        wrong.append(f"with {state}: left {left}")
    return state, wrong


def torture(kills: int, seed: int, show: bool, folder: Path) -> tuple[Counter[str], list[str]]:
    """How often what was left, and what went wrong."""
    generator, found, wrong = random.Random(seed), Counter[str](), list[str]()
    rows = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    np.savez(folder / "rows.npz", x=rows, y=rows[:, :3].argmax(1))
    kinds = [
        ["train", str(folder / "rows.npz"), *TRAIN, "--epochs", "3", "--out", "run", *more]
        for more in ([], ["--checkpoint-every", "20"])
    ]
    (folder / "alone").mkdir()
    started = time.monotonic()
    code, _, err = finished(command(folder / "alone", *kinds[0]))
    longest = time.monotonic() - started
    if code:
        raise SystemExit(err)
    expected = numbers(folder / "alone" / "run")
    for kill in range(kills):
        place = folder / f"{kill}"
        place.mkdir()
        process = command(place, *kinds[kill % 2])
        while process.poll() is None and not (place / "run").exists():
            time.sleep(0.001)  # importing takes most of the time
        time.sleep(generator.uniform(0, longest * 0.6))
        process.kill()
        process.communicate()
        state, faults = after_a_kill(place, kinds[kill % 2], bool(kill // 2 % 2), expected)
        found[state] += 1
        for fault in faults:
            wrong.append(f"kill {kill}: {fault}")
            print(wrong[-1], flush=True)
        if show:
            print(f"kill {kill}: left {state}", flush=True)
    return found, wrong


def main() -> int:
    """Print what was found; 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print what each kill left")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        found, wrong = torture(options.kills, options.seed, options.show, Path(folder))
    left = ", ".join(f"{count} left {what}" for what, count in found.most_common())
    print(f"{sum(found.values())} kills: {left}; {len(wrong)} went wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
