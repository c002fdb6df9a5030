"""From a table to what a DataBunch is made of: split, preprocessing, target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from onecycle.core.errors import DataError, SettingError, did_you_mean
from onecycle.data.sources import TARGET, Arrays, open_source
from onecycle.data.stream import open_stream
from onecycle.tables.columns import Column, survey
from onecycle.tables.features import Features
from onecycle.tables.split import Split, column_of, split_rows
from onecycle.tables.target import Target

if TYPE_CHECKING:
    from onecycle.data.bunch import DataBunch

Sets = tuple[TensorDataset, TensorDataset, TensorDataset | None]


@dataclass(frozen=True)
class Prepared:
    """The sets of a DataBunch, and how raw rows become its inputs and targets."""

    sets: Sets
    target: Target
    features: Features | None = None  # None for arrays that are taken as they are
    columns: tuple[Column, ...] = ()
    pixel_scale: float | None = None


@dataclass(frozen=True)
class How:
    """What is predicted from what, and which rows validate."""

    target: str | Sequence[str]
    task: str | None
    kinds: Mapping[str, str]
    drop: Sequence[str]
    split: Any
    valid: float
    seed: int

    @property
    def as_written(self) -> list[str]:
        """The columns of a CSV file that stay text."""
        return [name for name, kind in self.kinds.items() if kind == "category"]


def make(
    kind: "type[DataBunch]",
    source: Any,
    how: How,
    bs: int | None,
    image_size: int | tuple[int, int] | None,
    memory_limit: int | str | None,
    device: torch.device,
    path: Path,
) -> "DataBunch":
    """A DataBunch of `source`, in memory, or on the disk where it takes more than `memory_limit`."""
    stream = open_stream(
        source, how.target, how.task, how.kinds, how.drop, how.split, how.valid, how.seed, memory_limit
    )
    if stream is not None:
        bs = bs or default_bs(stream.rows)
        train, valid, test, fix = stream.loaders(bs, bs, device, how.seed).values()
        assert train is not None  # it has rows to train on
        data = kind(train, valid, test, device, fix, how.seed, path)
        data.features, data.target, data.columns = stream.fitted
        data.pixel_scale = stream.pixel_scale
        return data
    opened = open_source(source, image_size, how.as_written)
    made = prepare_arrays(opened, how) if isinstance(opened, Arrays) else prepare_table(opened, how)
    bs, scale = bs or default_bs(len(made.sets[0])), made.pixel_scale
    data = kind.create(*made.sets, bs, device=device, seed=how.seed, path=path, pixel_scale=scale)
    data.features, data.target, data.columns = made.features, made.target, made.columns
    return data


def prepare_table(table: Any, how: How) -> Prepared:
    """Split a pyarrow table and fit its preprocessing on the training rows."""
    names = [how.target] if isinstance(how.target, str) else list(how.target)
    goal = Target.fit(table, names, how.task)
    rows = _split(table, goal, how)
    train = table.take(rows.train)
    goal = Target.fit(train, names, goal.task)  # its classes and statistics are those of the training rows
    used_by_split = column_of(how.split)
    drop = [*how.drop, *([used_by_split] if used_by_split else [])]
    columns = survey(_without(table, train, drop), names, how.kinds)
    features = Features.fit(train, columns)

    def made(part: Any) -> TensorDataset:
        return TensorDataset(
            torch.from_numpy(features.transform(part)),
            torch.from_numpy(goal.transform(part)),
        )

    test = made(table.take(rows.test)) if len(rows.test) else None
    return Prepared((made(train), made(table.take(rows.valid)), test), goal, features, tuple(columns))


def prepare_arrays(arrays: Arrays, how: How) -> Prepared:
    """Split arrays that are no table; bytes are scaled a batch at a time."""
    x, labels = arrays.train[0], _labels(arrays, arrays.train[1])
    goal = Target.fit(labels, [TARGET], how.task)
    if arrays.valid is None:
        rows = _split(labels, goal, how)
        pairs = [(x[part], labels.take(part)) for part in (rows.train, rows.valid)]
    else:
        pairs = [(x, labels), (arrays.valid[0], _labels(arrays, arrays.valid[1]))]
    if arrays.test is not None:
        pairs.append((arrays.test[0], _labels(arrays, arrays.test[1])))
    goal = Target.fit(pairs[0][1], [TARGET], goal.task)
    sets = [TensorDataset(x, torch.from_numpy(goal.transform(labels))) for x, labels in pairs]
    return Prepared((sets[0], sets[1], sets[2] if len(sets) > 2 else None), goal, pixel_scale=arrays.pixel_scale)


def _labels(arrays: Arrays, y: Any) -> Any:
    """The targets as a table of one column; classes that have names by their names."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    if y.ndim != 1:
        raise DataError(f"y has shape {tuple(y.shape)}; expected one target for each row")
    values = y.numpy() if arrays.classes is None else [arrays.classes[i] for i in y.tolist()]
    return pa.table({TARGET: values})


def default_bs(rows: int) -> int:
    """A batch size for so many training rows: small tables need many steps, large ones few calls."""
    return min(next((bs for most, bs in ((5_000, 32), (20_000, 64), (200_000, 256)) if rows < most), 1024), rows)


def default_epochs(steps: int) -> int:
    """Epochs of `steps` batches each, about 12,000 steps in all: from 8 to 20, as more only learn a table by heart."""
    return min(max(round(12_000 / max(steps, 1)), 8), 20)


def _split(table: Any, goal: Target, how: How) -> Split:
    classes = goal.task == "classes"
    codes: np.ndarray[Any, Any] | None = goal.transform(table) if classes else None
    return split_rows(table, how.split, how.valid, how.seed, codes, classes)


def _without(table: Any, train: Any, drop: Sequence[str]) -> Any:
    for name in drop:
        if name not in table.schema.names:
            raise SettingError(
                f'drop names "{name}", but there is no such column{did_you_mean(name, table.schema.names)}'
            )
    return train.drop_columns([*dict.fromkeys(drop)]) if drop else train
