"""The loop: fit, evaluate, predict."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.core.device import (
    borrowed_generators,
    derived_seed,
    generator_states,
    keep_freed_memory,
    seed_generators,
    set_generators,
)
from onecycle.core.display import Display
from onecycle.data.batches import Batches
from onecycle.train.callbacks import Fit, Hook
from onecycle.train.check import FAILURES, explain
from onecycle.train.engine import Engine
from onecycle.train.epoch import Epoch
from onecycle.train.metrics import Metric
from onecycle.train.position import Position, Saver
from onecycle.train.recorder import Recorder
from onecycle.train.signals import answered
from onecycle.train.step import Forward, LossFunc, plain_forward
from onecycle.train.tally import Tally

WAKE_SECONDS = 0.25  # how often the loop looks at the losses, for the display and for NaN
_NOISE = 2  # what a derived seed is for


def fit(
    fit: Fit,
    train_dl: Batches,
    valid_dl: Batches | None,
    loss_func: LossFunc,
    metrics: Sequence[Metric],
    hooks: dict[str, tuple[Hook, ...]],
    recorder: Recorder,
    display: Display,
    engine: Engine,
    forward: Forward,
    seed: int,
    first_epoch: int = 0,
    steps: int | None = None,
    restore: Callable[[Tensor], Tensor] | None = None,
    start: Position | None = None,
    saver: Saver | None = None,
) -> None:
    """Train.

        for each epoch:
            for each batch: set lr and momentum, step, keep the loss
            validate, add a row
        leave lr and momentum where the schedule ends

    The batch order and the noise (dropout) of an epoch are functions of `seed` and the epoch's number, counted from
    `first_epoch`. `steps` is how many there will be where a callback ends the fit earlier. `restore` is as in
    `evaluate`. `start` is where a fit goes on that was kept by its `saver`. torch's global generators are left as they
    were. Ctrl-C ends the fit after the step under way; a second one at once.
    """
    batches = len(train_dl)
    at = start or Position()
    fit.iteration, fit.batches = at.iteration, batches
    keep_freed_memory()
    if start is None or not (at.epoch >= fit.epochs or fit.stop_reason):  # else a finished fit is only loaded
        display.start(recorder.record.column_names, steps or fit.epochs * batches, batches)
    with borrowed_generators(fit.device), answered(fit, saver.request if saver else None):
        try:
            for hook in hooks["on_train_begin"] if start is None else ():
                hook(fit)
            while at.epoch < fit.epochs and not fit.stop_reason:
                fit.epoch, fit.num_batch = at.epoch, at.num_batch
                started = time.perf_counter() - at.seconds
                fit.model.train()
                if at.generators:
                    set_generators(at.generators, fit.device)
                else:
                    seed_generators(derived_seed(seed, _NOISE, first_epoch + at.epoch), fit.device)
                    for hook in hooks["on_epoch_begin"]:
                        hook(fit)
                first = fit.iteration - fit.num_batch
                plan = [fit.schedule(step) for step in range(first, first + batches)]
                losses = recorder.start_epoch(batches, fit.device, fit.num_batch)
                work = Epoch(fit, first_epoch + at.epoch, train_dl, loss_func, hooks, plan, losses, saver, started)
                _train_epoch(work, forward, recorder, display, engine)
                if fit.stop_reason and fit.num_batch < batches:
                    break  # in the middle of an epoch: no row for it
                values = None
                if valid_dl is not None:
                    display.phase("validating")
                    values = evaluate(fit.model, valid_dl, loss_func, metrics, forward, engine, restore)
                recorder.end_epoch(at.epoch, fit.num_batch, values, time.perf_counter() - started)
                display.row(recorder.record.row())
                for hook in hooks["on_epoch_end"]:
                    hook(fit)
                at = Position(at.epoch + 1, 0, fit.iteration)
                if saver is not None:
                    saver.end_epoch(at)
        except Exception as error:
            if saver is not None:
                saver.fail(error)
            raise
        finally:
            fit.opt.set_rates(*fit.schedule(fit.iteration))
            fit.opt.zero_grad()
            fit.model.eval()
            finished = len(recorder.record.epochs) == fit.epochs
            recorder.record.stopped = None if finished else fit.stop_reason
            try:
                for hook in hooks["on_train_end"]:
                    hook(fit)
            finally:
                display.finish(recorder.record.stopped)
                if saver is not None:
                    saver.close()


def _train_epoch(epoch: Epoch, forward: Forward, recorder: Recorder, display: Display, engine: Engine) -> None:
    fit, saver = epoch.fit, epoch.saver
    lrs = [rates[-1] for rates, _ in epoch.plan]
    moms = [fit.opt.mom if mom is None else mom for _, mom in epoch.plan]
    steps_left = (fit.epochs - fit.epoch) * len(epoch)
    wake = time.perf_counter() + WAKE_SECONDS
    try:
        for done in engine.train(epoch, forward, steps_left, display.say):
            fit.iteration += done - fit.num_batch
            fit.num_batch = done
            if saver is not None and (saver.is_due(fit) or (fit.stop_reason and done < len(epoch))):
                recorder.read(done, lrs, moms)  # waits for the device
                states, seconds = generator_states(fit.device), time.perf_counter() - epoch.started
                saver.save(Position(fit.epoch, done, fit.iteration, seconds, states))
            if fit.stop_reason:
                break
            if time.perf_counter() > wake:
                recorder.read(done, lrs, moms)  # waits for the device, a few times a second
                display.update(fit.epoch, done, recorder.losses[-1])
                wake = time.perf_counter() + WAKE_SECONDS
    finally:
        recorder.read(fit.num_batch, lrs, moms)  # waits for the device, once an epoch


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Batches,
    loss_func: LossFunc,
    metrics: Sequence[Metric],
    forward: Forward = plain_forward,
    engine: Engine | None = None,
    restore: Callable[[Tensor], Tensor] | None = None,
) -> list[float]:
    """The loss and each metric over `loader`, averages weighed by batch size. Leaves the model in eval mode.

    `engine` may score the whole batches at once. `restore` makes of predictions and targets what metrics are to see.
    """
    model.eval()
    tally = Tally(metrics, restore)
    scored = engine.scores(model, loader, loss_func, metrics, forward) if engine and restore is None else None
    if scored is not None:
        tally.add_scores(scored, loader.batch_size or 0)
    for xb, yb in islice(loader.epoch(0), 0 if scored is None else len(scored), None):
        try:
            preds = forward(model, xb)
            loss = loss_func(preds, yb)
        except FAILURES as error:
            raise explain(error, model, loss_func, xb, yb, "valid") from error
        tally.add(loss, preds, yb, _rows(yb))
    return tally.result()  # waits for the device, once


@torch.no_grad()
def predict(
    model: nn.Module, batches: Iterator[tuple[Any, Any]], forward: Forward = plain_forward
) -> tuple[Tensor, Tensor | None]:
    """The model's outputs and the targets (None where there are none), on the CPU. Leaves the model in eval mode."""
    model.eval()
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    for xb, yb in batches:
        try:
            outputs.append(forward(model, xb))
        except FAILURES as error:
            raise explain(error, model, None, xb, yb, "x") from error
        if yb is not None:
            targets.append(yb)
    return torch.cat(outputs).cpu(), torch.cat(targets).cpu() if targets else None


def _rows(yb: Any) -> int:
    return len(yb[0]) if isinstance(yb, list | tuple) else len(yb)
