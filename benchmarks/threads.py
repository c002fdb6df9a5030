"""One thread or many: epochs of small and large networks, on idle cores and beside busy processes.

    python benchmarks/threads.py [--rounds 5] [--seconds 0.4] [--only TEXT] [--out benchmarks]

Each network is trained with 1, 2, 4, … threads up to all cores, alone and beside 1, 2 and 4 processes that keep a core
busy each. The rounds of all of these are interleaved. Written are threads.json and threads.md: medians, relative to one
thread on idle cores, beside the work of the network's operators and the number that the library's rule picks.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from measure import beside
from torch import Tensor, nn

from onecycle import DataBunch, Learner
from onecycle.core.cores import usable_cores
from onecycle.core.models import TabularModel
from onecycle.train.step import plain_forward
from onecycle.train.threads import number_for, weigh

HERE = Path(__file__).parent
NEIGHBOURS = (0, 1, 2, 4)


class Recurrent(nn.Module):
    """An LSTM over the 28 rows of an image, and a linear layer on its last output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm, self.last = nn.LSTM(28, width, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        return self.last(self.lstm(x)[0][:, -1])


class Table(nn.Module):
    """The library's model of tables, with 8 numbers and 8 categories of 20 values each."""

    def __init__(self) -> None:
        super().__init__()
        self.table = TabularModel(8, [20] * 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        return self.table(x)


def perceptron(*sizes: int) -> nn.Module:
    """Return linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def conv(*channels: int) -> nn.Module:
    """Return 3×3 convolutions of stride 2 on images of 28×28, and a linear layer."""
    layers: list[nn.Module] = []
    for before, after in zip((1, *channels), channels, strict=False):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10))


CASES: dict[str, tuple[Any, tuple[int, ...], int]] = {
    "MLP 784-50-10, batch 64 (lesson)": (lambda: perceptron(784, 50, 10), (784,), 64),
    "MLP 784-50-10, batch 512": (lambda: perceptron(784, 50, 10), (784,), 512),
    "MLP 784-256-128-10, batch 64": (lambda: perceptron(784, 256, 128, 10), (784,), 64),
    "MLP 784-256-128-10, batch 256": (lambda: perceptron(784, 256, 128, 10), (784,), 256),
    "MLP 100-512-512-10, batch 64": (lambda: perceptron(100, 512, 512, 10), (100,), 64),
    "MLP 100-512-512-10, batch 256": (lambda: perceptron(100, 512, 512, 10), (100,), 256),
    "MLP 100-512-512-10, batch 1,024 (wide)": (lambda: perceptron(100, 512, 512, 10), (100,), 1024),
    "conv 8-16, batch 64 (conv)": (lambda: conv(8, 16), (1, 28, 28), 64),
    "conv 32-64, batch 64": (lambda: conv(32, 64), (1, 28, 28), 64),
    "conv 32-64-128, batch 256": (lambda: conv(32, 64, 128), (1, 28, 28), 256),
    "TabularModel, batch 64": (Table, (16,), 64),
    "TabularModel, batch 1,024": (Table, (16,), 1024),
    "LSTM 64, batch 64": (lambda: Recurrent(64), (28, 28), 64),
    "LSTM 256, batch 256": (lambda: Recurrent(256), (28, 28), 256),
}


class Case:
    """A network with data for it, trained again and again."""

    def __init__(self, name: str, seconds: float) -> None:
        make, self.shape, self.bs = CASES[name]
        torch.manual_seed(0)
        self.model, self.seconds = make(), seconds
        self.learn = self.learner(10)
        self.learn.fit(1, 1e-3)
        self.steps = max(10, min(200, round(seconds / 5 / self.epoch() * 10)))
        self.learn = self.learner(self.steps)
        self.learn.fit(1, 1e-3)
        self.work = weigh(self.model, plain_forward, torch.rand(self.bs, *self.shape))

    def learner(self, steps: int) -> Learner:
        """Return a learner with that many steps in an epoch."""
        x = torch.rand(self.bs * steps, *self.shape)
        data = DataBunch.create((x, torch.randint(0, 10, (len(x),))), bs=self.bs, device="cpu")
        return Learner(data, self.model, silent=True, engine="fast", threads=1)

    def epoch(self) -> float:
        """Return the seconds of an epoch."""
        self.learn.fit(1, 1e-3)
        return self.learn.recorder.record.seconds[-1]

    def measured(self, threads: int) -> float:
        """Return the mean milliseconds of a step, from as many epochs as take the time that was given."""
        self.learn.threads, found = threads, list[float]()
        while sum(found) < self.seconds:
            found.append(self.epoch())
        return statistics.mean(found) / self.steps * 1000


def measure(names: Sequence[str], seconds: float, rounds: int, numbers: list[int]) -> list[dict[str, Any]]:
    """Return a row for each network: medians by neighbours and threads, and what the rule says."""
    rows: list[dict[str, Any]] = []
    for name in names:
        case = Case(name, seconds)
        found: dict[tuple[int, int], list[float]] = {(n, t): [] for n in NEIGHBOURS for t in numbers}
        for _ in range(rounds):
            for neighbours in NEIGHBOURS:
                with beside(neighbours):
                    for threads in numbers:
                        found[neighbours, threads].append(case.measured(threads))
        base = statistics.median(found[0, 1])
        assert case.work is not None
        row = {
            "name": name,
            "million operations": case.work.typical / 1e6,
            "rule": number_for(case.work, numbers[-1]),
            "ms a step": base,
            "ratios": {f"{n}/{t}": statistics.median(times) / base for (n, t), times in found.items()},
        }
        rows.append(row)
        print(name, f"{row['million operations']:.1f}", row["rule"], f"{base:.2f} ms", flush=True)
        print({key: round(ratio, 2) for key, ratio in row["ratios"].items()}, flush=True)
    return rows


def table(rows: list[dict[str, Any]], numbers: list[int]) -> str:
    """Return the rows as a table of Markdown."""
    heads = [f"{f'{n} busy' if n else 'idle'}: {t}" if t == 1 else str(t) for n in NEIGHBOURS for t in numbers]
    lines = [
        "| network | ms a step | Mflop | rule | " + " | ".join(heads) + " |",
        "| --- " + "| ---: " * (3 + len(heads)) + "|",
    ]
    for row in rows:
        cells = [f"{row['ratios'][f'{n}/{t}']:.2f}" for n in NEIGHBOURS for t in numbers]
        first = f"{row['ms a step']:.2f} | {row['million operations']:.1f} | {row['rule']}"
        lines.append(f"| {row['name']} | {first} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="of one measurement on one idle core")
    parser.add_argument("--only", default="", help="networks whose names hold this text")
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    cores = usable_cores()
    numbers = sorted({1, cores, *(2**i for i in range(1, 10) if 2**i < cores)})
    names = [name for name in CASES if options.only in name]
    rows = measure(names, options.seconds, options.rounds, numbers)
    about = {"torch": torch.__version__, "cores": cores, "rounds": options.rounds, "neighbours": NEIGHBOURS}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "threads.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    text = f"torch {torch.__version__}, {cores} cores, medians of {options.rounds} rounds; 1.00 is one thread, idle\n\n"
    (options.out / "threads.md").write_text(text + table(rows, numbers))


if __name__ == "__main__":
    os.environ.setdefault("ONECYCLE_HOME", str(HERE / ".home"))
    main()
