"""Make a DataBunch of a table or of arrays: split the rows, fit the preprocessing and the target, transform."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import TensorDataset

from onecycle.core.archives import describe_folder, is_zip, read_state, read_zip
from onecycle.core.choices import ColumnKind
from onecycle.data.disk_loader import open_stream
from onecycle.data.loaders import RowLoader
from onecycle.data.sources import TARGET, Arrays, open_source
from onecycle.errors import DataError, SettingError
from onecycle.tables.features import Features
from onecycle.tables.json_reader import JsonReader
from onecycle.tables.profile import ColumnProfile, profile_columns
from onecycle.tables.read import naming_lines
from onecycle.tables.spec import TableSpec, excluded_feature
from onecycle.tables.split import Split, split_rows
from onecycle.tables.target import Target

if TYPE_CHECKING:
    from onecycle.data.bunch import DataBunch

Fitted: TypeAlias = tuple[Features | None, Target]
"""The preprocessing of an earlier model."""


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
    fitted: Fitted | None = None,
) -> "DataBunch":
    """Return a DataBunch of `source`, in memory, or on the disk if it takes more than `memory_limit`.

    Its preprocessing is that of `fitted`, or fitted on its training rows.
    """
    stream = open_stream(source, spec, memory_limit, fitted)
    if stream is not None:
        bs = bs or default_bs(stream.rows)
        train, valid, test = stream.loaders(bs, bs, device, spec.seed).values()
        assert train is not None  # it has rows to train on
        bunch = bunch_type(train, valid, test, device, seed=spec.seed, path=path)
        return _with_preprocessing(bunch, *stream.fitted)
    data = open_source(source, image_size, spec.text_columns)
    with naming_lines(source) if isinstance(source, str | os.PathLike) else nullcontext():
        prepared = (prepare_arrays if isinstance(data, Arrays) else prepare_table)(data, spec, fitted)
    bs, scale = bs or default_bs(len(prepared.sets[0])), prepared.pixel_scale
    bunch = bunch_type.create(*prepared.sets, bs=bs, device=device, seed=spec.seed, path=path, pixel_scale=scale)
    return _with_preprocessing(bunch, prepared.features, prepared.target, prepared.columns)


def _with_preprocessing(
    bunch: "DataBunch", features: Features | None, target: Target, columns: tuple[ColumnProfile, ...]
) -> "DataBunch":
    """Return the bunch after telling it, and its loaders, how their rows were prepared."""
    bunch.features, bunch.target, bunch.columns = features, target, columns
    for loader in (bunch.train_dl, bunch.valid_dl, bunch.test_dl, bunch.fix_dl):
        if isinstance(loader, RowLoader):
            loader.prepared = features, target
    return bunch


def read_preprocessing(source: Any, spec: TableSpec) -> tuple[TableSpec, Fitted]:
    """Return the preprocessing of a bundle, a save, or an object that has it, and `spec` with its target and columns.

    Raises SettingError if it has none, or if `spec` says otherwise; FileError for what cannot be read.
    """
    name = type(source).__name__
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        name = str(path)
        is_save = (describe_folder(path) or "").startswith("a checkpoint")
        state = read_zip(path, "bundle")[0] if is_zip(path) else read_state(path, "checkpoint" if is_save else "bundle")
        info = JsonReader(state.get("info", {}), f"{path}: info")
        features = Features.from_dict(value) if (value := info.get("features")) is not None else None
        target = Target.from_dict(value) if (value := info.get("target")) is not None else None
    else:
        features, target = getattr(source, "features", None), getattr(source, "target", None)
    if target is None:
        raise SettingError(
            f"preprocessing: {name} has none; expected a bundle or a save of a model of a table, a Learner, Predictor "
            "or DataBunch of one"
        )
    is_target = spec.targets in ([TARGET], target.names) and spec.task in (None, target.task)
    if not is_target or spec.kinds or spec.dropped:
        raise SettingError(
            f"preprocessing: {name} says what the columns are and predicts {', '.join(target.names)} ({target.task}); "
            "leave out target, task, kinds and drop"
        )
    texts = features.text_columns if features is not None else []
    kinds: dict[str, ColumnKind] = dict.fromkeys(texts, "category")  # read as text
    return replace(spec, target=target.names, task=target.task, kinds=kinds), (features, target)


def prepare_table(table: Any, spec: TableSpec, fitted: Fitted | None = None) -> PreparedData:
    """Split a pyarrow Table and prepare it as `fitted` says, or fit its preprocessing on the training rows."""
    if table.num_rows == 1:
        raise DataError("the table has 1 row; expected at least 2, one of them to validate")
    as_written = spec.labels_as_written
    if fitted is not None and fitted[0] is None:
        raise DataError("a table has columns, and preprocessing is that of images or arrays; expected such")
    target = fitted[1] if fitted is not None else Target.fit(table, spec.targets, spec.task, as_written)
    if target.task == "classes" and excluded_feature(spec.split) in spec.targets:
        raise SettingError(
            f'split "{spec.split}" is by what is predicted, so that validation has none of the classes that are '
            "trained on; expected another split"
        )
    split = _split(table, target, spec)
    train = table.take(split.train)
    if fitted is not None and fitted[0] is not None:
        features, columns = fitted[0], list[ColumnProfile]()
    else:
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


def prepare_arrays(arrays: Arrays, spec: TableSpec, fitted: Fitted | None = None) -> PreparedData:
    """Split arrays that are not a table; images of bytes are scaled a batch at a time."""
    if fitted is not None and fitted[0] is not None:
        raise DataError("these are images or arrays, and preprocessing is that of the columns of a table; expected one")
    _check_arrays(arrays, spec)
    sets = [(x, _target_table(arrays, y)) for x, y in filter(None, (arrays.train, arrays.valid, arrays.test))]
    x, y = sets[0]
    target = fitted[1] if fitted is not None else Target.fit(y, [TARGET], spec.task)
    if arrays.valid is None:
        split = _split(y, target, spec)
        sets[:1] = [(x[rows], y.take(rows)) for rows in (split.train, split.valid)]
    target = target if fitted is not None else Target.fit(sets[0][1], [TARGET], target.task)
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
    return split_rows(table, spec, target.transform(table, "the table") if target.task == "classes" else None)


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
