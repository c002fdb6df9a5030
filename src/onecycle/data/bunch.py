"""DataBunch: training, validation and test batches that belong together."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from onecycle.core.checks import check_int
from onecycle.core.choices import ColumnKind, Task
from onecycle.core.device import default_seed, pick_device
from onecycle.data.arrays import as_dataset, is_in_memory
from onecycle.data.loaders import (
    Batch,
    InMemoryLoader,
    Loader,
    SeededGlobalRNG,
    TorchLoader,
    torch_loader,
)
from onecycle.errors import DataError, SettingError

if TYPE_CHECKING:  # only a table brings them
    from onecycle.tables.features import Features
    from onecycle.tables.profile import ColumnProfile
    from onecycle.tables.target import Target


class DataBunch:
    """Training, validation and test batches on one device.

    Takes loaders, torch's own DataLoader among them; `DataBunch.create` makes them from data sets and arrays.
    `seed` decides the batch order; left out, it follows `torch.manual_seed`.
    """

    def __init__(
        self,
        train_dl: DataLoader[Any] | Loader,
        valid_dl: DataLoader[Any] | Loader | None = None,
        test_dl: DataLoader[Any] | Loader | None = None,
        device: str | torch.device | None = None,
        fix_dl: DataLoader[Any] | Loader | None = None,
        seed: int | None = None,
        path: str | Path = ".",
    ) -> None:
        self.device = pick_device(device)
        self.seed = _checked_seed(seed)
        self.path = Path(path)
        self.pixel_scale: float | None = None  # what pixels were divided by, where the rows are images
        self.target: Target | None = None  # what is predicted, and
        self.features: Features | None = None  # how raw rows become inputs, where the data came from a table
        self.columns: tuple[ColumnProfile, ...] = ()  # what the columns of that table were taken for
        self.train_dl = self._wrap(train_dl)
        self.valid_dl = self._wrap(valid_dl) if valid_dl is not None else None
        self.test_dl = self._wrap(test_dl) if test_dl is not None else None
        unshuffled = getattr(self.train_dl, "unshuffled", lambda: None)  # a loader of somebody else's need not have it
        self.fix_dl: Loader | None = self._wrap(fix_dl) if fix_dl is not None else unshuffled()

    @classmethod
    def create(
        cls,
        train_ds: Any,
        valid_ds: Any = None,
        test_ds: Any = None,
        bs: int = 64,
        val_bs: int | None = None,
        num_workers: int = 0,
        device: str | torch.device | None = None,
        seed: int | None = None,
        path: str | Path = ".",
        pixel_scale: float | None = None,
    ) -> "DataBunch":
        """Make the loaders. Each of the data sets is a TensorDataset, a pair (x, y) of arrays, or a torch Dataset.

        Training shuffles and drops the last short batch; validation and test (`val_bs`, by default `bs`) and `fix_dl`
        (the training set in order) do neither. TensorDatasets and arrays live on the device; any other data set, one
        derived from TensorDataset with a `__getitem__` of its own among them, goes through torch's DataLoader with
        `num_workers`. Inputs of bytes (uint8) stay bytes on the device and become
        floats a batch at a time, divided by `pixel_scale`. Raises SettingError for a batch size below 1 and DataError
        for data that cannot be trained on.
        """
        bs = check_int(bs, "bs", least=1)
        val_bs = check_int(val_bs, "val_bs", least=1) if val_bs is not None else bs
        num_workers = check_int(num_workers, "num_workers", least=0)
        device, seed = pick_device(device), _checked_seed(seed)
        if isinstance(train_ds, Tensor | np.ndarray) and isinstance(valid_ds, Tensor | np.ndarray):
            raise DataError(
                "train and valid are single arrays; did you mean DataBunch.create((x, y), (x_valid, y_valid))?"
            )
        train, valid, test = (
            ds if ds is None or (isinstance(ds, Dataset) and not is_in_memory(ds)) else as_dataset(ds, name)
            for ds, name in ((train_ds, "train"), (valid_ds, "valid"), (test_ds, "test"))
        )
        if train is None:
            raise DataError("train has no rows; expected a data set or a pair (x, y)")
        rows = _rows(train, "train")
        for name, ds in (("valid", valid), ("test", test)):
            if ds is not None:
                _rows(ds, name)
        if rows < bs:
            warnings.warn(f"{rows} training rows are fewer than bs {bs}: an epoch is one batch of {rows}", stacklevel=2)

        def loader(ds: Any, size: int, training: bool = False) -> Loader | None:
            if ds is None:
                return None
            drop = training and rows >= bs
            if is_in_memory(ds):
                return InMemoryLoader(ds, size, device, seed, training, drop, pixel_scale)
            return TorchLoader(torch_loader(ds, size, num_workers, training, drop), device, seed)

        train_dl = loader(train, bs, training=True)
        assert train_dl is not None  # train is not None
        data = cls(train_dl, loader(valid, val_bs), loader(test, val_bs), device, seed=seed, path=path)
        data.pixel_scale = pixel_scale
        return data

    @classmethod
    def from_table(
        cls,
        source: Any,
        target: str | Sequence[str] = "y",
        task: Task | None = None,
        kinds: Mapping[str, ColumnKind] | None = None,
        drop: Sequence[str] = (),
        split: Any = "auto",
        valid: float = 0.2,
        bs: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        memory_limit: int | str | None = None,
        device: str | torch.device | None = None,
        seed: int | None = None,
        path: str | Path = ".",
    ) -> "DataBunch":
        """Make the loaders from a file or a table in memory, its preprocessing fitted on the training rows.

        `source`: a CSV, Parquet, Arrow, npy, npz, IDX or pickle file, a folder of images by class, a pandas, polars or
        other Arrow table, a dict of columns, a pair (x, y), a torch or Hugging Face data set. `target` names the column
        to predict (several: a list); `task` is classes, regression or multilabel and is else inferred. `kinds` says
        what columns are (number, category, date, dropped) where the guess is wrong; `drop` leaves columns out. `split`
        is auto, random, stratified, time:COLUMN, group:COLUMN, column:COLUMN, or rows; `valid` the share that
        validates. `bs` is by default 64, less for small tables and more for large ones. A file that takes more than
        `memory_limit` (bytes, or "2 GB"; by default half of the memory that is available) is prepared on the disk once.
        Raises SettingError for names and settings that cannot be used, FileError and DataError for what cannot be read
        or learned from. See docs/tables.md.
        """
        from onecycle.data.from_table import bunch_from_table  # imports pyarrow
        from onecycle.tables.spec import TableSpec

        bs = check_int(bs, "bs", least=1) if bs is not None else None
        spec = TableSpec(target, task, kinds or {}, drop, split, valid, _checked_seed(seed))
        return bunch_from_table(cls, source, spec, bs, image_size, memory_limit, pick_device(device), Path(path))

    def __repr__(self) -> str:
        sizes = [
            f"{name} {len(dl)}" for name, dl in (("train", self.train_dl), ("valid", self.valid_dl)) if dl is not None
        ]
        return f"DataBunch(batches: {', '.join(sizes)}; of {self.train_dl.batch_size} rows, on {self.device})"

    @property
    def train_ds(self) -> Any:
        """The training data set."""
        return self.train_dl.dataset

    @property
    def valid_ds(self) -> Any:
        """The validation data set, or None."""
        return self.valid_dl.dataset if self.valid_dl is not None else None

    @property
    def test_ds(self) -> Any:
        """The test data set, or None."""
        return self.test_dl.dataset if self.test_dl is not None else None

    @property
    def inputs(self) -> Tensor | None:
        """The training rows (of several inputs the first) where they are in memory, else None."""
        return self.train_ds.tensors[0] if is_in_memory(self.train_ds) else None

    @property
    def row_shape(self) -> torch.Size | None:
        """Shape of one row of the inputs, or None if the data is not in memory."""
        return self.inputs.shape[1:] if self.inputs is not None else None

    @property
    def row_dtype(self) -> torch.dtype | None:
        """dtype of the inputs, or None if the data is not in memory."""
        return self.inputs.dtype if self.inputs is not None else None

    @property
    def targets(self) -> Tensor | None:
        """The training targets where they are in memory, else None."""
        tensors = self.train_ds.tensors if is_in_memory(self.train_ds) else ()
        return tensors[-1] if len(tensors) > 1 else None

    @property
    def task(self) -> str:
        """What is predicted: classes, regression or multilabel."""
        return self.target.task if self.target is not None else "regression" if self.is_regression() else "classes"

    def is_regression(self) -> bool:
        """Whether the training targets are floats; of a data set that is not in memory, the first row is looked at."""
        if (targets := self.targets) is not None:
            return targets.is_floating_point()
        if self.classes is not None or not hasattr(self.train_ds, "__getitem__"):
            return False
        with SeededGlobalRNG(self.seed):  # the data set may draw from them
            row = self.train_ds[0]
        target = row[-1] if isinstance(row, tuple | list) else None
        return isinstance(target, float) or "float" in str(getattr(target, "dtype", ""))

    @property
    def classes(self) -> list[Any] | None:
        """The data set's own `classes`, else 0 to the highest label; None for regression and unknown targets."""
        if self.target is not None:
            return self.target.classes
        if (named := getattr(self.train_ds, "classes", None)) is not None:
            return list(named)
        targets = self.targets
        if targets is None or targets.is_floating_point():
            return None
        return list(range(int(targets.max()) + 1))

    @property
    def c(self) -> int:
        """How many outputs a model needs: the number of classes, or of target columns."""
        if self.target is not None:
            return self.target.outputs
        if (classes := self.classes) is not None:
            return len(classes)
        targets = self.targets
        if targets is None:
            raise DataError("the number of classes is not known: the data set has no `classes` and is not in memory")
        return 1 if targets.ndim == 1 else int(targets.shape[1])

    def class_weights(self) -> Tensor:
        """A weight for each class, rows / (classes × rows of the class): `nn.CrossEntropyLoss(weight=...)` takes them.

        Raises DataError where the training targets are no classes in memory.
        """
        from onecycle.tables.target import class_weights

        if self.targets is None or self.classes is None:
            raise DataError("class weights need targets that are classes, in memory")
        return torch.from_numpy(class_weights(self.targets.cpu().numpy(), self.c)).float().to(self.device)

    def one_batch(self, which: str = "train") -> Batch:
        """The next batch (x, y) of the train, valid, test or fix loader."""
        return next(iter(self.dl(which)))

    def dl(self, which: str) -> Loader:
        """The loader called train, valid, test or fix. Raises DataError where there is none."""
        known = {"train": self.train_dl, "valid": self.valid_dl, "test": self.test_dl, "fix": self.fix_dl}
        if which not in known:
            raise SettingError(f'unknown data set "{which}"; expected one of {", ".join(known)}')
        if (found := known[which]) is None:
            if which == "fix":
                raise DataError("the training rows cannot be had in order: their loader does not say which they are")
            raise DataError(f"there is no {which} set; give DataBunch.create a {which}_ds")
        return found

    def show_batch(self, rows: int = 3, which: str = "train") -> Any:
        """Draw `rows` × `rows` examples of a batch with their targets; returns the figure.

        Rows that are square images (28×28, or 784 numbers) are drawn as such, others as lines. Raises SettingError for
        `rows` below 1.
        """
        from onecycle.show.plots import plot_examples

        rows = check_int(rows, "rows", least=1)
        x, y = self.one_batch(which)
        x = x[0] if isinstance(x, list) else x
        titles = [str(value) for value in y.tolist()] if y is not None else [""] * len(x)
        return plot_examples(x[: rows * rows].cpu().numpy(), titles[: rows * rows], columns=rows)

    def _wrap(self, loader: DataLoader[Any] | Loader) -> Loader:
        if isinstance(loader, DataLoader):
            return TorchLoader(loader, self.device, self.seed)
        if not hasattr(loader, "epoch"):
            kind = type(loader).__name__
            raise DataError(f"DataBunch takes loaders, not a {kind}; did you mean DataBunch.create({kind}, ...)?")
        return loader


def _checked_seed(seed: int | None) -> int:
    if seed is None:
        return default_seed()
    return check_int(seed, "seed", least=0)


def _rows(ds: Any, name: str) -> int:
    """How many rows a data set has. Raises DataError for none, and where it has no length."""
    try:
        rows = len(ds)
    except TypeError:
        raise DataError(f"{name} has no length; expected a data set with __len__ and __getitem__") from None
    if not rows:
        raise DataError(f"{name} has no rows; expected at least one")
    return rows
