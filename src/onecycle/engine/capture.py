"""Capture a training step, or a validation step, as a flat program that is replayed without Python.

The program calls the kernels that eager training calls, in the same order. Alone it sets the gradients of a batch; with
the gather before it and the optimizer's lines after it, it runs many steps in one call. docs/engine.md explains why
it works this way.
"""

import operator
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import starmap
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from onecycle.core.device import preserve_rng_state
from onecycle.data.loaders import InMemoryLoader
from onecycle.engine.cuda_graphs import GraphedRun
from onecycle.engine.follow import Follower
from onecycle.engine.graph_program import GraphProgram
from onecycle.engine.optimizer_program import OptimizerProgram
from onecycle.engine.program import Function, as_python, compiled, run_source, scores_source, step_source
from onecycle.engine.trace import CannotCaptureError, Trace, Tracer, restoring_memory
from onecycle.train.metrics import Metric
from onecycle.train.scores import batch_scores
from onecycle.train.step import LossFunc, Objective

Outputs: TypeAlias = Sequence[Tensor | None]
Shapes: TypeAlias = list[tuple[torch.Size, torch.dtype] | None]


class CapturedStep:
    """A captured step: `captured(xb, yb)` sets the gradients and returns the loss, as `loss.backward()` would.

    Creating it raises CannotCaptureError unless it is shown that the step can be replayed, and leaves no trace.

    Attributes:
        trained: The parameters that it sets the gradients of.
        trace: The operations of the step.
    """

    def __init__(self, model: nn.Module, objective: Objective, xb: Any, yb: Any) -> None:
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._objective, self._model = objective, model
        inputs = _tensors(xb, yb)
        self._shapes, self._has_list = _shapes(inputs), isinstance(xb, list)
        self._layouts = [_layout(part) for part in _flat(xb, yb)]
        self._runs: dict[Any, Function] = {}
        follower = Follower(model, objective.loss_func)
        followed = replace(objective, loss_func=partial(follower.call, objective.loss_func))
        followed_model: Any = partial(follower.call, model)

        def with_autograd_grad(parts: list[Tensor], tracer: Tracer) -> Outputs:
            loss = followed.loss(followed_model, *_batch(parts, self._has_list))
            tracer.in_backward = True
            return [loss, *torch.autograd.grad(loss, self.trained, allow_unused=True)]

        def with_own_storage(outputs: Outputs, tracer: Tracer) -> Outputs:
            loss, *grads = outputs
            return [loss, *(_own_storage(i, grads, self.trained, tracer) for i in range(len(grads)))]

        self.trace = _traced(follower, with_autograd_grad, inputs, self.trained, with_own_storage)
        self._guards = follower.guards
        self._step = compiled(step_source(self.trace), "step")
        other_rows = [part.index_select(0, torch.arange(len(part), device=part.device) // 2 * 2) for part in inputs]
        with _other_weights(model):
            if not self._agrees_on(other_rows, inputs):
                raise CannotCaptureError("the captured step gives other numbers than the eager one")

    def changed(self, model: nn.Module, loss_func: LossFunc) -> str | None:
        """Return the name of something that is not as it was when the step was captured, or None."""
        if model is not self._model or loss_func is not self._objective.loss_func:
            return "the model or loss"
        return self._guards.changed()

    def agrees(self, xb: Any, yb: Any) -> bool:
        """Whether the eager step gives the same loss and gradients for this batch, on a CPU to the last bit."""
        return self._agrees_on(_tensors(xb, yb))

    def _agrees_on(self, *batches: list[Tensor]) -> bool:
        def eager(parts: list[Tensor]) -> Outputs:
            # torch.autograd.grad does not see parameters that a function hides from it (a reentrant checkpoint's)
            for parameter in self.trained:
                parameter.grad = None
            loss = self._objective.loss(self._model, *_batch(parts, self._has_list))
            loss.backward()
            return [loss, *(parameter.grad for parameter in self.trained)]

        return _agree(eager, self._loss_and_grads, batches, self.trace, self.trained)

    def accepts_batch(self, xb: Any, yb: Any) -> bool:
        """Whether a batch has the shapes, dtypes and layout that were captured."""
        parts = _flat(xb, yb)
        return _shapes(parts) == self._shapes and [_layout(part) for part in parts] == self._layouts

    def accepts_loader(self, loader: InMemoryLoader) -> bool:
        """Whether full batches of the loader have the shapes and dtypes that were captured."""
        return _batch_shapes(loader) == self._shapes and all(stride is None for stride, _ in self._layouts)

    def __call__(self, xb: Any, yb: Any) -> Tensor:
        """Set the gradients of one batch and return its loss, detached."""
        loss, *grads = self._loss_and_grads(_flat(xb, yb))
        for parameter, grad in zip(self.trained, grads, strict=True):
            if parameter.grad is None or grad is None:
                parameter.grad = grad if parameter.grad is None else parameter.grad
            else:
                parameter.grad.add_(grad)  # a callback left one
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
        with _replaying(self.trace) as state:
            losses = self._runs[key](loader.tensors, rows, loader.batch_size, state, numbers, optimizer.groups)
        optimizer.finish(len(numbers))
        return losses

    @property
    def has_run(self) -> bool:
        """Whether many steps were run together."""
        return bool(self._runs)

    @property
    def has_gradient(self) -> list[bool]:
        """Which of the trained parameters get a gradient."""
        return [output is not None for output in self.trace.outputs[1:]]

    def graph_fallback_reason(self) -> str | None:
        """Why its runs are not CUDA graphs although they should be, or None."""
        return next((run.fallback_reason for run in self._runs.values() if isinstance(run, GraphedRun)), None)

    def _loss_and_grads(self, inputs: list[Tensor]) -> Outputs:
        with _replaying(self.trace, inference=False) as state:
            results = iter(self._step(inputs, state))
        return [next(results) if output is not None else None for output in self.trace.outputs]


class CapturedScores:
    """Loss and metrics of many validation batches in one call. Creating it raises CannotCaptureError, as a step does.

    The model must be in eval mode.
    """

    def __init__(self, model: nn.Module, objective: Objective, xb: Any, yb: Any) -> None:
        loss_func, metrics = objective.loss_func, objective.metrics
        self._functions, self._model, self._width = (loss_func, *metrics), model, 1 + len(metrics)
        inputs, has_list = _tensors(xb, yb), isinstance(xb, list)
        self._shapes = _shapes(inputs)
        follower = Follower(model, *self._functions)

        def scores(forward_of: Any, loss_func: Any, metrics: Sequence[Any], parts: list[Tensor]) -> Outputs:
            xb, yb = _batch(parts, has_list)
            preds = objective.forward(forward_of, xb)
            return [batch_scores(loss_func(preds, yb), metrics, preds, yb)]

        followed = [partial(follower.call, function) for function in (model, *self._functions)]
        with torch.no_grad():
            eager = partial(scores, followed[0], followed[1], followed[2:])
            self._trace = _traced(follower, lambda parts, _: eager(parts), inputs, (), lambda outputs, _: outputs)
            self._guards = follower.guards
            step = compiled(step_source(self._trace), "step")
            eager = partial(scores, model, loss_func, metrics)
            other_rows = [part.flip(0) for part in inputs]

            def captured(parts: list[Tensor]) -> Outputs:
                return step(parts, self._trace.state)

            if not _agree(eager, captured, (inputs, other_rows), self._trace):
                raise CannotCaptureError("the captured validation gives other numbers than the eager one")
        self._scores: dict[Any, Function] = {}

    def matches(self, model: nn.Module, loss_func: LossFunc, metrics: Sequence[Metric], loader: InMemoryLoader) -> bool:
        """Whether these are the scores of `model` as it is now, and fit the loader's batches."""
        same = model is self._model and are_same((loss_func, *metrics), self._functions)
        return same and _batch_shapes(loader) == self._shapes and self._guards.changed() is None

    @torch.no_grad()
    def __call__(self, loader: InMemoryLoader, count: int) -> Tensor:
        """Return loss and metrics of the first `count` batches, a row each."""
        casts = _casts(loader, self._shapes)
        if self._trace.writes_inputs:
            casts = [cast or ".clone()" for cast in casts]  # the data set is not the model's to write to
        if (key := tuple(casts)) not in self._scores:
            self._scores[key] = compiled(scores_source(self._trace, casts), "scores")
        scores = torch.empty(count, self._width, device=loader.tensors[0].device)
        self._scores[key](loader.tensors, loader.batch_size, self._trace.state, scores)
        return scores


# --- tracing and checking ---------------------------------------------------------------------------------------------


def _traced(
    follower: Follower,
    eager: Callable[[list[Tensor], Tracer], Outputs],
    inputs: list[Tensor],
    trained: Sequence[nn.Parameter],
    finish: Callable[[Outputs, Tracer], Outputs],
) -> Trace:
    """Trace `finish(eager(inputs))` while it is followed. Raises CannotCaptureError; leaves no trace."""
    if not all(type(part) is Tensor for part in inputs):
        raise CannotCaptureError("a batch holds a subclass of Tensor")
    tracer = Tracer(inputs, follower.guards.tensors)
    with (
        preserve_rng_state(inputs[0].device, lambda: tracer.draws),
        torch.set_grad_enabled(torch.is_grad_enabled()),  # restored at the end
        tracer.restoring(),
        follower.following(),
    ):
        was_enabled = torch.is_grad_enabled()
        with tracer:
            outputs = eager(inputs, tracer)
        if torch.is_grad_enabled() is not was_enabled:
            raise CannotCaptureError("changes torch's grad mode")
        with tracer, torch.no_grad():
            outputs = finish(outputs, tracer)
        return tracer.trace(outputs, trained)


def _agree(
    eager: Callable[[list[Tensor]], Outputs],
    captured: Callable[[list[Tensor]], Outputs],
    batches: Sequence[list[Tensor]],
    trace: Trace,
    parameters: Sequence[nn.Parameter] = (),
) -> bool:
    """Whether both give the same outputs for copies of the batches, in turn, and leave the same state.

    On a CPU the same is to the last bit. Leaves no trace: they change nothing but the state and the gradients.
    """
    results: list[Outputs] = []
    grads = [parameter.grad for parameter in parameters]
    for step in (eager, captured):
        with restoring_memory(trace.state), preserve_rng_state(batches[0][0].device, lambda: trace.draws):
            outputs = [output for batch in batches for output in step(_copies(batch))]
            outputs = [output if output is None else output.detach().clone() for output in outputs]
            results.append([*outputs, *(tensor.detach().clone() for tensor in trace.state)])
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
    return all(starmap(_are_equal, zip(*results, strict=True)))


def are_same(functions: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether both hold the same objects: a user's comparison may be anything."""
    return len(functions) == len(others) and all(map(operator.is_, functions, others))


def _copies(inputs: list[Tensor]) -> list[Tensor]:
    return [part.detach().clone() for part in inputs]


def _are_equal(actual: Tensor | None, expected: Tensor | None) -> bool:
    if actual is None or expected is None:
        return actual is expected
    if actual.device.type != "cpu":
        return torch.allclose(actual, expected, rtol=1e-4, atol=1e-6, equal_nan=True)
    return bool(((actual == expected) | ((actual != actual) & (expected != expected))).all())


@contextmanager
def _other_weights(model: nn.Module) -> Generator[None]:
    """Change the weights in the block: what was captured as a constant by mistake gives other numbers then."""
    with restoring_memory(model.parameters()):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.0625 if parameter.is_floating_point() else 1)
        yield


@contextmanager
def _replaying(trace: Trace, inference: bool = True) -> Generator[list[Tensor]]:
    """Turn autograd off, unless an operator looks whether it is on; yields the state."""
    if trace.needs_grad_mode:
        with torch.enable_grad():
            yield [tensor.detach() for tensor in trace.state]
    else:
        with torch.inference_mode() if inference else torch.no_grad():
            yield trace.state


def _own_storage(i: int, grads: Outputs, trained: list[nn.Parameter], tracer: Tracer) -> Tensor | None:
    """Gradient `i` in memory of its own, laid out like its parameter, as `backward()` leaves it: kernels rely on it."""
    grad = grads[i]
    if grad is None:
        return None
    shared = any(other is not None and other.data_ptr() == grad.data_ptr() for other in (*grads[:i], *grads[i + 1 :]))
    if tracer.is_result(grad) and grad.stride() == trained[i].stride() and not shared:
        return grad
    return torch.empty_like(trained[i]).copy_(grad)


# --- batches ----------------------------------------------------------------------------------------------------------


def _batch(parts: list[Tensor], has_list: bool) -> tuple[Any, Tensor]:
    """Undo `_flat`."""
    return (parts[:-1] if has_list else parts[0]), parts[-1]


def _flat(xb: Any, yb: Any) -> list[Any]:
    return [*xb, yb] if isinstance(xb, list) else [xb, yb]


def _tensors(xb: Any, yb: Any) -> list[Tensor]:
    parts = _flat(xb, yb)
    if not all(isinstance(part, Tensor) for part in parts):
        raise CannotCaptureError("a batch holds something other than tensors")
    if any(part.requires_grad for part in parts):
        raise CannotCaptureError("a batch asks for a gradient")
    return _copies(parts)  # the data set is not the model's to write to


def _shapes(parts: Sequence[Any]) -> Shapes:
    return [(part.shape, part.dtype) if isinstance(part, Tensor) else None for part in parts]


def _layout(part: Tensor) -> tuple[tuple[int, ...] | None, bool]:
    """The strides of a batch's part, None if it is contiguous, and whether it asks for a gradient."""
    return None if part.is_contiguous() else part.stride(), part.requires_grad


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
