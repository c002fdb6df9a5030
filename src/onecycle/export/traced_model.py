"""A model as a list of calls of torch's operators, its program: how a bundle holds a model of any other class.

    {"format": 1, "inputs": ["x"], "weights": {"p_lin_weight": "lin.weight", ...}, "constants": {"c_mask": "c0"},
     "parameters": ["lin.weight", ...], "output": {"of": "linear"},
     "calls": [["linear", "aten.linear.default", [{"of": "x"}, {"of": "p_lin_weight"}], {}], ...]}

The output of a model that returns several tensors is nested: {"dict": {"logits": {"of": …}}}, {"list": […]} or
{"tuple": […]}. "paths" then says where in the model's arguments each of its inputs is. Such programs have format 2.

The program is JSON, and is checked whole before any of it is used: each call is of a function in `operators.py`, and
each of its arguments a number, a text, a named value of torch (a dtype, say), an earlier result, or a list of these.
"""

import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.core.nested import leaves_by_path
from onecycle.errors import FileError, ModelError, pluralize
from onecycle.export.operators import function_by_name

FORMAT, NESTED_FORMAT = 1, 2
_FIELDS = {"inputs": list, "weights": dict, "constants": dict, "parameters": list, "calls": list, "output": dict}
_MAX_DEPTH = 4  # of lists in lists
_MAX_CALLS = 20_000  # which take a third of a second to check
_MAX_VALUES = 500_000  # in the arguments of all calls, which take half a second
_MAX_PARTS = 100  # of a weight's name ("encoder.linear.weight" has 3), since torch walks through modules recursively


@dataclass(frozen=True)
class _Result:
    """An argument that is an earlier result."""

    name: str


class _RowsDevice:
    """An argument that is the device of the rows."""


_DTYPES = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128"
_MEMORY_FORMATS = "contiguous_format preserve_format channels_last channels_last_3d"
NAMED: dict[str, dict[str, Any]] = {
    "dtype": {name: getattr(torch, name) for name in _DTYPES.split()},
    "memory_format": {name: getattr(torch, name) for name in _MEMORY_FORMATS.split()},
    "layout": {"strided": torch.strided},
    "float": {"inf": math.inf, "-inf": -math.inf, "nan": math.nan},
    "device": {"rows": _RowsDevice()},
}
"""Arguments that JSON has no value for, by kind and name: {"dtype": "float32"}, {"device": "rows"}."""
_TYPE_OF_ARGUMENT: dict[str, type] = {
    "ScalarType": torch.dtype,
    "Layout": torch.layout,
    "MemoryFormat": torch.memory_format,
    "Device": _RowsDevice,
}


@dataclass(frozen=True)
class _Call:
    """A call of a function; `takes` are the results that it takes, `frees` those that no later call does."""

    result: str
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    takes: frozenset[str]
    frees: tuple[str, ...] = ()


class TracedModel(nn.Module):
    """Runs the program `description` with these weights, which have the names they had in the traced model.

    Raises FileError for a description that onecycle does not write, without having run any of it.
    """

    def __init__(
        self, description: Any, weights: Mapping[str, Tensor], constants: Mapping[str, Tensor], source: str = "program"
    ) -> None:
        super().__init__()
        self.description, self._source = description, source
        self._calls: list[_Call] = []  # before the weights, so that none of them takes these names
        self._output: Any = None
        self._values = 0  # in the arguments read so far
        if not isinstance(description, dict):
            raise self._damaged("it", description)
        if description.get("format") not in (FORMAT, NESTED_FORMAT):
            raise FileError(
                f"{source}: the program has format {reprlib.repr(description.get('format'))}; this onecycle reads "
                f"{FORMAT} and {NESTED_FORMAT}; upgrade it, or take an undamaged copy"
            )
        for name, kind in _FIELDS.items():
            if not isinstance(description.get(name), kind):
                raise self._damaged(name, description.get(name))
        if len(description["calls"]) > _MAX_CALLS:
            raise self._damaged("the number of calls", len(description["calls"]))
        self._inputs = [self._require_str(name, "inputs") for name in description["inputs"]]
        paths = description.get("paths", [f"[{i}]" for i in range(len(self._inputs))])
        if not (isinstance(paths, list) and len(paths) == len(self._inputs)):
            raise self._damaged("paths", paths)
        self._paths = [self._require_str(path, "paths") for path in paths]
        self._register("weights", weights, set(map(str, description["parameters"])))
        self._register("constants", constants, set())
        known = {*self._inputs, *description["weights"], *description["constants"]}
        calls = [self._parse_call(number, call, known) for number, call in enumerate(description["calls"])]
        self._output = self._parse_output(description["output"], known)
        self._calls = _plan_frees(calls, _result_names(self._output))
        self.eval()

    def forward(self, *args: Any) -> Any:
        """Return the model's output for rows. Raises ModelError for other inputs."""
        leaves = leaves_by_path(args)
        if leaves.keys() != {*self._paths} or not all(isinstance(leaf, Tensor) for leaf in leaves.values()):
            raise ModelError(f"the program takes {_named(self._paths)}, not {_named(leaves)}")
        inputs = [leaves[path] for path in self._paths]
        own = dict(self.named_parameters(remove_duplicate=False)) | dict(self.named_buffers(remove_duplicate=False))
        results: dict[str, Any] = dict(zip(self._inputs, inputs, strict=True))
        results |= {name: own[weight] for name, weight in self.description["weights"].items()}
        results |= {name: own[f"_constants.{key}"] for name, key in self.description["constants"].items()}
        device = inputs[0].device if inputs else torch.device("cpu")
        for call in self._calls:
            args, kwargs = _resolved(list(call.args), results, device), _resolved(call.kwargs, results, device)
            try:
                results[call.result] = call.function(*args, **kwargs)
            except (RuntimeError, TypeError, ValueError, IndexError, ArithmeticError, MemoryError) as error:
                raise ModelError(
                    f"{self._source}: the program fails with these rows: {call.name}: {error}; expected "
                    "rows as the model was trained with, or an undamaged copy"
                ) from error
            for name in call.frees:
                del results[name]
        output = _resolved(self._output, results, device)
        if torch.compiler.is_exporting():  # to ONNX: the number of rows is open
            return output
        is_single = isinstance(self._output, _Result)
        if (
            not inputs
            or not all(isinstance(part, Tensor) for part in leaves_by_path(output).values())
            or (is_single and (output.ndim == 0 or len(output) != len(inputs[0])))
        ):
            raise ModelError(
                f"{self._source}: the program does not return a result for each row; take an undamaged copy"
            )
        return output

    @property
    def constants(self) -> dict[str, Tensor]:
        """The tensors in the calls that are not weights."""
        return dict(self.get_submodule("_constants").named_buffers(recurse=False))

    def train(self, mode: bool = True) -> "TracedModel":
        """Raise ModelError for `mode=True`: a program does not have what dropout and norms do in training."""
        if mode:
            raise ModelError(
                f"{self._source}: holds the model as a program, which predicts; to train it, give its class: "
                "load_learner(path, model=...)"
            )
        return super().train(mode)

    # --- reading the description ------------------------------------------------------------------------------------

    def _register(self, part: str, tensors: Mapping[str, Tensor], parameters: set[str]) -> None:
        """Register the weights or constants of a file in this module, and check the names that the calls give them."""
        for name, key in self.description[part].items():
            if not (isinstance(key, str) and key in tensors):
                raise self._damaged(f"{part}.{reprlib.repr(name)}", key)
        if part == "weights":
            self.add_module("_constants", nn.Module())
        modules: dict[tuple[str, ...], nn.Module] = {(): self, ("_constants",): self.get_submodule("_constants")}
        for name, tensor in tensors.items():
            *path, leaf = name.split(".") if part == "weights" else ["_constants", name]
            try:
                if (part == "weights" and path[:1] == ["_constants"]) or len(path) >= _MAX_PARTS:
                    raise KeyError(name)
                module: nn.Module = self
                for i, step in enumerate(path, start=1):
                    if tuple(path[:i]) not in modules:
                        modules[tuple(path[:i])] = nn.Module()
                        module.add_module(step, modules[tuple(path[:i])])
                    module = modules[tuple(path[:i])]
                if name in parameters:
                    module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
                else:
                    module.register_buffer(leaf, tensor, persistent=part == "weights")
            except (KeyError, AttributeError, TypeError) as error:  # a name that torch does not allow
                raise self._damaged(f"a name in {part}", name) from error

    def _parse_call(self, number: int, call: Any, known: set[str]) -> _Call:
        where = f"calls[{number}]"
        if not (isinstance(call, list) and len(call) == 4 and isinstance(call[2], list) and isinstance(call[3], dict)):
            raise self._damaged(where, call)
        result, name = self._require_str(call[0], where), self._require_str(call[1], where)
        function = function_by_name(name)
        if function is None:
            raise FileError(
                f"{self._source}: the program calls {name!a}, which is none of the operators that a program may call; "
                "nothing was run; take an undamaged copy, or a newer onecycle if one wrote it"
            )
        if result in known:
            raise self._damaged(where, result)
        takes = set[str]()
        args = tuple(self._parse_value(value, known, where, takes) for value in call[2])
        kwargs = {name: self._parse_value(value, known, where, takes) for name, value in call[3].items()}
        if not _has_valid_types(function, args, kwargs):
            raise self._damaged(where, call)
        known.add(result)
        return _Call(result, name, function, args, kwargs, frozenset(takes))

    def _parse_value(self, value: Any, known: set[str], where: str, takes: set[str], depth: int = 0) -> Any:
        """Return the argument of a call for its JSON value, and add the results in it to `takes`."""
        self._values += 1
        if self._values > _MAX_VALUES:
            raise self._damaged("the number of values in the calls, or more", self._values)
        if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if isinstance(value, list) and depth < _MAX_DEPTH:
            return [self._parse_value(item, known, where, takes, depth + 1) for item in value]
        if isinstance(value, dict) and len(value) == 1:
            ((kind, name),) = value.items()
            if kind == "of" and isinstance(name, str) and name in known:
                takes.add(name)
                return _Result(name)
            if kind in NAMED and isinstance(name, str) and name in NAMED[kind]:
                return NAMED[kind][name]
        raise self._damaged(where, value)

    def _parse_output(self, value: Any, known: set[str], depth: int = 0) -> Any:
        """Return the output, in which results are in lists, tuples and dicts."""
        ((kind, content),) = value.items() if isinstance(value, dict) and len(value) == 1 else [("", None)]
        if kind in ("list", "tuple") and isinstance(content, list) and content and depth < _MAX_DEPTH:
            items = [self._parse_output(item, known, depth + 1) for item in content]
            return items if kind == "list" else tuple(items)
        if kind == "dict" and isinstance(content, dict) and content and depth < _MAX_DEPTH:
            return {name: self._parse_output(item, known, depth + 1) for name, item in content.items()}
        output = self._parse_value(value, known, "output", set())
        if not isinstance(output, _Result):
            raise self._damaged("output", value)
        return output

    def _require_str(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise self._damaged(where, value)
        return value

    def _damaged(self, part: str, value: Any) -> FileError:
        return FileError(
            f"{self._source}: the program is damaged: {part} is {reprlib.repr(value)}, which onecycle never writes; "
            "take an undamaged copy, or export the model again"
        )


def _plan_frees(calls: list[_Call], outputs: set[str]) -> list[_Call]:
    """Return the calls with the results that are not needed after each, so that their memory can be reused."""
    needed, planned = {*outputs}, list[_Call]()
    for call in reversed(calls):
        taken = {*call.takes, call.result}
        planned.append(replace(call, frees=tuple(taken - needed)))
        needed |= taken
    return planned[::-1]


def _has_valid_types(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the arguments have the operator's names, and a dtype, layout or device is written as one.

    torch takes integers for these too, of any size, and then reads whatever memory they lead to.
    """
    if not hasattr(function, "_schema"):
        return True
    arguments = function._schema.arguments  # pyright: ignore[reportFunctionMemberAccess] -- an operator of torch
    by_name = {argument.name: argument for argument in arguments}
    if len(args) > len(arguments) or not kwargs.keys() <= by_name.keys():
        return False
    for argument, value in [*zip(arguments, args, strict=False), *((by_name[k], v) for k, v in kwargs.items())]:
        kind = str(argument.real_type)
        if ("int" in kind or "float" in kind) and any(isinstance(item, bool) for item in _items(value)):
            return False
        expected = _TYPE_OF_ARGUMENT.get(kind.removeprefix("Optional[").removesuffix("]"))
        if expected is not None and value is not None and not isinstance(value, expected):
            return False
    return True


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _resolved(value: Any, results: dict[str, Any], device: torch.device) -> Any:
    """Return the argument of a call with the results that it names."""
    if isinstance(value, _Result):
        return results[value.name]
    if isinstance(value, list | tuple):
        items = [_resolved(item, results, device) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {name: _resolved(item, results, device) for name, item in value.items()}
    return device if isinstance(value, _RowsDevice) else value


def _result_names(values: Any) -> set[str]:
    if isinstance(values, _Result):
        return {values.name}
    values = [*values.values()] if isinstance(values, dict) else values
    return set[str]().union(*map(_result_names, values)) if isinstance(values, list | tuple) else set()


def _named(paths: Iterable[str]) -> str:
    """Name the inputs of a program: their number, or where they are if that is in lists or dicts."""
    places = [*paths]
    is_flat = all(re.fullmatch(r"\[\d+\]", place) for place in places)
    return pluralize(len(places), "input") if is_flat else f"inputs at {', '.join(places)}"
