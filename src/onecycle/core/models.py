"""The library's own models: bundles can rebuild these without being given the class."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from onecycle.core.errors import SettingError


class MLP(nn.Module):
    """A multi-layer perceptron: Linear layers with ReLU between them, none after the last.

    `MLP(784, 50, 10)` is the lesson's network. Takes (n, sizes[0]), or anything that flattens to it; gives logits
    (n, sizes[-1]). Raises SettingError for fewer than two sizes or a size below 1.
    """

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        if len(sizes) < 2 or any(size < 1 for size in sizes):
            raise SettingError(f"MLP{sizes}: expected at least two sizes, each 1 or more, for example MLP(784, 50, 10)")
        self.sizes = sizes
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, sizes[-1]) of rows (n, ...)."""
        return self.layers(x.flatten(1))


class TabularModel(nn.Module):
    """Embeddings of categories beside numbers, then a multi-layer perceptron.

    Takes the matrix that `Features.transform` makes, (n, numbers + len(sizes)): numbers first, then the codes of
    categories of so many `sizes`; gives (n, outputs). Code 0, unseen, is a vector of zeros; so is one that is out of
    range. An embedding has min(600, round(1.6 * size ** 0.56)) numbers (fastai's rule). `hidden` are the widths of the
    layers, `dropout` the share that is dropped after each. Raises SettingError for sizes below 1.
    """

    def __init__(
        self,
        numbers: int,
        sizes: Sequence[int],
        outputs: int,
        hidden: Sequence[int] | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        hidden = list(hidden) if hidden is not None else [256, 128]
        if numbers < 0 or numbers + len(sizes) < 1 or outputs < 1 or min([*sizes, *hidden], default=1) < 1:
            raise SettingError(
                f"TabularModel({numbers}, {list(sizes)}, {outputs}, {hidden}): expected at least one column, and sizes "
                "of 1 or more"
            )
        self.numbers, self.sizes, self.outputs = numbers, list(sizes), outputs
        self.hidden, self.dropout = hidden, dropout
        widths = [min(600, round(1.6 * size**0.56)) for size in sizes]
        self.embeddings = nn.ModuleList(
            nn.Embedding(size, width, padding_idx=0) for size, width in zip(sizes, widths, strict=True)
        )
        for embedding in self.embeddings:
            nn.init.normal_(embedding.weight, std=0.05)
            embedding.weight.data[0] = 0
        self.register_buffer("_sizes", torch.tensor(self.sizes, dtype=torch.long), persistent=False)
        layers: list[nn.Module] = []
        inputs = numbers + sum(widths)
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs (n, outputs) of rows (n, numbers + categories)."""
        codes = x[:, self.numbers :].long()
        codes = torch.where((codes >= 0) & (codes < self._sizes), codes, 0)
        vectors = [embedding(codes[:, i]) for i, embedding in enumerate(self.embeddings)]
        return self.layers(torch.cat([x[:, : self.numbers], *vectors], 1))


def architecture(model: nn.Module) -> dict[str, Any] | None:
    """How to rebuild `model` as JSON, or None where it is not one of the library's own."""
    if type(model) is MLP:
        return {"name": "MLP", "sizes": list(model.sizes)}
    if type(model) is TabularModel:
        names = ("numbers", "sizes", "outputs", "hidden", "dropout")
        return {"name": "TabularModel", **{name: getattr(model, name) for name in names}}
    return None


def build(description: dict[str, Any]) -> nn.Module:
    """The model, with fresh weights, that `architecture` described."""
    given = dict(description)
    name = given.pop("name", None)
    if name == "MLP":
        return MLP(*(int(size) for size in given["sizes"]))
    if name == "TabularModel":
        return TabularModel(**given)
    raise SettingError(f"unknown architecture {name!r}; expected MLP or TabularModel")
