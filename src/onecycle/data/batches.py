"""Loaders: one for data that lives on the device, one around torch's DataLoader.

Both give pairs (x, y) on the device, x a tensor or a list of them, y None where there are no targets. `epoch(k)` gives
the batches of epoch k, a function of (seed, k) alone; iterating by hand gives epochs 0, 1, 2, … in turn.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from onecycle.core.device import borrowed_generators, derived_seed, seed_generators
from onecycle.core.errors import DataError

Batch = tuple[Any, Any]
_ORDER, _WORKERS = 0, 1  # what a derived seed is for
_CPU = torch.device("cpu")


class Batches(Protocol):
    """What the loop needs of a loader."""

    dataset: Any

    @property
    def batch_size(self) -> int | None:
        """Rows in a batch; None where a DataLoader makes its batches itself."""
        ...

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...
    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`."""
        ...


class InMemoryLoader:
    """Batches of a TensorDataset whose tensors are put on `device` once; a batch is one `index_select`."""

    def __init__(
        self,
        dataset: TensorDataset,
        batch_size: int,
        device: torch.device,
        seed: int,
        shuffle: bool = False,
        drop_last: bool = False,
    ) -> None:
        self.dataset, self.batch_size, self.device = dataset, batch_size, device
        self.seed, self.shuffle, self.drop_last = seed, shuffle, drop_last
        self.tensors: list[Tensor] = [tensor.to(device) for tensor in dataset.tensors]
        self._passes = 0

    def __len__(self) -> int:
        rows = len(self.tensors[0])
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        self._passes += 1
        return self.epoch(self._passes - 1)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`."""
        if self.shuffle:
            for rows in self.order(number).split(self.batch_size)[: len(self)]:
                yield _pair([tensor.index_select(0, rows) for tensor in self.tensors])
        else:
            for parts in islice(zip(*(t.split(self.batch_size) for t in self.tensors), strict=True), len(self)):
                yield _pair(parts)

    def order(self, number: int) -> Tensor:
        """The order of the rows in epoch `number`, on the device."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, _ORDER, number))
        return torch.randperm(len(self.tensors[0]), generator=generator).to(self.device)

    def peek(self) -> Batch:
        """A few rows in the data set's order, without moving any state."""
        return _pair([tensor[: min(2, self.batch_size)] for tensor in self.tensors])


class TorchLoader:
    """Batches of a torch DataLoader, moved to `device`.

    torch's global generators are lent to it for the time of an epoch, seeded from (seed, epoch), so that its shuffling
    and its data set's augmentation are reproducible and leave no trace.
    """

    def __init__(self, loader: DataLoader[Any], device: torch.device, seed: int) -> None:
        self.loader, self.device, self.seed = loader, device, seed
        self.dataset: Dataset[Any] = loader.dataset
        self.batch_size = loader.batch_size
        self._passes = 0

    def __len__(self) -> int:
        try:
            return len(self.loader)
        except TypeError:
            raise DataError(
                "the DataLoader has no length; a schedule needs to know the number of batches: "
                "give its data set a __len__"
            ) from None

    def __iter__(self) -> Iterator[Batch]:
        self._passes += 1
        return self.epoch(self._passes - 1)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`."""
        with borrowed_generators(_CPU):
            seed_generators(derived_seed(self.seed, _WORKERS, number), _CPU)
            batches = iter(self.loader)
            state = torch.get_rng_state()
        while True:
            with borrowed_generators(_CPU):  # only while the loader works, not while the caller does
                torch.set_rng_state(state)
                batch = next(batches, None)
                state = torch.get_rng_state()
            if batch is None:
                return
            yield _pair(batch if isinstance(batch, list | tuple) else [batch], self.device)


def _pair(parts: Sequence[Any], device: torch.device | None = None) -> Batch:
    """(x, y) of a batch's parts: the last is y, a single x comes bare, uint8 and bool inputs become floats."""
    if device is not None:
        parts = [_to(part, device) for part in parts]
    if len(parts) == 1:
        return _as_input(parts[0]), None
    if len(parts) == 2:
        return _as_input(parts[0]), parts[1]
    return [_as_input(part) for part in parts[:-1]], parts[-1]


def _as_input(x: Any) -> Any:
    if isinstance(x, Tensor) and x.dtype in (torch.uint8, torch.bool):
        return x.to(torch.get_default_dtype())
    return x


def _to(part: Any, device: torch.device) -> Any:
    if isinstance(part, Tensor):
        return part.to(device, non_blocking=True)
    if isinstance(part, dict):
        return {key: _to(value, device) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_to(value, device) for value in part]
    return part
