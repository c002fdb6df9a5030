"""Recurrent layers for programs: torch's operators behind the checks of nn.LSTM and nn.GRU.

The operators themselves take the sizes of weights on trust, because the layers check them; a file is no layer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _checked(name: str) -> Callable[..., Any]:
    operator: Any = getattr(torch.ops.aten, name).input

    def call(
        x: Tensor,
        state: Tensor | Sequence[Tensor],
        weights: Sequence[Tensor],
        biases: bool,
        layers: int,
        dropout: float,
        training: bool,
        both_ways: bool,
        batch_first: bool,
    ) -> Any:
        states = list(state) if name == "lstm" else [state]
        tensors = [x, *states, *weights]
        if not all(isinstance(tensor, Tensor) for tensor in tensors) or x.ndim != 3 or training:
            raise ValueError(f"{name}: expected tensors (rows, steps, numbers), and no training")
        ways = 2 if both_ways else 1
        if len(weights) != layers * ways * (4 if biases else 2):  # first, for `layers` may be any number
            raise ValueError(f"{name}: {len(weights)} weights are not those of {layers} layers")
        if len({(tensor.dtype, tensor.device) for tensor in tensors if isinstance(tensor, Tensor)}) > 1:
            raise ValueError(f"{name}: expected tensors of one dtype on one device")
        _, rows, numbers = x.shape if not batch_first else (x.shape[1], x.shape[0], x.shape[2])
        width = weights[1].shape[-1]
        expected = [(layers * ways, rows, width)] * (2 if name == "lstm" else 1)
        for layer in range(layers):
            inputs, outputs = numbers if not layer else width * ways, _GATES[name] * width
            expected += [(outputs, inputs), (outputs, width), *([(outputs,)] * 2 if biases else [])] * ways
        found = [tuple(tensor.shape) for tensor in tensors[1:] if isinstance(tensor, Tensor)]
        if found != expected:
            raise ValueError(f"{name}: weights and states have shapes {found}; expected {expected}")
        return operator(x, state, weights, biases, layers, dropout, training, both_ways, batch_first)

    return call


RECURRENT: dict[str, Callable[..., Any]] = {f"aten.{name}.input": _checked(name) for name in _GATES}
