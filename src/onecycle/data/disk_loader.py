"""Batches of a converted table, read from the disk: blocks of rows in random order, shuffled in a buffer."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from onecycle.core.choices import SetName
from onecycle.core.device import derived_seed
from onecycle.core.files import open_unlinked
from onecycle.data.loaders import Batch, Loader, RowLoader, as_batch
from onecycle.data.sources import PIXEL_SCALE
from onecycle.errors import FileError
from onecycle.tables.cache.conversion import convert_if_larger
from onecycle.tables.cache.folder import CacheEntry
from onecycle.tables.cache.sizes import parse_memory_limit
from onecycle.tables.features import Features
from onecycle.tables.profile import ColumnProfile
from onecycle.tables.spec import TableSpec
from onecycle.tables.target import Target

_MAX_BLOCK_ROWS, _MIN_BLOCKS = 4_096, 64  # rows that are read at once; blocks in a buffer
_ORDER = 0  # purpose of a derived seed
_MIN_BUFFER, _MAX_BUFFER, _BUFFERS_IN_LIMIT = 2**22, 2**27, 16  # bytes; how many buffers the memory limit would hold


class DiskDataset(Dataset[tuple[Tensor, Tensor]]):
    """The rows of one set ("train", "valid" or "test") of a converted table, as pairs (x, y) read from the disk.

    The table is not removed from the cache while this object exists.
    """

    def __init__(self, entry: CacheEntry, name: SetName) -> None:
        self.entry = entry
        self.files = [entry.manifest.files[f"{name}_{part}"] for part in "xy"]

    def __len__(self) -> int:
        return self.files[0].shape[0]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one row. Raises IndexError outside the data set."""
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"row {index}; there are {len(self)} rows")
        x, y = self.read([range(row, row + 1)])
        return x[0], y[0]

    def allocate(self, rows: int, pinned: bool = False) -> list[Tensor]:
        """Return empty tensors for x and y of `rows` rows, if `pinned` in memory that CUDA reads without a copy."""
        return [
            torch.empty((rows, *file.shape[1:]), dtype=getattr(torch, file.dtype), pin_memory=pinned)
            for file in self.files
        ]

    def read(self, blocks: Sequence[range], out: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Return x and y of the blocks of rows, one after another, in the first rows of the tensors `out` if given.

        Raises FileError if the files are cut short or cannot be read.
        """
        rows = sum(map(len, blocks))
        out = self.allocate(rows) if out is None else out
        for file, tensor in zip(self.files, out, strict=True):
            content, done = memoryview(tensor.numpy().reshape(-1).view(np.uint8).data), 0
            try:
                with open(self.entry.folder / file.name, "rb", opener=open_unlinked) as stream:
                    for block in blocks:
                        stream.seek(block.start * file.row_bytes)
                        size = len(block) * file.row_bytes
                        if stream.readinto(content[done : done + size]) < size:  # it reads all that there is
                            raise OSError("cut short")
                        done += size
            except OSError as error:
                raise FileError(
                    f"{self.entry.folder}: cannot be read ({error.strerror or error}); start again, which converts the "
                    "table again"
                ) from error
        return [tensor[:rows] for tensor in out]


class DiskLoader(RowLoader):
    """Batches of a DiskDataset, on `device`.

    With `shuffle`, an epoch reads blocks of rows in random order, as many as fit into `buffer_bytes`, and returns the
    rows of this buffer in random order while a thread fills the next one. Which rows make a batch is a function of
    (seed, epoch) and of the size of the buffer. Each row occurs once an epoch, except those of a last short batch that
    `drop_last` leaves out. Two buffers are allocated, and the files are not mapped: mapped pages count as memory of
    the process.

    Takes the arguments of `RowLoader`, and `buffer_bytes`, the size of each of the two buffers.
    """

    def __init__(self, dataset: DiskDataset, *args: Any, buffer_bytes: int = _MAX_BUFFER, **settings: Any) -> None:
        super().__init__(dataset, *args, **settings)
        rows = max(min(buffer_bytes // sum(file.row_bytes for file in dataset.files), len(dataset)), 1)
        self.block_rows = min(_MAX_BLOCK_ROWS, max(rows // _MIN_BLOCKS, 1))
        self.buffers = -(-len(dataset) // rows)  # in an epoch

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows of a block, and buffers in an epoch: what the order of the rows depends on besides the seed."""
        return self.block_rows, self.buffers

    def use_blocks(self, block_rows: int, buffers: int) -> None:
        """Read the rows in the blocks and buffers that another loader of the data set has. Raises ValueError."""
        rows = len(self.dataset)
        if not (1 <= block_rows <= _MAX_BLOCK_ROWS and 1 <= buffers <= max(-(-rows // block_rows), 1)):
            raise ValueError(f"{rows:,} rows cannot be read in {buffers:,} buffers of blocks of {block_rows:,} rows")
        self.block_rows, self.buffers = block_rows, buffers

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch `number`. Raises FileError if the files cannot be read."""
        parts, missing = list[list[Tensor]](), self.batch_size  # of a batch, which the next buffer may continue
        for tensors, order in self._buffers(number):
            for rows in (order[:missing], *order[missing:].split(self.batch_size)):
                parts.append([tensor.index_select(0, rows) for tensor in tensors])
                missing -= len(rows)
                if not missing:
                    yield self._join(parts)
                    parts, missing = [], self.batch_size
        if missing < self.batch_size and not self.drop_last:
            yield self._join(parts)

    def peek(self) -> Batch:
        """Return the first rows of the data set, without moving any state."""
        tensors = self.dataset.read([range(min(2, self.batch_size, len(self.dataset)))])
        return as_batch([tensor.to(self.device) for tensor in tensors], scale=self.pixel_scale)

    def _join(self, parts: Sequence[Sequence[Tensor]]) -> Batch:
        tensors = parts[0] if len(parts) == 1 else [torch.cat(column) for column in zip(*parts, strict=True)]
        return as_batch(tensors, scale=self.pixel_scale)

    def _buffers(self, epoch: int) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Yield the rows of each buffer, on the device, and the order in which they are used."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, _ORDER, epoch))
        rows, block_rows = len(self.dataset), self.block_rows
        blocks = [range(start, min(start + block_rows, rows)) for start in range(0, rows, block_rows)]
        if self.shuffle:
            blocks = [blocks[number] for number in torch.randperm(len(blocks), generator=generator).tolist()]
        ends = [len(blocks) * (number + 1) // self.buffers for number in range(self.buffers)]
        groups = [blocks[start:end] for start, end in pairwise([0, *ends])]  # of one size, so that all mix many blocks
        buffer_rows = min(max(map(len, groups)) * block_rows, rows)
        buffers = [self.dataset.allocate(buffer_rows, self.device.type == "cuda") for _ in groups[:2]]

        def fill(number: int) -> tuple[list[Tensor], Tensor]:
            tensors = self.dataset.read(groups[number], buffers[number % 2])
            count = len(tensors[0])
            in_order = torch.from_numpy(np.arange(count))  # torch's own would start threads beside the training's
            return tensors, torch.randperm(count, generator=generator) if self.shuffle else in_order

        # leaving, for whatever reason, waits for the one buffer that may be being filled
        with ThreadPoolExecutor(1, "onecycle-read") as thread:
            pending = thread.submit(fill, 0)
            for number in range(len(groups)):
                tensors, order = pending.result()
                if number + 1 < len(groups):
                    pending = thread.submit(fill, number + 1)  # into the buffer whose batches, all copies, are used up
                # waits for the device, once a buffer, since this memory is filled again
                yield [tensor.to(self.device) for tensor in tensors], order.to(self.device)


@dataclass(frozen=True)
class TableStream:
    """A converted table, and what a DataBunch needs of it."""

    entry: CacheEntry
    buffer_bytes: int  # of each of the two buffers of a loader

    @property
    def rows(self) -> int:
        """Number of training rows."""
        return self.entry.manifest.rows("train")

    @property
    def pixel_scale(self) -> float | None:
        """Divisor of inputs that are bytes, which are pixels; None for other inputs."""
        return PIXEL_SCALE if self.entry.manifest.files["train_x"].dtype == "uint8" else None

    @cached_property
    def fitted(self) -> tuple[Features | None, Target, tuple[ColumnProfile, ...]]:
        """The preprocessing (None for arrays that are used unchanged), the target and the columns."""
        return self.entry.manifest.fitted()

    def loaders(self, bs: int, val_bs: int, device: torch.device, seed: int) -> dict[str, Loader | None]:
        """Return the loaders under DataBunch's parameter names: train_dl, valid_dl and test_dl (None without rows)."""

        def loader(name: SetName, size: int, training: bool = False) -> Loader | None:
            if not self.entry.manifest.rows(name):
                return None
            rows = DiskDataset(self.entry, name)
            drop_last = training and len(rows) >= size
            return DiskLoader(
                rows, size, device, seed, training, drop_last, self.pixel_scale, buffer_bytes=self.buffer_bytes
            )

        return {
            "train_dl": loader("train", bs, training=True),
            "valid_dl": loader("valid", val_bs),
            "test_dl": loader("test", val_bs),
        }


def open_stream(
    source: Any,
    spec: TableSpec,
    memory_limit: int | str | None = None,
    fitted: tuple[Features | None, Target] | None = None,
) -> TableStream | None:
    """Convert a file that is too large to be prepared in memory, or find it converted, as `convert_if_larger` does.

    None if `source` is not the path of a file, or fits into memory.
    """
    limit = parse_memory_limit(memory_limit)
    if not isinstance(source, str | os.PathLike):
        return None
    entry = convert_if_larger(Path(source), spec, limit, fitted=fitted)
    return None if entry is None else TableStream(entry, min(max(limit // _BUFFERS_IN_LIMIT, _MIN_BUFFER), _MAX_BUFFER))
