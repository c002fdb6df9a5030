"""Capture: the forward and backward pass of one batch as a flat list of tensor operations, replayed without Python.

`make_fx` runs both passes once and writes down every operation below autograd. The list is replayed for each batch of
the same shapes by TorchScript's interpreter, in C++; where a torch has none, as the generated Python. What is captured
are the same kernels that eager training calls, in the same order. Why this and not another way: docs/engine.md.
"""

import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onecycle.core.device import borrowed_generators
from onecycle.train.snapshot import plain_attributes, restored_model
from onecycle.train.step import LossFunc, forward

Replay = Callable[..., Sequence[Tensor]]  # (inputs, target, parameters, buffers) flat → loss and gradients


class CannotCaptureError(Exception):
    """Why a model, a loss or a batch cannot be captured; eager training goes on."""


class Captured:
    """A captured step: `captured(xb, yb)` sets the gradients and gives the loss, as `loss.backward()` would have."""

    def __init__(self, model: nn.Module, loss_func: LossFunc, xb: Any, yb: Any) -> None:
        """Capture the model on this batch. Raises CannotCaptureError; leaves no trace on the model either way."""
        inputs = _inputs(xb, yb)
        self._params = list(model.parameters())
        self._trained = [parameter for parameter in self._params if parameter.requires_grad]
        self._buffers = list(model.buffers())
        self._loss_func, self._fingerprint = loss_func, fingerprint(model)
        self._shapes = _shapes(inputs)
        _check_capturable(model, self._params)
        with restored_model(model), borrowed_generators(inputs[0].device):
            before = _python_state(model)
            expected = _eager(model, loss_func, xb, yb, self._trained)
            if _python_state(model) != before:
                raise CannotCaptureError("its forward pass counts, or draws from Python's or NumPy's generator")
        with restored_model(model), borrowed_generators(inputs[0].device):
            self._replay = _trace(model, loss_func, inputs, self._trained, [*self._params, *self._buffers])
        with restored_model(model), borrowed_generators(inputs[0].device):
            found = self._run(inputs)
        if not all(_agree(a, b) for a, b in zip(found, expected, strict=True)):
            raise CannotCaptureError("the captured step gives other numbers than the eager one")

    def is_of(self, loss_func: LossFunc, now: Any) -> bool:
        """Whether this is the step of `loss_func` and of a model with the fingerprint `now`."""
        return loss_func is self._loss_func and now == self._fingerprint

    def fits(self, xb: Any, yb: Any) -> bool:
        """Whether a batch has the shapes and dtypes that were captured."""
        return _shapes(_flat(xb, yb)) == self._shapes

    def __call__(self, xb: Any, yb: Any) -> Tensor:
        """Set the gradients of one batch and give its loss, detached."""
        loss, *grads = self._run(_flat(xb, yb))
        for parameter, grad in zip(self._trained, grads, strict=True):
            parameter.grad = grad
        assert loss is not None
        return loss

    @torch.no_grad()
    def _run(self, inputs: list[Tensor]) -> list[Tensor | None]:
        return list(self._replay(*inputs, *self._params, *self._buffers))


def fingerprint(model: nn.Module) -> Any:
    """What a captured step took as fixed: when it differs, the step must be captured again."""
    trained = [(id(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return trained, [id(buffer) for buffer in model.buffers()], plain_attributes(model)


def _python_state(model: nn.Module) -> Any:
    """What a forward pass may move outside of torch: it would only do so while it is captured."""
    return random.getstate(), repr(np.random.get_state(legacy=False)), plain_attributes(model)


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


def _check_capturable(model: nn.Module, params: list[nn.Parameter]) -> None:
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:  # pyright: ignore[reportPrivateUsage] -- there is no public way to ask
            raise CannotCaptureError(f"module {name or 'model'} has hooks")
    if any(parameter._backward_hooks for parameter in params):  # pyright: ignore[reportPrivateUsage] -- see above
        raise CannotCaptureError("a parameter has a hook")


def _eager(model: nn.Module, loss_func: LossFunc, xb: Any, yb: Any, trained: list[nn.Parameter]) -> list[Tensor | None]:
    loss = loss_func(forward(model, xb), yb)
    return [loss.detach(), *torch.autograd.grad(loss, trained, allow_unused=True)]


def _trace(
    model: nn.Module, loss_func: LossFunc, inputs: list[Tensor], trained: list[nn.Parameter], state: list[Tensor]
) -> Replay:
    from torch.func import functional_call
    from torch.fx.experimental.proxy_tensor import make_fx

    places = [i for i, tensor in enumerate(state) if any(tensor is parameter for parameter in trained)]
    names = [name for name, _ in model.named_parameters()] + [name for name, _ in model.named_buffers()]
    several = len(inputs) > 2

    def loss_and_grads(*tensors: Tensor) -> list[Tensor | None]:
        given, values = list(tensors[: len(inputs)]), list(tensors[len(inputs) :])
        with torch.enable_grad():
            for place in places:
                values[place] = values[place].detach().requires_grad_()
            x = tuple(given[:-1]) if several else (given[0],)
            loss = loss_func(functional_call(model, dict(zip(names, values, strict=True)), x), given[-1])
            return [loss.detach(), *torch.autograd.grad(loss, [values[place] for place in places], allow_unused=True)]

    flat = [tensor.detach() for tensor in (*inputs, *state)]
    try:
        graph = make_fx(loss_and_grads)(*flat)
    except Exception as error:  # whatever a model does that cannot be written down, torch says in its own way
        raise CannotCaptureError(f"torch cannot trace it ({str(error).strip().splitlines()[0]})") from error
    _simplify(graph)
    return _compile(graph, flat)


def _simplify(graph: torch.fx.GraphModule) -> None:
    """Drop what only autograd needed: detach, and a transpose of a transpose."""
    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        source: Any = node.args[0] if node.args else None
        if node.target is aten.detach.default:
            node.replace_all_uses_with(source)
        elif node.target is aten.t.default and source.op == "call_function" and source.target is aten.t.default:
            node.replace_all_uses_with(source.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _compile(graph: torch.fx.GraphModule, flat: list[Tensor]) -> Replay:
    """The graph for TorchScript's interpreter, or as it is where that is not to be had."""
    outputs: Any = graph.graph.output_node().args[0]
    present = [i for i, output in enumerate(outputs) if output is not None]  # None for a parameter that is not used

    def present_only(*tensors: Tensor) -> tuple[Tensor, ...]:
        found = graph(*tensors)
        return tuple(found[i] for i in present)

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that TorchScript is on its way out is known: docs/engine.md
            script: Replay = torch.jit.trace(present_only, tuple(flat), check_trace=False)  # pyright: ignore[reportAssignmentType] -- its type also says what it gives with other options
    except Exception:  # gone, or without a kernel of the graph: the generated Python does the same
        return graph

    def replay(*tensors: Tensor) -> Sequence[Any]:
        found = iter(script(*tensors))
        return [next(found) if output is not None else None for output in outputs]

    return replay if len(present) < len(outputs) else script
