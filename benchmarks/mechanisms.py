"""The ways to run the lesson's step that were tried for the fast engine, side by side: the table in docs/engine.md.

    python benchmarks/mechanisms.py [--rounds 7] [--no-compile]

Each trains the lesson's network (784-50-10, batches of 64, AdamW) for 781 steps, in turn, in one process. "once" is
what it costs before its first step; the first of the list pays for imports too.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onecycle
from onecycle.optim.groups import leaves
from onecycle.optim.optimizers import GroupedOptimizer
from onecycle.train.capture import Captured

Step = Callable[[Tensor, Tensor], None]
LOSS = nn.CrossEntropyLoss()


def fresh() -> tuple[nn.Module, GroupedOptimizer]:
    """The network and its optimizer, which calls Adam's kernel directly."""
    model = onecycle.MLP(784, 50, 10)
    opt = GroupedOptimizer(onecycle.AdamW, [leaves(model)])
    opt.set_wd(1e-2)
    opt.set_rates([1e-3], 0.9)
    return model, opt


def torch_optim() -> Step:
    model = onecycle.MLP(784, 50, 10)
    opt = torch.optim.AdamW(model.parameters(), 1e-3, betas=(0.9, 0.99), fused=True)

    def step(x: Tensor, y: Tensor) -> None:
        F.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()

    return step


def eager() -> Step:
    model, opt = fresh()

    def step(x: Tensor, y: Tensor) -> None:
        LOSS(model(x), y).backward()
        opt.step()
        opt.zero_grad()

    return step


def replayed(script: bool) -> Callable[[], Step]:
    def make() -> Step:
        model, opt = fresh()
        x, y = torch.rand(64, 784), torch.arange(64) % 10
        if script:
            captured = Captured(model, LOSS, x, y)
        else:
            with mock.patch.object(torch.jit, "trace", side_effect=RuntimeError):
                captured = Captured(model, LOSS, x, y)

        def step(x: Tensor, y: Tensor) -> None:
            captured(x, y)
            opt.step()
            opt.zero_grad()

        return step

    return make


def compiled() -> Step:
    model, opt = fresh()

    @torch.compile
    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return LOSS(model(x), y)

    def step(x: Tensor, y: Tensor) -> None:
        loss_of(x, y).backward()
        opt.step()
        opt.zero_grad()

    step(torch.rand(64, 784), torch.arange(64) % 10)
    return step


def floor() -> Step:
    """The matrix products of the step alone; the gather is outside."""
    w1, w2 = torch.rand(50, 784), torch.rand(10, 50)

    def step(x: Tensor, _: Tensor) -> None:
        h = x @ w1.t()
        out = h @ w2.t()
        out.t() @ h
        (out @ w2).t() @ x

    return step


def main() -> None:
    """Time each mechanism and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = arguments.parse_args()
    mechanisms: dict[str, Callable[[], Step]] = {
        "torch.optim, eager": torch_optim,
        "Adam's kernel called directly, eager (engine=eager)": eager,
        "make_fx, replayed from generated Python": replayed(script=False),
        "make_fx, replayed by TorchScript in C++ (engine=fast)": replayed(script=True),
        "torch.compile of forward and backward": compiled,
        "floor: gather and matrix products alone": floor,
    }
    if options.no_compile:
        del mechanisms["torch.compile of forward and backward"]
    data = onecycle.mnist(seed=0)
    setup: dict[str, float] = {}
    steps: dict[str, Step] = {}
    for name, make in mechanisms.items():
        started = time.perf_counter()
        steps[name] = make()
        setup[name] = time.perf_counter() - started
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            for x, y in data.train_dl.epoch(number):
                step(x, y)
            if number:
                seconds[name].append(time.perf_counter() - started)
        print(f"round {number} of {options.rounds}", file=sys.stderr)
    lowest = statistics.median(seconds["floor: gather and matrix products alone"])
    print(f"{'mechanism':56}{'once s':>8}{'781 steps s':>13}{'of floor':>10}")
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"{name:56}{setup[name]:8.2f}{median:13.3f}{median / lowest:10.2f}")


if __name__ == "__main__":
    main()
