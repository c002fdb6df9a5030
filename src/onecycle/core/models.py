"""The library's own models: bundles can rebuild these without being given the class."""

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


def architecture(model: nn.Module) -> dict[str, Any] | None:
    """How to rebuild `model` as JSON, or None where it is not one of the library's own."""
    return {"name": "MLP", "sizes": list(model.sizes)} if type(model) is MLP else None


def build(description: dict[str, Any]) -> nn.Module:
    """The model, with fresh weights, that `architecture` described."""
    if description.get("name") != "MLP":
        raise SettingError(f"unknown architecture {description.get('name')!r}; expected MLP")
    return MLP(*(int(size) for size in description["sizes"]))
