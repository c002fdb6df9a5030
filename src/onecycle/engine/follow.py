"""Follow a forward pass and a loss while they run, and allow only what a captured step repeats faithfully.

A captured step replays tensor operations and skips all Python. That is right if the Python code, run again, would call
the same operators on the same tensors with the same numbers, and would change nothing else. `Follower` makes sure of it
while the code runs once:

- what the code reads besides its arguments becomes a guard (`engine/guards.py`), or is refused;
- what it calls is followed into (code with a source), or must be in the lists of `engine/allowed.py`, or is refused;
- what it writes must be a local variable, an object that it created itself, or a tensor in place; else it is refused
  before it happens.

The code runs rewritten (`engine/instrument.py`). Python's profiler is asked to report any other function that begins,
so that nothing slips through: a special method, a property, a hook, a function that torch calls.
"""

from __future__ import annotations

import builtins
import gc
import inspect
import os
import sys
import sysconfig
from abc import ABCMeta
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import Enum, EnumMeta
from functools import partial
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    MethodType,
    ModuleType,
    SimpleNamespace,
    TracebackType,
)
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.modules import module as torch_module

from onecycle.engine.allowed import (
    CONTAINERS,
    PLAIN_TYPES,
    is_allowed_class,
    is_allowed_function,
    is_allowed_method,
    is_allowed_module_method,
    is_allowed_tensor_attribute,
    is_layer_of_torch,
)
from onecycle.engine.guards import Guards, class_name, is_plain_object
from onecycle.engine.instrument import ABSENT, instrument, is_instrumented, short_path
from onecycle.engine.trace import CannotCaptureError, all_in

_TRUSTED_MODULES = frozenset({"torch", "math", "numpy", "builtins", "operator", "itertools", "functools"})
_FOLDERS = tuple(
    f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(np.__file__).parent, Path(__file__).parents[1])
)
_STDLIB = sysconfig.get_paths()["stdlib"]
_IN_PLACE = "what a step keeps must be a buffer that is changed in place, such as self.n.add_(1)"
_DRAW = "draw with torch, for example torch.rand"
_ARRAY_METHODS = frozenset(
    ["item", "tolist", "mean", "sum", "astype", "reshape", "copy", "max", "min", "std", "__getitem__"]
)
_META_CLASSES = (type, ABCMeta, EnumMeta, type(torch.autograd.Function), type(nn.Parameter))
_CONTEXTS = (torch.no_grad, torch.enable_grad, torch.set_grad_enabled, torch.autocast, FunctionCtx)
_WRAPPERS = (type(Tensor.add), type((1).__add__), type(object.__init__))


class Follower:
    """Runs code under the checks above. Raises CannotCaptureError at the first thing that is not allowed.

    Args:
        functions: What will be called: the model, and functions such as the loss.

    Attributes:
        guards: What the code read.
    """

    def __init__(self, *functions: Any) -> None:
        self.guards = Guards()
        self._created: dict[int, Any] = {}  # objects that the code created itself, by id
        self._instrumented: dict[int, tuple[FunctionType, FunctionType]] = {}
        self._guarded_modules: set[int] = set()
        self._generated: set[CodeType] = set()  # by dataclasses
        self._refusal: CannotCaptureError | None = None
        self._where: tuple[str, str] | None = None
        if torch_module._has_any_global_hook():  # pyright: ignore[reportPrivateUsage] -- there is no public way to ask
            raise CannotCaptureError("torch has global hooks on modules")
        for i, function in enumerate(functions):
            label = "model" if not i else _label(function)
            if isinstance(function, nn.Module):
                for name, module in function.named_modules():
                    if isinstance(module, torch.jit.ScriptModule):
                        raise CannotCaptureError(f"{f'{label}.{name}'.rstrip('.')} is scripted or traced")
                self._guard_modules(function, label)
            self._add(("root", i), partial(_itself, function), function, label)

    @contextmanager
    def following(self) -> Generator[None]:
        """Refuse code that runs in the block without being followed, and what changed when it ends."""
        profile: Any = sys.getprofile()
        collects = gc.isenabled()
        is_of_c = hasattr(profile, "enable")  # cProfile, before Python 3.12
        if is_of_c:
            profile.disable()
        gc.disable()  # what it deletes is not of this step
        sys.setprofile(self._on_event)
        try:
            yield
        except CannotCaptureError as error:
            raise self._located(self._refusal or error) from error.__cause__
        except Exception as error:  # torch raises all kinds of errors for what cannot be traced
            if self._refusal is None:
                reason = CannotCaptureError(f"raised {type(error).__name__} when it was traced")
                raise self._located(reason.with_traceback(error.__traceback__)) from error
        finally:
            sys.setprofile(None if is_of_c else profile)
            if is_of_c:
                profile.enable()
            if collects:
                gc.enable()
        if self._refusal is not None:
            raise self._located(self._refusal)
        if (label := self.guards.changed()) is not None:
            raise CannotCaptureError(f"the step changes {label}")

    # --- what rewritten code calls -----------------------------------------------------------------------------------

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function, following into it if it is a user's."""
        self._raise_if_refused()
        if isinstance(function, nn.Module):
            return self._call_module(function, args, kwargs)
        if isinstance(function, FunctionType):
            if is_instrumented(function.__globals__):
                return function(*args, **kwargs)
            if is_allowed_function(function):
                return function(*self._followed(args), **self._followed(kwargs))
            if function.__globals__.get("__name__") == "torch.utils._contextlib":
                return self._call_in_context(function, args, kwargs)
            if not _can_follow(function):
                raise self._refuse(f"calls {_name_of(function)}")
            return self._instrument(function)(*args, **kwargs)
        if isinstance(function, MethodType):
            return self._call_method(function, args, kwargs)
        if isinstance(function, partial):
            return self.call(function.func, *function.args, *args, **{**function.keywords, **kwargs})  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] -- a user's function
        if isinstance(function, type):
            return self._create(function, args, kwargs)
        if any(function is builtin for builtin in (getattr, hasattr, setattr)):
            return self._call_attribute_function(function, args)
        if is_allowed_function(function):
            self._check_arguments(function, args, kwargs)
            return function(*self._followed(args), **self._followed(kwargs))
        if isinstance(function, (BuiltinFunctionType, *_WRAPPERS)):
            return self._call_builtin(function, args, kwargs)
        method = _static(type(function), "__call__")
        if isinstance(method, FunctionType) and is_plain_object(function):
            self._guard_static(type(function), "__call__", method)
            return self.call(method, function, *args, **kwargs)
        raise self._refuse(f"calls {_name_of(function)}")

    def get(self, owner: Any, name: str, /) -> Any:
        """Return an attribute, and guard it."""
        self._raise_if_refused()
        if isinstance(owner, Tensor):
            if name in getattr(owner, "__dict__", ()):
                return self._guarded(owner, name, vars(owner)[name], partial(_own, owner, name))
            if not is_allowed_tensor_attribute(name):
                raise self._refuse(f"uses .{name} of a tensor")
            return getattr(owner, name)
        if isinstance(owner, ModuleType):
            return self._get_from_python_module(owner, name)
        if _is_context(owner):
            return getattr(owner, name)
        if isinstance(owner, type):
            return self._get_from_class(owner, name)
        if isinstance(owner, super):
            return self._get_from_super(owner, name)
        if isinstance(owner, Enum) and name in ("value", "name"):
            return self._guarded(owner, name, getattr(owner, name), partial(getattr, owner, name))
        if _is_value(owner) or (isinstance(owner, tuple) and name in getattr(owner, "_fields", ())):
            return getattr(owner, name)
        if isinstance(owner, partial) and name in ("func", "args", "keywords"):
            return self._guarded(owner, name, getattr(owner, name), partial(getattr, owner, name))  # pyright: ignore[reportUnknownArgumentType] -- of a user
        if isinstance(owner, (nn.Module, FunctionType, MethodType, tuple, Enum)) or is_plain_object(owner):
            return self._get_from_object(owner, name)
        raise self._refuse(f"reads .{name} of an object of {class_name(type(owner))}")

    def slot(self, owner: Any, name: str, /) -> _Slot:
        """Return the attribute as an object, to be set or deleted."""
        return _Slot(self, owner, name)

    def items(self, owner: Any, in_place: bool = False, /) -> _Items:
        """Return an object with the items of `owner`; `in_place` if an item is about to be changed."""
        return _Items(self, owner, in_place)

    def changing(self, value: Any, /) -> Any:
        """Return a value that is about to be changed in place, as `+=` does."""
        self._raise_if_refused()
        is_outer = id(value) in self.guards.persistent and not isinstance(value, (Tensor, *PLAIN_TYPES, tuple))
        if is_outer or isinstance(value, np.ndarray):  # which may be a view of an outer one
            raise self._refuse(f"changes a {type(value).__name__} that it did not create", _IN_PLACE)
        return value

    def read_global(self, namespace: dict[str, Any], name: str, value: Any) -> None:
        """Guard a global; `value` is ABSENT if there is none, so that it is a builtin."""
        self._raise_if_refused()
        if value is ABSENT:
            self._guard_identity(vars(builtins), name, name)
        self._add((id(namespace), name), partial(namespace.get, name, ABSENT), value, f"the global {name}")

    # --- calls -------------------------------------------------------------------------------------------------------

    def _call_in_context(self, function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function that is decorated with torch.no_grad() or the like."""
        cells = dict(zip(function.__code__.co_freevars, map(_content, function.__closure__ or ()), strict=True))
        if cells.keys() != {"ctx_factory", "func"}:
            raise self._refuse(f"calls {_name_of(function)}, which is decorated")
        with cells["ctx_factory"]():
            return self.call(cells["func"], *args, **kwargs)

    def _call_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kind = type(module)
        self._guard_modules(module, kind.__name__)
        if any(_static(kind, name) is not _static(nn.Module, name) for name in ("_call_impl", "_wrapped_call_impl")):
            raise self._refuse(f"calls a {kind.__name__}, which has a _call_impl of its own")
        if _static(kind, "__call__") is not _static(nn.Module, "__call__"):
            return self.call(_static(kind, "__call__"), module, *args, **kwargs)
        is_chain = isinstance(module, nn.Sequential) and _is_plain_sequential(kind) and "forward" not in vars(module)
        if is_chain and len(args) == 1 and not kwargs:
            (output,) = args
            for layer in cast(nn.Sequential, module):
                output = self._call_module(layer, (output,), {})
            return output
        if is_layer_of_torch(module):
            return module(*args, **kwargs)
        return self.call(self._get_from_object(module, "forward"), *args, **kwargs)

    def _call_method(self, method: MethodType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        owner, function = method.__self__, method.__func__
        if isinstance(owner, nn.Module) and isinstance(function, FunctionType) and is_allowed_module_method(function):
            return method(*args, **kwargs)
        if _is_context(owner):
            return method(*args, **kwargs)
        if isinstance(owner, nn.Module) and function in (nn.Module.eval, nn.Module.train):
            mode = function is nn.Module.train and (args[0] if args else kwargs.get("mode", True))
            if any(module.training is not bool(mode) for module in owner.modules()):
                raise self._refuse(f"sets {type(owner).__name__}.training")
            return owner
        if isinstance(owner, type) and issubclass(owner, torch.autograd.Function) and function.__name__ == "apply":
            return self._apply_autograd_function(owner, args)
        return self.call(function, owner, *args, **kwargs)

    def _apply_autograd_function(self, kind: Any, args: tuple[Any, ...]) -> Any:
        """Apply a torch.autograd.Function whose methods are followed, in the backward pass too."""
        methods: dict[str, Any] = {}
        for name in ("forward", "backward", "setup_context", "vjp"):
            method = getattr(kind, name)
            if isinstance(method, FunctionType) and not method.__globals__.get("__name__", "").startswith("torch."):
                self._guard_static(kind, name, _static(kind, name))
                methods[name] = staticmethod(self._instrument(method))
        if "forward" not in methods or "jvp" in vars(kind):
            raise self._refuse(f"applies {_name_of(kind)}")
        return type(kind.__name__, (kind,), methods).apply(*args)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType] -- of the base class

    def _create(self, kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kind is type and len(args) != 1:
            raise self._refuse("creates a class")
        if is_allowed_function(kind):
            return kind(*self._followed(args), **self._followed(kwargs))  # perhaps something that existed: type(x)
        if is_allowed_class(kind):
            created = kind(*self._followed(args), **self._followed(kwargs))
        else:
            new, init = _static(kind, "__new__"), _static(kind, "__init__")
            is_plain = type(kind) is type and _static(kind, "__del__") is ABSENT
            is_plain = is_plain and new is _static(object, "__new__") and not issubclass(kind, nn.Module)
            if not is_plain or not (isinstance(init, FunctionType) or init is object.__init__):
                raise self._refuse(f"creates an object of {_name_of(kind)}")
            created = object.__new__(kind)
            self._created[id(created)] = created
            if isinstance(init, FunctionType):
                self._guard_static(kind, "__init__", init)
                is_generated = init.__code__.co_filename == "<string>" and hasattr(kind, "__dataclass_fields__")
                if is_generated:
                    self._generated.add(init.__code__)
                (init if is_generated else self._instrument(init))(created, *args, **kwargs)
        self._created[id(created)] = created
        return created

    def _check_arguments(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse what reads tensors or writes arrays behind torch's dispatcher."""
        is_of_numpy = isinstance(function, np.ufunc) or str(getattr(function, "__module__", "")).startswith("numpy")
        has_out = isinstance(function, np.ufunc) and len(args) > function.nin
        if has_out or ("out" in kwargs and not isinstance(kwargs["out"], Tensor | tuple)):
            raise self._refuse(f"writes to an array ({_name_of(function)} with out=)", _IN_PLACE)
        if is_of_numpy and _has_tensor((args, kwargs)):
            raise self._refuse(f"gives a tensor to {_name_of(function)}", "use the function of torch")
        name = getattr(function, "__name__", "")
        nested = [value for value in (*args, *kwargs.values()) if not isinstance(value, Tensor)]
        if name in ("tensor", "as_tensor", "new_tensor") and _has_tensor(nested):
            raise self._refuse(f"makes a tensor of the values of others ({name})", "use torch.stack")
        owner = getattr(function, "__self__", None)
        if name == "requires_grad_" and id(owner) in self.guards.persistent:
            raise self._refuse("sets requires_grad of a tensor that it did not create")
        places = args if isinstance(owner, Tensor) else args[1:]
        if name == "tensor_split" and _has_tensor((places, kwargs)):
            raise self._refuse("splits a tensor at places that another tensor holds")

    def _call_attribute_function(self, function: Any, args: tuple[Any, ...]) -> Any:
        if function is setattr:
            self.slot(args[0], args[1]).value = args[2]
            return None
        try:
            value = self.get(args[0], args[1])
        except AttributeError:
            if function is hasattr:
                return False
            if len(args) > 2:
                return args[2]
            raise
        return True if function is hasattr else value

    def _call_builtin(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        owner, name = getattr(function, "__self__", None), function.__name__
        if isinstance(owner, type) and issubclass(owner, torch.autograd.Function) and name == "apply":
            return self._apply_autograd_function(owner, args)
        if isinstance(owner, np.ndarray | np.generic):
            if name in _ARRAY_METHODS and "out" not in kwargs:
                return function(*args, **kwargs)
        elif owner is not None and is_allowed_method(owner, name, id(owner) in self.guards.persistent):
            self._check_arguments(function, args, kwargs)
            return function(*self._followed(args), **self._followed(kwargs))
        elif name in ("__init__", "__setattr__", "__delattr__") and owner is not None and id(owner) in self._created:
            return function(*args, **kwargs)
        if owner is not None and type(owner) in CONTAINERS:
            raise self._refuse(f"changes a {type(owner).__name__} that it did not create ({name})", _IN_PLACE)
        hint = _DRAW if type(owner).__module__.startswith(("random", "numpy.random")) else ""
        raise self._refuse(f"calls {_name_of(function)}", hint)

    def _instrument(self, function: FunctionType) -> FunctionType:
        known = self._instrumented.get(id(function))
        if known is None:
            try:
                rewritten = instrument(function, self)
            except CannotCaptureError as error:
                raise self._refuse(f"calls {function.__qualname__}: {error}", error.hint) from error
            known = self._instrumented[id(function)] = function, rewritten
            name = function.__qualname__
            self._add((id(function), "function"), partial(_itself, function), function, name)
            for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                if variable != "__class__":
                    self._add((id(cell), "cell"), partial(_content, cell), _content(cell), f"{variable} of {name}")
        return known[1]

    def _followed(self, arguments: Any) -> Any:
        """Replace users' functions among the arguments of an allowed function, such as `key=` of sorted."""

        def followed(value: Any) -> Any:
            if isinstance(value, FunctionType) and not is_instrumented(value.__globals__):
                return value if is_allowed_function(value) else self._instrument(value)
            if isinstance(value, nn.Module):
                self._guard_modules(value, type(value).__name__)
            is_called = isinstance(value, (BuiltinFunctionType, MethodType, partial, *_WRAPPERS))
            return partial(self.call, value) if is_called and not is_allowed_function(value) else value

        if isinstance(arguments, dict):
            return {key: followed(value) for key, value in arguments.items()}  # pyright: ignore[reportUnknownVariableType] -- of any type
        return tuple(followed(value) for value in arguments)

    # --- attributes --------------------------------------------------------------------------------------------------

    def _get_from_python_module(self, module: ModuleType, name: str) -> Any:
        value = getattr(module, name)
        if module.__name__.partition(".")[0] in _TRUSTED_MODULES:  # calls and reads check what it is
            self._guard_identity(vars(module), name, f"{module.__name__}.{name}")
            return value
        return self._guarded(module, name, value, partial(vars(module).get, name, ABSENT))

    def _get_from_class(self, kind: type, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__", "__class__", "__members__"):
            return getattr(kind, name)
        if type(kind) not in _META_CLASSES:
            raise self._refuse(f"reads {kind.__name__}.{name}, whose class is {class_name(type(kind))}")
        found = _static(kind, name)
        if found is ABSENT or not _is_of_user(kind):
            return getattr(kind, name)  # of a metaclass, or of torch's and Python's own classes
        self._guard_static(kind, name, found)
        if isinstance(found, classmethod):
            return MethodType(found.__func__, kind)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] -- a user's
        return found.__func__ if isinstance(found, staticmethod) else getattr(kind, name)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- a user's

    def _get_from_super(self, owner: super, name: str) -> Any:
        bound: Any = owner  # pyright does not know the attributes of a super object
        kinds = (bound.__self__ if isinstance(bound.__self__, type) else type(bound.__self__)).__mro__
        following = kinds[kinds.index(bound.__thisclass__) + 1 :]

        def find() -> Any:
            return next((vars(kind)[name] for kind in following if name in vars(kind)), ABSENT)

        found = find()
        self._add((bound.__thisclass__, kinds[0], name, "super"), find, found, f"{bound.__thisclass__.__name__}.{name}")
        return self._bound(found, bound.__self__, name) if found is not ABSENT else getattr(owner, name)

    def _get_from_object(self, owner: Any, name: str) -> Any:
        kind = type(owner)
        if isinstance(owner, nn.Module):
            self._guard_modules(owner, kind.__name__)
        if name == "__class__":
            return kind
        if name == "__dict__":
            raise self._refuse("reads __dict__")
        is_usual = _static(kind, "__getattribute__") is _static(object, "__getattribute__")
        if not is_usual and not isinstance(owner, FunctionType | MethodType | SimpleNamespace):
            raise self._refuse(f"reads an attribute of {kind.__name__}, which has a __getattribute__")
        found = _static(kind, name)
        if isinstance(found, property) or (found is not ABSENT and hasattr(type(found), "__set__")):
            self._guard_static(kind, name, found)
            return self._bound(found, owner, name)
        own: dict[str, Any] = getattr(owner, "__dict__", {})
        if name in own:
            return self._guarded(owner, name, own[name], partial(own.get, name, ABSENT))
        if found is not ABSENT:
            if id(owner) not in self._created:
                self._add((id(owner), name, "own"), partial(_own, owner, name), ABSENT, f"{_label(owner)}.{name}")
            self._guard_static(kind, name, found)
            return self._bound(found, owner, name)
        if isinstance(owner, nn.Module):
            for part in (own["_parameters"], own["_buffers"], own["_modules"]):
                if name in part:  # the guards of the module compare them
                    return part[name]
        getter = _static(kind, "__getattr__")
        if isinstance(getter, FunctionType) and getter is not nn.Module.__getattr__:
            self._guard_static(kind, "__getattr__", getter)
            return self.call(getter, owner, name)
        if id(owner) not in self._created:
            self._add((id(owner), name, "own"), partial(_own, owner, name), ABSENT, f"{_label(owner)}.{name}")
            self._guard_static(kind, name, found)
        return getattr(owner, name)  # raises the right AttributeError

    def _bound(self, found: Any, owner: Any, name: str) -> Any:
        """What Python makes of an attribute of the class that is read through an instance."""
        if isinstance(found, property):
            if found.fget is None:
                raise AttributeError(name)
            return self.call(found.fget, owner)
        if isinstance(found, FunctionType):
            return MethodType(found, owner)
        if isinstance(found, staticmethod):
            return found.__func__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- a user's
        if isinstance(found, classmethod):
            return MethodType(found.__func__, owner if isinstance(owner, type) else type(owner))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] -- a user's
        if type(found).__name__ == "member_descriptor":  # of __slots__
            return self._guarded(owner, name, getattr(owner, name), partial(getattr, owner, name, ABSENT))
        if isinstance(found, _WRAPPERS) or type(found).__name__ in (
            "builtin_function_or_method",
            "classmethod_descriptor",
        ):
            return found.__get__(owner, type(owner))
        if hasattr(type(found), "__get__"):
            if _is_context(owner):
                return getattr(owner, name)
            if isinstance(found, type(FunctionType.__code__)):  # of a function
                return self._guarded(owner, name, getattr(owner, name), partial(getattr, owner, name))
            raise self._refuse(f"reads .{name}, a {type(found).__name__}")
        return found

    def _guarded(self, owner: Any, name: str, value: Any, read: Callable[[], Any]) -> Any:
        if id(owner) not in self._created:
            self._add((id(owner), name), read, value, f"{_label(owner)}.{name}")
        return value

    def _guard_identity(self, namespace: Any, name: str, label: str) -> None:
        def identity() -> int:
            return id(namespace.get(name))

        self._add((id(namespace), name, "identity"), identity, identity(), label)

    def _guard_static(self, kind: type, name: str, found: Any) -> None:
        self._add((kind, name, "class"), partial(_static, kind, name), found, f"{kind.__name__}.{name}")

    def _guard_modules(self, root: nn.Module, label: str) -> None:
        """Guard a module and all inside it, once."""
        if id(root) in self._guarded_modules or id(root) in self._created:
            return
        for name, module in root.named_modules():
            if id(module) not in self._guarded_modules:
                if isinstance(module, torch.jit.ScriptModule):
                    raise self._refuse(f"uses {f'{label}.{name}'.rstrip('.')}, which is scripted or traced")
                self._guarded_modules.add(id(module))
                self.guards.add_module(module, f"{label}.{name}".rstrip("."), is_layer_of_torch(module))
                for method in ("forward", "__call__"):
                    self._guard_static(type(module), method, _static(type(module), method))

    def _add(self, key: Any, read: Callable[[], Any], value: Any, label: str) -> None:
        try:
            self.guards.add(key, read, value, label)
        except CannotCaptureError as error:
            raise self._refuse(str(error).removeprefix("it ")) from error.__cause__
        if isinstance(value, nn.Module):
            self._guard_modules(value, label)

    # --- writes ------------------------------------------------------------------------------------------------------

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of an object that the step created; an in-place operation sets what is there already."""
        self._raise_if_refused()
        if id(owner) in self._created or isinstance(owner, FunctionCtx):
            setattr(owner, name, value)
            return
        if isinstance(owner, nn.Module) and isinstance(value, Tensor) and value is getattr(owner, name, None):
            return
        raise self._refuse(f"sets .{name} of {_label(owner)}", _IN_PLACE)

    def delete(self, owner: Any, name: str) -> None:
        """Delete an attribute of an object that the step created."""
        self._raise_if_refused()
        if id(owner) not in self._created:
            raise self._refuse(f"deletes .{name} of {_label(owner)}")
        delattr(owner, name)

    def get_item(self, owner: Any, key: Any) -> Any:
        """Return an item of a tensor, container or object."""
        self._raise_if_refused()
        known: Any = (*PLAIN_TYPES, *CONTAINERS, Tensor, np.ndarray, range, type, torch.Size)
        if isinstance(owner, known) or (isinstance(owner, tuple) and hasattr(owner, "_fields")):
            if isinstance(owner, dict) and hasattr(owner, "default_factory") and key not in owner:
                self._check_local(owner)
            return owner[key]
        if isinstance(owner, nn.Module) and is_allowed_module_method(type(owner).__getitem__):  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType] -- a container
            return owner[key]  # pyright: ignore[reportIndexIssue, reportUnknownVariableType] -- the same
        method = _static(type(owner), "__getitem__")
        if isinstance(method, FunctionType):
            return self.call(self._get_from_object(owner, "__getitem__"), key)
        raise self._refuse(f"reads an item of an object of {class_name(type(owner))}")

    def set_item(self, owner: Any, key: Any, value: Any) -> None:
        """Set an item of a tensor, or of a container that the step created."""
        self._raise_if_refused()
        if not isinstance(owner, Tensor):
            self._check_local(owner)
        owner[key] = value

    def delete_item(self, owner: Any, key: Any) -> None:
        """Delete an item of a container that the step created."""
        self._raise_if_refused()
        self._check_local(owner)
        del owner[key]

    def _check_local(self, owner: Any) -> None:
        if type(owner) not in CONTAINERS or id(owner) in self.guards.persistent:
            raise self._refuse(f"changes an item of a {type(owner).__name__} that it did not create", _IN_PLACE)

    # --- refusals ----------------------------------------------------------------------------------------------------

    def _refuse(self, what: str, hint: str = "") -> CannotCaptureError:
        """Return the error to raise; from now on every check raises it, even if the code catches it.

        Args:
            what: What the code does, without a subject: the message begins with the name of the function.
            hint: What to write instead, to have it captured.
        """
        if self._refusal is None:
            self._refusal = CannotCaptureError(what, hint)
            self._where = _place_of(sys._getframe(1))  # pyright: ignore[reportPrivateUsage] -- documented
        return self._refusal

    def _raise_if_refused(self) -> None:
        if self._refusal is not None:
            raise self._refusal

    def _located(self, error: CannotCaptureError) -> CannotCaptureError:
        """Return the error with the function and line that it is about."""
        place = self._where if error is self._refusal else _place_in(error.__traceback__)
        text = f"{place[0]} {error} ({place[1]})" if place else f"the step {error}"
        return CannotCaptureError(f"{text}; {error.hint}" if error.hint else text)

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        """Refuse a function that begins without being followed."""
        if event != "call" or is_instrumented(frame.f_globals):
            return
        file = frame.f_code.co_filename
        if file.startswith(_FOLDERS) or _is_of_python(frame.f_code):
            return
        module = str(frame.f_globals.get("__name__"))
        if file.startswith("<") and module.startswith(("torch.", "numpy.", "onecycle.", "namedtuple_")):
            return
        if frame.f_code in self._generated:
            return
        error = self._refuse(f"runs {frame.f_code.co_qualname} in a way that cannot be followed")
        if frame.f_code.co_flags & inspect.CO_GENERATOR or frame.f_code.co_name == "__del__":
            return  # CPython may crash if a generator that is being deleted cannot end; the next check raises the error
        raise error


class _Slot:
    """An attribute to be set, deleted, or changed in place."""

    def __init__(self, checks: Follower, owner: Any, name: str) -> None:
        self._checks, self._owner, self._name = checks, owner, name

    @property
    def value(self) -> Any:
        return self._checks.changing(self._checks.get(self._owner, self._name))

    @value.setter
    def value(self, value: Any) -> None:
        self._checks.set(self._owner, self._name, value)

    @value.deleter
    def value(self) -> None:
        self._checks.delete(self._owner, self._name)


class _Items:
    """The items of an object."""

    def __init__(self, checks: Follower, owner: Any, in_place: bool) -> None:
        self._checks, self._owner, self._in_place = checks, owner, in_place

    def __getitem__(self, key: Any) -> Any:
        item = self._checks.get_item(self._owner, key)
        return self._checks.changing(item) if self._in_place else item

    def __setitem__(self, key: Any, value: Any) -> None:
        self._checks.set_item(self._owner, key, value)

    def __delitem__(self, key: Any) -> None:
        self._checks.delete_item(self._owner, key)


def _is_plain_sequential(kind: Any) -> bool:
    """Whether a subclass of nn.Sequential calls its layers one after the other."""
    return kind.forward is nn.Sequential.forward and kind.__iter__ is nn.Sequential.__iter__


def _has_tensor(arguments: Any) -> bool:
    return next(iter(all_in(arguments, Tensor)), None) is not None


def _static(kind: type, name: str) -> Any:
    """An attribute of a class as it is stored, or ABSENT."""
    for base in kind.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return ABSENT


def _can_follow(function: FunctionType) -> bool:
    """Whether a function is a user's, or a method of torch's layers; others of torch and Python are allowed or not."""
    module = str(function.__globals__.get("__name__"))
    if module.startswith("torch.nn.modules."):
        return True
    return module.partition(".")[0] not in ("torch", "numpy") and not _is_of_python(function.__code__)


def _is_of_python(code: CodeType) -> bool:
    """Whether code belongs to Python's own library."""
    file = code.co_filename
    return file.startswith("<frozen") or (file.startswith(_STDLIB) and "-packages" not in file)


def _own(owner: Any, name: str) -> Any:
    return getattr(owner, "__dict__", {}).get(name, ABSENT)


def _itself(function: Any) -> Any:
    return function


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return ABSENT


def _is_value(value: Any) -> bool:
    """Whether it is a number, text, container, or a value of torch or NumPy, with the attributes of its class."""
    kind = type(value)
    return kind in PLAIN_TYPES or kind in CONTAINERS or kind.__module__ in ("torch", "torch.return_types", "numpy")


def _is_context(value: Any) -> bool:
    """Whether it is a context of torch, or the object that a torch.autograd.Function gets."""
    return isinstance(value, _CONTEXTS)


def _is_of_user(kind: type) -> bool:
    return kind.__module__.partition(".")[0] not in (*_TRUSTED_MODULES, "collections", "enum")


def _name_of(function: Any) -> str:
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, type | ModuleType):
        return f"{class_name(type(owner))}.{function.__name__}"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    module = getattr(function, "__module__", None)
    return str(name) if module in (None, "builtins") else f"{module}.{name}".replace("torch._C.", "torch.")


def _label(owner: Any) -> str:
    named = isinstance(owner, type | ModuleType | FunctionType | BuiltinFunctionType)
    return str(owner.__name__) if named else type(owner).__name__


def _place_of(frame: FrameType | None) -> tuple[str, str] | None:
    """The followed function nearest to a frame, and its line."""
    while frame is not None and not is_instrumented(frame.f_globals):
        frame = frame.f_back
    return _place(frame.f_code, frame.f_lineno) if frame is not None else None


def _place_in(traceback: TracebackType | None) -> tuple[str, str] | None:
    """The followed function nearest to where an error was raised, and its line."""
    place = None
    while traceback is not None:
        if is_instrumented(traceback.tb_frame.f_globals):
            place = _place(traceback.tb_frame.f_code, traceback.tb_lineno)
        traceback = traceback.tb_next
    return place


def _place(code: CodeType, line: int) -> tuple[str, str]:
    return code.co_qualname, f"{short_path(code)}:{line}"
