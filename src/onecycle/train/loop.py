"""The training loop.

    for each epoch:
        for each batch:
            set the learning rate and momentum
            forward, loss, backward, optimizer step
            write the loss to the epoch's losses
        validate
        record the epoch's row
        save a checkpoint if one is due

`eager_steps` is the inner loop. The fast engine (`engine/engine.py`) replaces it by another iterator that yields the
same numbers of finished batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from typing import Any, Protocol

from torch import Tensor, nn

from onecycle.core.device import (
    derived_seed,
    get_rng_states,
    seed_generators,
    set_rng_states,
)
from onecycle.core.display import Display
from onecycle.core.process import raise_malloc_trim_threshold
from onecycle.data.loaders import Batch, InMemoryLoader, Loader
from onecycle.optim.schedules import Rates
from onecycle.train.callbacks.base import are_own
from onecycle.train.checks import FAILURES, explain
from onecycle.train.evaluate import evaluate
from onecycle.train.fit import Checkpointer, Fit, Hook, Hooks, Position
from onecycle.train.generators import GeneratorUse
from onecycle.train.recorder import Recorder
from onecycle.train.signals import handle_signals
from onecycle.train.step import Gradients, Objective
from onecycle.train.threads import Threads

READ_SECONDS = 0.25  # interval of reading losses from the device, for the display and to find NaN
_DROPOUT_STREAM = 2  # derives the seed of dropout and the like, apart from the seed of the batch order
_BATCH_HOOKS = ("on_batch_begin", "on_backward_begin", "on_backward_end", "on_batch_end")


@dataclass
class Run:
    """A fit with everything that takes part in it.

    Attributes:
        fit: The state that callbacks see.
        train_dl: Training batches.
        valid_dl: Validation batches, or None.
        objective: Loss, metrics and forward pass.
        hooks: The callbacks' methods by name, see `collect_hooks`.
        recorder: Receives losses and rows.
        display: Shows the progress.
        seed: Seed of the batch order and of dropout; with `first_epoch` it decides both.
        engine: Runs the steps of an epoch.
        first_epoch: Epochs trained by earlier fits of the same learner.
        checkpointer: Saves the fit while it runs, or None.
        start: Where a resumed fit continues, or None for a new one.
        total_steps: Steps to show in the display, if a callback ends the fit early.
        generators: What the fit does with torch's generators.
        shown: Changes of what is trained that were shown.
        threads: torch's threads while the fit runs.
    """

    fit: Fit
    train_dl: Loader
    valid_dl: Loader | None
    objective: Objective
    hooks: Hooks
    recorder: Recorder
    display: Display
    seed: int
    engine: Engine = field(default_factory=lambda: EagerEngine())
    first_epoch: int = 0
    checkpointer: Checkpointer | None = None
    start: Position | None = None
    total_steps: int | None = None
    generators: GeneratorUse = field(default_factory=GeneratorUse)
    shown: set[str] = field(default_factory=set[str])
    threads: Threads = field(default_factory=Threads)


@dataclass
class Epoch:
    """One epoch of a run.

    Attributes:
        run: The run it belongs to.
        number: Counted over all fits of a learner; decides the batch order.
        rates: Learning rates and momentum of each step.
        losses: Receives the loss of each step, shape (batches,), on the device.
        started: `time.perf_counter()` at its start, less the time that a checkpoint says was spent on it.
    """

    run: Run
    number: int
    rates: list[Rates]
    losses: Tensor
    started: float

    def __len__(self) -> int:
        return len(self.rates)

    @property
    def has_batch_hooks(self) -> bool:
        """Whether a callback takes part in the steps."""
        return any(self.run.hooks[name] for name in _BATCH_HOOKS)

    @property
    def is_watched(self) -> bool:
        """Whether a user's callback takes part in the steps, and may change what is trained, or its rates."""
        return not all(are_own(self.run.hooks[name]) for name in _BATCH_HOOKS)


class Engine(Protocol):
    """Runs the steps of an epoch, and the whole batches of a validation."""

    def steps(self, epoch: Epoch) -> Iterator[int]:
        """Train; yield the number of the epoch's batches that are done, after each step or several."""
        ...

    def scores(self, model: nn.Module, loader: Loader, objective: Objective) -> Tensor | None:
        """Return loss and metrics of the loader's whole batches, a row each, or None to validate eagerly."""
        ...


class EagerEngine:
    """Runs every step in Python."""

    def steps(self, epoch: Epoch) -> Iterator[int]:
        """Train batch by batch; yield the number of batches done after each."""
        return eager_steps(epoch, eager_gradients(epoch))

    def scores(self, model: nn.Module, loader: Loader, objective: Objective) -> None:
        """Leave validation to `evaluate`."""


def run_fit(run: Run) -> None:
    """Train, from the start or from where a checkpoint left off.

    torch's global generators are left as they were. Ctrl-C ends the fit after the step under way, a second one at once.
    When the fit ends, the optimizer has the learning rate and momentum that the schedule ends with.
    """
    fit, recorder, checkpointer = run.fit, run.recorder, run.checkpointer
    position = run.start or Position()
    fit.iteration, fit.batches = position.iteration, len(run.train_dl)
    raise_malloc_trim_threshold()
    is_finished = run.start is not None and (position.epoch >= fit.epochs or fit.stop_reason)
    if not is_finished:
        run.display.start(recorder.record.column_names, run.total_steps or fit.epochs * fit.batches, fit.batches)
    handling = handle_signals(fit, checkpointer.request if checkpointer else None)
    with run.generators.restoring(fit.device), handling, run.threads:
        try:
            fit.opt.set_rates(*fit.schedule(fit.iteration))
            fit.opt.note_rates()
            if run.start is None:
                _call(run.hooks["on_train_begin"], fit)
            if checkpointer is not None:
                checkpointer.begin(fit)
            while position.epoch < fit.epochs and not fit.stop_reason:
                epoch = _begin_epoch(run, position)
                _train_epoch(epoch)
                if fit.stop_reason and fit.num_batch < len(epoch):
                    break  # in the middle of an epoch: no row for it
                values = None
                if run.valid_dl is not None:
                    run.display.phase("validating")
                    values = evaluate(fit.model, run.valid_dl, run.objective, run.engine.scores)
                recorder.end_epoch(fit.epoch, fit.num_batch, values, time.perf_counter() - epoch.started)
                run.display.row(recorder.record.row())
                _call(run.hooks["on_epoch_end"], fit)
                fit.apply_anneal_request(len(run.train_dl))
                position = Position(position.epoch + 1, 0, fit.iteration)
                if checkpointer is not None:
                    checkpointer.end_epoch(position)
                    fit.apply_anneal_request(len(run.train_dl))  # another thread may have asked meanwhile
        except Exception as error:
            if checkpointer is not None:
                checkpointer.fail(error)
            raise
        finally:
            _end_fit(run)


def _begin_epoch(run: Run, position: Position) -> Epoch:
    """Seed the global generators, call `on_epoch_begin` and compute the rates, or continue a resumed epoch."""
    fit = run.fit
    fit.epoch, fit.num_batch = position.epoch, position.num_batch
    started, number = time.perf_counter() - position.seconds, run.first_epoch + position.epoch
    if not position.generators:  # else the modes are those of the checkpoint
        fit.model.train()
    with run.generators.writing():
        if position.generators:
            set_rng_states(position.generators, fit.device)
        else:
            seed_generators(derived_seed(run.seed, _DROPOUT_STREAM, number), fit.device)
    if not position.generators:
        _call(run.hooks["on_epoch_begin"], fit)
    _follow_model(run)
    first, batches = fit.iteration - fit.num_batch, len(run.train_dl)
    rates = [Rates(*fit.schedule(step)) for step in range(first, first + batches)]  # a user's schedule may be a tuple
    fit.opt.check_rates(rates[0].mom is not None)
    if run.checkpointer is not None:
        run.checkpointer.begin_epoch(fit)
    losses = run.recorder.start_epoch(batches, fit.device, fit.num_batch)
    return Epoch(run, number, rates, losses, started)


def _train_epoch(epoch: Epoch) -> None:
    """Train an epoch; between steps save checkpoints, read losses for the display, and stop if asked to."""
    run, fit, is_watched = epoch.run, epoch.run.fit, epoch.is_watched
    recorder, checkpointer = run.recorder, run.checkpointer
    loader = run.train_dl
    if isinstance(loader, InMemoryLoader):
        _settle_threads(run, lambda: loader.peek(loader.batch_size)[0])
    else:  # the first step knows a batch
        run.threads.begin_loading()
    run.threads.begin_epoch()
    lrs = [rates.lrs[-1] for rates in epoch.rates]
    moms = [fit.opt.momentum if rates.mom is None else rates.mom for rates in epoch.rates]
    next_read = time.perf_counter() + READ_SECONDS
    unchecked = checkpointer if fit.iteration == (run.start or Position()).iteration else None
    try:
        for done in run.engine.steps(epoch):
            fit.iteration += done - fit.num_batch
            fit.num_batch = done
            if not run.generators.is_known():
                run.generators.look()
            if unchecked is not None:
                unchecked.check(fit)
                unchecked = None
            if is_watched:
                lrs[done - 1], moms[done - 1] = fit.lr, fit.mom  # a callback may set those of its step
            fit.apply_anneal_request(len(run.train_dl))
            if checkpointer is not None and (checkpointer.is_due(fit) or (fit.stop_reason and done < len(epoch))):
                recorder.read(done, lrs, moms)  # waits for the device
                states, seconds = get_rng_states(fit.device), time.perf_counter() - epoch.started
                checkpointer.save(Position(fit.epoch, done, fit.iteration, seconds, states))
            if fit.stop_reason:
                break
            if time.perf_counter() > next_read:
                recorder.read(done, lrs, moms)  # waits for the device, a few times a second
                run.display.update(fit.epoch, done, recorder.losses[-1])
                next_read = time.perf_counter() + READ_SECONDS
    finally:
        if waiting := run.threads.waiting():
            run.display.message(waiting)
        if not is_watched:
            fit.opt.note_rates()
        recorder.read(fit.num_batch, lrs, moms)  # waits for the device, once an epoch


def eager_steps(epoch: Epoch, gradients: Gradients) -> Iterator[int]:
    """Train batch by batch; yield the number of batches done after each.

    Args:
        epoch: The epoch; it continues after the `fit.num_batch` batches that are done.
        gradients: Computes the loss of a batch and sets the gradients, for example `eager_gradients(epoch)`.
    """
    run, fit, hooks, opt = epoch.run, epoch.run.fit, epoch.run.hooks, epoch.run.fit.opt
    losses, first, fit.batches, is_watched = list(epoch.losses.unbind()), fit.num_batch, len(epoch), epoch.is_watched
    batches = islice(run.train_dl.epoch(epoch.number), first, len(epoch))  # a loader may yield more than its length
    if epoch.has_batch_hooks:
        batches = _mark_last_batch(batches, fit)
    for i, (xb, yb) in enumerate(batches, first):
        fit.xb, fit.yb, fit.skip_step = xb, yb, False
        if is_watched:
            opt.check_rates(epoch.rates[i].mom is not None)
        opt.set_rates(*epoch.rates[i])
        try:
            _call(hooks["on_batch_begin"], fit)
            if i == first:
                _settle_threads(run, lambda: fit.xb)
            loss = fit.loss = gradients(fit.xb, fit.yb)
            if is_watched or i == first:  # the first forward pass may have created layers
                _follow_model(run)
            if i == first:
                run.generators.look()
            for hook in hooks["on_backward_end"]:
                if not fit.skip_step:
                    hook(fit)
            if not fit.skip_step:
                opt.step()
            opt.zero_grad()
            losses[i].copy_(loss)
        except FAILURES as error:
            raise explain(error, fit.model, run.objective.loss_func, xb, yb, "train", run.objective.forward) from error
        if is_watched:
            opt.note_rates()
        _call(hooks["on_batch_end"], fit)
        yield i + 1


def _settle_threads(run: Run, inputs: Callable[[], Any]) -> None:
    """Decide how many threads the fit uses, once that can be known, and record it."""
    run.threads.settle(run.fit.model, run.objective.forward, inputs)
    if run.threads.number is not None:
        run.fit.record.settings = {**run.fit.record.settings, "threads": run.threads.number}


def _follow_model(run: Run) -> None:
    """Let the optimizer train what is trainable in the model now, and show what has changed, each change once."""
    change = run.fit.opt.follow(run.fit.model)
    if change is not None and change not in run.shown:
        run.shown.add(change)
        run.display.message(change)


def eager_gradients(epoch: Epoch) -> Gradients:
    """Return the function that runs forward, loss and backward of one batch in Python."""
    fit, objective, on_backward_begin = epoch.run.fit, epoch.run.objective, epoch.run.hooks["on_backward_begin"]

    def gradients(xb: Any, yb: Any) -> Tensor:
        loss = fit.loss = objective.loss(fit.model, xb, yb)
        _call(on_backward_begin, fit)
        fit.loss.backward()
        return loss.detach()  # the loss function's own, whatever a callback replaced it by

    return gradients


def _mark_last_batch(batches: Iterator[Batch], fit: Fit) -> Iterator[Batch]:
    """Pass the batches on; correct `fit.batches` at the last one if the loader yields fewer than its length."""
    for done, (batch, after) in enumerate(pairwise(chain(batches, [None])), fit.num_batch + 1):
        if after is None:
            fit.batches = done
        assert batch is not None  # only the appended end is None
        yield batch


def _end_fit(run: Run) -> None:
    """Leave the final rates, record why the fit stopped, and close callbacks, display and checkpointer."""
    fit, record = run.fit, run.recorder.record
    fit.opt.zero_grad()
    fit.model.eval()
    record.stopped = None if len(record.epochs) == fit.epochs else fit.stop_reason
    try:
        fit.opt.set_rates(*fit.schedule(fit.iteration))
        _call(run.hooks["on_train_end"], fit)
    finally:
        run.display.finish(record.stopped)
        if run.checkpointer is not None:
            run.checkpointer.close()


def _call(hooks: Iterable[Hook], fit: Fit) -> None:
    for hook in hooks:
        hook(fit)
