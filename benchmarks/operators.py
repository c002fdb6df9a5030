"""Compare torch's operators with and without a dispatch mode, which the tracer is.

torch's C++ code computes some functions in another way if a mode is on (`isTensorSubclassLike`). Where that gives other
values, a trace is not what an eager step does; `engine/trace.py` refuses these operators (`_TWO_WAYS`). This script
finds them in torch's own database of operators and their sample inputs. Run it for each new version of torch:

    pip install expecttest
    python benchmarks/operators.py          # about 75 s

It prints each function whose values differ, with the operators that only the traced run calls.
"""

import collections
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

SAMPLES = 6  # of each function, with and without gradients
UNDEFINED = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}


class Names(TorchDispatchMode):
    """Collects the names of the operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(map(copied, value))
    return {key: copied(item) for key, item in value.items()} if isinstance(value, dict) else value


def outputs_and_gradients(operator: Any, sample: Any) -> list[Tensor]:
    torch.manual_seed(0)
    first, args, kwargs = copied(sample.input), copied(sample.args), copied(sample.kwargs)
    leaves = [tensor for tensor in tensors_in([first, *args, *kwargs.values()]) if tensor.requires_grad]
    outputs = list(tensors_in(operator(first, *args, **kwargs)))
    squares = [(output * output).sum() for output in outputs if output.requires_grad and output.is_floating_point()]
    grads = torch.autograd.grad(torch.stack(squares).sum(), leaves, allow_unused=True) if squares and leaves else ()
    return [*outputs, *(grad for grad in grads if grad is not None)]


def are_equal(a: Tensor, b: Tensor) -> bool:
    a, b = (tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense() for tensor in (a, b))
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def compare(operator: Any, sample: Any) -> tuple[bool, set[str]] | None:
    """Whether the values are equal, and which operators only the traced run calls; None if it does not run."""
    try:
        with profile() as eager:
            expected = outputs_and_gradients(operator, sample)
        with Names() as mode:
            traced = outputs_and_gradients(operator, sample)
        same = len(expected) == len(traced) and all(map(are_equal, expected, traced))
    except Exception:  # a sample that is not meant to run so
        return None
    counts = collections.Counter(event.name for event in eager.function_events)
    return same, {name for name, count in collections.Counter(mode.names).items() if count > counts[name]}


def main() -> None:
    try:
        from torch.testing._internal.common_methods_invocations import op_db
    except ImportError as error:
        sys.exit(f"{error}: pip install expecttest")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    compared = 0
    for operator in op_db:
        differs, only_traced = False, set[str]()
        for with_grad in (True, False):
            if with_grad and not operator.supports_autograd:
                continue
            for sample in list(operator.sample_inputs("cpu", torch.float32, requires_grad=with_grad))[:SAMPLES]:
                found = compare(operator, sample)
                if found is not None:
                    compared += 1
                    differs, only_traced = differs or not found[0], only_traced | found[1]
        if differs and operator.name not in UNDEFINED:
            print(f"{operator.name}: other values; only traced: {', '.join(sorted(only_traced))}", flush=True)
    print(f"torch {torch.__version__}: {len(op_db)} functions, {compared:,} samples compared")


if __name__ == "__main__":
    main()
