"""How long a checkpoint holds up the training of the lesson's model.

    python tests/durability/delay.py [--epochs 10] [--every "1 epoch"]

The time between two steps that `CheckpointWriter.save` takes (the copy; the thread writes), and the whole fit beside one that is
not kept, in turn.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from onecycle import MLP, CheckpointConfig, Learner, accuracy, mnist
from onecycle.checkpoint.writer import CheckpointWriter


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--every", default="1 epoch")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    data, delays, seconds = mnist(bs=64, seed=0, device="cpu"), list[float](), dict[str, list[float]]()
    save = CheckpointWriter.save

    def timed(self: CheckpointWriter, *args: Any) -> None:
        started = time.perf_counter()
        save(self, *args)
        delays.append(time.perf_counter() - started)

    CheckpointWriter.save = timed  # pyright: ignore[reportAttributeAccessIssue] -- measured where it is called
    for number in range(options.rounds + 1):
        for kept in (False, True):
            with TemporaryDirectory() as folder:
                torch.manual_seed(0)
                learn = Learner(data, MLP(784, 50, 10), metrics=accuracy, silent=True)
                started = time.perf_counter()
                wanted = CheckpointConfig(folder, options.every) if kept else None
                learn.fit_one_cycle(options.epochs, 1e-2, checkpoint=wanted)
                if number:  # the first round warms up
                    seconds.setdefault(f"kept: {kept}", []).append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"{len(delays)} checkpoints; the copy held up the steps by {1e3 * statistics.median(delays):.1f} ms "
        f"(median), {1e3 * max(delays):.1f} ms (most); the fit took {medians['kept: True'] / medians['kept: False']:.2f} "
        "of the time of one that is not kept"
    )


if __name__ == "__main__":
    main()
