"""An epoch's steps: one at a time, or in runs without Python between them."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Any

from torch import Tensor

from onecycle.data.batches import Batch, Batches, InMemoryLoader
from onecycle.optim.program import Program
from onecycle.optim.schedules import Rates
from onecycle.train.callbacks import Fit, Hook
from onecycle.train.capture import Captured
from onecycle.train.check import FAILURES, explain
from onecycle.train.position import Saver
from onecycle.train.step import LossFunc, Step

_LONGEST_RUN = 0.05  # seconds after which the display and Ctrl-C get their turn


@dataclass
class Epoch:
    """What an epoch of training is made of."""

    fit: Fit
    number: int  # decides the order of the batches
    loader: Batches
    loss_func: LossFunc
    hooks: dict[str, tuple[Hook, ...]]
    plan: list[Rates]  # learning rates and momentum of each step
    losses: Tensor  # room for the loss of each
    saver: Saver | None = None
    started: float = 0.0  # as time.perf_counter() counts

    def __len__(self) -> int:
        return len(self.plan)

    def is_watched(self) -> bool:
        """Whether a callback takes part in the steps."""
        names = ("on_batch_begin", "on_backward_begin", "on_backward_end", "on_batch_end")
        return any(self.hooks[name] for name in names)

    def can_run(self) -> bool:
        """Whether the data are in memory, the batches all of one size, and nobody wants to see a batch."""
        loader = self.loader
        if not isinstance(loader, InMemoryLoader) or len(loader.tensors) < 2:
            return False
        return loader.shuffle and loader.drop_last and not self.is_watched()


def one_by_one(epoch: Epoch, step: Step) -> Iterator[int]:
    """Train, and give the number of batches done after each."""
    fit, set_rates, after_batch = epoch.fit, epoch.fit.opt.set_rates, epoch.hooks["on_batch_end"]
    losses, first, fit.batches = list(epoch.losses.unbind()), fit.num_batch, len(epoch)
    batches = islice(epoch.loader.epoch(epoch.number), first, len(epoch))  # a loader may give more than it says
    if epoch.is_watched():
        batches = _to_the_last(batches, fit)
    for i, (xb, yb) in enumerate(batches, first):
        set_rates(*epoch.plan[i])
        try:
            losses[i].copy_(step(xb, yb))
        except FAILURES as error:
            raise explain(error, fit.model, epoch.loss_func, xb, yb, "train") from error
        for hook in after_batch:
            hook(fit)
        yield i + 1


def _to_the_last(batches: Iterator[Batch], fit: Fit) -> Iterator[Batch]:
    """The same batches; with the last of them `fit.batches` is right, also where a loader gives fewer than it says."""
    for done, (batch, after) in enumerate(pairwise(chain(batches, [None])), fit.num_batch + 1):
        if after is None:
            fit.batches = done
        assert batch is not None  # only what comes after the last is
        yield batch


def in_runs(epoch: Epoch, done: int, captured: Captured, program: Program) -> Iterator[int]:
    """Train what comes after the first `done` batches, and give the number of batches done after each run."""
    loader, opt = epoch.loader, epoch.fit.opt
    assert isinstance(loader, InMemoryLoader)  # as `can_run` made sure
    order, bs, length = loader.order(epoch.number), loader.batch_size, 1
    while done < len(epoch):
        most = min(length, len(epoch) - done)
        if epoch.saver is not None:
            most = min(most, epoch.saver.longest_run(epoch.fit))
        count = program.length(most)
        plan, rows = epoch.plan[done : done + count], order[done * bs : (done + count) * bs]
        numbers = program.numbers(plan, opt.mom or 0.0)
        started = time.perf_counter()
        try:
            epoch.losses[done : done + count] = captured.run(loader, rows, program, numbers)
        except FAILURES as error:
            x: list[Any] = [tensor.index_select(0, rows) for tensor in loader.tensors[:-1]]
            y = loader.tensors[-1].index_select(0, rows)
            xb = x if len(x) > 1 else x[0]
            raise explain(error, epoch.fit.model, epoch.loss_func, xb, y, "train") from error
        opt.set_rates(*plan[-1])
        done += count
        in_time = int(_LONGEST_RUN * count / (time.perf_counter() - started))
        length = max(1, min(2 * length, in_time))
        yield done
