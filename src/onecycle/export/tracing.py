"""Writes a model down as a program, with torch.export."""

import copy
import json
import logging
import math
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.errors import OneCycleError
from onecycle.export.operators import function_name
from onecycle.export.traced_model import FORMAT, NAMED, TracedModel

_ONLY_CHECKS = ("_assert", "sym_constrain_range")  # operators that compute nothing
_CLOSE = 1e-6


class UntraceableError(Exception):
    """A model that cannot be written down as a program, and why."""


def trace(model: nn.Module, rows: list[Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The program of `model` in eval mode, for any number of rows, and the constants in it.

    `rows` are a few rows, of several inputs a list. The program is run beside the model on one, these, and more rows;
    UntraceableError says in one line why there is none.
    """
    try:
        model = copy.deepcopy(model).cpu().eval()
    except Exception as error:  # whatever the parts of a model raise
        raise UntraceableError(f"it cannot be copied ({one_line(error)})") from error
    rows = at_least_two([part.cpu() for part in rows])
    exported = exported_program(model, rows)
    description, constants = _description(exported, model)
    description = json.loads(json.dumps(description, allow_nan=False))  # as it is read again
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    try:
        program = TracedModel(description, weights, constants)
    except OneCycleError as error:
        raise UntraceableError(one_line(error)) from error
    for some in of_several_counts(rows):
        _compare(model, program, some)
    return description, constants


def at_least_two(rows: list[Tensor]) -> list[Tensor]:
    """`rows`, one of them twice where there is one: of a single row torch makes a constant."""
    return [torch.cat([part, part]) if len(part) < 2 else part for part in rows]


def of_several_counts(rows: list[Tensor]) -> list[list[Tensor]]:
    """One of the rows, all of them, and more, to see that their number is open."""
    return [[part[:1] for part in rows], rows, [torch.cat([part, part, part[:1]]) for part in rows]]


def exported_program(model: nn.Module, rows: list[Tensor]) -> Any:
    """torch.export's program of a model on the CPU, the number of rows left open. Raises UntraceableError."""
    from torch.export import Dim, export  # a second of imports, which only this needs

    shapes = tuple({0: Dim.DYNAMIC} for _ in rows)
    try:
        with silence_torch_export():
            return export(model, tuple(rows), dynamic_shapes=(shapes,) if _is_variadic(model) else shapes)
    except Exception as error:  # torch.export's errors have no common base
        raise UntraceableError(f"torch.export cannot follow it ({one_line(error)})") from error


def _is_variadic(model: nn.Module) -> bool:
    """Whether the model takes its inputs as `*inputs`, as a Program does."""
    from inspect import Parameter, signature

    kinds = [parameter.kind for parameter in signature(model.forward).parameters.values()]
    return kinds[:1] == [Parameter.VAR_POSITIONAL]


def _description(exported: Any, model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The graph of torch.export as JSON, and the tensors in it that are no weights."""
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
            raise UntraceableError(f"it uses an object that is no tensor ({name})")
    calls: list[list[Any]] = []
    output: Any = None
    for node in exported.graph.nodes:
        if node.op == "output":
            output = node.args[0]
        elif node.op == "call_function":
            calls += [] if _only_checks(node) else [_call(node)]
        elif node.op != "placeholder":
            raise UntraceableError(f"it has a part that torch.export keeps as a graph of its own ({node.name})")
    if not (isinstance(output, list | tuple) and len(output) == 1 and isinstance(output[0], torch.fx.Node)):
        raise UntraceableError("it gives more than one tensor")
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False) if name in saved]
    return {
        "format": FORMAT,
        "inputs": inputs,
        "weights": weights,
        "constants": constants,
        "parameters": parameters,
        "calls": _needed(calls, output[0].name),
        "output": {"of": output[0].name},
    }, tensors


def _only_checks(node: Any) -> bool:
    return getattr(node.target, "__name__", "").startswith(_ONLY_CHECKS)


def _call(node: Any) -> list[Any]:
    name = function_name(node.target)
    if name is None:
        raise UntraceableError(f"it calls {node.target}, which is none of the operators that a program may call")
    return [node.name, name, [_written(value) for value in node.args], {k: _written(v) for k, v in node.kwargs.items()}]


def _written(value: Any) -> Any:
    """An argument of a call as JSON."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, float):
        return {"float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if isinstance(value, torch.fx.Node):
        return {"of": value.name}
    if isinstance(value, list | tuple):
        return [_written(item) for item in value]
    if isinstance(value, torch.device):
        return {"device": "rows"}
    for kind in ("dtype", "memory_format", "layout"):
        for name, known in NAMED[kind].items():
            if value is known:
                return {kind: name}
    raise UntraceableError(f"it calls an operator with {one_line(value)}, for which there is no JSON")


def _needed(calls: list[list[Any]], output: str) -> list[list[Any]]:
    """Without the calls whose results only checks took."""
    used, needed = {output}, list[list[Any]]()
    for call in reversed(calls):
        if call[0] in used or "_." in call[1]:  # in place: its result may have other names
            needed.append(call)
            used |= _used([call[2], call[3]])
    return needed[::-1]


def _used(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {value["of"]} if "of" in value else set[str]().union(*map(_used, value.values()))
    return set[str]().union(*map(_used, value)) if isinstance(value, list) else set()


def _compare(model: nn.Module, program: nn.Module, rows: list[Tensor]) -> None:
    """Raises UntraceableError where the two do not give the same numbers."""
    count = len(rows[0])
    try:
        with torch.no_grad():
            expected = model(*(part.clone() for part in rows))
            found = program(*(part.clone() for part in rows))
    except Exception as error:  # whatever a model or an operator raises
        raise UntraceableError(f"it fails for {count} rows ({one_line(error)})") from error
    if not isinstance(expected, Tensor) or expected.shape != found.shape or expected.dtype != found.dtype:
        raise UntraceableError(f"what it computes depends on the number of rows (seen with {count})")
    if not torch.allclose(expected, found, rtol=_CLOSE, atol=_CLOSE, equal_nan=True):
        raise UntraceableError(f"it does not give the same numbers twice, or others for {count} rows")


@contextmanager
def silence_torch_export() -> Generator[None]:
    """Without torch.export's warnings and logs, which speak of its own insides; errors come as errors."""
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
    """An error or a value in one short line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
