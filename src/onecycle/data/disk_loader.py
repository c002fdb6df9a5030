"""Batches of rows that lie in files on the disk: blocks of rows in random order, mixed in a buffer."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from onecycle.core.device import derived_seed
from onecycle.data.loaders import Batch, Loader
from onecycle.data.loaders import _pair as pair  # pyright: ignore[reportPrivateUsage] -- loaders share it
from onecycle.data.sources import PIXEL_SCALE
from onecycle.errors import FileError
from onecycle.tables.cache.cache import Entry, cached, memory_limit_of
from onecycle.tables.cache.progress import Progress
from onecycle.tables.features import Features
from onecycle.tables.profile import ColumnProfile
from onecycle.tables.target import Target

_BLOCK, _BLOCKS = 4_096, 64  # rows that are read at once, at most; blocks in a buffer, at least
_ORDER = 0  # what a derived seed is for
_LEAST, _MOST, _SHARE = 2**22, 2**27, 16  # bytes of a buffer, and its share of the memory limit


class StoredRows(Dataset[tuple[Tensor, Tensor]]):
    """The rows of a side (train, valid, test) of a converted table: pairs (x, y), read from the disk."""

    def __init__(self, entry: Entry, side: str) -> None:
        self.entry = entry  # held, so that nobody removes the files
        self.files = [entry.manifest.files[f"{side}_{part}"] for part in "xy"]
        self.row_bytes = [prod(file.shape[1:]) * np.dtype(file.dtype).itemsize for file in self.files]

    def __len__(self) -> int:
        return self.files[0].shape[0]

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """One row. Raises IndexError where there is none."""
        place = row + len(self) if row < 0 else row
        if not 0 <= place < len(self):
            raise IndexError(f"row {row}; there are {len(self)} rows")
        with Reader(self) as reader:
            x, y = reader.read([range(place, place + 1)], self.room(1))
        return x[0], y[0]

    def room(self, rows: int, pinned: bool = False) -> list[Tensor]:
        """Tensors for so many rows of x and y; `pinned` is memory that a CUDA device reads without a copy."""
        return [
            torch.empty((rows, *file.shape[1:]), dtype=getattr(torch, file.dtype), pin_memory=pinned)
            for file in self.files
        ]


class Reader:
    """Open files of stored rows."""

    def __init__(self, dataset: StoredRows) -> None:
        self._folder, self._row_bytes = dataset.entry.folder, dataset.row_bytes
        with ExitStack() as stack:
            try:
                self._files = [
                    stack.enter_context((self._folder / file.name).open("rb", buffering=0)) for file in dataset.files
                ]
            except OSError as error:
                raise self._gone(error.strerror or str(error)) from error
            self._close = stack.pop_all().close

    def read(self, blocks: Sequence[range], room: Sequence[Tensor]) -> list[Tensor]:
        """The rows of the blocks, one after another, in the tensors of `room`. Raises FileError where that fails."""
        rows = sum(map(len, blocks))
        for file, row_bytes, tensor in zip(self._files, self._row_bytes, room, strict=True):
            content, done = memoryview(tensor.numpy().reshape(-1).view(np.uint8).data), 0
            for block in blocks:
                end = done + len(block) * row_bytes
                try:
                    file.seek(block.start * row_bytes)
                    while done < end and (count := file.readinto(content[done:end])):
                        done += count
                except OSError as error:
                    raise self._gone(error.strerror or str(error)) from error
                if done < end:
                    raise self._gone("cut short")
        return [tensor[:rows] for tensor in room]

    def _gone(self, reason: str) -> FileError:
        return FileError(f"{self._folder}: cannot be read ({reason}); it is made again at the next start")

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


class StreamLoader:
    """Batches of stored rows, on `device`.

    With `shuffle`, an epoch takes blocks of rows in random order, as many as go into `buffer_bytes`, and gives the rows
    of this buffer in random order while a thread reads the next one. Which rows make a batch is a function of (seed,
    epoch) and of the size of the buffer. Each row comes once an epoch, but for a last short batch that `drop_last`
    leaves out. Two buffers are held, and nothing of the files is mapped: mapped pages count as the process' memory.
    """

    def __init__(
        self,
        dataset: StoredRows,
        batch_size: int,
        device: torch.device,
        seed: int,
        shuffle: bool = False,
        drop_last: bool = False,
        pixel_scale: float | None = None,
        buffer_bytes: int = _MOST,
    ) -> None:
        self.dataset, self.batch_size, self.device = dataset, batch_size, device
        self.seed, self.shuffle, self.drop_last, self.pixel_scale = seed, shuffle, drop_last, pixel_scale
        rows = max(min(buffer_bytes // sum(dataset.row_bytes), len(dataset)), 1)
        self.block = min(_BLOCK, max(rows // _BLOCKS, 1))
        self.buffers = -(-len(dataset) // rows)
        self._passes = 0

    def __len__(self) -> int:
        rows = len(self.dataset)
        return rows // self.batch_size if self.drop_last else -(-rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        self._passes += 1
        return self.epoch(self._passes - 1)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`. Raises FileError where the files cannot be read."""
        kept: list[Tensor] | None = None  # rows that are fewer than a batch
        for tensors, order in self._buffers(number):
            start = 0
            if kept is not None:
                start = min(self.batch_size - len(kept[0]), len(order))
                more = [tensor.index_select(0, order[:start]) for tensor in tensors]
                kept = [torch.cat(both) for both in zip(kept, more, strict=True)]
                if len(kept[0]) == self.batch_size:
                    yield pair(kept, scale=self.pixel_scale)
                    kept = None
            for rows in order[start:].split(self.batch_size) if start < len(order) else ():
                parts = [tensor.index_select(0, rows) for tensor in tensors]
                if len(rows) == self.batch_size:
                    yield pair(parts, scale=self.pixel_scale)
                else:
                    kept = parts
        if kept is not None and not self.drop_last:
            yield pair(kept, scale=self.pixel_scale)

    def unshuffled(self) -> "StreamLoader":
        """A loader of the same files that gives all rows in order."""
        loader = copy(self)
        loader.shuffle, loader.drop_last, loader._passes = False, False, 0
        return loader

    def peek(self) -> Batch:
        """A few rows in the data set's order, without moving any state."""
        count = min(2, self.batch_size, len(self.dataset))
        with Reader(self.dataset) as reader:
            rows = reader.read([range(count)], self.dataset.room(count))
        return pair([part.to(self.device) for part in rows], scale=self.pixel_scale)

    def _buffers(self, number: int) -> Iterator[tuple[list[Tensor], Tensor]]:
        """The rows of each buffer, on the device, and the order in which they are to be taken."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, _ORDER, number))
        rows, block = len(self.dataset), self.block
        blocks = [range(start, min(start + block, rows)) for start in range(0, rows, block)]
        if self.shuffle:
            blocks = [blocks[place] for place in torch.randperm(len(blocks), generator=generator).tolist()]
        ends = [len(blocks) * (place + 1) // self.buffers for place in range(self.buffers)]
        groups = [blocks[start:end] for start, end in pairwise([0, *ends])]  # alike, so that none has few blocks to mix
        most = max(map(len, groups)) * block
        pinned = self.device.type == "cuda"
        room = [self.dataset.room(min(most, rows), pinned) for _ in groups[:2]]

        def fill(place: int) -> tuple[list[Tensor], Tensor]:
            found = reader.read(groups[place], room[place % 2])
            count = len(found[0])
            in_order = torch.from_numpy(np.arange(count))  # torch's own would start threads beside the training's
            return found, torch.randperm(count, generator=generator) if self.shuffle else in_order

        # leaving, for whatever reason, waits for the one buffer that may be being filled
        with Reader(self.dataset) as reader, ThreadPoolExecutor(1, "onecycle-read") as thread:
            coming = thread.submit(fill, 0)
            for place in range(len(groups)):
                tensors, order = coming.result()
                if place + 1 < len(groups):
                    coming = thread.submit(fill, place + 1)  # into the buffer whose batches are all given: copies
                # waits for the device, once a buffer, since this memory is filled again
                yield [tensor.to(self.device) for tensor in tensors], order.to(self.device)


@dataclass(frozen=True)
class Stream:
    """A converted table, and what a DataBunch needs of it. `buffer_bytes` is for one of the two of a loader."""

    entry: Entry
    buffer_bytes: int

    @property
    def rows(self) -> int:
        """Training rows."""
        return self.entry.manifest.rows("train")

    @property
    def class_counts(self) -> list[int] | None:
        """Training rows of each class or label; None for a regression."""
        return self.entry.manifest.class_counts

    @property
    def pixel_scale(self) -> float | None:
        """What inputs are divided by: bytes are pixels."""
        return PIXEL_SCALE if self.entry.manifest.files["train_x"].dtype == "uint8" else None

    @cached_property
    def fitted(self) -> tuple[Features | None, Target, tuple[ColumnProfile, ...]]:
        """How raw rows become inputs (None for arrays that are taken as they are) and targets, and the columns."""
        return self.entry.manifest.fitted()

    def loaders(self, bs: int, val_bs: int, device: torch.device, seed: int) -> dict[str, Loader | None]:
        """The loaders by the names that DataBunch takes: train_dl, valid_dl and test_dl."""

        def loader(side: str, size: int, training: bool = False) -> Loader | None:
            if not self.entry.manifest.rows(side):
                return None
            rows = StoredRows(self.entry, side)
            drop = training and len(rows) >= size
            return StreamLoader(rows, size, device, seed, training, drop, self.pixel_scale, self.buffer_bytes)

        return {
            "train_dl": loader("train", bs, training=True),
            "valid_dl": loader("valid", val_bs),
            "test_dl": loader("test", val_bs),
        }


def open_stream(
    source: Any,
    target: str | Sequence[str] = "y",
    task: str | None = None,
    kinds: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    split: Any = "auto",
    valid: float = 0.2,
    seed: int = 0,
    memory_limit: int | str | None = None,
    cache_limit: int | str | None = None,
    progress: Progress | None = None,
) -> Stream | None:
    """`source` prepared on the disk; None where it is no file, or fits into memory. See `tables.cache.cached`."""
    limit = memory_limit_of(memory_limit)
    if not isinstance(source, str | os.PathLike):
        return None
    entry = cached(
        Path(source), target, task, kinds, drop, split, valid, seed, limit, cache_limit=cache_limit, progress=progress
    )
    return None if entry is None else Stream(entry, min(max(limit // _SHARE, _LEAST), _MOST))
