"""What tells the data of one fit from that of another: a fit is not resumed with other rows."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from onecycle.core.device import derived_seed
from onecycle.errors import DataError

Batch = tuple[Any, Any]
_ORDER, _WORKERS = 0, 1  # what a derived seed is for
_END = object()


class Loader(Protocol):
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
    """Batches of a TensorDataset whose tensors are put on `device` once; a batch is one `index_select`.

    Inputs that are bytes stay so, and become floats a batch at a time, divided by `pixel_scale` where that is given.
    """

    def __init__(
        self,
        dataset: TensorDataset,
        batch_size: int,
        device: torch.device,
        seed: int,
        shuffle: bool = False,
        drop_last: bool = False,
        pixel_scale: float | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.device = dataset, batch_size, device
        self.pixel_scale = pixel_scale
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
                yield _pair([tensor.index_select(0, rows) for tensor in self.tensors], scale=self.pixel_scale)
        else:
            for parts in islice(zip(*(t.split(self.batch_size) for t in self.tensors), strict=True), len(self)):
                yield _pair(parts, scale=self.pixel_scale)

    def order(self, number: int) -> Tensor:
        """The order of the rows in epoch `number`, on the device."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, _ORDER, number))
        # waits for the device, from pageable memory, once an epoch
        return torch.randperm(len(self.tensors[0]), generator=generator).to(self.device)

    def unshuffled(self) -> "InMemoryLoader":
        """A loader of the same tensors that gives all rows in order."""
        loader = copy(self)
        loader.shuffle, loader.drop_last, loader._passes = False, False, 0
        return loader

    def peek(self) -> Batch:
        """A few rows in the data set's order, without moving any state."""
        return _pair([tensor[: min(2, self.batch_size)] for tensor in self.tensors], scale=self.pixel_scale)


class TorchLoader:
    """Batches of a torch DataLoader, moved to `device`.

    The global generators of torch, NumPy and Python, and the loader's own, are seeded from (seed, epoch) while it works
    and put back after, so that its shuffling and its data set's augmentation are reproducible and leave no trace.
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
        own = [g for g in (self.loader.generator, getattr(self.loader.sampler, "generator", None)) if g is not None]
        states = [generator.get_state() for generator in own]
        lent = SeededGlobalRNG(derived_seed(self.seed, _WORKERS, number))
        try:
            with lent:
                for generator in own:
                    generator.manual_seed(derived_seed(self.seed, _WORKERS, number))
                batches = iter(self.loader)
            while True:
                with lent:  # only while the loader works, not while the caller does
                    batch = next(batches, _END)
                if batch is _END:
                    return
                if batch is None:
                    raise DataError(
                        "the DataLoader gives None for a batch; expected tensors: see what its collate_fn returns"
                    )
                yield _pair(batch if isinstance(batch, list | tuple) else [batch], self.device)
        finally:
            for generator, state in zip(own, states, strict=True):
                generator.set_state(state)

    def unshuffled(self) -> "TorchLoader | None":
        """A loader of the same rows, all of them in order; None where the sampler does not say which rows these are."""
        given = self.loader
        if type(given.batch_sampler) is not BatchSampler or not hasattr(given.dataset, "__getitem__"):
            return None
        dataset: Dataset[Any] = given.dataset
        if isinstance(given.sampler, SubsetRandomSampler):
            dataset = Subset(dataset, sorted(given.sampler.indices))
        elif not isinstance(given.sampler, SequentialSampler | RandomSampler):
            return None
        loader = DataLoader(
            dataset,
            given.batch_size,
            num_workers=given.num_workers,
            collate_fn=given.collate_fn,
            worker_init_fn=given.worker_init_fn,
            multiprocessing_context=given.multiprocessing_context,
        )
        return TorchLoader(loader, self.device, self.seed)


class SeededGlobalRNG:
    """The global generators of torch, NumPy and Python, lent to a data set: seeded while it works, else as found."""

    def __init__(self, seed: int) -> None:
        self._found = self._get()
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        self._own = self._get()
        self._set(self._found)

    def __enter__(self) -> None:
        self._found = self._get()
        self._set(self._own)

    def __exit__(self, *_: object) -> None:
        self._own = self._get()
        self._set(self._found)

    @staticmethod
    def _get() -> tuple[Any, Any, Any]:
        return torch.get_rng_state(), np.random.get_state(), random.getstate()

    @staticmethod
    def _set(states: tuple[Any, Any, Any]) -> None:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def torch_loader(ds: Dataset[Any], bs: int, workers: int, shuffle: bool, drop_last: bool) -> DataLoader[Any]:
    """torch's own loader of a data set."""
    return DataLoader(ds, bs, shuffle=shuffle, drop_last=drop_last, num_workers=workers)


def _pair(parts: Sequence[Any], device: torch.device | None = None, scale: float | None = None) -> Batch:
    """(x, y) of a batch's parts: the last is y, a single x comes bare, uint8 and bool inputs become floats."""
    if device is not None:
        parts = [_to(part, device) for part in parts]
    if len(parts) == 1:
        return _as_input(parts[0], scale), None
    if len(parts) == 2:
        return _as_input(parts[0], scale), parts[1]
    return [_as_input(part, scale) for part in parts[:-1]], parts[-1]


def _as_input(x: Any, scale: float | None) -> Any:
    if isinstance(x, Tensor) and x.dtype in (torch.uint8, torch.bool):
        x = x.to(torch.get_default_dtype())
        return x if scale is None else x / scale
    return x


def _to(part: Any, device: torch.device) -> Any:
    if isinstance(part, Tensor):
        return part.to(device, non_blocking=True)
    if isinstance(part, dict):
        return {key: _to(value, device) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_to(value, device) for value in part]
    return part


_PIECE = 2**24  # bytes that are hashed at once


def data_fingerprint(loader: Loader | None) -> dict[str, Any]:
    """Rows, batch size, and the SHA-256 of a loader's data where it is at hand, else the kind of data set."""
    if loader is None:
        return {"rows": 0}
    about = {"rows": len(loader.dataset), "bs": loader.batch_size, "batches": len(loader)}
    if isinstance(loader, InMemoryLoader):
        return about | {"sha256": _of_tensors(loader.tensors)}
    files = getattr(loader.dataset, "files", None)  # of rows on the disk, whose manifest knows
    if isinstance(files, list):
        return about | {"sha256": [file.sha256 for file in files]}  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] -- a DiskDataset
    return about | {"data set": type(loader.dataset).__name__}


def _of_tensors(tensors: list[Tensor]) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        rows = max(_PIECE // max(tensor[:1].numel() * tensor.element_size(), 1), 1)
        for piece in tensor.split(rows):
            total.update(piece.contiguous().cpu().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
