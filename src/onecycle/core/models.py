"""The library's own models, which a bundle can rebuild without being given the class."""

import reprlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from onecycle.core.checks import check_fraction, check_int
from onecycle.errors import SettingError


class MLP(nn.Module):
    """A multi-layer perceptron: Linear layers with ReLU between them, none after the last.

    Args:
        sizes: Number of inputs, widths of the hidden layers, number of outputs.

    Shape:
        Input (n, sizes[0]), or anything that flattens to it; output (n, sizes[-1]), logits.

    Attributes:
        sizes: The sizes.
        layers: The layers, an nn.Sequential.

    Raises:
        SettingError: For fewer than two sizes, and for anything that is not a positive integer.

    Example:
        >>> model = MLP(784, 50, 10)  # the lesson's network
        >>> model(torch.zeros(64, 28, 28)).shape
        torch.Size([64, 10])
    """

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = tuple(check_int(size, "a size of MLP", least=1) for size in sizes)
        if len(sizes) < 2:
            raise SettingError(f"MLP{sizes}: expected at least two sizes, for example MLP(784, 50, 10)")
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(self.sizes):
            layers += [_linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, sizes[-1]).

        Args:
            x: Rows (n, ...), flattened to (n, sizes[0]).
        """
        return self.layers(x.flatten(1))


class TabularModel(nn.Module):
    """Embeddings of categories beside numbers, then a multi-layer perceptron.

    An embedding has min(600, round(1.6 * size ** 0.56)) numbers, fastai's rule. Code 0 stands for an unseen category
    and is a vector of zeros, and so is a code out of range. A number enters as it is and as `ramps`, each of which
    rises from 0 to 1 over its part of -2 to 2: with them the first layer can bend where it must (piecewise linear
    encoding, https://arxiv.org/abs/2203.05556).

    Args:
        numbers: Number of numeric columns.
        sizes: Number of codes of each categorical column.
        outputs: Number of outputs.
        hidden: Widths of the hidden layers, each followed by ReLU and dropout; by default (256, 128).
        dropout: Fraction of a hidden layer's outputs that is zeroed in training.
        ramps: Number of ramps for each numeric column.

    Shape:
        Input (n, numbers + len(sizes)) as `Features.transform` returns it: numbers first, then codes. Output
        (n, outputs).

    Raises:
        SettingError: If a size cannot be used, or there are no columns.

    Example:
        >>> model = TabularModel(3, [5, 12], 2)  # 3 numbers, 2 categories, 2 classes
        >>> model(torch.zeros(64, 5)).shape
        torch.Size([64, 2])
    """

    _sizes: torch.Tensor
    _feet: torch.Tensor  # where each ramp starts

    def __init__(
        self,
        numbers: int,
        sizes: Sequence[int],
        outputs: int,
        hidden: Sequence[int] | None = None,
        dropout: float = 0.1,
        ramps: int = 8,
    ) -> None:
        super().__init__()
        self.numbers, self.outputs = check_int(numbers, "numbers", least=0), check_int(outputs, "outputs", least=1)
        self.sizes = [check_int(size, "a size", least=1) for size in sizes]
        self.hidden = [
            check_int(width, "a hidden width", least=1) for width in ((256, 128) if hidden is None else hidden)
        ]
        self.dropout = check_fraction(dropout, "dropout", "the share of a layer's numbers that is dropped")
        self.ramps = check_int(ramps, "ramps", least=0)
        if not numbers and not self.sizes:
            raise SettingError("TabularModel(0, []) has no columns; expected at least one number or category")
        widths = _embedding_widths(self.sizes)
        embeddings = [nn.Embedding(size, width, padding_idx=0) for size, width in zip(self.sizes, widths, strict=True)]
        for embedding in embeddings:
            nn.init.normal_(embedding.weight, std=0.05)  # small beside the numbers, so that a rare code says little
            embedding.weight.data[0] = 0
        self.embeddings = nn.ModuleList(embeddings)
        self.register_buffer("_sizes", torch.tensor(self.sizes, dtype=torch.long), persistent=False)
        self.register_buffer("_feet", torch.arange(ramps) * (4 / max(ramps, 1)) - 2, persistent=False)
        layers: list[nn.Module] = []
        inputs = numbers * (1 + ramps) + sum(widths)
        for width in self.hidden:
            layers += [_linear(inputs, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
            inputs = width
        self.layers = nn.Sequential(*layers, _linear(inputs, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs (n, outputs).

        Args:
            x: Rows (n, numbers + categories), float32.
        """
        numbers, codes = x[:, : self.numbers], x[:, self.numbers :].long()
        codes = torch.where((codes >= 0) & (codes < self._sizes), codes, 0)
        vectors = [embedding(codes[:, i]) for i, embedding in enumerate(self.embeddings)]
        if self.ramps:
            ramps = ((numbers.unsqueeze(2) - self._feet) * (self.ramps / 4)).clamp(0, 1)
            vectors.append(ramps.flatten(1))
        return self.layers(torch.cat([numbers, *vectors], 1))


def _embedding_widths(sizes: Sequence[int]) -> list[int]:
    return [min(600, round(1.6 * size**0.56)) for size in sizes]


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer. Raises SettingError if it does not fit into memory."""
    try:
        return nn.Linear(inputs, outputs)
    except RuntimeError as error:  # torch has no error class of its own for that
        raise SettingError(
            f"a layer of {inputs:,} x {outputs:,} weights does not fit into memory; expected smaller ones"
        ) from error


def architecture(model: nn.Module) -> dict[str, Any] | None:
    """Return the name and sizes to rebuild `model` from, as JSON values.

    None if it is not one of the library's, or if it was changed since: other layers, hooks or dtypes.
    """
    if type(model) is MLP:
        description: dict[str, Any] = {"name": "MLP", "sizes": list(model.sizes)}
    elif type(model) is TabularModel:
        names = ("numbers", "sizes", "outputs", "hidden", "dropout", "ramps")
        description = {"name": "TabularModel", **{name: getattr(model, name) for name in names}}
    else:
        return None
    try:
        with torch.device("meta"):  # takes no memory
            built = build(description)
    except SettingError:
        return None
    return description if _structure(model) == _structure(built) else None


def _structure(model: nn.Module) -> list[Any]:
    """Return all that decides what a model computes, besides its numbers."""
    modules = [
        (
            name,
            type(module),
            module.extra_repr(),
            "forward" in vars(module),
            *(bool(vars(module)[hooks]) for hooks in _HOOKS),
        )
        for name, module in model.named_modules(remove_duplicate=False)
    ]
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return [modules, [(name, tensor.shape, tensor.dtype) for name, tensor in tensors]]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def build(description: dict[str, Any], n_weights: int | None = None) -> nn.Module:
    """Return the model that `architecture` described, with fresh weights.

    Raises SettingError for anything else and, before it takes memory, for a model of more than `n_weights` weights.
    """
    sizes = dict(description)
    name = sizes.pop("name", None)
    if name not in ("MLP", "TabularModel"):
        raise SettingError(f"unknown architecture {name!r}; expected MLP or TabularModel")
    try:
        if n_weights is not None and (count := _count_weights(description)) > n_weights:
            raise SettingError(f"describes a {name} of {count:,} weights; expected {n_weights:,}")
        return MLP(*(int(size) for size in sizes["sizes"])) if name == "MLP" else TabularModel(**sizes)
    except SettingError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:  # what torch raises for odd sizes
        raise SettingError(f"{reprlib.repr(description)} does not describe a {name} ({error})") from error


def _count_weights(description: dict[str, Any]) -> int:
    sizes, embedded = description["sizes"], 0
    if description["name"] == "TabularModel":
        widths = _embedding_widths(sizes)
        embedded = sum(size * width for size, width in zip(sizes, widths, strict=True))
        inputs = description["numbers"] * (1 + description["ramps"]) + sum(widths)
        sizes = [inputs, *description["hidden"], description["outputs"]]
    return embedded + sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
