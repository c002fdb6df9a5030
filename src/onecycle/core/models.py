"""The library's own models: bundles can rebuild these without being given the class."""

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

    `MLP(784, 50, 10)` is the lesson's network. Takes (n, sizes[0]), or anything that flattens to it; gives logits
    (n, sizes[-1]). Raises SettingError for fewer than two sizes, and for what is no size.
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
        """Logits (n, sizes[-1]) of rows (n, ...)."""
        return self.layers(x.flatten(1))


class TabularModel(nn.Module):
    """Embeddings of categories beside numbers, then a multi-layer perceptron.

    Takes the matrix that `Features.transform` makes, (n, numbers + len(sizes)): numbers first, then the codes of
    categories of so many `sizes`; gives (n, outputs). An embedding has min(600, round(1.6 * size ** 0.56)) numbers,
    fastai's rule; code 0, unseen, is a vector of zeros, and so is a code out of range. `hidden` are the widths of the
    layers (by default 256 and 128), each followed by ReLU and by `dropout`. Raises SettingError for what is no size.

    A number enters as it is and as so many `ramps`, each of which rises from 0 to 1 over its part of -2 to 2: with
    them the first layer can bend where it must (piecewise linear encoding, https://arxiv.org/abs/2203.05556).
    """

    _sizes: torch.Tensor
    _feet: torch.Tensor  # of the ramps

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
        widths = _widths(self.sizes)
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
        """Outputs (n, outputs) of rows (n, numbers + categories)."""
        numbers, codes = x[:, : self.numbers], x[:, self.numbers :].long()
        codes = torch.where((codes >= 0) & (codes < self._sizes), codes, 0)
        vectors = [embedding(codes[:, i]) for i, embedding in enumerate(self.embeddings)]
        if self.ramps:
            ramps = ((numbers.unsqueeze(2) - self._feet) * (self.ramps / 4)).clamp(0, 1)
            vectors.append(ramps.flatten(1))
        return self.layers(torch.cat([numbers, *vectors], 1))


def _widths(sizes: Sequence[int]) -> list[int]:
    """How many numbers the embeddings have."""
    return [min(600, round(1.6 * size**0.56)) for size in sizes]


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer. Raises SettingError where there is no memory for it."""
    try:
        return nn.Linear(inputs, outputs)
    except RuntimeError as error:  # torch has no error of its own for that
        raise SettingError(
            f"a layer of {inputs:,} x {outputs:,} weights does not fit into memory; expected smaller ones"
        ) from error


def architecture(model: nn.Module) -> dict[str, Any] | None:
    """How to rebuild `model` as JSON, or None where it is not one of the library's own."""
    if type(model) is MLP:
        return {"name": "MLP", "sizes": list(model.sizes)}
    if type(model) is TabularModel:
        names = ("numbers", "sizes", "outputs", "hidden", "dropout", "ramps")
        return {"name": "TabularModel", **{name: getattr(model, name) for name in names}}
    return None


def build(description: dict[str, Any], weights: int | None = None) -> nn.Module:
    """The model, with fresh weights, that `architecture` described. Raises SettingError for anything else.

    With `weights`, how many it is known to have, also for one of more, before it takes memory.
    """
    given = dict(description)
    name = given.pop("name", None)
    if name not in ("MLP", "TabularModel"):
        raise SettingError(f"unknown architecture {name!r}; expected MLP or TabularModel")
    try:
        if weights is not None and (count := _count(description)) > weights:
            raise SettingError(f"describes a {name} of {count:,} weights; expected {weights:,}")
        if name == "MLP":
            return MLP(*(int(size) for size in given["sizes"]))
        return TabularModel(**given)
    except SettingError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:  # what torch raises for odd sizes
        raise SettingError(f"{reprlib.repr(description)} does not describe a {name} ({error})") from error


def _count(description: dict[str, Any]) -> int:
    """How many weights the model has that `architecture` described."""
    sizes, embedded = description["sizes"], 0
    if description["name"] == "TabularModel":
        widths = _widths(sizes)
        embedded = sum(size * width for size, width in zip(sizes, widths, strict=True))
        inputs = description["numbers"] * (1 + description["ramps"]) + sum(widths)
        sizes = [inputs, *description["hidden"], description["outputs"]]
    return embedded + sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
