"""What fits and predictions share: torch's random generators, in all threads, and the train or eval mode of a model.

Fits that would disturb each other are refused, and predictions with a model that another thread trains.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Self

import torch
from torch import nn

from onecycle.core.device import get_rng_states, set_rng_states
from onecycle.data.loaders import Loader, TorchLoader
from onecycle.errors import SettingError

_PATIENCE = 60.0  # seconds that a fit waits for the first step, or for the prediction, of another thread
_CPU = torch.device("cpu")
_CHANGED = threading.Condition()  # guards what follows, and writing to the generators
_UNDER_WAY: list[GeneratorUse] = []
_EVALUATIONS: list[tuple[nn.Module, int, int]] = []  # model, thread and process
_writes = 0  # how often a fit has seeded or restored generators


class GeneratorUse:
    """What one fit does with the generators of the CPU and its device.

    Whether it draws from them is known after its first step. Python's and NumPy's generators are left to the loaders.

    Args:
        model: The model.
        device: The device.
        loaders: The loaders. One of torch's draws, or lets its data set draw, from the global generators.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        device: torch.device = _CPU,
        loaders: Iterable[Loader | None] = (),
    ) -> None:
        self._model, self._device = model, device
        self._thread, self._process = threading.get_ident(), os.getpid()
        self._names = {device.type: f"{device.type}:{device.index or 0}", "cpu": "cpu"}
        self._seeded = set(self._names.values())
        self._drawn: set[str] | None = {"cpu"} if any(isinstance(each, TorchLoader) for each in loaders) else None
        self._marked = -1  # `_writes` when the states below were true
        self._states: dict[str, torch.Tensor] = {}
        self._outer_modes: list[dict[nn.Module, bool]] = []

    def __enter__(self) -> Self:
        """Begin: wait until the fits of other threads have done their first step, and enter this one beside them.

        Wait too until other threads have ended their predictions with the model. Raises SettingError if it would
        disturb one of them, or be disturbed.
        """
        with _CHANGED:
            self._wait_for_others()
            self._refuse_conflicts(unless_known=True)
            self._outer_modes = _modes_in_fits()
            _UNDER_WAY.append(self)  # from here on no other thread begins to predict with the model
            try:
                if not _CHANGED.wait_for(lambda: not self._evaluations(), _PATIENCE):
                    raise SettingError("another thread is predicting with this model; train it when that has ended")
            except BaseException:
                _UNDER_WAY.remove(self)
                raise
        return self

    def __exit__(self, *_: object) -> None:
        """End; give the models of the fits that this one is nested in their modes back."""
        _put_back(self._outer_modes)
        with _CHANGED:
            _UNDER_WAY.remove(self)
            _CHANGED.notify_all()

    def is_of_other_thread(self, model: nn.Module) -> bool:
        """Whether this fit, in another thread, trains the model or a part of it."""
        is_other = self._thread != threading.get_ident() and self._process == os.getpid()
        return is_other and self._model is not None and _is_shared(self._model, model)

    def modes(self) -> dict[nn.Module, bool]:
        """Return whether each module is in train mode, the model first; empty if the fit is not one of this thread."""
        if self._model is None or (self._thread, self._process) != (threading.get_ident(), os.getpid()):
            return {}
        return {module: module.training for module in self._model.modules()}

    def is_known(self) -> bool:
        """Whether it is known what the fit draws from."""
        return self._drawn is not None

    @contextmanager
    def writing(self) -> Generator[None]:
        """Seed or restore the generators in the block, when no fit of another thread is in its first step."""
        global _writes
        with _CHANGED:
            self._wait_for_others()
            self._look()
            yield
            _writes += 1
            self._mark()

    def look(self) -> None:
        """Find out whether numbers were drawn since the generators were seeded; call it after a step.

        Raises SettingError if so, and another thread has a fit that uses the same generator.
        """
        with _CHANGED:
            self._look()
            self._refuse_conflicts()

    def _look(self) -> None:
        if self._marked != _writes:  # a fit within this one has seeded them
            self._mark()
        elif not self.is_known() or not self._others():  # else it may be another that draws, and finds out itself
            now = get_rng_states(self._device)
            moved = {self._names[kind] for kind, state in now.items() if not torch.equal(state, self._states[kind])}
            self._drawn = moved | (self._drawn or set())
            _CHANGED.notify_all()

    def _mark(self) -> None:
        self._marked, self._states = _writes, get_rng_states(self._device)

    def _wait_for_others(self) -> None:
        _CHANGED.wait_for(lambda: all(other.is_known() for other in self._others()), _PATIENCE)

    @contextmanager
    def restoring(self, device: torch.device) -> Generator[None]:
        """Restore the generators when the block ends."""
        states = get_rng_states(device)
        try:
            yield
        finally:
            with self.writing():
                set_rng_states(states, device)

    def _others(self) -> list[GeneratorUse]:
        """The fits of other threads; not those that this process was forked from."""
        return [use for use in _UNDER_WAY if use._thread != self._thread and use._process == self._process]

    def _evaluations(self) -> bool:
        """Whether another thread predicts with the model."""
        return self._model is not None and any(
            process == self._process and thread != self._thread and _is_shared(self._model, model)
            for model, thread, process in _EVALUATIONS
        )

    def _refuse_conflicts(self, unless_known: bool = False) -> None:
        for other in self._others():
            if self._model is not None and other.is_of_other_thread(self._model):
                raise SettingError("another thread is training this model; expected one fit of a model at a time")
            theirs = other._seeded if unless_known and other._drawn is None else other._drawn or set[str]()
            if shared := (theirs & self._seeded) | ((self._drawn or set()) & other._seeded):
                raise SettingError(
                    "a fit is under way in another thread, and it or this one draws random numbers (dropout, a "
                    f"DataLoader): torch has one generator on {' and '.join(sorted(shared))} for all threads, so that "
                    "both would depend on their timing; run the fits one after the other, or in processes of their own"
                )


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Predict or validate in the block; it may leave the model in eval mode.

    The models of fits under way in this thread, whose callback this may be, get their modes back.

    Raises SettingError if a fit of the model is under way in another thread.
    """
    evaluation = model, threading.get_ident(), os.getpid()
    with _CHANGED:
        if any(use.is_of_other_thread(model) for use in _UNDER_WAY):
            raise SettingError(
                "another thread is training this model, which cannot be in eval mode meanwhile; predict when the fit "
                "has ended, in one of its callbacks, or with a copy: copy.deepcopy, or an exported bundle"
            )
        _EVALUATIONS.append(evaluation)
    modes = _modes_in_fits()
    try:
        yield
    finally:
        _put_back(modes)
        with _CHANGED:
            _EVALUATIONS.remove(evaluation)
            _CHANGED.notify_all()


def _modes_in_fits() -> list[dict[nn.Module, bool]]:
    """Return the mode of each module that the fits under way in this thread train."""
    return [modes for use in [*_UNDER_WAY] if (modes := use.modes())]


def _put_back(modes: list[dict[nn.Module, bool]]) -> None:
    """Put modules in train or eval mode; one that was added since is put in the mode that its model had."""
    for each in modes:
        model = next(iter(each))
        for module in model.modules():
            module.training = each.get(module, each[model])


def _is_shared(model: nn.Module, other: nn.Module) -> bool:
    """Return whether two models are the same, or have a parameter in common."""
    return model is other or not {*model.parameters()}.isdisjoint(other.parameters())
