"""A trace as a program: text that TorchScript's interpreter runs in C++, and plain Python where there is none.

The same text serves both. It holds calls of torch's operators on named tensors, and numbers; nothing else gets in.
"""

import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from onecycle.engine.trace import CannotCaptureError, Op, Trace, Value, values_in

Function = Callable[..., Any]


def step_source(trace: Trace) -> str:
    """`step(inputs, state)` → those of the trace's outputs that are there, as a list."""
    outputs = ", ".join(value.name for value in trace.outputs if value is not None)
    head = "def step(inputs: List[Tensor], state: List[Tensor]) -> List[Tensor]:"
    names = [f"x{i} = inputs[{i}]" for i in range(trace.inputs)] + _state_names(trace)
    return "\n    ".join([head, *names, *map(op_source, trace.ops), f"return [{outputs}]"]) + "\n"


def run_source(trace: Trace, casts: Sequence[str], optimizer: Sequence[str]) -> str:
    """`run(data, order, bs, state, numbers, groups)` → the losses of the steps that `numbers` has entries for.

    Each step gathers its rows of `data` (`casts` is what is done with each part) and runs the trace, whose outputs are
    the loss and the gradients. Then come the lines of `optimizer`, which find the gradients as g0, g1, … and the step
    as `i`.
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
    """`scores(data, bs, state, found)` writes the trace's output for each of the first batches to a row of `found`.

    A list of small results would part the memory that the next batch takes, which then grows with every batch.
    """
    body = [f"x{i} = data[{i}].narrow(0, i * bs, bs){cast}" for i, cast in enumerate(casts)]
    views, ops = _hoisted(trace)
    output = next(value.name for value in trace.outputs if value is not None)
    head = "def scores(data: List[Tensor], bs: int, state: List[Tensor], found: Tensor):"
    last = f"found.select(0, i).copy_({output})"
    loop = ["for i in range(found.size(0)):", *(f"    {text}" for text in (*body, *map(op_source, ops), last))]
    return "\n    ".join([head, *_state_names(trace), *map(op_source, views), *loop]) + "\n"


def compiled(source: str, name: str) -> Function:
    """The function `name` of `source`: TorchScript's where it can be had, else Python's."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is on its way out is known: docs/engine.md
            script = getattr(torch.jit.CompilationUnit(source), name)
    except Exception:  # gone, or without one of the operators: the same text is Python, too
        return as_python(source, name)

    def as_written(*args: Any) -> Any:
        # optimized, addmm would be parted in two: slower, and rounded in another place
        with torch.jit.optimized_execution(False):  # pyright: ignore[reportPrivateImportUsage] -- documented under this name
            return script(*args)

    return as_written


def as_python(source: str, name: str) -> Function:
    """The function `name` of `source`, as Python."""
    names: dict[str, Any] = {"torch": torch, "List": list, "Tensor": torch.Tensor}
    exec(_freeing(source), names)  # made above, of operators' names and numbers
    return names[name]


def _freeing(source: str) -> str:
    """The same, each name let go after the line that uses it last: TorchScript does that by itself.

    Else a run would hold every tensor of a step until the next one makes it again.
    """
    lines = source.splitlines()
    places: dict[str, list[int]] = {}  # of each name, the lines it is in
    for i, text in enumerate(lines):
        for name in dict.fromkeys(re.findall(r"\w+", text)):
            places.setdefault(name, []).append(i)
    freed: dict[int, list[str]] = {}
    for name, found in places.items():
        first, last = lines[found[0]], lines[found[-1]]
        made = re.match(r"( +)(\w+, )*" + name + r"(, \w+)*,? = ", first)
        if made and _indent(last) == made[1] and not last.strip().startswith("return"):
            freed.setdefault(found[-1], []).append(f"{made[1]}del {name}")
    return "\n".join(part for i, text in enumerate(lines) for part in (text, *freed.get(i, []))) + "\n"


def _indent(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def op_source(op: Op) -> str:
    """An operation as a line of text."""
    names = [str(argument.name) for argument in op.func._schema.arguments]
    args = [_text(value, op, i) for i, value in enumerate(op.args)]
    args += [f"{name}={_text(value, op, names.index(name))}" for name, value in op.kwargs.items()]
    namespace, _, name = op.func._schema.name.partition("::")
    call = f"torch.ops.{namespace}.{name}({', '.join(args)})"
    results: list[Any] = list(op.results) if isinstance(op.results, tuple) else [op.results]
    if any(isinstance(result, list) for result in results) and len(results) > 1:
        raise CannotCaptureError(f"its operation {name} gives several lists")
    if isinstance(results[0], list):
        return f"{', '.join(value.name for value in results[0])}{',' * (len(results[0]) == 1)} = {call}"
    left = ", ".join(result.name if isinstance(result, Value) else "_" for result in results)
    return f"{left} = {call}" if any(isinstance(result, Value) for result in results) else call


def _state_names(trace: Trace) -> list[str]:
    return [f"s{i} = state[{i}]" for i in range(len(trace.state))]


def _hoisted(trace: Trace) -> tuple[list[Op], list[Op]]:
    """The views of parameters and other state, which stay true while these are written in place, and all other ops."""
    fixed = {Value(f"s{i}") for i in range(len(trace.state))}
    views: list[Op] = []
    rest: list[Op] = []
    for op in trace.ops:
        given = set(values_in((op.args, op.kwargs)))
        returns = op.func._schema.returns
        view = len(returns) == 1 and returns[0].alias_info is not None and not op.func._schema.is_mutable
        if view and given and given <= fixed and isinstance(op.results, Value):
            views.append(op)
            fixed.add(op.results)
        else:
            rest.append(op)
    return views, rest


_NAMED = (torch.dtype, torch.memory_format, torch.layout)


def _text(value: Any, op: Op, place: int) -> str:
    """An argument as TorchScript and Python both read it."""
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
        if not value and "int" in str(op.func._schema.arguments[place].type):
            return "[0][1:]"  # an empty list of whole numbers; [] would be one of tensors
        return "[" + ", ".join(_text(item, op, place) for item in value) + "]"
    raise CannotCaptureError(f"its operation {op.func} takes a {type(value).__name__}")
