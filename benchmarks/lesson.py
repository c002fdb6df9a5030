"""The lesson's epoch beside its peers: training, validation, accuracy and display, in one process, interleaved.

    python benchmarks/lesson.py [--rounds 7] [--json FILE]

The same data, batch size, network and cycle for each. Every round runs each contestant once, in turn; the first round
warms up and is not counted. What counts is the ratio of the medians, not the seconds.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import torch
from measure import beside
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import onecycle

BS, LR = 64, 1e-2


class Net(nn.Module):
    """The lesson's network."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(784, 50), nn.Linear(50, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 10)."""
        return self.lin2(F.relu(self.lin1(x)))


Run = Callable[[], float]  # trains one epoch and gives the validation accuracy


def with_onecycle(data: onecycle.DataBunch) -> Run:
    def run() -> float:
        learn = onecycle.Learner(data, Net(), loss_func=nn.CrossEntropyLoss(), metrics=onecycle.accuracy)
        learn.fit_one_cycle(1, LR)
        return learn.recorder.metrics[-1][0] or 0.0

    return run


def with_plain_loop(train: TensorDataset, valid: TensorDataset) -> Run:
    """What one writes by hand: DataLoader, AdamW, OneCycleLR, a validation loop."""

    def run() -> float:
        train_dl = DataLoader(train, BS, shuffle=True, drop_last=True)
        valid_dl = DataLoader(valid, BS)
        model, loss_func = Net(), nn.CrossEntropyLoss()
        opt = torch.optim.AdamW(model.parameters(), LR, betas=(0.9, 0.99), weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(opt, LR, total_steps=len(train_dl))
        model.train()
        for x, y in train_dl:
            loss = loss_func(model(x), y)
            loss.backward()
            opt.step()
            schedule.step()
            opt.zero_grad()
        model.eval()
        total, right = 0.0, 0
        with torch.no_grad():
            for x, y in valid_dl:
                out = model(x)
                total += loss_func(out, y).item() * len(y)
                right += int((out.argmax(1) == y).sum())
        print(f"train {loss.item():.6f}  valid {total / len(valid):.6f}  accuracy {right / len(valid):.6f}")
        return right / len(valid)

    return run


def with_fastai(train: TensorDataset, valid: TensorDataset) -> Run | None:
    """fastai 2 over its own loaders, or None where it is not installed."""
    try:
        from fastai.basics import DataLoader as FastLoader
        from fastai.basics import DataLoaders
        from fastai.basics import Learner as FastLearner
        from fastai.basics import accuracy as fast_accuracy
        from fastai.callback.schedule import fit_one_cycle  # noqa: F401  # patches the method in
    except ImportError as error:
        print(f"fastai is missing ({error})", file=sys.stderr)
        return None
    loaders = DataLoaders(
        FastLoader(train, bs=BS, shuffle=True, drop_last=True, num_workers=0),
        FastLoader(valid, bs=BS, num_workers=0),
    )

    def run() -> float:
        learn = FastLearner(loaders, Net(), loss_func=nn.CrossEntropyLoss(), metrics=fast_accuracy)
        learn.fit_one_cycle(1, LR)
        return learn.recorder.values[-1][2]

    return run


def import_costs(*modules: str, rounds: int = 9) -> list[float]:
    """Median CPU seconds of fresh processes that import each of `modules`, interleaved."""
    costs: list[list[float]] = [[] for _ in modules]
    for _ in range(rounds):
        for found, module in zip(costs, modules, strict=True):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return [statistics.median(found) for found in costs]


def measure(contestants: dict[str, Run], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Run each contestant once a round, in turn; return the seconds and the accuracies, without the first round's."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    accuracies: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            with redirect_stdout(io.StringIO()):
                started = time.perf_counter()
                accuracy = run()
                spent = time.perf_counter() - started
            if number:
                seconds[name].append(spent)
                accuracies[name].append(accuracy)
        print(f"round {number} of {rounds}", file=sys.stderr)
    return seconds, accuracies


def main() -> None:
    """Run the rounds, on idle cores and beside a process that keeps a core busy, and print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=7, help="counted rounds (at least 5)")
    arguments.add_argument("--json", type=Path, help="also write the figures to this file")
    options = arguments.parse_args()
    os.environ["CI"] = "1"  # rows, no live bar: the output goes to a buffer
    data = onecycle.mnist(bs=BS, seed=0)
    fastai = with_fastai(data.train_ds, data.valid_ds)
    contestants = {"onecycle": with_onecycle(data), "plain PyTorch loop": with_plain_loop(data.train_ds, data.valid_ds)}
    contestants |= {"fastai 2": fastai} if fastai else {}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for kind, neighbours in (("idle cores", 0), ("one core busy", 1)):
        with beside(neighbours):
            seconds, accuracies = measure(contestants, options.rounds)
        ours = statistics.median(seconds["onecycle"])
        print(f"{'one epoch, ' + kind:26}{'median s':>10}{'min':>8}{'max':>8}{'ratio':>8}{'accuracy':>10}")
        figures[kind] = {}
        for name, found in seconds.items():
            median, accuracy = statistics.median(found), statistics.mean(accuracies[name])
            figures[kind][name] = {"median": median, "ratio": median / ours, "accuracy": accuracy}
            print(f"{name:26}{median:10.3f}{min(found):8.3f}{max(found):8.3f}{median / ours:8.2f}{accuracy:10.4f}")
    torch_cost, own_cost = import_costs("torch", "torch, onecycle")
    ratio = own_cost / torch_cost
    print(f"CPU to import: torch {torch_cost:.2f} s, torch and onecycle {own_cost:.2f} s, ratio {ratio:.2f}")
    if options.json:
        imports = {"torch": torch_cost, "torch and onecycle": own_cost, "ratio": ratio}
        options.json.write_text(json.dumps({**figures, "import": imports}, indent=1))


if __name__ == "__main__":
    main()
