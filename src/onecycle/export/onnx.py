"""Export a model to ONNX, compared with the model before the file is written."""

import copy
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from onecycle.core.archives import Place, write_bytes
from onecycle.core.nested import count_rows, leaves_by_path, tensors_in
from onecycle.errors import ModelError, OutputError, SettingError
from onecycle.export.tracing import (
    UntraceableError,
    at_least_two,
    batches_of_several_sizes,
    exported_program,
    one_line,
    output_of,
    silence_torch_export,
)

_TOLERANCE = 1e-5
_DIGITS = str.maketrans({"[": "_", "]": None})


def write_onnx(place: Place, model: nn.Module, rows: list[Any], overwrite: bool, metadata: dict[str, Any]) -> None:
    """Write `model` in eval mode, for any number of rows. Nested outputs are named by their place: logits, aux_0.

    Raises SettingError without the extra, ModelError if the model cannot be converted or its ONNX returns numbers that
    differ by more than 1e-5, OutputError if `path` exists and `overwrite` is not set.
    """
    if isinstance(place, Path) and (place.is_dir() or (place.exists() and not overwrite)):
        raise OutputError(f"{place} exists; give another name, or ask for it to be replaced (overwrite=True)")
    try:
        onnxruntime: Any = import_module("onnxruntime")
        import_module("onnxscript")  # torch.onnx needs it, and would say so only later
    except ImportError as error:
        raise SettingError(
            'writing ONNX needs onnx and onnxruntime; install them with pip install "onecycle[onnx]"'
        ) from error
    name = type(model).__qualname__
    try:
        model, rows = copy.deepcopy(model).cpu().eval(), at_least_two(rows)
        outputs = leaves_by_path(output_of(model, rows))
        names = [_as_name(path) for path in outputs] if len(outputs) > 1 else None
        exported = exported_program(model, rows)
        with silence_torch_export():
            onnx_program: Any = torch.onnx.export(exported, dynamo=True, verbose=False, output_names=names)
            proto = onnx_program.model_proto
    except UntraceableError as reason:
        raise ModelError(f"{name} has no ONNX: {reason}") from reason
    except Exception as error:  # torch.onnx's errors have no common base
        raise ModelError(
            f"{name} has no ONNX: torch.onnx fails ({one_line(error)}); write it with other operators, or as a bundle "
            "(learn.export), which needs no ONNX"
        ) from error
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=json.dumps(value, default=str))
    content: bytes = proto.SerializeToString()
    session: Any = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for batch in batches_of_several_sizes(rows):
        _compare(model, session, batch)
    write_bytes(place, content)


def _as_name(path: str) -> str:
    """Return the name of an output: "aux_0" for ['aux'][0]."""
    return "_".join(re.findall(r"\w+", path)) if re.search(r"[a-zA-Z]", path) else "output" + path.translate(_DIGITS)


def _compare(model: nn.Module, session: Any, rows: list[Any]) -> None:
    """Raise ModelError if ONNX does not return the numbers of the model."""
    name, count = type(model).__qualname__, count_rows(rows)
    expected = [tensor.numpy() for tensor in tensors_in(output_of(model, rows))]
    names = [entry.name for entry in session.get_inputs()]
    try:
        actual = session.run(None, {name: x.numpy() for name, x in zip(names, tensors_in(rows), strict=True)})
    except Exception as error:  # onnxruntime's errors have no common base
        raise ModelError(
            f"the ONNX of {name} fails for {count} rows ({one_line(error)}); nothing was written"
        ) from error
    for x, y in zip(actual, expected, strict=True):
        if x.shape == y.shape and np.allclose(x, y, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
            continue
        difference = f"by up to {np.abs(x - y).max():.1e}" if x.shape == y.shape else "in their shape"
        raise ModelError(
            f"the ONNX of {name} and the model differ {difference} for {count} rows; expected at most "
            f"{_TOLERANCE:.0e}; nothing was written"
        )
