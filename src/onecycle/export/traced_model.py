"""A model as a list of calls of torch's operators: what a bundle holds of a model whose class it cannot name.

    {"format": 1, "inputs": ["x"], "weights": {"p_lin_weight": "lin.weight", ...}, "constants": {"c_mask": "c0"},
     "parameters": ["lin.weight", ...], "output": {"of": "linear"},
     "calls": [["linear", "aten.linear.default", [{"of": "x"}, {"of": "p_lin_weight"}], {}], ...]}

It is JSON, and is checked whole before any of it is used: each call is of a function in `operators.py`, and each of its
arguments a number, a word, a name of torch's (of a dtype, say), an earlier result, or a list of these.
"""

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.errors import FileError, ModelError
from onecycle.export.operators import function_called

FORMAT = 1
_DEPTH = 4  # of lists in lists
_MOST_CALLS = 20_000  # what takes a third of a second to check


@dataclass(frozen=True)
class _Of:
    """An earlier result."""

    name: str


class _RowsDevice:
    """Where the rows are."""


@dataclass(frozen=True)
class _Call:
    result: str
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    done_with: tuple[str, ...]  # what no later call takes


class TracedModel(nn.Module):
    """Runs what `description` says with these weights, which have the names they had in the model.

    Raises FileError for a description that onecycle does not write, without having run any of it.
    """

    def __init__(
        self, description: Any, weights: Mapping[str, Tensor], constants: Mapping[str, Tensor], source: str = "program"
    ) -> None:
        super().__init__()
        self.description, self._source = description, source
        self._calls: list[_Call] = []
        self._output: Any = None
        fields = {"inputs": list, "weights": dict, "constants": dict, "parameters": list, "calls": list, "output": dict}
        if not isinstance(description, dict):
            raise self._damaged("it", description)
        if description.get("format") != FORMAT:
            raise FileError(
                f"{source}: the program has format {reprlib.repr(description.get('format'))}; this onecycle reads "
                f"{FORMAT}; upgrade it, or take an undamaged copy"
            )
        for name, kind in fields.items():
            if not isinstance(description.get(name), kind):
                raise self._damaged(name, description.get(name))
        if len(description["calls"]) > _MOST_CALLS:
            raise self._damaged("the number of calls", len(description["calls"]))
        self._inputs = [self._word(name, "inputs") for name in description["inputs"]]
        self._take("weights", weights, set(map(str, description["parameters"])))
        self._take("constants", constants, set())
        known = {*self._inputs, *description["weights"], *description["constants"]}
        self._calls = [self._call(number, call, known) for number, call in enumerate(description["calls"])]
        self._output = self._value(description["output"], known, "output")
        self._let_go()
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor:
        """The model's output for rows. Raises ModelError for another number of inputs."""
        if len(inputs) != len(self._inputs):
            raise ModelError(f"the program takes {len(self._inputs)} inputs, not {len(inputs)}")
        own = dict(self.named_parameters(remove_duplicate=False)) | dict(self.named_buffers(remove_duplicate=False))
        found: dict[str, Any] = dict(zip(self._inputs, inputs, strict=True))
        found |= {name: own[weight] for name, weight in self.description["weights"].items()}
        found |= {name: own[f"_constants.{key}"] for name, key in self.description["constants"].items()}
        device = inputs[0].device if inputs else torch.device("cpu")
        for call in self._calls:
            args, kwargs = _filled(list(call.args), found, device), _filled(call.kwargs, found, device)
            try:
                found[call.result] = call.function(*args, **kwargs)
            except (RuntimeError, TypeError, ValueError, IndexError, ArithmeticError, MemoryError) as error:
                raise ModelError(
                    f"{self._source}: the program fails with these rows: {call.name}: {error}; expected "
                    "rows as the model was trained with, or an undamaged copy"
                ) from error
            for name in call.done_with:
                del found[name]
        output = found[self._output.name]
        if torch.compiler.is_exporting():  # to ONNX: the number of rows is open
            return output
        if not isinstance(output, Tensor) or not inputs or output.ndim == 0 or len(output) != len(inputs[0]):
            raise ModelError(f"{self._source}: the program does not give a result for each row; take an undamaged copy")
        return output

    @property
    def constants(self) -> dict[str, Tensor]:
        """The tensors in the calls that are no weights."""
        return dict(self.get_submodule("_constants").named_buffers(recurse=False))

    def train(self, mode: bool = True) -> "TracedModel":
        """Raises ModelError for `mode=True`: what dropout and norms do in training is not in a program."""
        if mode:
            raise ModelError(
                f"{self._source}: holds the model as a program, which predicts; to train it, give its class: "
                "load_learner(path, model=...)"
            )
        return super().train(mode)

    # --- reading -------------------------------------------------------------------------------------------------

    def _take(self, part: str, tensors: Mapping[str, Tensor], parameters: set[str]) -> None:
        """Make the tensors of a file this module's own. `part` says what the calls name them."""
        for name, key in self.description[part].items():
            if not (isinstance(key, str) and key in tensors):
                raise self._damaged(f"{part}.{reprlib.repr(name)}", key)
        if part == "weights":
            self.add_module("_constants", nn.Module())
        for name, tensor in tensors.items():
            *path, leaf = name.split(".") if part == "weights" else ["_constants", name]
            try:
                if part == "weights" and path[:1] == ["_constants"]:
                    raise KeyError(name)
                place: nn.Module = self
                for step in path:
                    if step not in dict(place.named_children()):
                        place.add_module(step, nn.Module())
                    place = place.get_submodule(step)
                if name in parameters:
                    place.register_parameter(leaf, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
                else:
                    place.register_buffer(leaf, tensor, persistent=part == "weights")
            except (KeyError, AttributeError, TypeError) as error:  # a name that torch gives to no weight
                raise self._damaged(f"a name in {part}", name) from error

    def _call(self, number: int, call: Any, known: set[str]) -> _Call:
        where = f"calls[{number}]"
        if not (isinstance(call, list) and len(call) == 4 and isinstance(call[2], list) and isinstance(call[3], dict)):
            raise self._damaged(where, call)
        result, name = self._word(call[0], where), self._word(call[1], where)
        function = function_called(name)
        if function is None:
            raise FileError(
                f"{self._source}: the program calls {name!a}, which is none of the operators that a program may call; "
                "nothing was run; take an undamaged copy, or a newer onecycle where one wrote it"
            )
        if result in known:
            raise self._damaged(where, result)
        args = tuple(self._value(value, known, where) for value in call[2])
        kwargs = {name: self._value(value, known, where) for name, value in call[3].items()}
        if not _fit(function, args, kwargs):
            raise self._damaged(where, call)
        known.add(result)
        return _Call(result, name, function, args, kwargs, ())

    def _value(self, value: Any, known: set[str], where: str, depth: int = 0) -> Any:
        """An argument as JSON has it, for the call."""
        if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if isinstance(value, list) and depth < _DEPTH:
            return [self._value(item, known, where, depth + 1) for item in value]
        if isinstance(value, dict) and len(value) == 1:
            ((kind, name),) = value.items()
            if kind == "of" and isinstance(name, str) and name in known:
                return _Of(name)
            if kind in NAMED and isinstance(name, str) and name in NAMED[kind]:
                return NAMED[kind][name]
        raise self._damaged(where, value)

    def _let_go(self) -> None:
        """Note at each call what no later one takes, so that its memory can be given back."""
        if not isinstance(self._output, _Of):
            raise self._damaged("output", self.description["output"])
        used, calls = {self._output.name}, list[_Call]()
        for call in reversed(self._calls):
            taken = {*_names(call.args), *_names(list(call.kwargs.values())), call.result}
            calls.append(_Call(call.result, call.name, call.function, call.args, call.kwargs, tuple(taken - used)))
            used |= taken
        self._calls = calls[::-1]

    def _word(self, found: Any, where: str) -> str:
        if not isinstance(found, str):
            raise self._damaged(where, found)
        return found

    def _damaged(self, part: str, found: Any) -> FileError:
        return FileError(
            f"{self._source}: the program is damaged: {part} is {reprlib.repr(found)}, which onecycle never writes; "
            "take an undamaged copy, or export the model again"
        )


def _fit(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the arguments have the operator's names, and a dtype, layout or device is what is written as one.

    torch takes whole numbers for these too, of any size, and then reads whatever memory they lead to.
    """
    if not hasattr(function, "_schema"):
        return True
    arguments = function._schema.arguments  # pyright: ignore[reportFunctionMemberAccess] -- an operator of torch
    by_name = {argument.name: argument for argument in arguments}
    if len(args) > len(arguments) or not kwargs.keys() <= by_name.keys():
        return False
    for argument, value in [*zip(arguments, args, strict=False), *((by_name[k], v) for k, v in kwargs.items())]:
        wanted = _WORDS.get(str(argument.real_type).removeprefix("Optional[").removesuffix("]"))
        if wanted is not None and value is not None and not isinstance(value, wanted):
            return False
    return True


def _filled(value: Any, found: dict[str, Any], device: torch.device) -> Any:
    """The argument of a call with the results it names."""
    if isinstance(value, _Of):
        return found[value.name]
    if isinstance(value, list):
        return [_filled(item, found, device) for item in value]
    if isinstance(value, dict):
        return {name: _filled(item, found, device) for name, item in value.items()}
    return device if isinstance(value, _RowsDevice) else value


def _names(values: Any) -> set[str]:
    if isinstance(values, _Of):
        return {values.name}
    return set[str]().union(*map(_names, values)) if isinstance(values, list | tuple) else set()


_DTYPES = "bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128"
_WORDS: dict[str, type] = {
    "ScalarType": torch.dtype,
    "Layout": torch.layout,
    "MemoryFormat": torch.memory_format,
    "Device": _RowsDevice,
}
NAMED: dict[str, dict[str, Any]] = {
    "dtype": {name: getattr(torch, name) for name in _DTYPES.split()},
    "memory_format": {
        name: getattr(torch, name)
        for name in ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
    },
    "layout": {"strided": torch.strided},
    "float": {"inf": math.inf, "-inf": -math.inf, "nan": math.nan},
    "device": {"rows": _RowsDevice()},
}
"""What JSON has no word for: {"dtype": "float32"}, {"device": "rows"}."""
