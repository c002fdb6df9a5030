"""Nested state as JSON values and tensors, exactly, and back again.

What JSON lacks is a dict with the key "$", which says what it is: tensors (by the name under which they are stored
beside the JSON), NumPy's arrays and numbers, tuples, sets, deques, dicts of other keys, infinities, NaN, bytes, random
generators, and references to the parameters of the model.
"""

import math
import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TAG = "$"
_ATOMS = (bool, int, str, type(None))
_BUILT: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset, "size": torch.Size}
_SEQUENCES: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset", torch.Size: "size"}
_DICTS: dict[str, type[Any]] = {"dict": dict, "OrderedDict": OrderedDict, "defaultdict": defaultdict}
_FACTORIES: dict[str, Any] = {each.__name__: each for each in (list, dict, set, int, float)}
_VIEWED = (torch.complex128, torch.complex32)  # which safetensors lacks
_TENSORS = (Tensor, nn.Parameter, nn.Buffer)
_NUMBERS = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64"
_DTYPES = {getattr(torch, name) for name in (*_NUMBERS.split(), "float8_e4m3fn", "float8_e5m2")} | {*_VIEWED}
_MISSING = object()
GENERATORS = (torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)
"""The types of random generators."""


class CannotPackError(ValueError):
    """A value cannot be stored exactly; the message says which, and why."""


class Packer:
    """Packs values; what they hold of tensors is in `tensors`, by name, not copied.

    Args:
        parameters: Parameters of the model by name, to which values may refer.
        device: The device whose tensors come back on the device of whoever unpacks; the others stay on theirs.
        may_overlap: Whether tensors may be views of each other, since they will be put back into tensors that are.
    """

    def __init__(self, parameters: Mapping[str, Tensor], device: torch.device, may_overlap: bool = False) -> None:
        self._may_overlap = may_overlap
        self.tensors: dict[str, Tensor] = {}
        self._names, self._device = {id(parameter): name for name, parameter in parameters.items()}, device
        self._packed: dict[int, tuple[Tensor, Any]] = {}  # the tensors too, so that no other gets an id of theirs
        self._memory: dict[int, list[tuple[int, int, str, Tensor]]] = {}
        for name, parameter in parameters.items():
            self._occupy(name, parameter)

    def pack(self, value: Any, name: str) -> Any:
        """Return the value as JSON. Raises CannotPackError, naming the part, if it cannot be stored exactly."""
        kind: type[Any] = type(value)
        if kind in _ATOMS or (kind is float and math.isfinite(value)):
            return value
        if kind is float:
            return {TAG: "float", "value": str(value)}
        if isinstance(value, Tensor):
            return self._pack_tensor(value, name)
        if kind is list:
            return [self.pack(item, f"{name}/{i}") for i, item in enumerate(value)]
        if kind is dict and TAG not in value and all(type(key) is str for key in value):
            return {key: self.pack(item, f"{name}/{key}") for key, item in value.items()}
        if kind in _DICTS.values():
            return self._pack_dict(value, name)
        if kind in _SEQUENCES:
            return {TAG: _SEQUENCES[kind], "items": self.pack([*value], name)}
        if kind is deque:
            return {TAG: "deque", "items": self.pack([*value], name), "maxlen": value.maxlen}
        if kind is complex:
            return {TAG: "complex", "items": self.pack([value.real, value.imag], name)}
        if kind in (bytes, bytearray):
            return {TAG: kind.__name__, "value": value.hex()}
        if kind in (torch.dtype, torch.device):
            return {TAG: kind.__name__, "value": str(value).removeprefix("torch.")}
        if isinstance(value, np.ndarray | np.generic):
            return self._pack_array(value, name)  # pyright: ignore[reportUnknownArgumentType] -- of any dtype
        if (state := _generator_state(value)) is not None:
            return {TAG: "generator", **{key: self.pack(part, f"{name}/{key}") for key, part in state.items()}}
        raise CannotPackError(f"{name} is of type {kind.__name__}")

    def _pack_dict(self, value: dict[Any, Any], name: str) -> Any:
        kind = type(value).__name__
        items = [
            [self.pack_key(key, name), self.pack(item, f"{name}/{i}")] for i, (key, item) in enumerate(value.items())
        ]
        factory = getattr(value, "default_factory", None)
        known = getattr(factory, "__name__", None) if factory in _FACTORIES.values() else None
        return {TAG: kind, "items": items, "factory": known, "in_place": factory is not None and known is None}

    def pack_key(self, key: Any, name: str) -> Any:
        """Return the key of a dict, which may be a parameter or its id."""
        if type(key) is int and key in self._names:
            return {TAG: "id", "name": self._names[key]}
        if isinstance(key, Tensor) and id(key) not in self._names:
            raise CannotPackError(f"{name} has a key that is a tensor, and no parameter of the model")
        return self.pack(key, name)

    def _pack_tensor(self, tensor: Tensor, name: str) -> Any:
        if (own := self._names.get(id(tensor))) is not None:
            return {TAG: "parameter", "name": own}
        if id(tensor) in self._packed:
            return self._packed[id(tensor)][1]
        if type(tensor) not in _TENSORS or tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
            raise CannotPackError(f"{name} is a tensor of another kind ({type(tensor).__name__}, {tensor.layout})")
        if tensor.dtype not in _DTYPES:
            raise CannotPackError(f"{name} is a tensor of {tensor.dtype}")
        if (twin := self._occupy(name, tensor)) is not None:
            return {TAG: "parameter", "name": twin, "is_detached": True}
        while name in self.tensors:
            name += "'"
        values = tensor.detach().resolve_conj().resolve_neg()
        self.tensors[name] = torch.view_as_real(values) if tensor.dtype in _VIEWED else values
        packed: dict[str, Any] = {TAG: "tensor", "name": name}
        if tensor.dtype in _VIEWED:
            packed["is_complex"] = True
        if tensor.device.type != self._device.type or tensor.device.index != (
            self._device.index or tensor.device.index
        ):
            packed["device"] = str(tensor.device)
        if not tensor.is_contiguous() and all(tensor.stride()):
            packed["stride"] = list(tensor.stride())
        if tensor.requires_grad and tensor.is_leaf:
            packed["requires_grad"] = True
        if isinstance(tensor, nn.Parameter):
            packed["is_parameter"] = True
        self._packed[id(tensor)] = tensor, packed
        return packed

    def _occupy(self, name: str, tensor: Tensor) -> str | None:
        """Note the memory of a tensor; return the name of a parameter of which it is all.

        Raises CannotPackError if it is a part of the memory of another: both would be apart afterwards.
        """
        if not tensor.numel() or nn.parameter.is_lazy(tensor) or tensor.is_meta or tensor.layout is not torch.strided:
            return None
        start = tensor.data_ptr()
        span = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
        end = start + span * tensor.element_size()
        others = self._memory.setdefault(tensor.untyped_storage().data_ptr(), [])
        for other_start, other_end, other, owner in others:
            if start < other_end and other_start < end:
                is_same = (start, tensor.shape, tensor.stride(), tensor.dtype) == (
                    *(other_start, owner.shape, owner.stride()),
                    owner.dtype,
                )
                if is_same and id(owner) in self._names:
                    return other
                if self._may_overlap:
                    continue
                raise CannotPackError(f"{name} is a view of {other}, and would be a copy of its own")
        others.append((start, end, name, tensor))
        return None

    def _pack_array(self, value: Any, name: str) -> Any:
        kind: dict[str, Any] = {TAG: "array" if isinstance(value, np.ndarray) else "number", "dtype": value.dtype.str}
        if value.dtype.kind in "USO":
            return kind | {"shape": list(value.shape), "items": self.pack(value.ravel().tolist(), name)}
        if value.dtype.kind not in "biufc" or value.dtype.itemsize > 16:
            raise CannotPackError(f"{name} is an array of {value.dtype}")
        if kind[TAG] == "number":
            return kind | {"value": value.tobytes().hex()}
        content = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8) if value.size else torch.empty(0)
        while name in self.tensors:
            name += "'"
        self.tensors[name] = content
        return kind | {"shape": list(value.shape), "name": name}


class Unpacker:
    """Gives back what a Packer packed; where it can, in the same containers, tensors and generators as there are.

    Args:
        tensors: The packer's tensors.
        parameters: Parameters of the model by name.
        device: Where tensors go that were on the packer's device.
    """

    def __init__(self, tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor], device: torch.device) -> None:
        self._tensors, self._parameters, self._device = tensors, parameters, device
        self._made: dict[str, Tensor] = {}
        self._taken: dict[int, Any] = {}  # tensors that are one of those that were packed, by id

    def unpack(self, value: Any, existing: Any = _MISSING) -> Any:
        """Return a value. `existing` is what is in its place, and is filled if it is of the same kind.

        Raises ValueError, TypeError, KeyError or RuntimeError if it is not one that was packed.
        """
        if isinstance(value, list):
            items = self._items(value, existing)
            return _refilled(existing, list, items)
        if not isinstance(value, dict):
            return value
        kind: Any = value.get(TAG)
        if kind is None:
            return self._unpack_dict({key: (key, item) for key, item in value.items()}, dict, existing)
        if kind in _DICTS:
            packed = {i: (self.unpack_key(key), item) for i, (key, item) in enumerate(value["items"])}
            if value.get("in_place") and type(existing) is not defaultdict:
                raise ValueError("a defaultdict is not there")
            factory = (
                partial(defaultdict, _FACTORIES.get(value.get("factory") or "")) if kind == "defaultdict" else None
            )
            return self._unpack_dict(packed, _DICTS[kind], existing, factory)
        if kind in _BUILT:
            return _BUILT[kind](self._items(value["items"], existing))
        if kind == "deque":
            return _refilled(existing, deque, self._items(value["items"], existing), value["maxlen"])
        if kind == "tensor":
            return self._unpack_tensor(value, existing)
        if kind == "parameter":
            parameter = self._parameters[value["name"]]
            return parameter.detach() if value.get("is_detached") else parameter
        if kind == "generator":
            state = {key: self.unpack(part) for key, part in value.items() if key != TAG}
            return _generator_from(state, existing)
        if kind in ("array", "number"):
            return self._unpack_array(value, existing)
        return _unpack_atom(kind, value)

    def unpack_key(self, key: Any) -> Any:
        """Return the key of a dict."""
        is_id = isinstance(key, dict) and key.get(TAG) == "id"
        return id(self._parameters[key["name"]]) if is_id else self.unpack(key)

    def _items(self, values: list[Any], existing: Any) -> list[Any]:
        there: list[Any] = [*existing] if isinstance(existing, list | tuple | deque) else []
        there += [_MISSING] * (len(values) - len(there))
        return [self.unpack(item, old) for item, old in zip(values, there, strict=False)]

    def _unpack_dict(
        self, packed: dict[Any, tuple[Any, Any]], kind: type[Any], existing: Any, make: Callable[[], Any] | None = None
    ) -> Any:
        is_there = type(existing) is kind
        target: Any = existing if is_there else (make or kind)()
        items = {
            key: self.unpack(item, existing.get(key, _MISSING) if is_there else _MISSING)
            for key, item in packed.values()
        }
        target.clear()
        target.update(items)
        return target

    def _unpack_tensor(self, value: dict[str, Any], existing: Any) -> Tensor:
        name = value["name"]
        if name in self._made:
            return self._made[name]
        content = self._tensors[name]
        if value.get("is_complex"):
            content = torch.view_as_complex(content)
        device = self._placed(value.get("device"))
        if isinstance(existing, Tensor) and id(existing) not in self._taken and _is_like(existing, content, device):
            with torch.no_grad():
                existing.detach().copy_(content)
            tensor = existing
        else:
            tensor = content.to(device, copy=True)
            if "stride" in value:
                tensor = _strided(tensor, value["stride"])
            if value.get("is_parameter"):
                tensor = nn.Parameter(tensor, requires_grad=False)
        if tensor.is_leaf and (tensor.is_floating_point() or tensor.is_complex()):
            tensor.requires_grad_(bool(value.get("requires_grad")))
        self._made[name] = self._taken[id(tensor)] = tensor
        return tensor

    def _placed(self, device: Any) -> torch.device:
        if device is None:
            return self._device
        named = torch.device(device)
        return named if named.type == "cpu" or torch.get_device_module(named).is_available() else self._device

    def _unpack_array(self, value: dict[str, Any], existing: Any) -> Any:
        dtype = np.dtype(value["dtype"])
        if dtype.kind not in "biufcUSO":
            raise ValueError(f"an array of {dtype}")
        if value[TAG] == "number" and "value" in value:
            return np.frombuffer(bytes.fromhex(value["value"]), dtype)[0]
        if "name" in value:
            array = np.frombuffer(self._tensors[value["name"]].numpy().tobytes(), dtype).reshape(value["shape"]).copy()
        else:
            array = np.empty(len(value["items"]), dtype)
            array[:] = self.unpack(value["items"])
            array = array.reshape(value["shape"])
        if value[TAG] == "number":
            return array[()]
        is_there = isinstance(existing, np.ndarray) and existing.flags.writeable
        if is_there and (existing.dtype, existing.shape) == (array.dtype, array.shape):  # pyright: ignore[reportUnknownMemberType] -- of any dtype
            existing[...] = array
            return existing  # pyright: ignore[reportUnknownVariableType] -- the same
        return array


def _strided(tensor: Tensor, strides: list[int]) -> Tensor:
    """Return the tensor with other strides, which must be dense: a file must not decide how much is allocated."""
    order = sorted(range(tensor.ndim), key=lambda dim: strides[dim], reverse=True)
    dense = tensor.permute(order).contiguous().permute([order.index(dim) for dim in range(tensor.ndim)])
    return dense if list(dense.stride()) == strides else tensor


def _is_like(existing: Tensor, content: Tensor, device: torch.device) -> bool:
    return (
        existing.layout is torch.strided
        and (existing.shape, existing.dtype, existing.device.type) == (content.shape, content.dtype, device.type)
        and all(stride or size < 2 for size, stride in zip(existing.shape, existing.stride(), strict=True))
        and not existing.is_inference()
    )


def _refilled(existing: Any, kind: type[Any], items: list[Any], *args: Any) -> Any:
    if type(existing) is not kind or (args and existing.maxlen != args[0]):
        return kind(items, *args)
    existing.clear()
    existing.extend(items)
    return existing


def _unpack_atom(kind: Any, value: dict[str, Any]) -> Any:
    if kind == "float" and value["value"] in ("nan", "inf", "-inf"):
        return float(value["value"])
    if kind == "complex":
        real, imaginary = (_unpack_atom("float", part) if isinstance(part, dict) else part for part in value["items"])
        return complex(real, imaginary)
    if kind in ("bytes", "bytearray"):
        return (bytes if kind == "bytes" else bytearray).fromhex(value["value"])
    if kind == "device":
        return torch.device(value["value"])
    if kind == "dtype" and isinstance(dtype := getattr(torch, value["value"], None), torch.dtype):
        return dtype
    raise ValueError(f"{kind!r} is of no known kind")


# --- random generators ------------------------------------------------------------------------------------------------


def is_generator(value: Any) -> bool:
    """Whether a value is a random generator whose state can be stored."""
    return isinstance(value, GENERATORS) and not isinstance(value, random.SystemRandom)


def _generator_state(value: Any) -> dict[str, Any] | None:
    if not is_generator(value):
        return None
    if isinstance(value, torch.Generator):
        return {"kind": "torch", "device": str(value.device), "state": value.get_state()}
    if isinstance(value, random.Random):
        return {"kind": "python", "state": value.getstate()}
    if isinstance(value, np.random.RandomState):
        return {"kind": "RandomState", "state": value.get_state(legacy=False)}
    kind, bits = ("numpy", value.bit_generator) if isinstance(value, np.random.Generator) else ("bits", value)
    return {"kind": kind, "bits": type(bits).__name__, "state": bits.state}


def check_numpy_state(state: dict[str, Any]) -> None:
    """Raise ValueError for a position outside of its buffer, which NumPy would take."""
    kind, inner = state["bit_generator"], state["state"]
    end, position = {"MT19937": (624, inner.get("pos")), "Philox": (4, state.get("buffer_pos"))}.get(kind, (0, 0))
    if type(position) is not int or not 0 <= position <= end:
        raise ValueError(f"the position of {kind} is {position!r}")


def _generator_from(values: dict[str, Any], existing: Any) -> Any:
    """Return a generator of this state: the existing one, if it is of the same kind."""
    kind, state = values["kind"], values["state"]
    if kind == "torch":
        generator = existing if isinstance(existing, torch.Generator) else torch.Generator(values["device"])
        generator.set_state(state)
        return generator
    if kind == "python":
        generator = existing if isinstance(existing, random.Random) else random.Random()
        generator.setstate(state)
        return generator
    check_numpy_state(state)
    if kind == "RandomState":
        generator = existing if isinstance(existing, np.random.RandomState) else np.random.RandomState()
        generator.set_state(state)
        return generator
    if values["bits"] not in ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"):
        raise ValueError(f"{values['bits']!r} is no generator of NumPy")
    old: Any = existing.bit_generator if isinstance(existing, np.random.Generator) else existing
    bits = old if type(old).__name__ == values["bits"] else getattr(np.random, values["bits"])()
    bits.state = state
    if kind == "bits":
        return bits
    return existing if bits is old else np.random.Generator(bits)
