"""Many fits beside one another: as many as there are cores, in threads of one process and in a pool of processes.

    python benchmarks/many_fits.py [--rounds 5] [--epochs 4]

Each fit is the lesson's network on all of MNIST, on one thread as the rule says. Printed are medians, relative to one
fit alone; the rounds are interleaved. What is measured is the time of the fits, not that of starting the processes.
"""

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from onecycle import MLP, DataBunch, Learner
from onecycle.core.cores import usable_cores
from onecycle.data.datasets import mnist

_DATA: DataBunch | None = None


def fit(seed: int, epochs: int) -> tuple[float, float, int]:
    """Train once; return when it began and ended, on the system's clock, and the fit's number of threads."""
    global _DATA
    data = _DATA = _DATA or mnist(device="cpu")
    torch.manual_seed(seed)
    learn = Learner(data, MLP(784, 50, 10), silent=True)
    began = time.monotonic()
    learn.fit_one_cycle(epochs, 1e-2)
    return began, time.monotonic(), learn.recorder.record.settings["threads"]


def in_threads(count: int, epochs: int) -> float:
    """Return the seconds of so many fits in threads."""
    spans: list[tuple[float, float, int]] = []
    workers = [threading.Thread(target=lambda seed=seed: spans.append(fit(seed, epochs))) for seed in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [threads for _, _, threads in spans] == [1] * count
    return max(end for _, end, _ in spans) - min(began for began, _, _ in spans)


def in_processes(pool: ProcessPoolExecutor, count: int, epochs: int) -> float:
    """Return the seconds of so many fits in the pool."""
    spans = [*pool.map(fit, range(count), [epochs] * count)]
    return max(end for _, end, _ in spans) - min(began for began, _, _ in spans)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    cores = usable_cores()
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        kinds: dict[str, Callable[[], float]] = {
            "one fit": lambda: in_threads(1, options.epochs),
            f"{cores} fits in threads": lambda: in_threads(cores, options.epochs),
            f"{cores} fits in processes": lambda: in_processes(pool, cores, options.epochs),
        }
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(options.rounds + 1):  # the first warms up
            for name, measure in kinds.items():
                seconds = measure()
                if number:
                    found[name].append(seconds)
    base = statistics.median(found["one fit"])
    for name, times in found.items():
        spread = f"{min(times):.2f}-{max(times):.2f}"
        sys.stdout.write(
            f"{name}: {statistics.median(times):.2f} s ({spread}), {statistics.median(times) / base:.2f}\n"
        )


if __name__ == "__main__":
    main()
