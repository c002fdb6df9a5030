"""Trace a model with torch.export, as the program of a TracedModel."""

import copy
import json
import logging
import math
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.errors import OneCycleError
from onecycle.export.operators import function_name
from onecycle.export.traced_model import FORMAT, NAMED, TracedModel

_CHECKS = ("_assert", "sym_constrain_range")  # operators that compute nothing
_TOLERANCE = 1e-6


class UntraceableError(Exception):
    """A model cannot be traced; the message says why."""


def trace(model: nn.Module, rows: list[Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the program of `model` in eval mode, for any number of rows, and the constants in it.

    `rows` are a few rows, one tensor for each input. The program is run beside the model on one, these, and more rows.
    Raises UntraceableError, with the reason in one line, if there is no program or it returns other numbers.
    """
    try:
        model = copy.deepcopy(model).cpu().eval()
    except Exception as error:  # whatever the parts of a model raise
        raise UntraceableError(f"it cannot be copied ({one_line(error)})") from error
    rows = at_least_two([x.cpu() for x in rows])
    description, constants = _describe(exported_program(model, rows), model)
    description = json.loads(json.dumps(description, allow_nan=False))  # as it will be read
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    try:
        program = TracedModel(description, weights, constants)
    except OneCycleError as error:
        raise UntraceableError(one_line(error)) from error
    for batch in batches_of_several_sizes(rows):
        _compare(model, program, batch)
    return description, constants


def at_least_two(rows: list[Tensor]) -> list[Tensor]:
    """Return `rows`, a single one doubled: torch.export treats a batch size of 1 as a constant."""
    return [torch.cat([x, x]) if len(x) < 2 else x for x in rows]


def batches_of_several_sizes(rows: list[Tensor]) -> list[list[Tensor]]:
    """Return one of the rows, all of them, and more, to check that any number is accepted."""
    return [[x[:1] for x in rows], rows, [torch.cat([x, x, x[:1]]) for x in rows]]


def exported_program(model: nn.Module, rows: list[Tensor]) -> Any:
    """Return torch.export's program of a model on the CPU, for any number of rows. Raises UntraceableError."""
    from torch.export import Dim, export  # a second of imports

    shapes = tuple({0: Dim.DYNAMIC} for _ in rows)
    parameters = [parameter.kind for parameter in signature(model.forward).parameters.values()]
    is_variadic = parameters[:1] == [Parameter.VAR_POSITIONAL]  # as a TracedModel's is
    try:
        with silence_torch_export():
            return export(model, tuple(rows), dynamic_shapes=(shapes,) if is_variadic else shapes)
    except Exception as error:  # torch.export's errors have no common base
        raise UntraceableError(f"torch.export cannot follow it ({one_line(error)})") from error


@contextmanager
def silence_torch_export() -> Generator[None]:
    """Hide the warnings and logs of torch.export, which are about its internals; errors are still raised."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def one_line(error: Any) -> str:
    """Return the first line of an error or a value, shortened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _describe(exported: Any, model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the graph of torch.export as JSON values, and the tensors in it that are not weights."""
    saved = set(model.state_dict())
    inputs: list[str] = []
    weights: dict[str, str] = {}
    constants: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for spec in exported.graph_signature.input_specs:
        kind, name = spec.kind.name, spec.arg.name
        if kind == "USER_INPUT":
            inputs.append(name)
        elif kind in ("PARAMETER", "BUFFER") and spec.target in saved:
            weights[name] = spec.target
        elif kind in ("BUFFER", "CONSTANT_TENSOR"):
            key = constants[name] = f"c{len(tensors)}"
            tensors[key] = exported.constants[spec.target].detach()
        else:
            raise UntraceableError(f"it uses an object that is not a tensor ({name})")
    for node in reversed(exported.graph.nodes):
        if getattr(node.target, "__name__", "").startswith(_CHECKS):
            exported.graph.erase_node(node)
    exported.graph.eliminate_dead_code()  # what only checks used
    calls: list[list[Any]] = []
    output: Any = None
    for node in exported.graph.nodes:
        if node.op == "output":
            output = node.args[0]
        elif node.op == "call_function":
            calls.append(_call_to_json(node))
        elif node.op != "placeholder":
            raise UntraceableError(f"it has a part that torch.export keeps as a graph of its own ({node.name})")
    if not (isinstance(output, list | tuple) and len(output) == 1 and isinstance(output[0], torch.fx.Node)):
        raise UntraceableError("it returns more than one tensor")
    return {
        "format": FORMAT,
        "inputs": inputs,
        "weights": weights,
        "constants": constants,
        "parameters": [name for name, _ in model.named_parameters(remove_duplicate=False) if name in saved],
        "calls": calls,
        "output": {"of": output[0].name},
    }, tensors


def _call_to_json(node: Any) -> list[Any]:
    name = function_name(node.target)
    if name is None:
        raise UntraceableError(f"it calls {node.target}, which is none of the operators that a program may call")
    return [
        node.name,
        name,
        [_value_to_json(value) for value in node.args],
        {key: _value_to_json(value) for key, value in node.kwargs.items()},
    ]


def _value_to_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, float):
        return {"float": str(value)}
    if isinstance(value, torch.fx.Node):
        return {"of": value.name}
    if isinstance(value, list | tuple):
        return [_value_to_json(item) for item in value]
    if isinstance(value, torch.device):
        return {"device": "rows"}
    for kind in ("dtype", "memory_format", "layout"):
        for name, known in NAMED[kind].items():
            if value is known:
                return {kind: name}
    raise UntraceableError(f"it calls an operator with {one_line(value)}, for which there is no JSON")


def _compare(model: nn.Module, program: nn.Module, rows: list[Tensor]) -> None:
    """Raise UntraceableError if the program does not return the numbers of the model."""
    count = len(rows[0])
    try:
        with torch.no_grad():
            expected = model(*(x.clone() for x in rows))
            actual = program(*(x.clone() for x in rows))
    except Exception as error:  # whatever a model or an operator raises
        raise UntraceableError(f"it fails for {count} rows ({one_line(error)})") from error
    if not isinstance(expected, Tensor) or expected.shape != actual.shape or expected.dtype != actual.dtype:
        raise UntraceableError(f"what it computes depends on the number of rows (seen with {count})")
    if not torch.allclose(expected, actual, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
        raise UntraceableError(f"it does not return the same numbers twice, or others for {count} rows")
