"""The ways to run the lesson's step that were tried for the fast engine, side by side: the table in docs/engine.md.

    python benchmarks/mechanisms.py [--rounds 7] [--no-compile]

Each trains the lesson's network (784-50-10, batches of 64, AdamW, one cycle of the learning rate) for an epoch of 781
steps and keeps their losses: in turn, in one process, from the same weights, on the same batches. "once" is what the
first epoch takes longer than a later one, making and compiling included; torch.compile starts with an empty cache. The
first of the list pays for imports too. The last column is how far a loss of the first epoch is from torch.optim's.
"""

import argparse
import collections
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

import onecycle
from onecycle.core.display import SilentDisplay
from onecycle.core.record import Record
from onecycle.data.loaders import InMemoryLoader
from onecycle.engine.capture import CapturedStep
from onecycle.engine.engine import make_engine
from onecycle.optim.groups import leaves
from onecycle.optim.optimizer import GroupedOptimizer
from onecycle.optim.schedules import Rates, one_cycle
from onecycle.train.callbacks.base import collect_hooks
from onecycle.train.fit import Fit
from onecycle.train.loop import Epoch, Run, eager_gradients, eager_steps
from onecycle.train.recorder import Recorder
from onecycle.train.step import Gradients, Objective

TrainEpoch = Callable[[int], Tensor]  # from the number of an epoch to the losses of its steps
LOSS, BETAS, WD, BS = nn.CrossEntropyLoss(), (0.9, 0.99), 1e-2, 64
UNROLLED = 11  # steps in one compiled function; they divide the 781
FLOOR = "floor: gather and matrix products alone"
BY_PYTHON = mock.patch.object(torch.jit, "CompilationUnit", None)  # as in a torch without TorchScript


class Lesson:
    """The data, the same for all."""

    def __init__(self) -> None:
        loader = onecycle.mnist(bs=BS, seed=0).train_dl
        assert isinstance(loader, InMemoryLoader)
        self.loader, self.steps = loader, len(loader)
        self.rates = [one_cycle(i, self.steps, 4e-4, 1e-2, 4e-8) for i in range(self.steps)]

    def network(self) -> nn.Module:
        """The network, always with the same weights."""
        torch.manual_seed(0)
        return onecycle.MLP(784, 50, 10)

    def fit(self) -> Fit:
        """A network and its optimizer, which calls Adam's kernel directly."""
        model = self.network()
        opt = GroupedOptimizer(onecycle.AdamW, [leaves(model)])
        opt.set_wd(WD)
        return Fit(model, opt, 1, Record(), torch.device("cpu"))

    def trained(self, fit: Fit, number: int, steps: Callable[[Epoch], Iterator[int]]) -> Tensor:
        """The losses of an epoch that `steps` trains."""
        rates, losses = [Rates([rate], BETAS[0]) for rate in self.rates], torch.empty(self.steps)
        run = Run(fit, self.loader, None, Objective(LOSS), collect_hooks([]), Recorder(), SilentDisplay(), seed=0)
        collections.deque(steps(Epoch(run, number, rates, losses, time.perf_counter())), maxlen=0)
        return losses


def torch_optim(lesson: Lesson) -> TrainEpoch:
    """The step as one writes it."""
    model = lesson.network()
    opt = torch.optim.AdamW(model.parameters(), betas=BETAS, weight_decay=WD, fused=True)

    def run(number: int) -> Tensor:
        losses = torch.empty(lesson.steps)
        for i, (x, y) in enumerate(lesson.loader.epoch(number)):
            opt.param_groups[0]["lr"] = lesson.rates[i]
            loss = LOSS(model(x), y)
            loss.backward()
            opt.step()
            opt.zero_grad()
            losses[i] = loss.detach()
        return losses

    return run


def step_by_step(make: Callable[[Epoch], Gradients]) -> Callable[[Lesson], TrainEpoch]:
    """What `make` gives sets the gradients; gather and optimizer are called from Python."""

    def mechanism(lesson: Lesson) -> TrainEpoch:
        fit, made = lesson.fit(), list[Gradients]()

        def steps(epoch: Epoch) -> Iterator[int]:
            if not made:
                made.append(make(epoch))
            return eager_steps(epoch, made[0])

        return lambda number: lesson.trained(fit, number, steps)

    return mechanism


def captured(epoch: Epoch) -> Gradients:
    """Forward and backward as a program, captured on some batch."""
    return CapturedStep(epoch.run.fit.model, epoch.run.objective, torch.rand(BS, 784), torch.arange(BS) % 10)


def compiled(epoch: Epoch) -> Gradients:
    """torch.compile of forward and loss, and with them of backward."""

    model = epoch.run.fit.model

    @torch.compile(fullgraph=True)
    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return LOSS(model(x), y)

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = loss_of(x, y)
        loss.backward()
        return loss.detach()

    return step


def runs(lesson: Lesson) -> TrainEpoch:
    """The fast engine: gather and optimizer are in the program, too."""
    fit, engine = lesson.fit(), make_engine("fast")
    return lambda number: lesson.trained(fit, number, engine.steps)


def compiled_steps(count: int) -> Callable[[Lesson], TrainEpoch]:
    """torch.compile of `count` whole steps as one graph.

    Neither `backward()` nor an optimizer's `step()` goes into one graph: the gradients are torch.func's, and AdamW is
    called as the function that its `step()` calls.
    """

    def mechanism(lesson: Lesson) -> TrainEpoch:
        model = lesson.network()
        names, params = zip(*((name, p.detach()) for name, p in model.named_parameters()), strict=True)
        means, squares = ([torch.zeros_like(p) for p in params] for _ in range(2))
        taken = [torch.zeros(()) for _ in params]
        xs, ys = lesson.loader.tensors

        def loss_of(params: tuple[Tensor, ...], x: Tensor, y: Tensor) -> Tensor:
            return LOSS(torch.func.functional_call(model, dict(zip(names, params, strict=True)), (x,)), y)

        @torch.compile(fullgraph=True)
        @torch.no_grad()
        def steps(rows: Tensor, rates: Tensor) -> Tensor:
            losses: list[Tensor] = []
            for part, rate in zip(rows.split(BS), rates.unbind(), strict=True):
                x, y = xs.index_select(0, part), ys.index_select(0, part)
                grads, loss = torch.func.grad_and_value(loss_of)(params, x, y)
                adamw(
                    *(list(params), list(grads), means, squares, [], taken),
                    foreach=False, amsgrad=False, beta1=BETAS[0], beta2=BETAS[1], lr=rate, weight_decay=WD, eps=1e-8,
                    maximize=False,
                )  # fmt: skip
                losses.append(loss)
            return torch.stack(losses)

        rates = torch.tensor(lesson.rates).split(count)

        def run(number: int) -> Tensor:
            rows = lesson.loader.order(number)[: lesson.steps * BS].split(count * BS)
            return torch.cat([steps(*given) for given in zip(rows, rates, strict=True)])

        return run

    return mechanism


def floor(lesson: Lesson) -> TrainEpoch:
    """What no way of training can do without."""
    w1, w2 = torch.rand(50, 784), torch.rand(10, 50)

    def run(number: int) -> Tensor:
        for x, _ in lesson.loader.epoch(number):
            h = x @ w1.t()
            out = h @ w2.t()
            out.t() @ h
            (out @ w2).t() @ x
        return torch.full((lesson.steps,), torch.nan)

    return run


MECHANISMS: dict[str, Callable[[Lesson], TrainEpoch]] = {
    "torch.optim, eager": torch_optim,
    'Adam\'s kernel called directly, eager (`engine="eager"`)': step_by_step(eager_gradients),
    "a program run by Python, a step at a time": BY_PYTHON(step_by_step(captured)),
    "the same, run by TorchScript": step_by_step(captured),
    "up to 64 steps in a program, run by Python": lambda lesson: BY_PYTHON(runs(lesson)),
    'the same, run by TorchScript (`engine="fast"`)': runs,
    "torch.compile of forward and backward": step_by_step(compiled),
    "torch.compile of a whole step": compiled_steps(1),
    f"torch.compile of {UNROLLED} whole steps": compiled_steps(UNROLLED),
    FLOOR: floor,
}


def main() -> None:
    """Time each mechanism and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = arguments.parse_args()
    torch.set_flush_denormal(True)  # or Adam's moments would slow all that does not see to them: optim/fused.py
    lesson, trained = Lesson(), dict[str, Run]()
    seconds: dict[str, list[float]] = {}
    losses: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=cache):
        for number in range(options.rounds + 1):
            for name, make in MECHANISMS.items():
                if options.no_compile and name.startswith("torch.compile"):
                    continue
                started = time.perf_counter()
                if not number:
                    trained[name] = make(lesson)
                found = trained[name](number)
                seconds.setdefault(name, []).append(time.perf_counter() - started)
                losses.setdefault(name, found)
            print(f"round {number} of {options.rounds}", file=sys.stderr)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {options.rounds} rounds\n")
    print(f"| mechanism | once, s | {lesson.steps} steps, s | min-max | of the floor | losses differ by |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    reference, lowest = losses[next(iter(losses))], statistics.median(seconds[FLOOR][1:])
    for name, (first, *later) in seconds.items():
        median, spread = statistics.median(later), f"{min(later):.3f}-{max(later):.3f}"
        once, far = max(0.0, first - median), f"{(losses[name] - reference).abs().max():.0g}" if name != FLOOR else "-"
        print(f"| {name} | {once:.2f} | {median:.3f} | {spread} | {median / lowest:.2f} | {far} |")


if __name__ == "__main__":
    main()
