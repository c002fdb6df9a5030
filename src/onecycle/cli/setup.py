"""From settings to everything that a training is made of: what is read, the batches, the model, how long."""

import re
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from onecycle.cli.settings import DataSettings, ModelChoice, TrainSettings
from onecycle.core.device import preserve_rng_state, seed_generators
from onecycle.core.models import MLP, TabularModel
from onecycle.data.bunch import DataBunch
from onecycle.data.datasets import mnist
from onecycle.errors import SettingError
from onecycle.learner import Learner
from onecycle.train.epoch_metrics import average_precision, f1_score, mae, r2_score, rmse, roc_auc
from onecycle.train.metrics import Metric, accuracy

_MNIST_BS, _MNIST_EPOCHS, _HIDDEN = 64, 1, (50,)  # the lesson's
_SHOWN = 12  # columns that an error lists
_SLOW = 64 * 2**20  # bytes of a file that takes a while to read


@dataclass(frozen=True)
class Source:
    """What a path holds: a pyarrow table, or something else that `DataBunch.from_table` takes."""

    name: str
    table: Any = None
    other: Any = None
    streamed: tuple[str, ...] = ()  # the columns of a table that is larger than memory, which `other` is the path of

    @property
    def columns(self) -> list[str]:
        """The names of the table's columns."""
        return self.table.schema.names if self.table is not None else list(self.streamed)


@dataclass(frozen=True)
class Setup:
    """Everything that a training is made of."""

    data: DataBunch
    model: nn.Module
    metrics: list[Metric]
    epochs: int
    about: str  # what was read
    target: tuple[str, ...]  # the columns that are predicted; of images none
    split: str = "auto"
    note: str | None = None  # what is not as it was asked for


def open_source(settings: DataSettings) -> Source:
    """Read what `settings` names, unless that is a data set of the library's own or a folder of images."""
    from onecycle.data.sources import Arrays, open_source
    from onecycle.tables.cache.source import open_if_larger
    from onecycle.tables.read import is_table_file

    if settings.is_dataset:
        return Source(settings.source)
    path = Path(settings.source)
    if path.is_dir() and not is_table_file(path):
        return Source(settings.source, other=path)
    as_written = [name for name, kind in settings.kinds if kind == "category"]
    large = open_if_larger(path, settings.memory_limit, as_written)
    if large is not None:
        return Source(settings.source, other=path, streamed=tuple(large.shape.names))
    if (size := path.stat().st_size) >= _SLOW:
        print(f"reading {path} ({size / 2**20:,.0f} MiB)", file=sys.stderr)
    found = open_source(path, as_written=as_written)
    if isinstance(found, Arrays):
        pairs = [pair for pair in (found.train, found.valid, found.test) if pair is not None]
        return Source(settings.source, other=pairs[0] if len(pairs) == 1 else tuple(pairs))
    return Source(settings.source, table=found)


def target_names(source: Source, given: str | None) -> tuple[str, ...]:
    """The columns that are predicted: those `given`, of arrays else y, or y0, y1, …

    Raises SettingError, with the columns that there are, where a file of columns comes without.
    """
    columns = source.columns
    if given is not None:
        return column_names(given, columns)
    if found := suggested_target(source):
        return found
    more = f" and {len(columns) - _SHOWN:,} more" if len(columns) > _SHOWN else ""
    raise SettingError(
        f"{source.name}: --target is missing, which says what is predicted; the columns are "
        f"{', '.join(columns[:_SHOWN])}{more}; for example --target {shell_quote(columns[-1])}"
    )


def suggested_target(source: Source) -> tuple[str, ...]:
    """What is predicted where nobody says so: of arrays y, or y0, y1, …; of a file of columns nothing."""
    from onecycle.tables.read import is_table_file

    return () if is_table_file(source.name) else tuple(name for name in source.columns if re.fullmatch(r"y\d*", name))


def column_names(given: str, columns: list[str]) -> tuple[str, ...]:
    """The columns that the text of an option names: one that is called so, or several with commas between them."""
    if given in columns:
        return (given,)
    return tuple(part if part in columns else part.strip() for part in given.split(","))


def build_setup(settings: TrainSettings, device: torch.device, source: Source | None = None) -> Setup:
    """Everything that a training with `settings` is made of; `source` is what `open_source` read, where it did."""
    wanted = settings.data
    if wanted.is_dataset:
        data = mnist(bs=wanted.bs or _MNIST_BS, seed=wanted.seed, device=device)
        epochs = _MNIST_EPOCHS if settings.epochs is None else settings.epochs
        model = _seeded(wanted.seed, device, data, settings.model)
        return Setup(data, model, [accuracy], epochs, f"{wanted.source}: {_images(data)}", (), "the data set's own")
    from onecycle.data.from_table import default_epochs  # brings pyarrow
    from onecycle.tables.read import naming_csv_lines

    source = source or open_source(wanted)
    names = target_names(source, wanted.target) if source.columns else ()
    with nullcontext() if source.streamed else naming_csv_lines(source.name):
        data = _bunch(source, names, wanted, device)
    epochs = settings.epochs if settings.epochs is not None else default_epochs(len(data.train_dl))
    about = f"{source.name}: {_images(data)}"
    if source.table is not None:
        about = f"{source.name}: {source.table.num_rows:,} rows, {source.table.num_columns:,} columns"
    if source.streamed:
        about = f"{source.name}: prepared on the disk, {len(source.streamed):,} columns"
    split = wanted.split
    if isinstance(source.other, tuple) and isinstance(source.other[0], tuple):
        split = "the file's own"
    elif split == "auto":
        split = "auto: stratified by class" if data.task == "classes" else "auto: random"
    note = None
    if settings.model.kind == "mlp" and data.features is not None and data.features.sizes:
        note = "mlp: the table has categories, so the model is a TabularModel of these widths, which embeds them"
    model = _seeded(wanted.seed, device, data, settings.model)
    return Setup(data, model, metrics_of(data.task, data.c), epochs, about, names, split, note)


def metrics_of(task: str, outputs: int) -> list[Metric]:
    """The metrics that go with what is predicted."""
    if task == "regression":
        return [rmse, mae, r2_score]
    if task == "multilabel":
        return [f1_score, roc_auc, average_precision]
    return [accuracy, f1_score, roc_auc] if outputs == 2 else [accuracy, f1_score]


def learner(setup: Setup, settings: TrainSettings) -> Learner:
    """The learner of a setup."""
    return Learner(
        setup.data,
        setup.model,
        metrics=setup.metrics,
        wd=settings.wd,
        engine=settings.engine,
        precision=settings.precision,
    )


def _bunch(source: Source, names: tuple[str, ...], settings: DataSettings, device: torch.device) -> DataBunch:
    if not source.columns:
        for option, given in (("--target", settings.target), ("--drop", settings.drop), ("--kind", settings.kinds)):
            if given:
                raise SettingError(f"{option} is for tables; {source.name} holds images or arrays, without columns")
    elif settings.image_size is not None:
        raise SettingError(f"--image-size is for a folder of images; {source.name} is a table")
    return DataBunch.from_table(
        source.table if source.table is not None else source.other,
        target=names,
        task=settings.task,
        kinds=dict(settings.kinds) or None,
        drop=column_names(settings.drop, source.columns) if settings.drop else (),
        split=settings.split,
        valid=settings.valid,
        bs=settings.bs,
        image_size=settings.image_size,
        memory_limit=settings.memory_limit,
        device=device,
        seed=settings.seed,
    )


def _seeded(seed: int, device: torch.device, data: DataBunch, choice: ModelChoice) -> nn.Module:
    with preserve_rng_state(device):
        seed_generators(seed, device)
        return _model(choice, data)


def _model(choice: ModelChoice, data: DataBunch) -> nn.Module:
    features, rows = data.features, data.inputs
    if features is not None and (choice.kind != "mlp" or features.sizes):
        return TabularModel(features.numbers, features.sizes, data.c, hidden=choice.hidden)
    if choice.kind == "tabular":
        raise SettingError("--model tabular is for tables; these are images or arrays: expected mlp:256,128")
    inputs = features.numbers if features is not None else prod(rows.shape[1:]) if rows is not None else 0
    return MLP(inputs, *(_HIDDEN if choice.hidden is None else choice.hidden), data.c)


def _images(data: DataBunch) -> str:
    shape = data.inputs.shape[1:] if data.inputs is not None else ()
    count = sum(len(ds) for ds in (data.train_ds, data.valid_ds, data.test_ds) if ds is not None)
    return f"{count:,} rows of {' x '.join(map(str, shape))}"


def shell_quote(name: str) -> str:
    """A column's name as it is written in a shell."""
    import shlex

    return shlex.quote(name)
