"""Where the time of one step of the lesson goes, before and after: the second table in docs/engine.md.

    python benchmarks/profile_step.py [--rounds 9]

Trains epochs of MNIST with 784-50-10, batches of 64 and AdamW, on the CPU, in turn: a plain loop over a DataLoader,
engine="eager" and engine="fast". The first two are timed between their parts. The program of the third is cut off after
each part and run for an epoch; the differences are the parts, and what a real epoch takes longer is the rest.
Microseconds a step, medians over the rounds.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import onecycle
from onecycle.engine.capture import CapturedStep
from onecycle.engine.optimizer_program import OptimizerProgram, program_of
from onecycle.engine.program import compiled, run_source
from onecycle.engine.trace import Trace, Value, values_in
from onecycle.train.step import Objective

BS, RUN = 64, 64  # rows in a batch, steps in a run of the program
PARTS = ("gather", "forward", "loss", "backward", "optimizer")
REST, WHOLE = "the rest: Python, schedule, record", "a step"
Seconds = dict[str, float]  # of an epoch: each part, and the whole


class Stopwatch:
    """`watch(part)` adds the time since the call before to that part."""

    def __init__(self) -> None:
        self.seconds, self._last = dict.fromkeys((*PARTS, REST), 0.0), time.perf_counter()

    def __call__(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now

    def around(self, before: str, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its time added to `part`, and what came before it to `before`."""

        def call(*args: Any) -> Any:
            self(before)
            found = function(*args)
            self(part)
            return found

        return call

    def batches(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches; getting them is the gather."""
        return iter(self.around(REST, "gather", lambda: next(batches, None)), None)


def plain_loop(train: TensorDataset) -> Callable[[], Seconds]:
    """The loop of the tutorials; the losses are kept without waiting for each."""
    loader, loss_func = DataLoader(train, BS, shuffle=True, drop_last=True), nn.CrossEntropyLoss()
    model = onecycle.MLP(784, 50, 10)
    opt = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99))

    def epoch() -> Seconds:
        schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-2, total_steps=len(loader))
        losses, watch, started = torch.empty(len(loader)), Stopwatch(), time.perf_counter()
        for i, (x, y) in enumerate(watch.batches(iter(loader))):
            watch(REST)
            out = model(x)
            watch("forward")
            loss = loss_func(out, y)
            watch("loss")
            loss.backward()
            watch("backward")
            opt.step()
            watch("optimizer")
            schedule.step()
            opt.zero_grad()
            losses[i] = loss.detach()
        return watch.seconds | {WHOLE: time.perf_counter() - started}

    return epoch


def eager(train: TensorDataset) -> Callable[[], Seconds]:
    """engine="eager", with a stopwatch around what it calls."""
    learn, opt = learner(train, "eager")
    loader, forward, loss_func, step = learn.data.train_dl, learn.model.forward, learn.loss_func, opt.step
    batches = loader.epoch

    def epoch() -> Seconds:
        watch = Stopwatch()
        loader.epoch = lambda number: watch.batches(batches(number))
        learn.model.forward = watch.around(REST, "forward", forward)
        learn.loss_func = watch.around("forward", "loss", loss_func)
        opt.step = watch.around("backward", "optimizer", step)
        learn.fit_one_cycle(1, 1e-2)
        return watch.seconds | {WHOLE: learn.recorder.record.seconds[-1]}

    return epoch


def fast(train: TensorDataset) -> Callable[[], Seconds]:
    """engine="fast", and its program cut off after each part."""
    learn, opt = learner(train, "fast")
    loader, captured = (
        learn.data.train_dl,
        CapturedStep(learn.model, Objective(learn.loss_func), *learn.data.one_batch()),
    )
    trace, program, steps = (
        captured.trace,
        program_of(OptimizerProgram, opt, captured.trained, captured.has_gradient),
        len(loader),
    )
    numbers = [[1e-3, 0.9]] * RUN
    cut = [compiled(source, "run") for source in (*cut_off(trace), run_source(trace, ["", ""], program.lines))]

    @torch.inference_mode()
    def seconds_of(run: Callable[..., Any]) -> float:
        order, started = loader.order(0), time.perf_counter()
        for rows in order[: steps * BS].split(RUN * BS):
            run(loader.tensors, rows, BS, trace.state, numbers[: len(rows) // BS], program.groups)
        return time.perf_counter() - started

    def epoch() -> Seconds:
        learn.fit_one_cycle(1, 1e-2)
        upto = [0.0, *map(seconds_of, cut)]
        program.finish(steps)
        parts = {part: upto[i + 1] - upto[i] for i, part in enumerate(PARTS)}
        return parts | {WHOLE: learn.recorder.record.seconds[-1]}

    return epoch


def cut_off(trace: Trace) -> Iterator[str]:
    """Programs that end after gather, forward, loss and backward.

    Even unoptimised, TorchScript drops what nobody uses: the last results go into the list of losses, and out again.
    What stays there are row numbers, which any of these programs has.
    """
    logits, loss_op = next((op.args[0], i) for i, op in enumerate(trace.ops) if "_log_softmax" in str(op.func))
    loss_end = 1 + next(i for i, op in enumerate(trace.ops) if trace.outputs[0] in values_in(op.results))
    ends = (0, [Value("x0"), Value("x1")]), (loss_op, [logits, Value("x1")]), (loss_end, trace.outputs[:1])
    for end, results in (*ends, (len(trace.ops), trace.outputs)):
        uses = [line for value in results for line in (f"losses.append({value.name})", "losses.pop()")]
        yield run_source(Trace(trace.ops[:end], trace.state, [Value("rows")], 2), ["", ""], uses)


def learner(train: TensorDataset, engine: str) -> tuple[onecycle.Learner, Any]:
    """The lesson without validation, trained for an epoch, and its optimizer."""
    data = onecycle.DataBunch.create(train, bs=BS, device="cpu")
    learn = onecycle.Learner(data, onecycle.MLP(784, 50, 10), silent=True, engine=engine)
    learn.fit_one_cycle(1, 1e-2)
    return learn, learn.opt


def main() -> None:
    """Measure, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=9)
    rounds, train = arguments.parse_args().rounds, onecycle.mnist(device="cpu").train_ds
    ways = {"plain loop": plain_loop(train), '`engine="eager"`': eager(train), '`engine="fast"`': fast(train)}
    found: dict[str, list[Seconds]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first warms up and is not counted
        for name, epoch in ways.items():
            found[name].append(epoch())
        print(f"round {number} of {rounds}", file=sys.stderr)
    steps, table = len(train) // BS, dict[str, Seconds]()
    for name, epochs in found.items():
        parts = {part: statistics.median(e[part] for e in epochs[1:]) / steps * 1e6 for part in (*PARTS, WHOLE)}
        table[name] = parts | {REST: parts[WHOLE] - sum(parts[part] for part in PARTS)}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {rounds} rounds\n")
    print(f"| µs | {' | '.join(ways)} |\n| --- | {' | '.join('---:' for _ in ways)} |")
    for part in (*PARTS, REST, WHOLE):
        print(f"| {part} | {' | '.join(f'{table[name][part]:.0f}' for name in ways)} |")


if __name__ == "__main__":
    main()
