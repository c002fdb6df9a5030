"""Fits with state of their own in every place, interrupted at several steps and resumed in a fresh process.

    python tests/durability/resumes.py [--stops 9] [--only NAME]

Models, losses, metrics, transforms, data sets, samplers, callbacks and optimizers as users write them: with counters,
memories, generators of their own, numbers in the groups of the optimizer. Each fit is stopped after so many steps, also in
the middle of an epoch, and resumed by objects made anew. The verdict is "same" if weights, optimizer and losses equal
those of a fit that was never stopped, to the last bit; "told" if the fit said at its start, or at its first step, that it
cannot be resumed; else "DIFFERENT".
"""

import argparse
import hashlib
import os
import random
import sys
import warnings
from collections import Counter, deque
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from durability.resume_cases import CASES, EPOCHS, Stop, learner
from durability.training import forked
from onecycle import CheckpointConfig, Learner
from onecycle.errors import OneCycleError

STOPS = (13, 5, 1, 26, 17, 31, 12, 22, 38)  # steps; an epoch has 12, and 13 with torch's loaders


def digest(learn: Learner) -> str:
    """The SHA-256 of weights, optimizer and losses."""
    assert learn.opt is not None
    total = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            total.update(f"{value.dtype} {tuple(value.shape)}".encode())
            total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=repr):
                total.update(repr(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple | deque):
            for item in value:
                add(item)
        else:
            total.update(f"{type(value).__name__} {value!r}".encode())

    add(dict(learn.model.state_dict()))
    state = learn.opt.state_dict()
    state["state"] = {key: kept for key, kept in state["state"].items() if kept}  # a step makes empty ones too
    add(state)
    record = learn.recorder.record
    add([record.batch_losses, record.losses, record.lrs, record.val_losses, record.metrics])
    return total.hexdigest()


def train(name: str, place: Path, stop: int | None, resumes: bool) -> None:
    """Train a case: to its end, or until it is stopped, or from there on; write what came of it."""
    torch.manual_seed(0)
    random.seed(int(resumes))
    np.random.seed(int(resumes))
    Stop.at = stop
    found = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            learn = learner(name)
            if resumes:
                learn.resume(place)
            else:
                config = CheckpointConfig(place, every=4) if stop else None
                learn.fit(EPOCHS, 1e-2, checkpoint=config)
            found = digest(learn)
        except OneCycleError as error:
            found = f"told: {error}"
    told = [str(warning.message) for warning in caught if "resume" in str(warning.message)]
    place.with_suffix(".resumed" if resumes else ".told").write_text("\n".join(told))
    place.with_suffix(".digest").write_text(found)


def outcome(name: str, place: Path, stop: int | None = None, resumes: bool = False) -> str:
    """Train in a process of its own; return the digest or what was told."""
    os.waitpid(forked(train, name, place, stop, resumes), 0)
    path = place.with_suffix(".digest")
    found = path.read_text() if path.exists() else "the process failed"
    path.unlink(missing_ok=True)
    return found


def verdict(name: str, folder: Path, stops: tuple[int, ...]) -> tuple[str, str]:
    """Return what came of a case, and why."""
    expected = outcome(name, folder / f"{name}-alone")
    for stop in stops:
        place = folder / f"{name}-{stop}".replace(" ", "-")
        stopped = outcome(name, place, stop)
        told = place.with_suffix(".told").read_text() if place.with_suffix(".told").exists() else ""
        if stopped.startswith("told: "):
            return "told", stopped.removeprefix("told: ")
        resumed = outcome(name, place, resumes=True)
        if resumed != expected:
            late = place.with_suffix(".resumed").read_text() if place.with_suffix(".resumed").exists() else ""
            return ("told", told) if told else ("DIFFERENT", f"after {stop} steps; {resumed[:200]} {late}")
    return "same", ""


def main() -> int:
    """Print the verdicts; 1 where one is DIFFERENT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=len(STOPS))
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stops, found = STOPS[: options.stops], Counter[str]()
    names = [name for name in CASES if options.only in name]
    with TemporaryDirectory() as folder:
        for name in names:
            word, why = verdict(name, Path(folder), stops)
            found[word] += 1
            if word != "same":
                print(f"{word}: {name}: {why}")
    counts = ", ".join(f"{count} {word}" for word, count in sorted(found.items()))
    print(f"{len(names)} fits with state of their own, each stopped after {len(stops)} numbers of steps: {counts}")
    return int(found["DIFFERENT"] > 0)


if __name__ == "__main__":
    sys.exit(main())
