"""Loaders: the batches of one data set, the same in each run with the same seed."""

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import islice
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from onecycle.core.device import derived_seed
from onecycle.errors import DataError

Batch = tuple[Any, Any]  # x, a list of several, and y, or None without targets
_ORDER, _WORKERS = 0, 1  # purposes of a derived seed
_END = object()
_HASH_BYTES = 2**24  # hashed at once


class Loader(Protocol):
    """A loader as the training loop needs it.

    Attributes:
        dataset: The data set that the batches are taken from.
    """

    dataset: Any

    @property
    def batch_size(self) -> int | None:
        """Rows in a batch; None if a DataLoader makes its batches itself."""
        ...

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...
    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch `number`, counted from 0."""
        ...


class RowLoader(ABC):
    """Base of the loaders that know their rows: counts batches, and yields the epochs in turn when iterated by hand.

    Args:
        dataset: The rows.
        batch_size: Rows in a batch.
        device: Where the batches are.
        seed: Decides, with the number of the epoch, the order of the rows.
        shuffle: Whether an epoch takes the rows in random order.
        drop_last: Whether to leave out a last short batch.
        pixel_scale: Divisor of inputs that are bytes (uint8), which become floats a batch at a time.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        device: torch.device,
        seed: int,
        shuffle: bool = False,
        drop_last: bool = False,
        pixel_scale: float | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.device, self.seed = dataset, batch_size, device, seed
        self.shuffle, self.drop_last, self.pixel_scale = shuffle, drop_last, pixel_scale
        self.prepared: Any = None  # the features and the target, if the rows are those of a table
        self._next_epoch = 0

    def __len__(self) -> int:
        rows = len(self.dataset)
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        self._next_epoch += 1
        return self.epoch(self._next_epoch - 1)

    @abstractmethod
    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch `number`, counted from 0."""

    def unshuffled(self) -> Self:
        """Return a loader of the same rows that yields all of them in order."""
        loader = copy(self)
        loader.shuffle, loader.drop_last, loader._next_epoch = False, False, 0
        return loader


class InMemoryLoader(RowLoader):
    """Batches of a TensorDataset whose tensors are moved to `device` once; a batch is one `index_select`.

    A batch is a copy: what a model, loss or metric writes to it does not reach the data set. Takes the arguments of
    `RowLoader`. Inputs that are bytes stay bytes on the device.
    """

    def __init__(self, dataset: TensorDataset, *args: Any, **settings: Any) -> None:
        super().__init__(dataset, *args, **settings)
        self.tensors: list[Tensor] = [tensor.to(self.device).contiguous() for tensor in dataset.tensors]

    def epoch(self, number: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of epoch `number`, counted from 0; those before `first` are left out and cost nothing."""
        if self.shuffle:
            for rows in self.order(number).split(self.batch_size)[first : len(self)]:
                yield self.gather(rows)
        else:
            views = zip(*(tensor.split(self.batch_size) for tensor in self.tensors), strict=True)
            for tensors in islice(views, first, len(self)):
                yield as_batch(tensors, scale=self.pixel_scale, copy=True)

    def gather(self, rows: Tensor) -> Batch:
        """Return a batch of these rows, given by number."""
        return as_batch([tensor.index_select(0, rows) for tensor in self.tensors], scale=self.pixel_scale)

    def order(self, number: int) -> Tensor:
        """Return the order of the rows in epoch `number`, on the device."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, _ORDER, number))
        # waits for the device, from pageable memory, once an epoch
        return torch.randperm(len(self.tensors[0]), generator=generator).to(self.device)

    def peek(self, rows: int = 2) -> Batch:
        """Return the first rows of the data set, at most a batch, without changing any state."""
        first = [tensor[: min(rows, self.batch_size)] for tensor in self.tensors]
        return as_batch(first, scale=self.pixel_scale, copy=True)


class TorchLoader:
    """Batches of a torch DataLoader, moved to `device`.

    The global generators of torch, NumPy and Python, and the loader's own, are seeded from (seed, epoch) while it works
    and restored afterwards, so that its shuffling and its data set's augmentation are reproducible and leave no trace.
    Workers are started for each epoch, also with `persistent_workers`: those that go on from one epoch to the next have
    generators, and a copy of the data set, that depend on the epochs before.

    Args:
        loader: The DataLoader.
        device: Where the batches go.
        seed: Decides, with the number of the epoch, what the loader and its data set draw.
    """

    def __init__(self, loader: DataLoader[Any], device: torch.device, seed: int) -> None:
        self.loader, self.device, self.seed = _without_persistent_workers(loader), device, seed
        self.dataset: Dataset[Any] = loader.dataset
        self.batch_size = loader.batch_size
        self._next_epoch = 0

    def __len__(self) -> int:
        try:
            return len(self.loader)
        except TypeError:
            raise DataError(
                "the DataLoader has no length; a schedule needs to know the number of batches: "
                "give its data set a __len__"
            ) from None

    def __iter__(self) -> Iterator[Batch]:
        self._next_epoch += 1
        return self.epoch(self._next_epoch - 1)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch `number`, counted from 0."""
        seed = derived_seed(self.seed, _WORKERS, number)
        generators = [self.loader.generator, getattr(self.loader.sampler, "generator", None)]
        states = [(generator, generator.get_state()) for generator in generators if generator is not None]
        global_rng = SeededGlobalRNG(seed)
        may_be_views = self.loader.collate_fn is not default_collate  # of the data set, as the rows that it returns
        try:
            with global_rng:
                for generator, _ in states:
                    generator.manual_seed(seed)
                batches = iter(self.loader)
            while True:
                with global_rng:  # only while the loader works, not while the caller does
                    batch = next(batches, _END)
                if batch is _END:
                    return
                if batch is None:
                    raise DataError(
                        "the DataLoader returned None for a batch; expected tensors: see what its collate_fn returns"
                    )
                yield as_batch(batch if isinstance(batch, list | tuple) else [batch], self.device, copy=may_be_views)
        finally:
            for generator, state in states:
                generator.set_state(state)

    def unshuffled(self) -> "TorchLoader | None":
        """Return a loader of the same rows, all of them in order; None if the sampler does not say which they are."""
        loader, dataset = self.loader, self.dataset
        if type(loader.batch_sampler) is not BatchSampler or not hasattr(dataset, "__getitem__"):
            return None
        if isinstance(loader.sampler, SubsetRandomSampler):
            dataset = Subset(dataset, sorted(loader.sampler.indices))
        elif not isinstance(loader.sampler, SequentialSampler | RandomSampler) and not isinstance(
            dataset,
            IterableDataset,  # whose order is the only one
        ):
            return None
        in_order = DataLoader(
            dataset,
            loader.batch_size,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
        )
        return TorchLoader(in_order, self.device, self.seed)


def _without_persistent_workers(loader: DataLoader[Any]) -> DataLoader[Any]:
    if not loader.persistent_workers:
        return loader
    loader = copy(loader)
    vars(loader)["persistent_workers"] = False  # the class refuses an ordinary assignment
    return loader


class SeededGlobalRNG:
    """Context in which the global generators of torch, NumPy and Python continue a sequence of their own.

    The first `with` starts it from `seed`, the next continues it; outside, the generators are as if it never ran.
    """

    def __init__(self, seed: int) -> None:
        self._outside = _global_rng_states()
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        self._inside = _global_rng_states()
        _set_global_rng(self._outside)

    def __enter__(self) -> None:
        self._outside = _global_rng_states()
        _set_global_rng(self._inside)

    def __exit__(self, *_: object) -> None:
        self._inside = _global_rng_states()
        _set_global_rng(self._outside)


def _global_rng_states() -> tuple[Any, Any, Any]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _set_global_rng(states: tuple[Any, Any, Any]) -> None:
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


def as_batch(
    values: Sequence[Any], device: torch.device | None = None, scale: float | None = None, copy: bool = False
) -> Batch:
    """Return (x, y): the last value is y, a single x is not in a list, uint8 and bool inputs become floats.

    With `copy` the batch shares no memory with the values.
    """
    *inputs, y = values if len(values) > 1 else (*values, None)
    x = [_as_input(value, device, scale, copy) for value in inputs]
    return x if len(x) > 1 else x[0], _moved(y, device, copy)


def _as_input(x: Any, device: torch.device | None, scale: float | None, copy: bool) -> Any:
    if isinstance(x, Tensor) and x.dtype in (torch.uint8, torch.bool):
        x = _moved(x, device, copy=False).to(torch.get_default_dtype())  # which copies
        return x if scale is None else x / scale
    return _moved(x, device, copy)


def _moved(value: Any, device: torch.device | None, copy: bool) -> Any:
    if device is None and not copy:
        return value
    if isinstance(value, Tensor):
        return value.to(device or value.device, non_blocking=True, copy=copy)
    if isinstance(value, dict):
        return {key: _moved(item, device, copy) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(item, device, copy) for item in value]
    return value.copy() if copy and isinstance(value, np.ndarray) else value


def sha256_of(tensors: Sequence[Tensor]) -> str:
    """Return the SHA-256 of the types, shapes and values of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        tensor = tensor.reshape(-1) if not tensor.ndim else tensor.resolve_conj().resolve_neg()
        rows = max(_HASH_BYTES // max(tensor[:1].numel() * tensor.element_size(), 1), 1)
        for chunk in tensor.split(rows):
            digest.update(chunk.contiguous().cpu().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
