"""Make a DataBunch of a table or of arrays: split the rows, fit the preprocessing and the target, transform."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from onecycle.data.disk_loader import open_stream
from onecycle.data.sources import TARGET, Arrays, open_source
from onecycle.errors import DataError, SettingError
from onecycle.tables.features import Features
from onecycle.tables.profile import ColumnProfile, profile_columns
from onecycle.tables.read import naming_lines
from onecycle.tables.spec import TableSpec, excluded_feature
from onecycle.tables.split import Split, split_rows
from onecycle.tables.target import Target

if TYPE_CHECKING:
    from onecycle.data.bunch import DataBunch


@dataclass(frozen=True)
class PreparedData:
    """The sets of a DataBunch (train, valid, perhaps test), and how raw rows become its inputs and targets.

    `features` is None for arrays that are used as they are; `pixel_scale` is what their bytes are divided by.
    """

    sets: list[TensorDataset]
    target: Target
    features: Features | None = None
    columns: tuple[ColumnProfile, ...] = ()
    pixel_scale: float | None = None


def bunch_from_table(
    bunch_type: "type[DataBunch]",
    source: Any,
    spec: TableSpec,
    bs: int | None,
    image_size: int | tuple[int, int] | None,
    memory_limit: int | str | None,
    device: torch.device,
    path: Path,
) -> "DataBunch":
    """Return a DataBunch of `source`, in memory, or on the disk if it takes more than `memory_limit`."""
    stream = open_stream(source, spec, memory_limit)
    if stream is not None:
        bs = bs or default_bs(stream.rows)
        train, valid, test = stream.loaders(bs, bs, device, spec.seed).values()
        assert train is not None  # it has rows to train on
        bunch = bunch_type(train, valid, test, device, seed=spec.seed, path=path)
        bunch.features, bunch.target, bunch.columns = stream.fitted
        bunch.pixel_scale = stream.pixel_scale
        return bunch
    data = open_source(source, image_size, spec.text_columns)
    with naming_lines(source) if isinstance(source, str | os.PathLike) else nullcontext():
        prepared = prepare_arrays(data, spec) if isinstance(data, Arrays) else prepare_table(data, spec)
    bs, scale = bs or default_bs(len(prepared.sets[0])), prepared.pixel_scale
    bunch = bunch_type.create(*prepared.sets, bs=bs, device=device, seed=spec.seed, path=path, pixel_scale=scale)
    bunch.features, bunch.target, bunch.columns = prepared.features, prepared.target, prepared.columns
    return bunch


def prepare_table(table: Any, spec: TableSpec) -> PreparedData:
    """Split a pyarrow Table and fit its preprocessing on the training rows."""
    if table.num_rows == 1:
        raise DataError("the table has 1 row; expected at least 2, one of them to validate")
    as_written = spec.labels_as_written
    target = Target.fit(table, spec.targets, spec.task, as_written)
    if target.task == "classes" and excluded_feature(spec.split) in spec.targets:
        raise SettingError(
            f'split "{spec.split}" is by what is predicted, so that validation has none of the classes that are '
            "trained on; expected another split"
        )
    split = _split(table, target, spec)
    train = table.take(split.train)
    try:
        # with the classes and statistics of the training rows
        target = Target.fit(train, spec.targets, target.task, as_written)
    except DataError as error:
        raise DataError(f"of the rows to train on: {error}; expected another split, or more rows") from error
    non_features = spec.non_features(table.column_names)
    with _table_row_numbers(split.train):
        columns = profile_columns(train.drop_columns(non_features), spec)
        features = Features.fit(train, columns, table.take(np.concatenate([split.valid, split.test])))
    sets: list[TensorDataset] = []
    for name, rows in (("training", split.train), ("validation", split.valid), ("test", split.test)):
        if len(rows):
            with _table_row_numbers(rows):
                part = train if rows is split.train else table.take(rows)
                x, y = features.transform(part), target.transform(part, name)
            sets.append(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)))
    return PreparedData(sets, target, features, tuple(columns))


def prepare_arrays(arrays: Arrays, spec: TableSpec) -> PreparedData:
    """Split arrays that are not a table; images of bytes are scaled a batch at a time."""
    _check_arrays(arrays, spec)
    sets = [(x, _target_table(arrays, y)) for x, y in filter(None, (arrays.train, arrays.valid, arrays.test))]
    x, y = sets[0]
    target = Target.fit(y, [TARGET], spec.task)
    if arrays.valid is None:
        split = _split(y, target, spec)
        sets[:1] = [(x[rows], y.take(rows)) for rows in (split.train, split.valid)]
    target = Target.fit(sets[0][1], [TARGET], target.task)
    datasets = [TensorDataset(x, torch.from_numpy(target.transform(y))) for x, y in sets]
    return PreparedData(datasets, target, pixel_scale=arrays.pixel_scale)


def _check_arrays(arrays: Arrays, spec: TableSpec) -> None:
    """Raise SettingError for settings that only a table has, DataError for sets whose rows differ in shape."""
    for name, value in (("kinds", spec.kinds), ("drop", spec.dropped)):
        if value:
            raise SettingError(f"{name} is for the columns of a table; these are images or arrays, without columns")
    if arrays.valid is not None and not (isinstance(spec.split, str) and spec.split == "auto"):
        raise SettingError(
            f"split is {spec.split!r}, but the data has its own split into train and valid; leave it out"
        )
    expected = tuple(arrays.train[0].shape[1:])
    for name, pair in (("valid", arrays.valid), ("test", arrays.test)):
        if pair is not None and (shape := tuple(pair[0].shape[1:])) != expected:
            raise DataError(f"{name}: a row of x has shape {shape}; expected {expected}, as in the training rows")


def _target_table(arrays: Arrays, y: Any) -> Any:
    """Return the targets as a table of one column; classes that have names by their names."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    if y.ndim != 1:
        raise DataError(f"y has shape {tuple(y.shape)}; expected one target for each row")
    values = y.numpy() if arrays.classes is None else [arrays.classes[i] for i in y.tolist()]
    return pa.table({TARGET: values})


def _split(table: Any, target: Target, spec: TableSpec) -> Split:
    return split_rows(table, spec, target.transform(table) if target.task == "classes" else None)


@contextmanager
def _table_row_numbers(rows: Any) -> Generator[None]:
    """Replace a row number of a set, in the message of a DataError, by that of the table; `rows` are the set's rows."""
    try:
        yield
    except DataError as error:
        text = re.sub(r"^row (\d+)(?=: )", lambda match: f"row {rows[int(match[1])]}", str(error))
        raise type(error)(text) from error


def default_bs(rows: int) -> int:
    """Return a batch size for so many training rows: small tables need many steps, large ones few calls."""
    return min(next((bs for limit, bs in ((5_000, 32), (20_000, 64), (200_000, 256)) if rows < limit), 1024), rows)


def default_epochs(steps: int) -> int:
    """Return a number of epochs of `steps` batches each, from 8 to 20: more only learn a table by heart.

    It makes about 2,200 steps in all.
    """
    return min(max(round(2_200 / max(steps, 1)), 8), 20)
