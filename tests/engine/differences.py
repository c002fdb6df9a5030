"""Run a generated case with the eager and with another engine, and compare everything that a fit can change."""

import contextlib
import copy
import hashlib
import importlib.util
import io
import math
import os
import random
import re
import sys
import time
import types
import warnings
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Generator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.generated import is_standard, source
from onecycle import Learner
from onecycle.engine import engine as engine_module
from onecycle.train import loop as loop_module

SAME_CAPTURED = "same, captured"
SAME_EAGER = "same, eager"
SAME_ERROR = "same, raises"
NOT_DETERMINISTIC = "eager, twice, differs"
SILENT_DIFFERENCE = "SILENT DIFFERENCE"
DIFFERENCE = "DIFFERENCE WITH A REASON"
CRASH = "CRASH"
NO_REASON = "EAGER WITHOUT A WORD"
UNREADABLE = "UNREADABLE REASON"
NEW_WARNING = "NEW WARNING"
GOOD = (SAME_CAPTURED, SAME_EAGER, SAME_ERROR, NOT_DETERMINISTIC)

_UNREADABLE = re.compile(
    r"\n|0x[0-9a-f]{6}|invalid python storage|proper Tensor|torch\._C|aten::|Traceback|NameError|\bNone\b.*\bNone\b|g\d+\b is not|<built-in|<function|<class"
)


@dataclass
class Outcome:
    """What a run left behind: every value by the way to it."""

    values: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    captured: bool = False
    reason: str | None = None
    lines: list[str] = field(default_factory=list)
    warnings: set[str] = field(default_factory=set)


@dataclass
class Result:
    """The verdict on a case."""

    number: int
    verdict: str
    detail: str = ""
    reason: str | None = None
    standard: bool = False
    seconds: float = 0.0


def judged(number: int, folder: Path, engine: str | None = None) -> Result:
    """Compare the engines on a case. Every eighth case lets "auto" decide, which then captures any number of steps."""
    engine = engine or ("auto" if number % 8 == 5 else "fast")
    return judged_text(source(number), number, folder, engine, is_standard(number))


def judged_text(text: str, number: int, folder: Path, engine: str = "fast", standard: bool = False) -> Result:
    """The same for the text of a case."""
    started = time.perf_counter()
    path = folder / f"case_{number}.py"
    path.write_text(text)
    with _capturing_from(1), _losses_read_each_epoch():
        eager, other = run(path, "eager"), run(path, engine)
        verdict, detail = _verdict(eager, other)
        if verdict == DIFFERENCE and differences(eager.values, run(path, "eager").values):
            verdict, detail = (
                NOT_DETERMINISTIC,
                "eager differs from eager, as a scripted module's first runs do",
            )
    for left in folder.glob(f"case_{number}.py*"):
        left.unlink()
    return Result(number, verdict, detail, other.reason, standard, time.perf_counter() - started)


def _verdict(eager: Outcome, other: Outcome) -> tuple[str, str]:
    shown = [line for line in other.lines if line.startswith("engine:")]
    if other.error != eager.error:
        return CRASH if eager.error is None else SILENT_DIFFERENCE, f"eager: {eager.error}; other: {other.error}"
    differing = differences(eager.values, other.values)
    if differing:
        return DIFFERENCE if other.reason else SILENT_DIFFERENCE, "; ".join(differing[:6])
    if new := other.warnings - eager.warnings:
        return NEW_WARNING, "; ".join(sorted(new))
    if eager.error is not None:
        return SAME_ERROR, eager.error
    if other.reason is not None:
        if _UNREADABLE.search(other.reason) or len(other.reason) > 400:
            return UNREADABLE, other.reason
        if not any(other.reason in line for line in shown):
            return NO_REASON, f"the reason is not shown: {other.reason}"
        return SAME_EAGER, other.reason
    return (SAME_CAPTURED, "") if other.captured else (NO_REASON, "neither captured nor a reason")


@contextlib.contextmanager
def _capturing_from(steps: int) -> Generator[None]:
    """Let "auto" capture fits of that many steps."""
    before, engine_module.MIN_STEPS_TO_CAPTURE = engine_module.MIN_STEPS_TO_CAPTURE, steps
    try:
        yield
    finally:
        engine_module.MIN_STEPS_TO_CAPTURE = before


@contextlib.contextmanager
def _losses_read_each_epoch() -> Generator[None]:
    """Read losses at the end of an epoch, not after some time too: where a fit ends at a loss that is NaN follows."""
    before, loop_module.READ_SECONDS = loop_module.READ_SECONDS, math.inf
    try:
        yield
    finally:
        loop_module.READ_SECONDS = before


def run(path: Path, engine: str) -> Outcome:
    """Import the module of a case anew, fit twice, validate, and note down everything that is left."""
    outcome, environ = Outcome(), os.environ.copy()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    output = io.StringIO()
    learn, module = None, None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            with contextlib.redirect_stdout(output):
                module = imported(path)
                learn = _learner(module, engine)
                _train(learn, module, outcome.values)
        except Exception as error:
            outcome.error = f"{type(error).__name__}: {str(error)[:300]}"
    outcome.lines = output.getvalue().splitlines()
    values = outcome.values
    values["lines"] = repr([line for line in outcome.lines if line.startswith("case:")])
    texts = [f"{w.category.__name__}: {w.message}"[:200] for w in warned]
    outcome.warnings = set(texts)  # torch gives some of its own once a process
    values["warnings"] = sum("experiment" in text for text in texts)
    values["python's generator"] = hashed(repr(random.getstate()))
    values["numpy's generator"] = hashed(repr(np.random.get_state(legacy=False)))
    values["torch's generator"] = hashed(torch.get_rng_state().numpy().tobytes())
    values["environ"] = repr(sorted(item for item in os.environ.items() if item[0].startswith("CASE_")))
    values["files"] = repr({left.name: left.read_text() for left in sorted(path.parent.glob(f"{path.name}.*"))})
    values["modes"] = repr((torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()))
    if learn is not None:
        outcome.captured = getattr(learn.engine, "captured", None) is not None
        outcome.reason = getattr(learn.engine, "fallback_reason", None)
        if module is not None and outcome.error is None:
            flatten("optimizer", learn.opt.state_dict() if learn.opt else None, values)
    if module is not None:
        seen: set[int] = set()
        for name, value in vars(module).items():
            if not name.startswith("__"):
                flatten(name, value, values, seen, module.__name__)
    sys.modules.pop(path.stem, None)
    os.environ.clear()
    os.environ.update(environ)
    torch.set_grad_enabled(True)
    for hooks in [value for name, value in vars(nn.modules.module).items() if name.startswith("_global_")]:
        if isinstance(hooks, dict):
            hooks.clear()
    for left in path.parent.glob(f"{path.name}.*"):
        left.unlink()
    return outcome


def imported(path: Path) -> types.ModuleType:
    """The module of a case, as if for the first time."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def _learner(module: Any, engine: str) -> Learner:
    module.MODEL = module.make_model()
    callbacks = module.CALLBACKS = module.make_callbacks()
    learn = Learner(
        module.make_data(), module.MODEL, module.LOSS, engine=engine, callbacks=callbacks, **module.settings()
    )
    module.USED_LOSS = learn.loss_func
    if module.SPLIT:
        learn.split(module.MODEL.head)
    return learn


def _train(learn: Learner, module: Any, values: dict[str, Any]) -> None:
    first, second = module.EPOCHS
    try:
        learn.fit_one_cycle(first, module.LR)
        module.between(learn)
    finally:
        _note_record("first fit", learn, values)
    try:
        learn.fit(second, module.LR / 2, wd=0.1)
    finally:
        _note_record("second fit", learn, values)
    module.MODEL = learn.model
    values["validate"] = repr(learn.validate())
    values["validate train"] = repr(learn.validate("train"))


def _note_record(name: str, learn: Learner, values: dict[str, Any]) -> None:
    record = learn.recorder.record
    for part in ("batch_losses", "losses", "lrs", "moms", "val_losses", "metrics", "stopped"):
        values[f"{name}: {part}"] = repr(getattr(record, part))


def differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    """The ways to what differs."""
    found = []
    for name in [*one, *(name for name in two if name not in one)]:
        a, b = one.get(name, "nothing"), two.get(name, "nothing")
        if a != b:
            found.append(f"{name} is {_short(a)}, and {_short(b)}")
    return sorted(found, key=lambda text: ".grad is " in text)  # those of parameters that nobody trains come last


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:56]}…"


def hashed(value: str | bytes) -> str:
    """A short text that stands for a long one."""
    return hashlib.sha256(value if isinstance(value, bytes) else value.encode()).hexdigest()[:16]


def flatten(name: str, value: Any, into: dict[str, Any], seen: set[int] | None = None, module: str = "") -> None:
    """Write down a value and all that it holds, by the way to it: what is the same has the same entries."""
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        into[name] = _tensor_text(value)
        if value.grad is not None if value.is_leaf else False:
            into[f"{name}.grad"] = _tensor_text(value.grad)
        hooks = getattr(value, "_backward_hooks", None)
        into[f"{name} hooks"] = len(hooks or ()) if isinstance(hooks, dict) else 0
        return
    if value is None or isinstance(
        value, (bool, int, float, complex, str, bytes, bytearray, torch.dtype, torch.device, torch.Size)
    ):
        into[name] = f"{type(value).__name__} {value!r}"
        return
    if isinstance(value, np.ndarray | np.generic):
        into[name] = f"{value.dtype} {value.shape} {hashed(value.tobytes() if value.dtype != object else repr(value))}"
        return
    if isinstance(value, types.ModuleType):
        if value.__spec__ is None:
            for key, item in vars(value).items():
                if not key.startswith("__"):
                    flatten(f"{name}.{key}", item, into, seen, module)
        return
    if id(value) in seen:
        return
    seen.add(id(value))

    def inside(key: Any, item: Any) -> None:
        flatten(f"{name}{key}", item, into, seen, module)

    if isinstance(value, torch.Generator):
        into[name] = hashed(value.get_state().numpy().tobytes())
    elif isinstance(value, random.Random):
        into[name] = hashed(repr(value.getstate()))
    elif isinstance(value, np.random.Generator):
        into[name] = hashed(repr(value.bit_generator.state))
    elif isinstance(value, np.random.RandomState):
        into[name] = hashed(repr(value.get_state(legacy=False)))
    elif isinstance(value, ContextVar):
        inside(".get()", value.get(None))
    elif isinstance(value, weakref.ref):
        inside("()", value())
    elif isinstance(value, torch.jit.ScriptModule):
        for key, item in value.state_dict().items():
            inside(f".{key}", item)
        if hasattr(value, "n"):
            inside(".n", value.n)
    elif isinstance(value, Mapping):
        into[name] = f"{type(value).__name__} of {len(value)}"
        for key, item in value.items():
            if not isinstance(item, weakref.ref):
                inside(f"[{key!r}]" if isinstance(key, (str, int, tuple, bool)) else f"[{type(key).__name__}]", item)
    elif isinstance(value, (list, tuple, deque)):
        into[name] = f"{type(value).__name__} of {len(value)}"
        for i, item in enumerate(value):
            inside(f"[{i}]", item)
    elif isinstance(value, (set, frozenset)):
        into[name] = repr(sorted(map(repr, value)))
    elif isinstance(value, partial):
        inside(".func", value.func)
        inside(".args", value.args)
        inside(".keywords", value.keywords)
    elif isinstance(value, types.MethodType):
        inside(".__self__", value.__self__)
    elif isinstance(value, types.FunctionType):
        if value.__module__ == module:
            for i, cell in enumerate(value.__closure__ or ()):
                with contextlib.suppress(ValueError):
                    inside(f" cell {value.__code__.co_freevars[i]}", cell.cell_contents)
            inside(".__defaults__", value.__defaults__)
            inside(".__dict__", value.__dict__)
    elif isinstance(value, types.GeneratorType):
        into[name] = (
            "finished"
            if value.gi_frame is None
            else repr({k: v for k, v in value.gi_frame.f_locals.items() if isinstance(v, int)})
        )
    elif isinstance(value, type):
        if value.__module__ == module:
            for key, item in vars(value).items():
                if not key.startswith("__") and key not in ("_abc_impl", "_member_map_", "_value2member_map_"):
                    inside(f".{key}", item)
    elif isinstance(value, nn.Module):
        into[name] = type(value).__name__
        for key, item in vars(value).items():
            if "hook" in key:
                into[f"{name}.{key}"] = len(item) if isinstance(item, Mapping) else repr(item)
            else:
                inside(f".{key}", item)
    elif type(value).__module__ == "itertools":
        with contextlib.suppress(TypeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copied = copy.copy(value)
            into[name] = repr([next(copied) for _ in range(4)])
    elif type(value).__module__ in ("array", "decimal", "fractions"):
        into[name] = repr(value)
    else:
        into[name] = type(value).__name__
        slots = [
            slot
            for kind in type(value).__mro__
            for slot in getattr(kind, "__slots__", ())
            if type(value).__module__ == module
        ]
        held = {slot: getattr(value, slot) for slot in slots if hasattr(value, slot)} | getattr(value, "__dict__", {})
        if type(value).__module__.partition(".")[0] not in ("torch", "numpy"):
            for key, item in held.items():
                inside(f".{key}", item)


def _tensor_text(tensor: torch.Tensor) -> str:
    if tensor.is_sparse:
        tensor = tensor.to_dense()
    plain = tensor.detach()
    if plain.dtype == torch.bfloat16:
        plain = plain.view(torch.int16)
    raw = plain.cpu().contiguous().numpy().tobytes()
    few = f" {plain.flatten().tolist()}" if plain.numel() <= 3 else ""
    kind = "inference " if tensor.is_inference() else ""
    way = f" by {type(tensor.grad_fn).__name__}" if tensor.grad_fn is not None else ""
    return f"{kind}{tensor.dtype} {tuple(tensor.shape)} {'trained ' if tensor.requires_grad else ''}{hashed(raw)}{few}{way}"


def summary(results: list[Result], seconds: float) -> str:
    """The figures: silent differences, crashes, share captured, reasons by frequency."""
    verdicts = Counter(result.verdict for result in results)
    standard = [result for result in results if result.standard and result.verdict != SAME_ERROR]
    captured = sum(result.verdict == SAME_CAPTURED for result in standard)
    lines = [f"{len(results):,} cases in {seconds:.0f} s ({1000 * seconds / max(len(results), 1):.0f} ms each)"]
    lines += [f"  {verdict}: {count:,} ({count / len(results):.1%})" for verdict, count in verdicts.most_common()]
    lines.append(f"  of {len(standard):,} of standard layers only, {captured:,} are captured")
    reasons = Counter(re.sub(r"\d+", "N", result.reason)[:150] for result in results if result.reason)
    lines += ["  reasons:", *(f"    {count:5,}  {reason}" for reason, count in reasons.most_common(40))]
    return "\n".join(lines)


__all__ = ["GOOD", "SAME_CAPTURED", "SAME_ERROR", "OrderedDict", "Result", "judged", "judged_text", "run", "summary"]
