"""Trace a model with torch.export, as the program of a TracedModel."""

import copy
import dataclasses
import json
import logging
import math
import re
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.core.nested import count_rows, leaves_by_path, map_tensors, tensors_in
from onecycle.errors import OneCycleError
from onecycle.export.operators import function_name
from onecycle.export.traced_model import FORMAT, NAMED, NESTED_FORMAT, TracedModel

_CHECKS = ("_assert", "sym_constrain_range")  # operators that compute nothing
_TOLERANCE = 1e-6
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class UntraceableError(Exception):
    """A model cannot be traced; the message says why."""


class FlatOutput(nn.Module):
    """A model whose nested output is a flat tuple of its tensors, for torch.export, which knows few classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any) -> tuple[Tensor, ...]:
        """Return the tensors of the model's output."""
        return tuple(tensors_in(self.model(*args)))


def trace(model: nn.Module, rows: list[Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the program of `model` in eval mode, for any number of rows, and the constants in it.

    `rows` are the model's arguments for a few rows, tensors or nested. The program is run beside the model on one,
    these, and more rows.
    Raises UntraceableError, with the reason in one line, if there is no program or it returns other numbers.
    """
    try:
        model = copy.deepcopy(model).cpu().eval()
    except Exception as error:  # whatever the parts of a model raise
        raise UntraceableError(f"it cannot be copied ({one_line(error)})") from error
    rows = at_least_two(rows)
    exported = exported_program(model, rows)
    description, constants = _describe(exported, model, rows)
    description = json.loads(json.dumps(description, allow_nan=False))  # as it will be read
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    try:
        program = TracedModel(description, weights, constants)
    except OneCycleError as error:
        raise UntraceableError(one_line(error)) from error
    for batch in batches_of_several_sizes(rows):
        _compare(model, program, batch)
    return description, constants


def at_least_two(rows: list[Any]) -> list[Any]:
    """Return copies of the arguments, on the CPU and contiguous, a single row doubled.

    torch.export treats a batch size of 1 as a constant, and torch.onnx fails for the column slice of a table.
    """
    rows = map_tensors(lambda x: x.detach().cpu().clone(memory_format=torch.contiguous_format), rows)
    return map_tensors(lambda x: torch.cat([x, x]), rows) if count_rows(rows) == 1 else rows


def batches_of_several_sizes(rows: list[Any]) -> list[list[Any]]:
    """Return one of the rows, all of them, and more, to check that any number is accepted."""
    return [map_tensors(lambda x: x[:1], rows), rows, map_tensors(lambda x: torch.cat([x, x, x[:1]]), rows)]


def output_of(model: nn.Module, rows: list[Any]) -> Any:
    """Return what a model in eval mode returns for copies of the arguments. Raises UntraceableError if it fails."""
    try:
        with torch.no_grad():
            return model(*map_tensors(Tensor.clone, rows))
    except Exception as error:  # whatever a model or an operator raises
        raise UntraceableError(f"it fails for {count_rows(rows)} rows ({one_line(error)})") from error


def exported_program(model: nn.Module, rows: list[Any]) -> Any:
    """Return torch.export's program of a model on the CPU, for any number of rows. Raises UntraceableError.

    That of a model with a nested output returns a flat tuple of its tensors.
    """
    from torch.export import Dim, export  # a second of imports

    shapes = tuple(map_tensors(lambda _: {0: Dim.DYNAMIC}, rows))
    parameters = [parameter.kind for parameter in signature(model.forward).parameters.values()]
    is_variadic = parameters[:1] == [Parameter.VAR_POSITIONAL]  # as a TracedModel's is
    if not isinstance(output_of(model, rows), Tensor):
        model, is_variadic = FlatOutput(model), True
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
    """Return the first line of an error or a value without colours, shortened; of a chain that of the first error."""
    while isinstance(error, Exception) and error.__cause__ is not None:
        error = error.__cause__
    lines = _COLOURS.sub("", str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _describe(exported: Any, model: nn.Module, rows: list[Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the graph of torch.export as JSON values, and the tensors in it that are not weights."""
    expected = output_of(model, rows)
    is_nested, prefix = not isinstance(expected, Tensor), "" if isinstance(expected, Tensor) else "model."
    saved = set(model.state_dict())
    inputs: list[str] = []
    weights: dict[str, str] = {}
    constants: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    for spec in exported.graph_signature.input_specs:
        kind, name, target = spec.kind.name, spec.arg.name, str(spec.target or "").removeprefix(prefix)
        if kind == "USER_INPUT":
            inputs.append(name)
        elif kind in ("PARAMETER", "BUFFER") and target in saved:
            weights[name] = target
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
    results: list[Any] = list(output)
    if not results or not all(isinstance(result, torch.fx.Node) for result in results):
        raise UntraceableError("it returns something that is not a tensor")
    paths = [path for path, leaf in leaves_by_path(rows).items() if isinstance(leaf, Tensor)]
    is_flat = paths == [f"[{i}]" for i in range(len(inputs))]
    return {
        "format": NESTED_FORMAT if is_nested or not is_flat else FORMAT,
        "inputs": inputs,
        **({} if is_flat else {"paths": paths}),
        "weights": weights,
        "constants": constants,
        "parameters": [name for name, _ in model.named_parameters(remove_duplicate=False) if name in saved],
        "calls": calls,
        "output": _output_to_json(expected, iter(results)),
    }, tensors


def _output_to_json(structure: Any, results: Iterator[Any]) -> dict[str, Any]:
    """Return the output as JSON, nested like `structure`: a dataclass and a namedtuple as a dict."""
    if isinstance(structure, Tensor):
        return {"of": next(results).name}
    if hasattr(structure, "_asdict"):  # of a namedtuple
        structure = structure._asdict()
    if isinstance(structure, list | tuple):
        kind = "list" if isinstance(structure, list) else "tuple"
        return {kind: [_output_to_json(item, results) for item in structure]}
    if dataclasses.is_dataclass(structure) and not isinstance(structure, dict):
        structure = {field.name: getattr(structure, field.name) for field in dataclasses.fields(structure)}
    if isinstance(structure, dict) and all(isinstance(key, str) for key in structure):
        return {"dict": {key: _output_to_json(item, results) for key, item in structure.items() if item is not None}}
    raise UntraceableError(f"it returns a {type(structure).__name__} among its outputs; expected tensors")


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


def _compare(model: nn.Module, program: nn.Module, rows: list[Any]) -> None:
    """Raise UntraceableError if the program does not return the numbers of the model."""
    count = count_rows(rows)
    expected, actual = (tensors_in(output_of(runner, rows)) for runner in (model, program))
    if [(x.shape, x.dtype) for x in expected] != [(x.shape, x.dtype) for x in actual]:
        raise UntraceableError(f"what it computes depends on the number of rows (seen with {count})")
    for x, y in zip(expected, actual, strict=True):
        if not torch.allclose(x, y, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
            raise UntraceableError(f"it does not return the same numbers twice, or others for {count} rows")
