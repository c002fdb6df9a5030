"""How many CPU threads a fit uses: as many as its operators can keep busy, by a rule that measures no time.

torch's threads wait for one another after every operator. On idle cores that takes microseconds; where another process
has one of the cores, the others wait until the system gives it back, which takes milliseconds, for each small operator.
So a thread must have enough to do in an operator. `weigh` runs the model once on a batch and adds up the work of its
operators, from their shapes; `number_for` makes the number of threads of it. Both depend on nothing but model, batch
and cores, so that a fit does too. docs/engine.md has the measurements behind the rule.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from math import prod
from typing import Any, Self

import torch
from torch import nn

from onecycle.core.checks import check_int
from onecycle.core.choices import ThreadCount
from onecycle.core.cores import seconds_waited, usable_cores
from onecycle.core.dispatch import DispatchMode
from onecycle.core.nested import tensors_in
from onecycle.errors import SettingError
from onecycle.train.snapshot import restoring
from onecycle.train.step import Forward

WORK_PER_THREAD = 32e6  # floating point operations of an operator that are worth a thread
_PER_ELEMENT = 64  # floating point operations in the time of reading and writing one number
_LARGE = 10e9  # floating point operations, about a second of one thread: a model of more is weighed with all threads
_LEAST_SECONDS, _MOST_WAITING = 1.0, 0.2  # of an epoch; the share of it that threads wait for a core

_LOCK = threading.Lock()
_LOCAL = threading.local()  # its `threads` are those of the fit that this thread of Python runs


def check_threads(threads: Any) -> ThreadCount:
    """Return the setting. Raises SettingError if it is neither "auto" nor a number of at least 1."""
    if threads == "auto":
        return "auto"
    if isinstance(threads, str):
        raise SettingError(f'threads is "{threads}"; expected "auto" or a number of at least 1')
    return check_int(threads, "threads", least=1)


class Threads:
    """The threads of one fit: a number, or the rule, which needs a batch. Entered for the time of the fit.

    Args:
        asked: The number, or "auto".
        is_used: Whether the fit computes on the CPU; otherwise torch's threads are left alone.

    Attributes:
        number: How many, or None as long as that is not known.
        outer: How many torch had before the fit, and before the fits that it is nested in.
    """

    def __init__(self, asked: ThreadCount = "auto", is_used: bool = True) -> None:
        self.number: int | None = None
        self.outer = self._before = 1
        self._around: Threads | None = None
        self._asked, self._is_settled, self._has_told = asked, not is_used, False
        self._is_watched, self._waited, self._since = False, 0.0, 0.0

    def __enter__(self) -> Self:
        """Note torch's number, and set that which was asked for; the rule is applied by `settle`."""
        self._before = torch.get_num_threads()
        self._around = _under_way()
        is_of_fit = self._around is not None and self._around.number == self._before
        self.outer = self._around.outer if self._around is not None and is_of_fit else self._before
        _LOCAL.threads = self
        if isinstance(self._asked, int):
            self._set(self._asked)
        elif self._most() == 1:
            self._set(1)
        return self

    def __exit__(self, *error: object) -> None:
        """Put torch's number back, unless the user has set another one during the fit."""
        _LOCAL.threads = self._around
        if self.number is not None and torch.get_num_threads() == self.number:
            set_threads(self._before)

    def settle(self, model: nn.Module, forward: Forward, inputs: Callable[[], Any]) -> None:
        """Apply the rule, if it is asked for and was not applied yet, to the model's work on the inputs of a batch.

        If the user has set torch's number since the fit began, it is that.
        """
        if self._is_settled or _under_way() is not self:
            return
        now = torch.get_num_threads()
        if now != (self.number or self._before):
            self._before = now
            self._set(now)
        else:
            set_threads(self._before)
            self._set(number_for(weigh(model, forward, inputs()), self._most()))

    def begin_loading(self) -> None:
        """Have one thread, as most fits will, until a first batch is loaded and `settle` is called.

        So what a data set computes for that batch does not depend on the number that torch had before.
        """
        if not self._is_settled and _under_way() is self and torch.get_num_threads() == self._before:
            self.number = 1
            set_threads(1)

    def begin_epoch(self) -> None:
        """Note the time, for `waiting`, unless there is nothing to tell."""
        self._is_watched = not self._has_told and self.number not in (None, 1)
        if self._is_watched:
            self._waited, self._since = seconds_waited(), time.perf_counter()

    def waiting(self) -> str | None:
        """Return a line, once, if the threads of this epoch spent much of it waiting for a core."""
        seconds = time.perf_counter() - self._since
        if not self._is_watched or seconds < _LEAST_SECONDS:
            return None
        waited = seconds_waited() - self._waited
        if waited < _MOST_WAITING * seconds:
            return None
        self._has_told = True
        return (
            f"threads: in an epoch of {seconds:.1f} s the fit's {self.number} threads waited {waited:.1f} s in all for "
            "cores that other processes use; with threads=1 (--threads 1) none waits for another"
        )

    def _most(self) -> int:
        return min(self.outer, usable_cores())

    def _set(self, number: int) -> None:
        if not self._is_settled:
            self.number, self._is_settled = number, True
            set_threads(number)


def set_threads(number: int) -> None:
    """Set torch's number of threads for this thread of Python.

    torch's threads belong to a thread of Python: another one has the number that was set last in any of them when it
    first uses torch, and keeps it. That number stays what it was.
    """
    if number == torch.get_num_threads():
        return
    with _LOCK:
        others = _in_new_thread(torch.get_num_threads)
        torch.set_num_threads(number)
        _in_new_thread(lambda: torch.set_num_threads(others))


def _in_new_thread(function: Callable[[], Any]) -> Any:
    found = list[Any]()
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def _under_way() -> Threads | None:
    """Return the threads of the innermost fit that this thread of Python runs."""
    return getattr(_LOCAL, "threads", None)


class Work(DispatchMode):
    """Adds up the work of the operators that are called in its block, in floating point operations.

    Args:
        on_large: Called once, when it is much.

    Attributes:
        total: That of all.
        by_size: That of operators of a size, by the size.
    """

    supports_higher_order_operators = True

    def __init__(self, on_large: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.total, self.by_size = 0.0, defaultdict[float, float](float)
        self._on_large, self._is_large = on_large, False

    @property
    def typical(self) -> float:
        """The size of operator up to which half of the work is done: many small ones count as one large one."""
        done = 0.0
        for size in sorted(self.by_size):
            done += self.by_size[size]
            if done >= self.total / 2:
                return size
        return 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        times, work = operator_work(func, args, result)
        self.total += times * work
        self.by_size[work] += times * work
        if self.total > _LARGE and not self._is_large:
            self._is_large = True
            self._on_large()
        return result


def operator_work(func: Any, args: Any, result: Any) -> tuple[int, float]:
    """Return how many steps an operator takes one after another, and the work of one of them."""
    name = getattr(func, "_schema", None) and func._schema.name.removeprefix("aten::")
    if name in ("mm", "bmm", "addmm", "baddbmm"):
        return 1, 2.0 * result.numel() * args[-1].shape[-2]
    if name == "convolution":
        x, weight, is_transposed = args[0], args[1], args[6]
        return 1, 2.0 * (x if is_transposed else result).numel() * prod(weight.shape[1:])
    if name == "mkldnn_rnn_layer":  # a time step after the other
        x, weights = args[0], args[1:3]
        return x.shape[0], 2.0 * x.shape[1] * sum(weight.numel() for weight in weights)
    if name and name.startswith("_scaled_dot_product"):
        query, key = args[:2]
        return 1, 4.0 * query.numel() * key.shape[-2]
    is_view = getattr(func, "is_view", False)  # which takes no time
    return 1, 0.0 if is_view else _PER_ELEMENT * float(sum(tensor.numel() for tensor in tensors_in(result)))


def weigh(model: nn.Module, forward: Forward, xb: Any) -> Work | None:
    """Run the model on a batch in train mode, and return its work; None if it cannot be run without a trace.

    Nor is a model run that torch compiles, which would compile it once more. Gradients are recorded as in a step, for
    models that need them in the forward pass. Unless the model is large, it runs with one thread, which waits for none.
    """
    if any(hasattr(each, "_orig_mod") or getattr(each, "_compiled_call_impl", None) for each in model.modules()):
        return None
    threads = torch.get_num_threads()
    work = Work(lambda: set_threads(threads))
    set_threads(1)
    try:
        tensors = tensors_in(xb)
        device = tensors[0].device if tensors else torch.device("cpu")
        with restoring(model, generators=device, is_trial=True) as snapshot:
            if not snapshot.is_complete:
                return None
            copies = {id(tensor): tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors}
            inputs = deepcopy(xb, copies)  # the model may write to it, whatever it is
            with snapshot.trying(), work:
                forward(model.train(), inputs)
        return work
    except Exception:  # the step raises it again, where it belongs
        return None
    finally:
        set_threads(threads)


def number_for(work: Work | None, most: int) -> int:
    """Return how many threads the work of a batch keeps busy, from 1 to `most`; `most` if it is not known."""
    return most if work is None else max(1, min(most, int(work.typical / WORK_PER_THREAD)))
