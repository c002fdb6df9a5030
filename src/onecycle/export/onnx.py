"""Export a model to ONNX, compared with the model before the file is written."""

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
    batches_of_several_sizes,
    exported_program,
    one_line,
    silence_torch_export,
)

_TOLERANCE = 1e-5


def write_onnx(path: Path, model: nn.Module, rows: list[Tensor], overwrite: bool, metadata: dict[str, Any]) -> None:
    """Write `model` in eval mode to `path`, for any number of rows.

    Raises SettingError without the extra, ModelError if the model cannot be converted or its ONNX returns numbers that
    differ by more than 1e-5, OutputError if `path` exists and `overwrite` is not set.
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
    name = type(model).__qualname__
    model = copy.deepcopy(model).cpu().eval()
    rows = at_least_two(rows)
    try:
        exported = exported_program(model, rows)
        with silence_torch_export():
            onnx_program: Any = torch.onnx.export(exported, dynamo=True, verbose=False)
            proto = onnx_program.model_proto
    except UntraceableError as reason:
        raise ModelError(f"{name} has no ONNX: {reason}") from reason
    except Exception as error:  # torch.onnx's errors have no common base
        raise ModelError(f"{name} has no ONNX: torch.onnx fails ({one_line(error)})") from error
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=json.dumps(value, default=str))
    content: bytes = proto.SerializeToString()
    session: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for batch in batches_of_several_sizes(rows):
        _compare(model, session, batch)
    with atomic_write(path) as file:
        file.write(content)


def _compare(model: nn.Module, session: Any, rows: list[Tensor]) -> None:
    """Raise ModelError if ONNX does not return the numbers of the model."""
    name, count = type(model).__qualname__, len(rows[0])
    with torch.no_grad():
        expected = model(*(x.clone() for x in rows)).numpy()
    names = [entry.name for entry in session.get_inputs()]
    try:
        (actual,) = session.run(None, {name: x.numpy() for name, x in zip(names, rows, strict=True)})
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(
            f"the ONNX of {name} fails for {count} rows ({one_line(error)}); nothing was written"
        ) from error
    if actual.shape != expected.shape or not np.allclose(
        actual, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
    ):
        difference = (
            f"by up to {np.abs(actual - expected).max():.1e}" if actual.shape == expected.shape else "in their shape"
        )
        raise ModelError(
            f"the ONNX of {name} and the model differ {difference} for {count} rows; expected at most "
            f"{_TOLERANCE:.0e}; nothing was written"
        )
