"""Capture: what the model does with a batch as a flat program, replayed without Python.

What is captured are the same kernels that eager training calls, in the same order. Alone the program sets the gradients
of a batch; with the gather before it and the optimizer's lines after it, it runs many steps. Validation is captured in
the same way. Why this and not another way: docs/engine.md.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.core.checks import unwrap_partial
from onecycle.core.device import preserve_rng_state
from onecycle.data.loaders import InMemoryLoader
from onecycle.engine.capture_key import capture_key, python_state
from onecycle.engine.cuda_graphs import GraphedRun
from onecycle.engine.graph_program import GraphProgram
from onecycle.engine.optimizer_program import OptimizerProgram
from onecycle.engine.program import Function, as_python, compiled, run_source, scores_source, step_source
from onecycle.engine.trace import CannotCaptureError, Trace, Tracer
from onecycle.train.metrics import Metric
from onecycle.train.scores import batch_scores
from onecycle.train.snapshot import restored_model
from onecycle.train.step import Forward, LossFunc, Objective

Outputs = Sequence[Tensor | None]


class CapturedStep:
    """A captured step: `captured(xb, yb)` sets the gradients and gives the loss, as `loss.backward()` would have."""

    def __init__(self, model: nn.Module, objective: Objective, xb: Any, yb: Any) -> None:
        """Capture the model on this batch. Raises CannotCaptureError; leaves no trace on the model either way."""
        loss_func = objective.loss_func
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._loss_func, self._key = loss_func, capture_key(model, loss_func)
        inputs = _inputs(xb, yb)
        self._shapes = _shapes(inputs)
        self._runs: dict[Any, Function] = {}

        def loss_of(given: list[Tensor]) -> Tensor:
            return objective.loss(model, given[:-1] if isinstance(xb, list) else given[0], given[-1])

        def eager(given: list[Tensor]) -> Outputs:
            loss = loss_of(given)
            return [loss, *torch.autograd.grad(loss, self.trained, allow_unused=True)]

        def by_backward(given: list[Tensor]) -> Outputs:
            # torch.autograd.grad does not see parameters that a function hides from it (a reentrant checkpoint's)
            for parameter in self.trained:
                parameter.grad = None
            loss = loss_of(given)
            loss.backward()
            return [loss, *(parameter.grad for parameter in self.trained)]

        def own(found: Outputs, tracer: Tracer) -> Outputs:
            grads = found[1:]
            return [found[0], *(_of_its_own(grad, i, self.trained, grads, tracer) for i, grad in enumerate(grads))]

        self._trace = _traced(model, (loss_func,), eager, inputs, own)
        self._step = compiled(step_source(self._trace), "step")
        _compare(model, (loss_func,), by_backward, self._loss_and_grads, inputs)

    def is_of(self, model: nn.Module, loss_func: LossFunc) -> bool:
        """Whether this is the step of `model` as it is now and of `loss_func`."""
        return loss_func is self._loss_func and capture_key(model, loss_func) == self._key

    def fits(self, xb: Any, yb: Any) -> bool:
        """Whether a batch has the shapes and dtypes that were captured."""
        return _shapes(_flat(xb, yb)) == self._shapes

    def takes(self, loader: InMemoryLoader) -> bool:
        """Whether whole batches of the loader have the shapes and dtypes that were captured."""
        return _takes(loader, self._shapes)

    def __call__(self, xb: Any, yb: Any) -> Tensor:
        """Set the gradients of one batch and give its loss, detached."""
        loss, *grads = self._loss_and_grads(_flat(xb, yb))
        for parameter, grad in zip(self.trained, grads, strict=True):
            parameter.grad = grad
        assert loss is not None
        return loss

    def run(
        self,
        loader: InMemoryLoader,
        rows: Tensor,
        program: OptimizerProgram,
        numbers: list[list[float]],
    ) -> Tensor:
        """Train a batch for each entry of `numbers`, on these `rows` of the loader; the losses. `program` optimizes."""
        casts = _casts(loader, self._shapes)
        key = (*casts, *program.lines)
        if key not in self._runs:
            source = run_source(self._trace, casts, program.lines)
            if isinstance(program, GraphProgram):
                self._runs = {key: GraphedRun(as_python(source, "run"))}  # graphs hold memory: those of one program
            else:
                self._runs[key] = compiled(source, "run")
        with torch.inference_mode():  # nothing of a step but its loss leaves the run
            state, bs = self._trace.state, loader.batch_size
            losses = self._runs[key](loader.tensors, rows, bs, state, numbers, program.groups)
        program.finish(len(numbers))
        return losses

    def no_graphs(self) -> str | None:
        """Why its runs are no CUDA graphs, where they were to be."""
        return next((run.refused for run in self._runs.values() if isinstance(run, GraphedRun)), None)

    @torch.no_grad()
    def _loss_and_grads(self, inputs: list[Tensor]) -> Outputs:
        found = iter(self._step(inputs, self._trace.state))
        return [next(found) if output is not None else None for output in self._trace.outputs]


class CapturedScores:
    """Loss and metrics of many validation batches at once."""

    def __init__(
        self, model: nn.Module, loss_func: LossFunc, metrics: Sequence[Metric], xb: Any, yb: Any, forward: Forward
    ) -> None:
        """Capture them on this batch; the model is in eval mode. Raises CannotCaptureError."""
        self._of, self._key = (loss_func, *metrics), capture_key(model, loss_func, *metrics)
        inputs = _inputs(xb, yb)
        self._shapes = _shapes(inputs)

        def eager(given: list[Tensor]) -> Outputs:
            preds = forward(model, given[:-1] if isinstance(xb, list) else given[0])
            return [batch_scores(loss_func(preds, given[-1]), metrics, preds, given[-1])]

        with torch.no_grad():
            self._trace = _traced(model, self._of, eager, inputs, lambda outputs, _: outputs)
            step = compiled(step_source(self._trace), "step")
            _compare(model, self._of, eager, lambda given: step(given, self._trace.state), inputs)
        self._width = 1 + len(metrics)
        self._scores: dict[Any, Function] = {}

    def is_of(self, model: nn.Module, loss_func: LossFunc, metrics: Sequence[Metric], loader: InMemoryLoader) -> bool:
        """Whether these are of `model` as it is now, `loss_func` and `metrics`, and fit the loader's batches."""
        same = (loss_func, *metrics) == self._of and capture_key(model, loss_func, *metrics) == self._key
        return same and _takes(loader, self._shapes)

    @torch.no_grad()
    def __call__(self, loader: InMemoryLoader, count: int) -> Tensor:
        """The rows (loss, metric, …) of the first `count` batches."""
        casts = _casts(loader, self._shapes)
        if (key := tuple(casts)) not in self._scores:
            self._scores[key] = compiled(scores_source(self._trace, casts), "scores")
        found = torch.empty(count, self._width, device=loader.tensors[0].device)
        self._scores[key](loader.tensors, loader.batch_size, self._trace.state, found)
        return found


def _traced(
    model: nn.Module,
    functions: Sequence[Any],
    eager: Callable[[list[Tensor]], Outputs],
    inputs: list[Tensor],
    finish: Callable[[Outputs, Tracer], Outputs],
) -> Trace:
    """The trace of `eager(inputs)`, its outputs seen to by `finish`. Raises CannotCaptureError."""
    _check_capturable(model)
    with _undone(model, functions, inputs):
        before = python_state(model, *functions)
        eager(inputs)
        if python_state(model, *functions) != before:
            raise CannotCaptureError("its forward pass counts, or draws from Python's or NumPy's generator")
    tracer = Tracer(inputs)
    try:
        with _undone(model, functions, inputs):
            with tracer:
                forward_flushing_denormals = eager(inputs)
            with tracer, torch.no_grad():
                forward_flushing_denormals = finish(forward_flushing_denormals, tracer)
            return tracer.trace(forward_flushing_denormals)
    except CannotCaptureError:
        raise
    except Exception as error:  # whatever a model does that cannot be written down, torch says in its own way
        raise CannotCaptureError(f"torch cannot trace it ({str(error).strip().splitlines()[0]})") from error


def _compare(
    model: nn.Module,
    functions: Sequence[Any],
    eager: Callable[[list[Tensor]], Outputs],
    captured: Callable[[list[Tensor]], Outputs],
    inputs: list[Tensor],
) -> None:
    """Raises CannotCaptureError where the two differ on other rows and weights than those that were captured.

    On the same ones, what was taken for a constant and is none would give the same.
    """
    other = [part.index_select(0, torch.arange(len(part), device=part.device) // 2 * 2) for part in inputs]
    found: list[Outputs] = []
    for way in (eager, captured):
        with _undone(model, functions, inputs):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.0625 if parameter.is_floating_point() else 1)
            found.append(way(other))
    if not all(_agree(a, b) for a, b in zip(*found, strict=True)):
        raise CannotCaptureError("the captured step gives other numbers than the eager one")


@contextmanager
def _undone(model: nn.Module, functions: Sequence[Any], inputs: list[Tensor]) -> Generator[None]:
    with restored_model(model, *map(_holder, functions)), preserve_rng_state(inputs[0].device):
        yield


def _holder(function: Any) -> Any:
    """What has the attributes that a call may change: a loss may count its calls."""
    function = unwrap_partial(function)
    return function.__self__ if isinstance(function, MethodType) else function


def _of_its_own(
    grad: Tensor | None, i: int, trained: list[nn.Parameter], grads: Outputs, tracer: Tracer
) -> Tensor | None:
    """The gradient in memory of its own, laid out as its parameter, as `backward()` leaves it: kernels rely on it."""
    if grad is None:
        return None
    shared = any(other is not None and other.data_ptr() == grad.data_ptr() for other in (*grads[:i], *grads[i + 1 :]))
    if tracer.is_result(grad) and grad.stride() == trained[i].stride() and not shared:
        return grad
    return torch.empty_like(trained[i]).copy_(grad)


def _agree(found: Tensor | None, expected: Tensor | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-6, equal_nan=True)


def _flat(xb: Any, yb: Any) -> list[Any]:
    return [*xb, yb] if isinstance(xb, list) else [xb, yb]


def _inputs(xb: Any, yb: Any) -> list[Tensor]:
    inputs = _flat(xb, yb)
    if not all(isinstance(part, Tensor) for part in inputs):
        raise CannotCaptureError("a batch holds something else than tensors")
    return inputs


def _shapes(inputs: Sequence[Any]) -> list[Any]:
    return [(part.shape, part.dtype) if isinstance(part, Tensor) else None for part in inputs]


def _takes(loader: InMemoryLoader, shapes: list[Any]) -> bool:
    """Whether whole batches of the loader have these shapes, and these dtypes once bytes are floats."""
    xb, yb = loader.peek()
    rows = min(loader.batch_size, len(loader.tensors[0]))
    return [(torch.Size((rows, *part.shape[1:])), part.dtype) for part in _flat(xb, yb)] == shapes


def _casts(loader: InMemoryLoader, shapes: list[Any]) -> list[str]:
    """What the loader does with each part of a batch, such as making floats of bytes, as text."""
    scale = f".div({float(loader.pixel_scale)!r})" if loader.pixel_scale is not None else ""
    pairs = zip(loader.tensors, shapes, strict=True)
    return ["" if tensor.dtype == dtype else f".to({dtype}){scale}" for tensor, (_, dtype) in pairs]


def _check_capturable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:  # pyright: ignore[reportPrivateUsage] -- there is no public way to ask
            raise CannotCaptureError(f"module {name or 'model'} has hooks")
    if any(parameter._backward_hooks or parameter._post_accumulate_grad_hooks for parameter in model.parameters()):  # pyright: ignore[reportPrivateUsage] -- see above
        raise CannotCaptureError("a parameter has a hook")
