"""Capture a training step, or a validation step, as a flat program that is replayed without Python.

The program calls the kernels that eager training calls, in the same order. Alone it sets the gradients of a batch; with
the gather before it and the optimizer's lines after it, it runs many steps in one call. docs/engine.md explains why
it works this way.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any, TypeAlias

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
from onecycle.train.snapshot import restoring
from onecycle.train.step import LossFunc, Objective

Outputs: TypeAlias = Sequence[Tensor | None]
Shapes: TypeAlias = list[tuple[torch.Size, torch.dtype] | None]


class CapturedStep:
    """A captured step: `captured(xb, yb)` sets the gradients and returns the loss, as `loss.backward()` would.

    Creating it raises CannotCaptureError if the model cannot be captured, and leaves no trace on the model.

    Attributes:
        trained: The parameters that it sets the gradients of.
        trace: The operations of the step.
    """

    def __init__(self, model: nn.Module, objective: Objective, xb: Any, yb: Any) -> None:
        loss_func = objective.loss_func
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._loss_func, self._key = loss_func, capture_key(model, loss_func)
        inputs = _tensors(xb, yb)
        self._shapes = _shapes(inputs)
        self._runs: dict[Any, Function] = {}

        def loss_of(parts: list[Tensor]) -> Tensor:
            return objective.loss(model, parts[:-1] if isinstance(xb, list) else parts[0], parts[-1])

        def with_autograd_grad(parts: list[Tensor]) -> Outputs:
            loss = loss_of(parts)
            return [loss, *torch.autograd.grad(loss, self.trained, allow_unused=True)]

        def with_backward(parts: list[Tensor]) -> Outputs:
            # torch.autograd.grad does not see parameters that a function hides from it (a reentrant checkpoint's)
            for parameter in self.trained:
                parameter.grad = None
            loss = loss_of(parts)
            loss.backward()
            return [loss, *(parameter.grad for parameter in self.trained)]

        def with_own_storage(outputs: Outputs, tracer: Tracer) -> Outputs:
            loss, *grads = outputs
            return [loss, *(_own_storage(i, grads, self.trained, tracer) for i in range(len(grads)))]

        self.trace = _traced(model, (loss_func,), with_autograd_grad, inputs, with_own_storage)
        self._step = compiled(step_source(self.trace), "step")
        _check_agreement(model, (loss_func,), with_backward, self._loss_and_grads, inputs)

    def matches(self, model: nn.Module, loss_func: LossFunc) -> bool:
        """Whether this is the step of `model` as it is now, and of `loss_func`."""
        return loss_func is self._loss_func and capture_key(model, loss_func) == self._key

    def accepts_batch(self, xb: Any, yb: Any) -> bool:
        """Whether a batch has the shapes and dtypes that were captured."""
        return _shapes(_flat(xb, yb)) == self._shapes

    def accepts_loader(self, loader: InMemoryLoader) -> bool:
        """Whether full batches of the loader have the shapes and dtypes that were captured."""
        return _batch_shapes(loader) == self._shapes

    def __call__(self, xb: Any, yb: Any) -> Tensor:
        """Set the gradients of one batch and return its loss, detached."""
        loss, *grads = self._loss_and_grads(_flat(xb, yb))
        for parameter, grad in zip(self.trained, grads, strict=True):
            parameter.grad = grad
        assert loss is not None
        return loss

    def run(
        self, loader: InMemoryLoader, rows: Tensor, optimizer: OptimizerProgram, numbers: list[list[float]]
    ) -> Tensor:
        """Train several batches in one call.

        Args:
            loader: Holds the data.
            rows: Row numbers of the batches, one batch after the other.
            optimizer: The optimizer's step as lines of the program.
            numbers: Its numbers (learning rates, momentum) for each batch.

        Returns:
            The loss of each batch.
        """
        casts = _casts(loader, self._shapes)
        key = (*casts, *optimizer.lines)
        if key not in self._runs:
            source = run_source(self.trace, casts, optimizer.lines)
            if isinstance(optimizer, GraphProgram):
                self._runs = {key: GraphedRun(as_python(source, "run"))}  # graphs hold memory: keep one program's
            else:
                self._runs[key] = compiled(source, "run")
        with torch.inference_mode():  # nothing of a step but its loss leaves the run
            state, bs = self.trace.state, loader.batch_size
            losses = self._runs[key](loader.tensors, rows, bs, state, numbers, optimizer.groups)
        optimizer.finish(len(numbers))
        return losses

    def graph_fallback_reason(self) -> str | None:
        """Why its runs are not CUDA graphs although they should be, or None."""
        return next((run.fallback_reason for run in self._runs.values() if isinstance(run, GraphedRun)), None)

    @torch.no_grad()
    def _loss_and_grads(self, inputs: list[Tensor]) -> Outputs:
        results = iter(self._step(inputs, self.trace.state))
        return [next(results) if output is not None else None for output in self.trace.outputs]


class CapturedScores:
    """Loss and metrics of many validation batches in one call. Creating it raises CannotCaptureError, as a step does.

    The model must be in eval mode.
    """

    def __init__(self, model: nn.Module, objective: Objective, xb: Any, yb: Any) -> None:
        loss_func, metrics = objective.loss_func, objective.metrics
        self._functions, self._key = (loss_func, *metrics), capture_key(model, loss_func, *metrics)
        inputs = _tensors(xb, yb)
        self._shapes = _shapes(inputs)

        def eager(parts: list[Tensor]) -> Outputs:
            preds = objective.forward(model, parts[:-1] if isinstance(xb, list) else parts[0])
            return [batch_scores(loss_func(preds, parts[-1]), metrics, preds, parts[-1])]

        with torch.no_grad():
            self._trace = _traced(model, self._functions, eager, inputs, lambda outputs, _: outputs)
            step = compiled(step_source(self._trace), "step")
            _check_agreement(model, self._functions, eager, lambda parts: step(parts, self._trace.state), inputs)
        self._width = 1 + len(metrics)
        self._scores: dict[Any, Function] = {}

    def matches(self, model: nn.Module, loss_func: LossFunc, metrics: Sequence[Metric], loader: InMemoryLoader) -> bool:
        """Whether these are the scores of `model` as it is now, and fit the loader's batches."""
        functions = (loss_func, *metrics)
        same = functions == self._functions and capture_key(model, *functions) == self._key
        return same and _batch_shapes(loader) == self._shapes

    @torch.no_grad()
    def __call__(self, loader: InMemoryLoader, count: int) -> Tensor:
        """Return loss and metrics of the first `count` batches, a row each."""
        casts = _casts(loader, self._shapes)
        if (key := tuple(casts)) not in self._scores:
            self._scores[key] = compiled(scores_source(self._trace, casts), "scores")
        scores = torch.empty(count, self._width, device=loader.tensors[0].device)
        self._scores[key](loader.tensors, loader.batch_size, self._trace.state, scores)
        return scores


# --- tracing and checking ---------------------------------------------------------------------------------------------


def _traced(
    model: nn.Module,
    functions: Sequence[Any],
    eager: Callable[[list[Tensor]], Outputs],
    inputs: list[Tensor],
    finish: Callable[[Outputs, Tracer], Outputs],
) -> Trace:
    """Trace `finish(eager(inputs))`. Raises CannotCaptureError."""
    _check_no_hooks(model)
    with _rolled_back(model, functions, inputs):
        before = python_state(model, *functions)
        eager(inputs)
        if python_state(model, *functions) != before:
            raise CannotCaptureError("its forward pass counts, or draws from Python's or NumPy's generator")
    tracer = Tracer(inputs)
    try:
        with _rolled_back(model, functions, inputs):
            with tracer:
                outputs = eager(inputs)
            with tracer, torch.no_grad():
                outputs = finish(outputs, tracer)
            return tracer.trace(outputs)
    except CannotCaptureError:
        raise
    except Exception as error:  # torch raises all kinds of errors for what cannot be traced
        raise CannotCaptureError(f"torch cannot trace it ({str(error).strip().splitlines()[0]})") from error


def _check_agreement(
    model: nn.Module,
    functions: Sequence[Any],
    eager: Callable[[list[Tensor]], Outputs],
    captured: Callable[[list[Tensor]], Outputs],
    inputs: list[Tensor],
) -> None:
    """Raise CannotCaptureError if the two differ.

    They run on other rows and other weights than those captured: something that was captured as a constant by mistake
    would give the same numbers on the same ones.
    """
    other_rows = [part.index_select(0, torch.arange(len(part), device=part.device) // 2 * 2) for part in inputs]
    results: list[Outputs] = []
    for step in (eager, captured):
        with _rolled_back(model, functions, inputs):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.0625 if parameter.is_floating_point() else 1)
            results.append(step(other_rows))
    if not all(_agree(a, b) for a, b in zip(*results, strict=True)):
        raise CannotCaptureError("the captured step gives other numbers than the eager one")


def _agree(actual: Tensor | None, expected: Tensor | None) -> bool:
    if actual is None or expected is None:
        return actual is expected
    return torch.allclose(actual, expected, rtol=1e-4, atol=1e-6, equal_nan=True)


@contextmanager
def _rolled_back(model: nn.Module, functions: Sequence[Any], inputs: list[Tensor]) -> Generator[None]:
    """Undo everything that the block does to the model, to the attributes of the functions and to the generators."""
    with restoring(model, *map(_attribute_owner, functions)), preserve_rng_state(inputs[0].device):
        yield


def _attribute_owner(function: Any) -> Any:
    """The object whose attributes a call may change: a loss may count its calls."""
    function = unwrap_partial(function)
    return function.__self__ if isinstance(function, MethodType) else function


def _own_storage(i: int, grads: Outputs, trained: list[nn.Parameter], tracer: Tracer) -> Tensor | None:
    """Gradient `i` in memory of its own, laid out like its parameter, as `backward()` leaves it: kernels rely on it."""
    grad = grads[i]
    if grad is None:
        return None
    shared = any(other is not None and other.data_ptr() == grad.data_ptr() for other in (*grads[:i], *grads[i + 1 :]))
    if tracer.is_result(grad) and grad.stride() == trained[i].stride() and not shared:
        return grad
    return torch.empty_like(trained[i]).copy_(grad)


def _check_no_hooks(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:  # pyright: ignore[reportPrivateUsage] -- there is no public way to ask
            raise CannotCaptureError(f"module {name or 'model'} has hooks")
    if any(parameter._backward_hooks or parameter._post_accumulate_grad_hooks for parameter in model.parameters()):  # pyright: ignore[reportPrivateUsage] -- see above
        raise CannotCaptureError("a parameter has a hook")


# --- batches ----------------------------------------------------------------------------------------------------------


def _flat(xb: Any, yb: Any) -> list[Any]:
    return [*xb, yb] if isinstance(xb, list) else [xb, yb]


def _tensors(xb: Any, yb: Any) -> list[Tensor]:
    parts = _flat(xb, yb)
    if not all(isinstance(part, Tensor) for part in parts):
        raise CannotCaptureError("a batch holds something other than tensors")
    return parts


def _shapes(parts: Sequence[Any]) -> Shapes:
    return [(part.shape, part.dtype) if isinstance(part, Tensor) else None for part in parts]


def _batch_shapes(loader: InMemoryLoader) -> Shapes:
    """Shapes and dtypes of the loader's full batches, after bytes became floats."""
    rows = min(loader.batch_size, len(loader.tensors[0]))
    return [(torch.Size((rows, *part.shape[1:])), part.dtype) for part in _flat(*loader.peek())]


def _casts(loader: InMemoryLoader, shapes: Shapes) -> list[str]:
    """Source text for the loader's conversion of each part of a batch, such as bytes to floats."""
    scale = f".div({float(loader.pixel_scale)!r})" if loader.pixel_scale is not None else ""
    dtypes = [shape[1] for shape in shapes if shape is not None]
    pairs = zip(loader.tensors, dtypes, strict=True)
    return ["" if tensor.dtype == dtype else f".to({dtype}){scale}" for tensor, dtype in pairs]
