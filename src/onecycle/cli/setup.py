"""Setup: everything that a training is made of (data, model, metrics, length), made from its settings."""

import re
import shlex
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from onecycle.cli.settings import ModelChoice, TrainSettings
from onecycle.cli.terminal import print_lines
from onecycle.core.device import preserve_rng_state, seed_generators
from onecycle.core.models import MLP, TabularModel
from onecycle.data.bunch import DataBunch
from onecycle.data.datasets import mnist
from onecycle.errors import SettingError
from onecycle.learner import Learner
from onecycle.tables.spec import TableSpec
from onecycle.train.epoch_metrics import average_precision, f1_score, mae, r2_score, rmse, roc_auc
from onecycle.train.metrics import Metric, accuracy

_MNIST_BS, _MNIST_EPOCHS, _MNIST_HIDDEN = 64, 1, (50,)  # the lesson's
_MAX_LISTED = 12  # columns in an error
_SLOW_BYTES = 64 * 2**20  # of a file that takes a while to read


@dataclass(frozen=True)
class SourceContent:
    """What a path holds.

    Attributes:
        name: The path, or the name of a data set.
        table: Its content as a pyarrow table, or None.
        other: If it is not a table in memory: anything else that `DataBunch.from_table` takes, such as arrays.
        streamed: The columns of a table that is larger than memory, whose path is in `other`.
    """

    name: str
    table: Any = None
    other: Any = None
    streamed: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the table's columns."""
        return self.table.schema.names if self.table is not None else list(self.streamed)


@dataclass(frozen=True)
class Setup:
    """Everything that a training is made of.

    Attributes:
        data: The batches.
        model: The untrained model.
        metrics: The metrics that suit the target.
        epochs: Length of the cycle.
        about: What was read, in words.
        table: What is predicted from which columns: of arrays and images, no names.
        split: How the validation rows were chosen, in words.
        note: What differs from what was asked for, or None.
    """

    data: DataBunch
    model: nn.Module
    metrics: list[Metric]
    epochs: int
    about: str
    table: TableSpec
    split: str
    note: str | None = None


def read_source(settings: TrainSettings) -> SourceContent:
    """Read the source, unless it is a data set of the library, a folder of images or a table larger than memory."""
    from onecycle.data.sources import Arrays, open_source
    from onecycle.tables.cache.source import open_if_larger
    from onecycle.tables.read import is_table_file

    name, path = settings.source, Path(settings.source)
    if settings.is_dataset:
        return SourceContent(name)
    if path.is_dir() and not is_table_file(path):
        return SourceContent(name, other=path)
    large = open_if_larger(path, settings.memory_limit, settings.table.text_columns)
    if large is not None:
        return SourceContent(name, other=path, streamed=tuple(large.shape.names))
    if (size := path.stat().st_size) >= _SLOW_BYTES:
        print_lines(f"reading {path} ({size / 2**20:,.0f} MiB)", file=sys.stderr)
    content = open_source(path, text_columns=settings.table.text_columns)
    if isinstance(content, Arrays):
        sets = [pair for pair in (content.train, content.valid, content.test) if pair is not None]
        return SourceContent(name, other=sets[0] if len(sets) == 1 else tuple(sets))
    return SourceContent(name, table=content)


def resolve_columns(table: TableSpec, source: SourceContent) -> TableSpec:
    """Return `table` with the names of columns for the text of --target and --drop.

    Raise SettingError, with the columns that there are, if a file of columns comes without a target.
    """
    columns = source.columns
    target, drop = split_names(table.target, columns), split_names(table.drop, columns)
    if not columns:
        for option, value in (("--target", target), ("--drop", drop), ("--kind", table.kinds)):
            if value:
                raise SettingError(f"{option} is for tables; {source.name} holds images or arrays, without columns")
    elif not target and not (target := suggested_target(source)):
        more = f" and {len(columns) - _MAX_LISTED:,} more" if len(columns) > _MAX_LISTED else ""
        raise SettingError(
            f"{source.name}: --target is missing, which says what is predicted; the columns are "
            f"{', '.join(columns[:_MAX_LISTED])}{more}; for example --target {shlex.quote(columns[-1])}"
        )
    return replace(table, target=target, drop=drop)


def suggested_target(source: SourceContent) -> tuple[str, ...]:
    """Return the target if none was given: of arrays y, or y0, y1, …; of a file of columns nothing."""
    from onecycle.tables.read import is_table_file

    return () if is_table_file(source.name) else tuple(name for name in source.columns if re.fullmatch(r"y\d*", name))


def split_names(names: Any, columns: list[str]) -> tuple[str, ...]:
    """Return the columns that the text of an option names: a column of that name, or several, separated by commas."""
    if not isinstance(names, str):
        return tuple(names)
    if names in columns:
        return (names,)
    return tuple(name if name in columns else name.strip() for name in names.split(","))


def build_setup(settings: TrainSettings, device: torch.device, source: SourceContent | None = None) -> Setup:
    """Make everything that a training needs; `source` is what `read_source` returned, if it was already called."""
    seed = settings.table.seed
    if settings.is_dataset:
        data = mnist(bs=settings.bs or _MNIST_BS, seed=seed, device=device)
        epochs = _MNIST_EPOCHS if settings.epochs is None else settings.epochs
        model = _seeded_model(seed, device, data, settings.model)
        about, split = f"{settings.source}: {_describe_arrays(data)}", "the data set's own"
        return Setup(data, model, [accuracy], epochs, about, settings.table, split)
    from onecycle.data.from_table import default_epochs  # imports pyarrow
    from onecycle.tables.read import naming_lines

    source = source or read_source(settings)
    table = resolve_columns(settings.table, source)
    if source.columns and settings.image_size is not None:
        raise SettingError(f"--image-size is for a folder of images; {source.name} is a table")
    with nullcontext() if source.streamed else naming_lines(source.name):
        data = DataBunch.from_table(
            source.other if source.table is None else source.table,
            **vars(table),
            bs=settings.bs,
            image_size=settings.image_size,
            memory_limit=settings.memory_limit,
            device=device,
        )
    epochs = default_epochs(len(data.train_dl)) if settings.epochs is None else settings.epochs
    note = None
    if settings.model.kind == "mlp" and data.features is not None and data.features.sizes:
        note = "mlp: the table has categories, so the model is a TabularModel of these widths, which embeds them"
    model = _seeded_model(seed, device, data, settings.model)
    about, split = f"{source.name}: {_describe(source, data)}", _describe_split(table, source, data)
    return Setup(data, model, metrics_for(data.task, data.c), epochs, about, table, split, note)


def metrics_for(task: str, outputs: int) -> list[Metric]:
    """Return the metrics for a task and a number of outputs."""
    if task == "regression":
        return [rmse, mae, r2_score]
    if task == "multilabel":
        return [f1_score, roc_auc, average_precision]
    return [accuracy, f1_score, roc_auc] if outputs == 2 else [accuracy, f1_score]


def build_learner(setup: Setup, settings: TrainSettings) -> Learner:
    """Make the learner of a setup."""
    return Learner(
        setup.data,
        setup.model,
        metrics=setup.metrics,
        wd=settings.wd,
        engine=settings.engine,
        precision=settings.precision,
        threads=settings.threads or "auto",
    )


def _seeded_model(seed: int, device: torch.device, data: DataBunch, choice: ModelChoice) -> nn.Module:
    with preserve_rng_state(device):
        seed_generators(seed, device)
        return _build_model(choice, data)


def _build_model(choice: ModelChoice, data: DataBunch) -> nn.Module:
    features, rows = data.features, data.inputs
    if features is not None and (choice.kind != "mlp" or features.sizes):
        return TabularModel(features.numbers, features.sizes, data.c, hidden=choice.hidden)
    if choice.kind == "tabular":
        raise SettingError("--model tabular is for tables; these are images or arrays: expected mlp:256,128")
    inputs = features.numbers if features is not None else prod(rows.shape[1:]) if rows is not None else 0
    return MLP(inputs, *(_MNIST_HIDDEN if choice.hidden is None else choice.hidden), data.c)


def _describe(source: SourceContent, data: DataBunch) -> str:
    if source.table is not None:
        return f"{source.table.num_rows:,} rows, {source.table.num_columns:,} columns"
    if source.streamed:
        return f"prepared on disk, {len(source.streamed):,} columns"
    return _describe_arrays(data)


def _describe_arrays(data: DataBunch) -> str:
    shape = data.inputs.shape[1:] if data.inputs is not None else ()
    count = sum(len(ds) for ds in (data.train_ds, data.valid_ds, data.test_ds) if ds is not None)
    return f"{count:,} rows of {' x '.join(map(str, shape))}"


def _describe_split(table: TableSpec, source: SourceContent, data: DataBunch) -> str:
    if isinstance(source.other, tuple) and isinstance(source.other[0], tuple):
        return "the file's own"
    if table.split == "auto":
        return "auto: stratified by class" if data.task == "classes" else "auto: random"
    return table.split
