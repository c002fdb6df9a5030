"""DataBunch: training, validation and test batches that belong together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from onecycle.core.checks import check_int
from onecycle.core.choices import ColumnKind, SetName, Task
from onecycle.core.device import default_seed, pick_device
from onecycle.core.meaning import check_rows, named_classes
from onecycle.data.arrays import ArrayLike, DatasetLike, as_dataset, is_in_memory
from onecycle.data.loaders import Batch, InMemoryLoader, Loader, SeededGlobalRNG, TorchLoader
from onecycle.errors import DataError, SettingError, warn_user

if TYPE_CHECKING:  # only a table needs them, and plots
    from matplotlib.figure import Figure

    from onecycle.tables.features import Features
    from onecycle.tables.profile import ColumnProfile
    from onecycle.tables.target import Target


class Prepared(Protocol):
    """Has the preprocessing of a table's rows: a DataBunch, a Predictor or a Learner."""

    @property
    def features(self) -> "Features | None": ...
    @property
    def target(self) -> "Target | None": ...


class DataBunch:
    """Training, validation and test batches on one device.

    `DataBunch.create` makes one from arrays and data sets, `DataBunch.from_table` from a file or table. The constructor
    takes loaders, torch's own DataLoader among them.

    Args:
        train_dl: Loader of the training batches.
        valid_dl: Loader of the validation batches.
        test_dl: Loader of the test batches.
        device: Where the batches go; by default `ONECYCLE_DEVICE`, else a GPU if there is one, else the CPU.
        fix_dl: Loader of the training rows in order; by default made from `train_dl`, if it says which rows it has.
        seed: Decides the order of the training rows; by default it follows `torch.manual_seed`.
        path: Folder that a learner of this data writes to.

    Attributes:
        train_dl, valid_dl, test_dl, fix_dl: The loaders; all but the first may be None.
        device, seed, path: The arguments, or what they are by default.
        pixel_scale: Divisor of the pixels if the rows are images, else None.
        target, features, columns: If the data came from a table, the fitted target, how raw rows become inputs, and the
            profile of each column.

    Raises:
        DataError: If a loader is not one.
        SettingError: If the seed is not a whole number of at least 0.
        DeviceError: If the device is unknown or not on this machine.

    Example:
        >>> data = DataBunch(DataLoader(train_ds, 64, shuffle=True), DataLoader(valid_ds, 64))
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
        self.columns: tuple[ColumnProfile, ...] = ()
        self.train_dl = self._wrap(train_dl)
        self.pixel_scale: float | None = getattr(self.train_dl, "pixel_scale", None)
        prepared = getattr(self.train_dl, "prepared", None)
        self.features: Features | None = prepared[0] if prepared else None
        self.target: Target | None = prepared[1] if prepared else None
        self.valid_dl = self._wrap(valid_dl) if valid_dl is not None else None
        self.test_dl = self._wrap(test_dl) if test_dl is not None else None
        unshuffled = getattr(self.train_dl, "unshuffled", lambda: None)  # a user's loader need not have it
        self.fix_dl: Loader | None = self._wrap(fix_dl) if fix_dl is not None else unshuffled()
        for name, loader in (("valid", self.valid_dl), ("test", self.test_dl), ("fix", self.fix_dl)):
            if loader is not None:
                check_rows(loader, self, name)

    @classmethod
    def create(
        cls,
        train_ds: DatasetLike,
        valid_ds: DatasetLike | None = None,
        test_ds: DatasetLike | None = None,
        bs: int = 64,
        val_bs: int | None = None,
        num_workers: int = 0,
        device: str | torch.device | None = None,
        seed: int | None = None,
        path: str | Path = ".",
        pixel_scale: float | None = None,
    ) -> "DataBunch":
        """Make a DataBunch from arrays or data sets.

        Training batches are shuffled and a last short one is dropped; validation, test and `fix_dl` keep the order and
        all rows. An IterableDataset decides its order itself, and needs a length. Arrays and TensorDatasets live on the
        device; any other data set, one derived from TensorDataset with a `__getitem__` of its own among them, goes
        through torch's DataLoader. float64 becomes torch's default dtype, integer targets become int64.

        An array or tensor that needs no conversion is not copied: change it later, and the fit trains on what it holds
        then. The library does not write to it, and batches are copies: what models, losses, metrics and callbacks
        write to them stays in the batch.

        Args:
            train_ds: Rows to train on: a pair (x, y) of arrays or tensors, x alone, or a torch Dataset.
            valid_ds: Rows to validate with.
            test_ds: Rows to test with.
            bs: Rows in a training batch.
            val_bs: Rows in a validation or test batch; by default `bs`.
            num_workers: Processes that load rows which are not in memory; 0 loads them in this one.
            device: Where the batches go; by default `ONECYCLE_DEVICE`, else a GPU if there is one, else the CPU.
            seed: Decides the order of the training rows; by default it follows `torch.manual_seed`.
            path: Folder that a learner of this data writes to.
            pixel_scale: Divisor of inputs that are bytes (uint8): they stay bytes on the device and become floats a
                batch at a time.

        Raises:
            DataError: If the data cannot be trained on: no rows, different lengths, NaN or infinity, not numbers.
            SettingError: If a batch size, the workers or the seed are not whole numbers, or too low.
            DeviceError: If the device is unknown or not on this machine.

        Example:
            >>> x, y = torch.rand(1000, 20), torch.arange(1000) % 4
            >>> data = DataBunch.create((x[:800], y[:800]), (x[800:], y[800:]), bs=64, seed=1)
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
            _checked_dataset(ds, name) if ds is not None else None
            for ds, name in ((train_ds, "train"), (valid_ds, "valid"), (test_ds, "test"))
        )
        if train is None:
            raise DataError("train has no rows; expected a data set or a pair (x, y)")
        rows = len(train)
        if rows < bs:
            warn_user(f"{rows} training rows are fewer than bs {bs}: an epoch is one batch of {rows}")

        def loader(ds: Any, size: int, training: bool = False) -> Loader:
            drop_last = training and rows >= bs
            if is_in_memory(ds):
                return InMemoryLoader(ds, size, device, seed, training, drop_last, pixel_scale)
            shuffle = training and not isinstance(ds, IterableDataset)
            dl = DataLoader[Any](ds, size, shuffle=shuffle, drop_last=drop_last, num_workers=num_workers)
            return TorchLoader(dl, device, seed)

        valid_dl, test_dl = (loader(ds, val_bs) if ds is not None else None for ds in (valid, test))
        data = cls(loader(train, bs, training=True), valid_dl, test_dl, device, seed=seed, path=path)
        data.pixel_scale = pixel_scale
        return data

    @classmethod
    def from_table(
        cls,
        source: object,
        target: str | Sequence[str] = "y",
        task: Task | None = None,
        kinds: Mapping[str, ColumnKind] | None = None,
        drop: Sequence[str] = (),
        split: str | ArrayLike | tuple[ArrayLike, ArrayLike] = "auto",
        valid: float = 0.2,
        bs: int | None = None,
        image_size: int | tuple[int, int] | None = None,
        memory_limit: int | str | None = None,
        device: str | torch.device | None = None,
        seed: int | None = None,
        path: str | Path = ".",
        preprocessing: "str | Path | Prepared | None" = None,
    ) -> "DataBunch":
        """Make a DataBunch from a file or a table in memory, its preprocessing fitted on the training rows.

        See docs/tables.md.

        Args:
            source: Path of a CSV, Parquet, Arrow, npy, npz, IDX or pickle file or of a folder of images by class; a
                pandas, polars or other Arrow table; a dict of columns; a pair (x, y); a torch or Hugging Face data set.
            target: Name of the column to predict; a list of names for several.
            task: "classes", "regression" or "multilabel"; None to infer it from the target.
            kinds: Kinds of columns by name ("number", "category", "date" or "dropped"), if the guess is wrong.
            drop: Names of columns to leave out.
            split: How the validation rows are chosen: "auto" (stratified for classes, else random), "random",
                "stratified", "time:COLUMN", "group:COLUMN", "column:COLUMN"; or row numbers or a mask of the rows that
                validate, or a pair (train, valid) of those.
            valid: Fraction of the rows that validates, or a number of rows.
            bs: Rows in a batch; by default 32 to 1,024, more for more training rows.
            image_size: Side, or (height, width), that images are scaled to; needed if they differ in size.
            memory_limit: A file that takes more than this, in bytes or as "2 GB", is prepared on the disk once and
                trained on from there; by default half of the memory that is available.
            device: Where the batches go; by default `ONECYCLE_DEVICE`, else a GPU if there is one, else the CPU.
            seed: Decides a random split and the order of the training rows; by default it follows `torch.manual_seed`.
            path: Folder that a learner of this data writes to.
            preprocessing: Prepare the rows as an earlier model's were, instead of fitting anew, so that its weights fit
                this data: a bundle that `export` wrote, a folder that `save` wrote, a Predictor, Learner or DataBunch.
                It says target, task, kinds and columns; `columns` stays empty.

        Returns:
            The DataBunch, with `target`, `features` and `columns` set.

        Raises:
            SettingError: If a name or setting cannot be used.
            FileError: If a file cannot be read.
            DataError: If nothing can be learned from the data.
            DeviceError: If the device is unknown or not on this machine.

        Example:
            >>> data = DataBunch.from_table("sales.csv", "price", split="time:date", seed=1)
        """
        from onecycle.data.from_table import bunch_from_table, read_preprocessing  # imports pyarrow
        from onecycle.tables.spec import TableSpec

        bs = check_int(bs, "bs", least=1) if bs is not None else None
        spec = TableSpec(target, task, kinds or {}, drop, split, valid, _checked_seed(seed))
        fitted = None
        if preprocessing is not None:
            spec, fitted = read_preprocessing(preprocessing, spec)
        return bunch_from_table(
            cls, source, spec, bs, image_size, memory_limit, pick_device(device), Path(path), fitted
        )

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
        """The training rows (the first of several inputs), or None if they are not in memory."""
        return self.train_ds.tensors[0] if is_in_memory(self.train_ds) else None

    @property
    def row_shape(self) -> torch.Size | None:
        """Shape of one row of the inputs, or None if they are not in memory."""
        return self.inputs.shape[1:] if self.inputs is not None else None

    @property
    def row_dtype(self) -> torch.dtype | None:
        """dtype of the inputs, or None if they are not in memory."""
        return self.inputs.dtype if self.inputs is not None else None

    @property
    def targets(self) -> Tensor | None:
        """The training targets, or None if they are not in memory."""
        tensors = self.train_ds.tensors if is_in_memory(self.train_ds) else ()
        return tensors[-1] if len(tensors) > 1 else None

    @property
    def task(self) -> str:
        """The kind of prediction: "classes", "regression" or "multilabel"."""
        return self.target.task if self.target is not None else "regression" if self.is_regression() else "classes"

    def is_regression(self) -> bool:
        """Return whether the training targets are floats; the first row decides if the data is not in memory."""
        if (targets := self.targets) is not None:
            return targets.is_floating_point()
        if self.classes is not None or not hasattr(self.train_ds, "__getitem__"):
            return False
        with SeededGlobalRNG(self.seed):  # the data set may draw from the global generators
            row = _first_row(self.train_ds)
        target = row[-1] if isinstance(row, tuple | list) else None
        return isinstance(target, float) or "float" in str(getattr(target, "dtype", ""))

    @property
    def classes(self) -> list[Any] | None:
        """The data set's own `classes` (a Subset's too), else 0 to the highest label; None if regression or unknown."""
        if self.target is not None:
            return self.target.classes
        if (names := named_classes(self.train_ds)) is not None:
            return list(names)
        targets = self.targets
        if targets is None or targets.is_floating_point():
            return None
        return list(range(int(targets.max()) + 1))

    @property
    def c(self) -> int:
        """Number of outputs that a model needs: classes, or target columns. Raises DataError if it is not known."""
        if self.target is not None:
            return self.target.outputs
        if (classes := self.classes) is not None:
            return len(classes)
        targets = self.targets
        if targets is None:
            raise DataError("the number of classes is not known: the data set has no `classes` and is not in memory")
        return 1 if targets.ndim == 1 else int(targets.shape[1])

    def class_weights(self) -> Tensor:
        """Return a weight for each class that makes all classes count the same.

        Returns:
            rows / (classes × rows of the class), float32 of (classes,) on the device.

        Raises:
            DataError: If the training targets are not classes in memory.

        Example:
            >>> learn.loss_func = nn.CrossEntropyLoss(weight=data.class_weights())
        """
        from onecycle.tables.target import class_weights

        if self.targets is None or self.classes is None:
            raise DataError("class weights need targets that are classes, in memory")
        return torch.from_numpy(class_weights(self.targets.cpu().numpy(), self.c)).float().to(self.device)

    def one_batch(self, which: SetName = "train") -> Batch:
        """Return the first batch of the next epoch of a set.

        Args:
            which: "train", "valid", "test" or "fix" (the training rows in order).

        Returns:
            Inputs and targets (x, y); x is a list if there are several inputs, y is None if there are no targets.

        Raises:
            DataError: If there is no such set.
            SettingError: If the name is unknown.

        Example:
            >>> xb, yb = data.one_batch("valid")
        """
        return next(iter(self.dl(which)))

    def dl(self, which: SetName) -> Loader:
        """Return the loader of a set.

        Args:
            which: "train", "valid", "test" or "fix" (the training rows in order).

        Returns:
            The loader: iterating over it yields batches (x, y).

        Raises:
            DataError: If there is no such set.
            SettingError: If the name is unknown.
        """
        loaders = {"train": self.train_dl, "valid": self.valid_dl, "test": self.test_dl, "fix": self.fix_dl}
        if which not in loaders:
            raise SettingError(f'unknown data set "{which}"; expected one of {", ".join(loaders)}')
        if (loader := loaders[which]) is not None:
            return loader
        if which == "fix":
            raise DataError("the training rows are not known in order: their loader does not say which they are")
        raise DataError(f"there is no {which} set; pass {which}_ds to DataBunch.create")

    def show_batch(self, rows: int = 3, which: SetName = "train") -> "Figure":
        """Draw `rows` × `rows` examples of a batch with their targets.

        Rows that are square images (28×28, or 784 numbers) are drawn as such, others as lines.

        Args:
            rows: Examples in a row and in a column of the figure.
            which: "train", "valid", "test" or "fix" (the training rows in order).

        Returns:
            The matplotlib figure.

        Raises:
            DataError: If there is no such set.
            SettingError: If `rows` is below 1 or the name is unknown.
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


def _first_row(dataset: Any) -> Any:
    """Return the first row of a data set. Raises DataError for one that can be read only once."""
    if not isinstance(dataset, IterableDataset):
        return dataset[0]
    rows: Any = iter(dataset)  # pyright: ignore[reportUnknownArgumentType] -- of whatever
    if iter(dataset) is rows:
        raise DataError(
            f"{type(dataset).__name__} can be read only once, so that its first row cannot tell classes from values; "
            "give the learner a loss_func"
        )
    return next(rows, None)


def _checked_seed(seed: int | None) -> int:
    return default_seed() if seed is None else check_int(seed, "seed", least=0)


def _checked_dataset(ds: DatasetLike, name: str) -> Any:
    """Return arrays as a TensorDataset, another data set as it is. Raises DataError if it has no rows or no length."""
    if not isinstance(ds, Dataset) or is_in_memory(ds):
        return as_dataset(ds, name)
    try:
        rows = len(ds)  # pyright: ignore[reportArgumentType, reportUnknownVariableType] -- a Dataset need not have a length
    except TypeError:
        rest = "" if isinstance(ds, IterableDataset) else " and __getitem__"
        raise DataError(f"{name} has no length; expected a data set with __len__{rest}") from None
    if not rows:
        raise DataError(f"{name} has no rows; expected at least one")
    return ds
