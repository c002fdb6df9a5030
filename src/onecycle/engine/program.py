"""Turn a trace into a program: source text that TorchScript's interpreter runs in C++, or plain Python without it.

The same text serves both. It contains calls of torch's operators on named tensors, and numbers, and nothing else.
"""

import math
import os
import re
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from types import BuiltinFunctionType
from typing import Any

import torch

from onecycle.engine.trace import CannotCaptureError, Op, Trace, Value, values_in

Function = Callable[..., Any]
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)(\(.*\))  # (\w+)$", re.MULTILINE)


def step_source(trace: Trace) -> str:
    """Source of `step(inputs, state)`, which returns the outputs of the trace that are not None."""
    outputs = ", ".join(value.name for value in trace.outputs if value is not None)
    head = "def step(inputs: List[Tensor], state: List[Tensor]) -> List[Tensor]:"
    names = [f"x{i} = inputs[{i}]" for i in range(trace.inputs)] + _state_names(trace)
    return "\n    ".join([head, *names, *map(op_source, trace.ops), f"return [{outputs}]"]) + "\n"


def run_source(trace: Trace, casts: Sequence[str], optimizer: Sequence[str]) -> str:
    """Source of `run(data, order, bs, state, numbers, groups)`, which trains a batch for each entry of `numbers`.

    Each step gathers its rows of `data`, applies `casts` to them, runs the trace (whose outputs are the loss and the
    gradients), and then the lines of `optimizer`, in which the gradients are g0, g1, … and the step is `i`. It returns
    the losses.
    """
    loss, *grads = (value.name if value else "" for value in trace.outputs)
    views, ops = _hoisted(trace)
    body = ["rows = order.narrow(0, i * bs, bs)"]
    body += [f"x{i} = data[{i}].index_select(0, rows){cast}" for i, cast in enumerate(casts)]
    body += [op_source(op) for op in ops]
    body += [f"g{i} = {grad}" for i, grad in enumerate(grads) if grad]
    body += [*optimizer, f"losses.append({loss})"]
    head = (
        "def run(data: List[Tensor], order: Tensor, bs: int, state: List[Tensor], numbers: List[List[float]], "
        "groups: List[List[List[Tensor]]]) -> Tensor:"
    )
    before = [*_state_names(trace), *map(op_source, views), "none: List[Tensor] = []", "losses: List[Tensor] = []"]
    loop = ["for i in range(len(numbers)):", *(f"    {text}" for text in body)]
    return "\n    ".join([head, *before, *loop, "return torch.stack(losses)"]) + "\n"


def scores_source(trace: Trace, casts: Sequence[str]) -> str:
    """Source of `scores(data, bs, state, out)`, which writes the trace's output for batch i to row i of `out`.

    A list of small results would fragment the memory that the next batch needs, and memory would grow with each batch.
    """
    body = [f"x{i} = data[{i}].narrow(0, i * bs, bs){cast}" for i, cast in enumerate(casts)]
    views, ops = _hoisted(trace)
    output = next(value.name for value in trace.outputs if value is not None)
    head = "def scores(data: List[Tensor], bs: int, state: List[Tensor], out: Tensor):"
    last = f"out.select(0, i).copy_({output})"
    loop = ["for i in range(out.size(0)):", *(f"    {text}" for text in (*body, *map(op_source, ops), last))]
    return "\n    ".join([head, *_state_names(trace), *map(op_source, views), *loop]) + "\n"


def compiled(source: str, name: str) -> Function:
    """Compile the function `name` of `source` with TorchScript, or as Python where that fails."""
    try:
        return _scripted(source, name) if _has_torchscript() else as_python(source, name)
    except Exception:  # it lacks an operator: the same text is Python too
        return as_python(source, name)


@cache
def _has_torchscript() -> bool:
    """Whether TorchScript, which is deprecated, still compiles and runs a program."""
    try:
        return _scripted("def twice(number: int) -> int:\n    return number + number\n", "twice")(2) == 4
    except Exception:
        return False


def _scripted(source: str, name: str) -> Function:
    """Compile with TorchScript: all programs come by here. ONECYCLE_TORCHSCRIPT simulates a torch without it."""
    simulated = os.environ.get("ONECYCLE_TORCHSCRIPT")
    if simulated == "does not compile":
        raise RuntimeError(f"TorchScript {simulated}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, which docs/engine.md accounts for
        script = getattr(torch.jit.CompilationUnit(source), name)

    def unoptimized(*args: Any) -> Any:
        if simulated == "does not run":
            raise RuntimeError(f"TorchScript {simulated}")
        # optimized, addmm would be split in two: slower, and rounded differently
        with torch.jit.optimized_execution(False):  # pyright: ignore[reportPrivateImportUsage] -- documented under this name
            return script(*args)

    return unoptimized


def as_python(source: str, name: str) -> Function:
    """Return the function `name` of `source` as Python.

    It calls torch's own function of the operator's name, if there is one, which takes half as long to call as the
    overload that the comment names.
    """
    names: dict[str, Any] = {"torch": torch, "List": list, "Tensor": torch.Tensor}

    def direct(call: re.Match[str]) -> str:
        namespace, operator, arguments, overload = call.groups()
        function, own = f"{namespace}_{operator}_{overload}", getattr(torch, operator, None)
        is_own = namespace == "aten" and isinstance(own, BuiltinFunctionType)
        names[function] = own if is_own else getattr(getattr(getattr(torch.ops, namespace), operator), overload)
        return function + arguments

    exec(_with_dels(_OPERATOR.sub(direct, source)), names)  # source made here from names of operators and numbers
    return names[name]


def _with_dels(source: str) -> str:
    """Delete each name after its last use, as TorchScript does by itself.

    Otherwise a run would hold every tensor of a step until the next step replaces it.
    """
    lines = source.splitlines()
    uses: dict[str, list[int]] = {}  # line numbers by name
    for i, text in enumerate(lines):
        for name in dict.fromkeys(re.findall(r"\w+", text)):
            uses.setdefault(name, []).append(i)
    dels: dict[int, list[str]] = {}
    for name, numbers in uses.items():
        first, last = lines[numbers[0]], lines[numbers[-1]]
        assignment = re.match(r"( +)(\w+, )*" + name + r"(, \w+)*,? = ", first)
        if assignment and _indent(last) == assignment[1] and not last.strip().startswith("return"):
            dels.setdefault(numbers[-1], []).append(f"{assignment[1]}del {name}")
    return "\n".join(part for i, text in enumerate(lines) for part in (text, *dels.get(i, []))) + "\n"


def _indent(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def op_source(op: Op) -> str:
    """Return an operation as a line of source."""
    names = [str(argument.name) for argument in op.func._schema.arguments]
    args = [_text(value, op, i) for i, value in enumerate(op.args)]
    args += [f"{name}={_text(value, op, names.index(name))}" for name, value in op.kwargs.items()]
    namespace, _, name = op.func._schema.name.partition("::")
    call = f"torch.ops.{namespace}.{name}({', '.join(args)})  # {op.func._schema.overload_name or 'default'}"
    results: list[Any] = list(op.results) if isinstance(op.results, tuple) else [op.results]
    if any(isinstance(result, list) for result in results) and len(results) > 1:
        raise CannotCaptureError(f"the operation {name} returns several lists")
    if isinstance(results[0], list):
        return f"{', '.join(value.name for value in results[0])}{',' * (len(results[0]) == 1)} = {call}"
    left = ", ".join(result.name if isinstance(result, Value) else "_" for result in results)
    return f"{left} = {call}" if any(isinstance(result, Value) for result in results) else call


def _state_names(trace: Trace) -> list[str]:
    return [f"s{i} = state[{i}]" for i in range(len(trace.state))]


def _hoisted(trace: Trace) -> tuple[list[Op], list[Op]]:
    """Split the operations into views of the state, which stay valid while it is written in place, and the rest."""
    fixed = {Value(f"s{i}") for i in range(len(trace.state))}
    views: list[Op] = []
    rest: list[Op] = []
    for op in trace.ops:
        arguments = set(values_in((op.args, op.kwargs)))
        returns = op.func._schema.returns
        is_view = len(returns) == 1 and returns[0].alias_info is not None and not op.func._schema.is_mutable
        if is_view and arguments and arguments <= fixed and isinstance(op.results, Value):
            views.append(op)
            fixed.add(op.results)
        else:
            rest.append(op)
    return views, rest


_NAMED = (torch.dtype, torch.memory_format, torch.layout)


def _text(value: Any, op: Op, index: int) -> str:
    """Return argument `index` of an operation in syntax that TorchScript and Python share."""
    if isinstance(value, Value):
        return value.name
    if isinstance(value, _NAMED):
        return str(value)
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, list | tuple):
        if not value and "int" in str(op.func._schema.arguments[index].type):
            return "[0][1:]"  # an empty list of integers; [] would be one of tensors
        return "[" + ", ".join(_text(item, op, index) for item in value) + "]"
    raise CannotCaptureError(f"the operation {op.func} takes a {type(value).__name__}")
