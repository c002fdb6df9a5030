"""From a table to what a DataBunch is made of: split, preprocessing, target."""

import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from onecycle.data.disk_loader import open_stream
from onecycle.data.sources import TARGET, Arrays, open_source
from onecycle.errors import DataError, SettingError, did_you_mean
from onecycle.tables.features import Features
from onecycle.tables.profile import Column, survey
from onecycle.tables.read import naming_csv_lines
from onecycle.tables.spec import TableSpec
from onecycle.tables.split import Split, excluded_feature, split_rows
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


def bunch_from_table(
    kind: "type[DataBunch]",
    source: Any,
    spec: TableSpec,
    bs: int | None,
    image_size: int | tuple[int, int] | None,
    memory_limit: int | str | None,
    device: torch.device,
    path: Path,
) -> "DataBunch":
    """A DataBunch of `source`, in memory, or on the disk where it takes more than `memory_limit`."""
    stream = open_stream(source, spec, memory_limit)
    if stream is not None:
        bs = bs or default_bs(stream.rows)
        train, valid, test = stream.loaders(bs, bs, device, spec.seed).values()
        assert train is not None  # it has rows to train on
        data = kind(train, valid, test, device, seed=spec.seed, path=path)
        data.features, data.target, data.columns = stream.fitted
        data.pixel_scale = stream.pixel_scale
        return data
    opened = open_source(source, image_size, spec.as_written)
    with naming_csv_lines(source) if isinstance(source, str | os.PathLike) else nullcontext():
        made = prepare_arrays(opened, spec) if isinstance(opened, Arrays) else prepare_table(opened, spec)
    bs, scale = bs or default_bs(len(made.sets[0])), made.pixel_scale
    data = kind.create(*made.sets, bs, device=device, seed=spec.seed, path=path, pixel_scale=scale)
    data.features, data.target, data.columns = made.features, made.target, made.columns
    return data


def prepare_table(table: Any, spec: TableSpec) -> Prepared:
    """Split a pyarrow table and fit its preprocessing on the training rows."""
    names, used_by_split = spec.targets, excluded_feature(spec.split)
    if table.num_rows == 1:
        raise DataError("the table has 1 row; expected at least 2, one of them to validate")
    goal = Target.fit(table, names, spec.task)
    if goal.task == "classes" and used_by_split in names:
        raise SettingError(
            f'split "{spec.split}" is by what is predicted, so that validation has none of the classes that are '
            "trained on; expected another split"
        )
    rows = _split(table, goal, spec)
    train = table.take(rows.train)
    try:
        goal = Target.fit(train, names, goal.task)  # its classes and statistics are those of the training rows
    except DataError as error:
        raise DataError(f"of the rows to train on: {error}; expected another split, or more rows") from error
    drop = [*spec.dropped, *([used_by_split] if used_by_split else [])]
    with _numbered(rows.train):
        columns = survey(_without(table, train, drop, names), names, spec.kinds)
        features = Features.fit(train, columns, table.take(np.concatenate([rows.valid, rows.test])))

    def made(part: Any, rows: Any) -> TensorDataset:
        with _numbered(rows):
            return TensorDataset(torch.from_numpy(features.transform(part)), torch.from_numpy(goal.transform(part)))

    test = made(table.take(rows.test), rows.test) if len(rows.test) else None
    sets = made(train, rows.train), made(table.take(rows.valid), rows.valid), test
    return Prepared(sets, goal, features, tuple(columns))


def prepare_arrays(arrays: Arrays, spec: TableSpec) -> Prepared:
    """Split arrays that are no table; bytes are scaled a batch at a time."""
    _check_arrays(arrays, spec)
    x, labels = arrays.train[0], _labels(arrays, arrays.train[1])
    goal = Target.fit(labels, [TARGET], spec.task)
    if arrays.valid is None:
        rows = _split(labels, goal, spec)
        pairs = [(x[part], labels.take(part)) for part in (rows.train, rows.valid)]
    else:
        pairs = [(x, labels), (arrays.valid[0], _labels(arrays, arrays.valid[1]))]
    if arrays.test is not None:
        pairs.append((arrays.test[0], _labels(arrays, arrays.test[1])))
    goal = Target.fit(pairs[0][1], [TARGET], goal.task)
    sets = [TensorDataset(x, torch.from_numpy(goal.transform(labels))) for x, labels in pairs]
    return Prepared((sets[0], sets[1], sets[2] if len(sets) > 2 else None), goal, pixel_scale=arrays.pixel_scale)


def _check_arrays(arrays: Arrays, spec: TableSpec) -> None:
    """Raises SettingError for what only a table has, DataError for sets whose rows differ."""
    for name, given in (("kinds", spec.kinds), ("drop", spec.dropped)):
        if given:
            raise SettingError(f"{name} is for the columns of a table; these are images or arrays, without columns")
    if arrays.valid is not None and not (isinstance(spec.split, str) and spec.split == "auto"):
        raise SettingError(
            f"split is {spec.split!r}, but the data has its own split into train and valid; leave it out"
        )
    shape = tuple(arrays.train[0].shape[1:])
    for name, pair in (("valid", arrays.valid), ("test", arrays.test)):
        if pair is not None and (found := tuple(pair[0].shape[1:])) != shape:
            raise DataError(f"{name}: a row of x has shape {found}, one to train on has {shape}; expected rows alike")


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
    """Epochs of `steps` batches each, about 2,200 steps in all: from 8 to 20, as more only learn a table by heart."""
    return min(max(round(2_200 / max(steps, 1)), 8), 20)


def _split(table: Any, goal: Target, spec: TableSpec) -> Split:
    classes = goal.task == "classes"
    codes: np.ndarray[Any, Any] | None = goal.transform(table) if classes else None
    return split_rows(table, spec.split, spec.valid, spec.seed, codes, classes)


def _without(table: Any, train: Any, drop: Sequence[str], target: Sequence[str]) -> Any:
    for name in drop:
        if name in target:
            raise SettingError(f'drop names "{name}", which is predicted; leave it out of one of the two')
        if name not in table.schema.names:
            near = did_you_mean(name, table.schema.names) or f"; there are {', '.join(table.schema.names[:10])}"
            raise SettingError(f'drop names "{name}", but there is no such column{near}')
    return train.drop_columns([*dict.fromkeys(drop)]) if drop else train


@contextmanager
def _numbered(rows: Any) -> Generator[None]:
    """Number rows as the table does where an error counts those of a part, which are the table's `rows`."""
    try:
        yield
    except DataError as error:
        text = re.sub(r"^row (\d+)(?=: )", lambda found: f"row {rows[int(found[1])]}", str(error))
        raise type(error)(text) from error
