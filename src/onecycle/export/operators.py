"""Of what a program may consist: torch's own arithmetic by name, and nothing that reaches beyond tensors.

No operator here reads or writes a file, prints, takes another's memory (`set_`, `resize_`, `as_strided`, `from_file`)
or leaves its indices unchecked (`_unsafe_index`). The list is part of the bundles' format: names are added, none goes.
"""

import operator
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
_GIVES = {"Tensor", "List[Tensor]"}
_LARGEST = 2**63


def _of_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` for plain numbers, so that no list and no huge integer grows from what a file says."""

    def checked(*numbers: Any) -> Any:
        if not all(isinstance(number, bool | int | float) for number in numbers):
            raise TypeError("arithmetic of shapes takes numbers")
        found = function(*numbers)
        if abs(found) > _LARGEST:
            raise ValueError("a size does not fit into 64 bits")
        return found

    return checked


def _item(values: Any, at: int) -> Any:
    if not isinstance(values, list | tuple):
        raise TypeError("only a list of results has items")
    return values[at]


def _size(tensor: Any, dim: int) -> int:
    if not isinstance(tensor, Tensor):
        raise TypeError("only a tensor has a size")
    return tensor.shape[dim]


_ARITHMETIC: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg")},
    **{name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "max": max,
    "min": min,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"number.{name}": _of_numbers(function) for name, function in _ARITHMETIC.items()},
    "item": _item,
    "size": _size,
    **RECURRENT,
}


def function_name(target: Any) -> str | None:
    """What a file calls a function of a traced graph; None where no program may call it."""
    if isinstance(target, torch._ops.OpOverload):  # pyright: ignore[reportPrivateUsage] -- its public name is this one
        name = str(target)  # for example aten.linear.default
        return "size" if name == "aten.sym_size.int" else name if is_operator(name) or name in RECURRENT else None
    if target is operator.getitem:
        return "item"
    known = {function: f"number.{name}" for name, function in _ARITHMETIC.items()}
    known |= {torch.sym_max: "number.max", torch.sym_min: "number.min"}
    return known.get(target)


def is_operator(name: str) -> bool:
    """Whether a program may call `name`, as `aten.linear.default` is written."""
    room, _, rest = name.partition(".")
    base, _, overload = rest.partition(".")
    listed = base in OPERATORS or (base.endswith("_") and base.removesuffix("_") in IN_PLACE)
    scripted = overload.startswith("prim_")  # of TorchScript's interpreter: they check nothing
    return room == "aten" and listed and not scripted and overload.replace("_", "").isalnum()


def function_called(name: str) -> Callable[..., Any] | None:
    """The function that a file calls `name`; None where there is none, or no program may call it."""
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if not is_operator(name):
        return None
    _, base, overload = name.split(".")
    packet: Any = getattr(torch.ops.aten, base, None)
    if packet is None or overload not in packet.overloads():
        return None
    function = getattr(packet, overload)
    gives = {str(value.type) for value in function._schema.returns}
    if not gives or not gives <= _GIVES:  # torch has operators of lists and words under the same names
        return None
    return function if base.endswith("_") or not function._schema.is_mutable else None  # none that fills `out`
