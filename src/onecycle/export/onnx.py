"""A model as ONNX, checked against the model before the file gets its place."""

import copy
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onecycle.core.files import atomic_write
from onecycle.errors import ModelError, OutputError, SettingError
from onecycle.export.tracing import (
    UntraceableError,
    at_least_two,
    exported_program,
    of_several_counts,
    one_line,
    silence_torch_export,
)

_CLOSE = 1e-5


def write_onnx(path: Path, model: nn.Module, rows: list[Tensor], overwrite: bool, about: dict[str, Any]) -> None:
    """Write `model` in eval mode to `path`, the number of rows left open, `about` in its metadata.

    Raises SettingError without the extra, ModelError where there is no ONNX for it or it gives other numbers than the
    model by more than 1e-5, OutputError where something is at `path`.
    """
    if path.is_dir() or (path.exists() and not overwrite):
        raise OutputError(f"{path} exists; give another name, or ask for it to be replaced (overwrite=True)")
    try:
        onnxruntime: Any = import_module("onnxruntime")
        import_module("onnxscript")  # torch.onnx needs it, and would say so only later
    except ImportError as error:
        raise SettingError(
            'writing ONNX needs onnx and onnxruntime; install them with pip install "onecycle[onnx]"'
        ) from error
    whole = copy.deepcopy(model).cpu().eval()
    rows = at_least_two(rows)
    try:
        exported = exported_program(whole, rows)
        with silence_torch_export():
            made: Any = torch.onnx.export(exported, dynamo=True, verbose=False)
            proto = made.model_proto
    except UntraceableError as reason:
        raise ModelError(f"{type(model).__qualname__} has no ONNX: {reason}") from reason
    except Exception as error:  # torch.onnx's errors have no common base
        raise ModelError(f"{type(model).__qualname__} has no ONNX: torch.onnx fails ({one_line(error)})") from error
    for key, value in about.items():
        proto.metadata_props.add(key=key, value=json.dumps(value, default=str))
    content: bytes = proto.SerializeToString()
    session: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for some in of_several_counts(rows):
        _compare(whole, session, some)
    with atomic_write(path) as file:
        file.write(content)


def _compare(model: nn.Module, session: Any, rows: list[Tensor]) -> None:
    """Raises ModelError where ONNX gives other numbers than the model."""
    with torch.no_grad():
        expected = model(*(part.clone() for part in rows)).numpy()
    names = [entry.name for entry in session.get_inputs()]
    try:
        (found,) = session.run(None, {name: part.numpy() for name, part in zip(names, rows, strict=True)})
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(
            f"the ONNX of {type(model).__qualname__} fails for {len(rows[0])} rows ({one_line(error)}); "
            "nothing was written"
        ) from error
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=_CLOSE, atol=_CLOSE, equal_nan=True):
        apart = f"by up to {np.abs(found - expected).max():.1e}" if found.shape == expected.shape else "in their shape"
        raise ModelError(
            f"the ONNX of {type(model).__qualname__} and the model differ {apart} for {len(rows[0])} rows; expected at "
            f"most {_CLOSE:.0e}; nothing was written"
        )
