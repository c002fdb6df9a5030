"""What a captured step may call: functions that do the same for the same arguments, and change nothing but tensors.

A change of a tensor is seen by the tracer and becomes a part of the program. What reads or writes anything else (a
generator of Python, a file, the memory of a tensor behind torch's back) is not in these lists.
"""

import builtins
import collections
import contextlib
import functools
import itertools
import math
import operator
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# --- Python -----------------------------------------------------------------------------------------------------------

PLAIN_TYPES = (int, float, complex, str, bytes, bool, type(None), type(...), type(NotImplemented))
_COLLECTIONS = (collections.deque, collections.OrderedDict, collections.defaultdict, collections.Counter)
CONTAINERS = (list, tuple, dict, set, frozenset, *_COLLECTIONS)
_VIEWS = (range, slice, type({}.keys()), type({}.values()), type({}.items()), torch.Size)
_NAMES_OF_MODULES: dict[Any, frozenset[str]] = {
    builtins: _words("""
        abs all any bool callable complex dict divmod enumerate filter float format frozenset hasattr int isinstance
        issubclass iter len list map max min next pow range repr reversed round set slice sorted str sum tuple type zip
    """),
    math: frozenset(name for name in vars(math) if not name.startswith("_") and callable(getattr(math, name))),
    operator: _words("""
        add sub mul truediv floordiv mod pow matmul neg pos abs invert and_ or_ xor lshift rshift lt le eq ne ge gt not_
        truth is_ is_not getitem contains
    """),
    itertools: _words("""
        accumulate chain combinations compress count cycle dropwhile filterfalse islice pairwise permutations product
        repeat starmap takewhile zip_longest
    """),
    functools: _words("partial reduce"),
    contextlib: _words("nullcontext"),
    collections: _words("OrderedDict defaultdict deque Counter"),
    np: _words("prod sum cumsum mean ndim shape size float32 float64 int64 int32"),
    torch: _words("""
        no_grad enable_grad set_grad_enabled autocast Size device finfo iinfo tensor as_tensor from_numpy is_tensor
        is_floating_point is_complex is_grad_enabled is_autocast_enabled get_default_dtype numel broadcast_shapes
        result_type promote_types can_cast
    """),
    torch.amp: _words("autocast"),
    torch.autograd: _words("grad"),
    torch.jit: _words("is_scripting is_tracing"),
    torch.compiler: _words("is_compiling"),
}
_FUNCTIONS: set[Any] = {getattr(module, name) for module, names in _NAMES_OF_MODULES.items() for name in names} | {
    itertools.chain.from_iterable
}
_READING = _words("""
    get items keys values index count copy union intersection difference symmetric_difference isdisjoint issubset
    issuperset most_common __getitem__ __len__ __contains__ __iter__ __eq__
""")

# --- torch ------------------------------------------------------------------------------------------------------------

# modules of torch whose functions, in Python, pass on to operators and keep no state of their own
_TORCH_MODULES = frozenset({"torch.nn.functional", "torch.functional", "torch._jit_internal", "torch.nn.utils.rnn"})
_TENSOR_ATTRIBUTES = _words("""
    shape dtype device ndim T H mT mH real imag layout itemsize nbytes is_cuda is_cpu is_sparse is_nested is_quantized
    is_meta is_mps requires_grad is_leaf data dim size stride numel nelement ndimension element_size is_contiguous
    is_floating_point is_complex get_device float double half bfloat16 int long short byte bool cfloat cdouble type
    new_tensor unique requires_grad_ __len__ __getitem__ __setitem__ __class__
""")
_NOT_TENSOR_ATTRIBUTES = _words("""
    item numpy set_ resize_ resize_as_ record_stream data_ptr is_pinned pin_memory backward retain_grad grad output_nr
    _version is_set_to
""")
_TENSOR_FUNCTIONS = _words("split norm unique unique_consecutive stft istft unflatten refine_names")
_MODULE_METHODS = _words("""
    parameters named_parameters buffers named_buffers modules named_modules children named_children get_submodule
    get_parameter get_buffer __getattr__ __len__ __getitem__ __iter__ __contains__ keys items values _get_name
""")
_STATELESS_LAYERS = frozenset(
    f"torch.nn.modules.{name}"
    for name in _words("activation distance dropout flatten fold loss padding pixelshuffle pooling upsampling")
)


def is_allowed_function(function: Any) -> bool:
    """Whether a function or class of Python or torch may be called."""
    if isinstance(function, FunctionType):
        return _is_torch_function(function)
    if isinstance(function, np.ufunc):
        return True  # without `out`: see Follower
    try:
        if function in _FUNCTIONS:
            return True
    except TypeError:  # unhashable
        return False
    if isinstance(function, BuiltinFunctionType):
        owner = getattr(function, "__self__", None)
        if isinstance(owner, Tensor):
            return is_allowed_tensor_attribute(function.__name__)
        in_torch = owner is None or (isinstance(owner, ModuleType) and owner.__name__.startswith("torch."))
        return in_torch and str(function.__module__).partition(".")[0] == "torch" and _is_operator(function.__name__)
    if isinstance(function, type(Tensor.add)):  # torch.Tensor.add, str.join
        owner = function.__objclass__
        if issubclass(Tensor, owner) and owner is not object:
            return is_allowed_tensor_attribute(function.__name__)
        return owner in PLAIN_TYPES or (owner in CONTAINERS and function.__name__ in _READING)
    return False


def is_allowed_class(kind: type) -> bool:
    """Whether an object of this class may be created: a layer of torch.nn without parameters, or a named tuple."""
    if kind.__module__ in _STATELESS_LAYERS:
        return kind not in (nn.PReLU, nn.MultiheadAttention)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return not any(isinstance(value, FunctionType) and name in ("__init__",) for name, value in vars(kind).items())
    return issubclass(kind, BaseException) and "__init__" not in vars(kind)


def is_allowed_method(owner: Any, name: str, is_persistent: bool) -> bool:
    """Whether a built-in method may be called: none that changes a container which outlives the step.

    Args:
        owner: The object whose method it is.
        name: The method's name.
        is_persistent: Whether the object existed before the step.
    """
    if isinstance(owner, Tensor):
        return is_allowed_tensor_attribute(name)
    if isinstance(owner, (*PLAIN_TYPES, *_VIEWS)):
        return True
    if type(owner) in CONTAINERS or (isinstance(owner, tuple) and hasattr(owner, "_fields")):
        return name in _READING or not is_persistent
    return False


def is_allowed_tensor_attribute(name: str) -> bool:
    """Whether an attribute of a tensor is its metadata, or an operation that torch dispatches."""
    if name in _NOT_TENSOR_ATTRIBUTES:
        return False
    return name in _TENSOR_ATTRIBUTES or _is_operator(name) or (name.startswith("__") and _is_arithmetic(name))


def is_allowed_module_method(function: Callable[..., Any]) -> bool:
    """Whether a method that torch defines for modules only looks at the tree of modules."""
    return function.__name__ in _MODULE_METHODS and _package(function) in ("module", "container")


def _package(function: Any) -> str:
    name = str(getattr(function, "__globals__", {}).get("__name__"))
    return name.removeprefix("torch.nn.modules.") if name.startswith("torch.nn.modules.") else ""


def _is_torch_function(function: FunctionType) -> bool:
    # the module of its globals: `functools.wraps` gives a user's function the __module__ of the wrapped one
    module = function.__globals__.get("__name__")
    if module == "torch._tensor":
        return is_allowed_tensor_attribute(function.__name__) or function.__name__ in _TENSOR_FUNCTIONS
    return module in _TORCH_MODULES or function in _FUNCTIONS


@functools.cache
def _is_operator(name: str) -> bool:
    """Whether torch dispatches an operator of this name."""
    return not name.startswith("__") and hasattr(torch.ops.aten, name)


def _is_arithmetic(name: str) -> bool:
    bare = name.strip("_")
    return hasattr(operator, f"__{bare}__") or hasattr(operator, f"__{bare[1:]}__") or bare in ("bool", "float", "int")


def is_layer_of_torch(module: nn.Module) -> bool:
    """Whether the module and all inside it are torch.nn's own, whose forward passes keep no state besides buffers.

    They were read for this in torch 2.10 to 2.13: they call operators on their parameters, buffers and inputs, and read
    their own attributes. What they write (the counts of BatchNorm) are buffers, in place.
    """
    return all(_is_layer_class(type(part)) and "forward" not in vars(part) for part in module.modules())


def _is_layer_class(kind: type) -> bool:
    name = kind.__module__
    return name.startswith(("torch.nn.modules.", "torch.nn.utils.parametr")) and "lazy" not in kind.__name__.lower()
