"""The functions that a traced model may call: torch's arithmetic by name, and nothing that reaches beyond tensors.

No operator here reads or writes a file, prints, takes another's memory (`set_`, `resize_`, `as_strided`, `from_file`)
or leaves its indices unchecked (`_unsafe_index`). The list is part of the bundle format: names are only added.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_LAYERS = """
linear bilinear matmul mm bmm addmm baddbmm addmv mv dot outer einsum embedding conv1d conv2d conv3d conv_transpose1d
conv_transpose2d conv_transpose3d convolution batch_norm instance_norm layer_norm group_norm rms_norm dropout
feature_dropout alpha_dropout feature_alpha_dropout scaled_dot_product_attention avg_pool1d avg_pool2d avg_pool3d
max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d
upsample_trilinear3d pixel_shuffle pixel_unshuffle channel_shuffle grid_sampler affine_grid_generator pad
constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
replication_pad3d cosine_similarity pairwise_distance
"""
_ACTIVATIONS = """
relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh hardshrink softshrink
softplus threshold log_sigmoid sigmoid tanh softmax log_softmax glu logit
"""
_NUMBERS = """
abs neg exp exp2 expm1 log log1p log2 log10 sqrt rsqrt square sin cos tan asin acos atan atan2 sinh cosh asinh acosh
atanh erf erfc floor ceil round trunc frac sign reciprocal pow add sub rsub mul multiply div divide true_divide
floor_divide remainder fmod maximum minimum fmax fmin eq ne lt le gt ge isnan isinf isfinite logical_and logical_or
logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor __and__ __or__ __xor__ where clamp clamp_min
clamp_max clip lerp addcmul addcdiv nan_to_num sinc max min amax amin argmax argmin sum mean prod std var std_mean
var_mean norm linalg_vector_norm logsumexp cumsum cumprod any all topk sort argsort fft_fft fft_ifft fft_rfft fft_irfft
fft_fft2 fft_ifft2 real imag angle view_as_real
"""
_SHAPES = """
view reshape flatten unflatten squeeze unsqueeze expand expand_as view_as reshape_as permute transpose t numpy_T
swapaxes swapdims movedim contiguous clone detach alias slice select narrow split split_with_sizes chunk unbind cat
concat concatenate stack hstack vstack dstack repeat repeat_interleave tile roll flip rot90 index index_select gather
masked_fill scatter scatter_add index_add index_put index_fill take_along_dim tril triu diagonal diag diag_embed unfold
im2col col2im one_hot bucketize meshgrid copy fill zeros ones full zeros_like ones_like full_like new_zeros new_ones
new_full arange linspace scalar_tensor eye to type_as lift_fresh_copy broadcast_to broadcast_tensors
"""
_IN_PLACE = """
add sub mul div relu leaky_relu elu hardswish hardsigmoid hardtanh silu sigmoid tanh clamp clamp_min clamp_max
masked_fill fill copy dropout squeeze unsqueeze detach exp neg sqrt pow
"""
OPERATORS = frozenset(f"{_LAYERS} {_ACTIVATIONS} {_NUMBERS} {_SHAPES}".split())
IN_PLACE = frozenset(_IN_PLACE.split())
_RESULT_TYPES = {"Tensor", "List[Tensor]"}


# --- arithmetic of shapes ---------------------------------------------------------------------------------------------


def _on_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` for plain numbers only, so that no list and no huge integer grows from what a file says."""

    def checked(*numbers: Any) -> Any:
        if not all(isinstance(number, bool | int | float) for number in numbers):
            raise TypeError("arithmetic of shapes takes numbers")
        result = function(*numbers)
        if abs(result) > 2**63:
            raise ValueError("a size does not fit into 64 bits")
        return result

    return checked


def _item(results: Any, index: int) -> Any:
    if not isinstance(results, list | tuple):
        raise TypeError("only a list of results has items")
    return results[index]


def _size(tensor: Any, dim: int) -> int:
    if not isinstance(tensor, Tensor):
        raise TypeError("only a tensor has a size")
    return tensor.shape[dim]


_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", *_COMPARISONS)
} | {"max": max, "min": min}


# --- recurrent layers, whose operators do not check their arguments ---------------------------------------------------

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _checked_rnn(name: str) -> Callable[..., Any]:
    """Return the operator of a recurrent layer, which raises ValueError unless all shapes fit each other."""
    rnn: Any = getattr(torch.ops.aten, name).input

    def call(
        x: Tensor,
        state: Tensor | Sequence[Tensor],
        weights: Sequence[Tensor],
        has_biases: bool,
        layers: int,
        dropout: float,
        training: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        states = list(state) if name == "lstm" else [state]
        tensors = [x, *states, *weights]
        if not all(isinstance(tensor, Tensor) for tensor in tensors) or x.ndim != 3 or training:
            raise ValueError(f"{name}: expected tensors (rows, steps, numbers), and no training")
        directions = 2 if bidirectional else 1
        if len(weights) != layers * directions * (4 if has_biases else 2):  # first, as `layers` may be any number
            raise ValueError(f"{name}: {len(weights)} weights are not those of {layers} layers")
        if len({(tensor.dtype, tensor.device) for tensor in tensors if isinstance(tensor, Tensor)}) > 1:
            raise ValueError(f"{name}: expected tensors of one dtype on one device")
        rows, width = x.shape[0 if batch_first else 1], weights[1].shape[-1]
        expected = [(layers * directions, rows, width)] * len(states)
        for layer in range(layers):
            inputs, outputs = x.shape[2] if layer == 0 else width * directions, _GATES[name] * width
            biases = [(outputs,)] * 2 if has_biases else []
            expected += [(outputs, inputs), (outputs, width), *biases] * directions
        shapes = [tuple(tensor.shape) for tensor in tensors[1:] if isinstance(tensor, Tensor)]
        if shapes != expected:
            raise ValueError(f"{name}: weights and states have shapes {shapes}; expected {expected}")
        return rnn(x, state, weights, has_biases, layers, dropout, training, bidirectional, batch_first)

    return call


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"number.{name}": _on_numbers(function) for name, function in _ARITHMETIC.items()},
    "item": _item,
    "size": _size,
    **{f"aten.{name}.input": _checked_rnn(name) for name in _GATES},
}
"""Functions that are not called as torch has them, by their name in a file."""


# --- names ------------------------------------------------------------------------------------------------------------


def function_name(target: Any) -> str | None:
    """Return the name in a file of a function in a graph of torch.export, or None if it may not be called."""
    if isinstance(target, torch._ops.OpOverload):  # pyright: ignore[reportPrivateUsage] -- its public name is this one
        name = str(target)  # for example aten.linear.default
        return "size" if name == "aten.sym_size.int" else name if is_operator(name) or name in FUNCTIONS else None
    if target is operator.getitem:
        return "item"
    names = {function: f"number.{name}" for name, function in _ARITHMETIC.items()}
    names |= {torch.sym_max: "number.max", torch.sym_min: "number.min"}
    return names.get(target)


def is_operator(name: str) -> bool:
    """Whether `name`, for example "aten.linear.default", is an operator that may be called."""
    namespace, _, rest = name.partition(".")
    base, _, overload = rest.partition(".")
    is_listed = base in OPERATORS or (base.endswith("_") and base.removesuffix("_") in IN_PLACE)
    is_scripted = overload.startswith("prim_")  # for TorchScript's interpreter: they check nothing
    return namespace == "aten" and is_listed and not is_scripted and overload.replace("_", "").isalnum()


def function_by_name(name: str) -> Callable[..., Any] | None:
    """Return the function that has this name in a file, or None if there is none or it may not be called."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if not is_operator(name):
        return None
    _, base, overload = name.split(".")
    packet: Any = getattr(torch.ops.aten, base, None)
    if packet is None or overload not in packet.overloads():
        return None
    function = getattr(packet, overload)
    result_types = {str(value.type) for value in function._schema.returns}
    if not result_types or not result_types <= _RESULT_TYPES:  # torch has operators of lists and words of these names
        return None
    return function if base.endswith("_") or not function._schema.is_mutable else None  # none that fills `out`
