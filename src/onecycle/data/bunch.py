"""DataBunch: training, validation and test batches that belong together."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from onecycle.core.device import default_seed, pick_device
from onecycle.core.errors import DataError, SettingError
from onecycle.data.batches import Batch, Batches, InMemoryLoader, TorchLoader
from onecycle.data.datasets import mnist_arrays, mnist_floats
from onecycle.data.tensors import as_dataset


class DataBunch:
    """Training, validation and test batches on one device.

    Takes loaders, torch's own DataLoader among them; `DataBunch.create` makes them from data sets and arrays.
    `seed` decides the batch order; left out, it follows `torch.manual_seed`.
    """

    def __init__(
        self,
        train_dl: DataLoader[Any] | Batches,
        valid_dl: DataLoader[Any] | Batches | None = None,
        test_dl: DataLoader[Any] | Batches | None = None,
        device: str | torch.device | None = None,
        fix_dl: DataLoader[Any] | Batches | None = None,
        seed: int | None = None,
        path: str | Path = ".",
    ) -> None:
        self.device = pick_device(device)
        self.seed = _checked_seed(seed)
        self.path = Path(path)
        self.pixel_scale: float | None = None  # what pixels were divided by, where the rows are images
        self.train_dl = self._wrap(train_dl)
        self.valid_dl = self._wrap(valid_dl) if valid_dl is not None else None
        self.test_dl = self._wrap(test_dl) if test_dl is not None else None
        self.fix_dl = self._wrap(fix_dl if fix_dl is not None else _in_order(train_dl))

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
    ) -> "DataBunch":
        """Make the loaders. Each of the data sets is a TensorDataset, a pair (x, y) of arrays, or a torch Dataset.

        Training shuffles and drops the last short batch; validation and test (`val_bs`, by default `bs`) and `fix_dl`
        (the training set in order) do neither. TensorDatasets and arrays live on the device; any other data set goes
        through torch's DataLoader with `num_workers`. Raises SettingError for a batch size below 1 and DataError for
        data that cannot be trained on.
        """
        for name, size in (("bs", bs), ("val_bs", val_bs if val_bs is not None else bs)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
                raise SettingError(f"{name} is {size!r}; expected a whole number of at least 1")
        device, seed = pick_device(device), _checked_seed(seed)
        train, valid, test = (
            ds if ds is None or _is_torch_dataset(ds) else as_dataset(ds, name)
            for ds, name in ((train_ds, "train"), (valid_ds, "valid"), (test_ds, "test"))
        )
        if train is None:
            raise DataError("train has no rows; expected a data set or a pair (x, y)")
        rows = len(train)  # pyright: ignore[reportArgumentType] -- map-style data sets have a length
        if not rows:
            raise DataError("train has no rows; expected at least one")
        if rows < bs:
            warnings.warn(f"{rows} training rows are fewer than bs {bs}: an epoch is one batch of {rows}", stacklevel=2)

        def loader(ds: Any, size: int, training: bool = False) -> Batches | None:
            if ds is None:
                return None
            if isinstance(ds, TensorDataset):
                return InMemoryLoader(ds, size, device, seed, shuffle=training, drop_last=training and rows >= bs)
            return TorchLoader(_torch_loader(ds, size, num_workers, training, training and rows >= bs), device, seed)

        val_bs = val_bs if val_bs is not None else bs
        train_dl, fix_dl = loader(train, bs, training=True), loader(train, bs)
        assert train_dl is not None  # train is not None
        if isinstance(train_dl, InMemoryLoader) and isinstance(fix_dl, InMemoryLoader):
            fix_dl.tensors = train_dl.tensors  # one copy on the device
        return cls(train_dl, loader(valid, val_bs), loader(test, val_bs), device, fix_dl=fix_dl, seed=seed, path=path)

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
    def targets(self) -> Tensor | None:
        """The training targets where they are in memory, else None."""
        tensors = self.train_ds.tensors if isinstance(self.train_ds, TensorDataset) else ()
        return tensors[-1] if len(tensors) > 1 else None

    @property
    def classes(self) -> list[Any] | None:
        """The data set's own `classes`, else 0 to the highest label; None for regression and unknown targets."""
        if (named := getattr(self.train_ds, "classes", None)) is not None:
            return list(named)
        targets = self.targets
        if targets is None or targets.is_floating_point():
            return None
        return list(range(int(targets.max()) + 1))

    @property
    def c(self) -> int:
        """How many outputs a model needs: the number of classes, or of target columns."""
        if (classes := self.classes) is not None:
            return len(classes)
        targets = self.targets
        if targets is None:
            raise DataError("the number of classes is not known: the data set has no `classes` and is not in memory")
        return 1 if targets.ndim == 1 else int(targets.shape[1])

    def one_batch(self, which: str = "train") -> Batch:
        """The next batch (x, y) of the train, valid, test or fix loader."""
        return next(iter(self.dl(which)))

    def dl(self, which: str) -> Batches:
        """The loader called train, valid, test or fix. Raises DataError where there is none."""
        known = {"train": self.train_dl, "valid": self.valid_dl, "test": self.test_dl, "fix": self.fix_dl}
        if which not in known:
            raise SettingError(f'unknown data set "{which}"; expected one of {", ".join(known)}')
        if (found := known[which]) is None:
            raise DataError(f"there is no {which} set; give DataBunch.create a {which}_ds")
        return found

    def show_batch(self, rows: int = 3, which: str = "train") -> Any:
        """Draw `rows` × `rows` examples of a batch with their targets; returns the figure.

        Rows that are square images (28×28, or 784 numbers) are drawn as such, others as lines.
        """
        from onecycle.show.plots import plot_examples

        x, y = self.one_batch(which)
        x = x[0] if isinstance(x, list) else x
        titles = [str(value) for value in y.tolist()] if y is not None else [""] * len(x)
        return plot_examples(x[: rows * rows].cpu().numpy(), titles[: rows * rows], columns=rows)

    def _wrap(self, loader: DataLoader[Any] | Batches) -> Batches:
        return TorchLoader(loader, self.device, self.seed) if isinstance(loader, DataLoader) else loader


def mnist(bs: int = 64, seed: int | None = None, device: str | torch.device | None = None) -> DataBunch:
    """MNIST as in the lesson: 50,000 / 10,000 / 10,000 rows of 784 floats (pixel / 256), labels 0 to 9.

    Read from the copy in the package; no network.
    """
    splits = [(torch.from_numpy(mnist_floats(x)), torch.from_numpy(y.astype(np.int64))) for x, y in mnist_arrays()]
    train, valid, test = (TensorDataset(x, y) for x, y in splits)
    data = DataBunch.create(train, valid, test, bs=bs, seed=seed, device=device)
    data.pixel_scale = 256.0
    return data


def _checked_seed(seed: int | None) -> int:
    if seed is None:
        return default_seed()
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        raise SettingError(f"seed is {seed!r}; expected a whole number of at least 0")
    return seed


def _is_torch_dataset(ds: Any) -> bool:
    return isinstance(ds, Dataset) and not isinstance(ds, TensorDataset)


def _torch_loader(ds: Dataset[Any], bs: int, workers: int, shuffle: bool, drop_last: bool) -> DataLoader[Any]:
    return DataLoader(ds, bs, shuffle=shuffle, drop_last=drop_last, num_workers=workers)


def _in_order(loader: DataLoader[Any] | Batches) -> DataLoader[Any] | Batches:
    """A loader of the same data set in order, for what is a DataLoader over an indexable data set."""
    if isinstance(loader, DataLoader) and hasattr(loader.dataset, "__getitem__") and loader.batch_size:
        return DataLoader(loader.dataset, loader.batch_size, collate_fn=loader.collate_fn)
    return loader
