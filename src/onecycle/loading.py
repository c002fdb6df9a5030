"""A bundle loaded: to predict rows, or as a learner."""

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from onecycle.core.device import pick_device
from onecycle.core.errors import DataError, FileError
from onecycle.core.models import MLP, TabularModel
from onecycle.data.bunch import DataBunch
from onecycle.keep.export import BundleInfo, read_bundle
from onecycle.learner import Learner
from onecycle.train.epoch_metrics import average_precision, f1_score, mae, mse, r2_score, rmse, roc_auc
from onecycle.train.losses import NamedLoss, loss_called, loss_name
from onecycle.train.metrics import (
    Metric,
    accuracy,
    error_rate,
    mean_absolute_error,
    mean_squared_error,
    metric_name,
    root_mean_squared_error,
)

if TYPE_CHECKING:  # only a model of a table brings them
    from onecycle.tables.features import Features
    from onecycle.tables.target import Target


class Bundle:
    """A trained model that answers rows. `learner` is what `load_learner` makes of the same bundle."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def __repr__(self) -> str:
        return f"Bundle({type(self.learner.model).__name__}, classes={self.classes})"

    @property
    def classes(self) -> list[Any] | None:
        """The classes' names, or None for regression."""
        return self.learner.classes

    def predict(self, rows: Any) -> list[Any]:
        """For each row its class, for regression its value (or list of values), of several labels those that hold.

        `rows` are an array or tensor (n, ...); for the model of a table a table in memory, a list of dicts, or the path
        of a file. Raises DataError for anything else.
        """
        return [self.learner.answer(output) for output in self.outputs(rows)]

    def outputs(self, rows: Any) -> Tensor:
        """The probabilities (n, classes) of `rows`, or for regression the values: the first of `get_preds`."""
        return self.learner.get_preds(rows)[0]


def load_bundle(
    path: str | Path, model: nn.Module | type[nn.Module] | None = None, device: str | None = None
) -> Bundle:
    """What `export` wrote, for prediction: `load_bundle("digits.onecycle").predict(rows)`.

    It is `load_learner` without the training: same arguments, same errors, same predictions. Nothing in a bundle is
    unpickled or run while it is loaded.
    """
    return Bundle(load_learner(path, model, device=device))


def load_learner(
    path: str | Path,
    model: nn.Module | type[nn.Module] | None = None,
    data: DataBunch | None = None,
    device: str | None = None,
) -> Learner:
    """A learner from a bundle that `export` wrote, ready to predict; with `data` it can be trained on.

    `model` is the model's class or an instance; the library's own models and programs need none, but a program cannot
    be trained. `device` is where it predicts, by default the data's, else the fastest there is. Raises FileError for a
    missing or damaged bundle, ModelError where the class is needed or does not fit. The library's own metrics come back
    with it; others, and those with settings, are to be put into its `metrics` again. So does the loss where it is the
    data's default, or one of torch.nn's, without its settings; of any other there is only the name, which decides what
    predictions are: set `loss_func` before training.
    """
    place = data.device if data is not None else pick_device(device)
    module, info = read_bundle(Path(path), model)
    _check(Path(path), info, module)
    learner = Learner(data, module)
    learner.device, learner.model = place, module.to(place)
    learner._info = info  # pyright: ignore[reportPrivateUsage] -- its own module
    learner.metrics = [_METRICS[name] for name in info.metrics if name in _METRICS]
    if data is None:
        learner.loss_func = NamedLoss(info.loss)
    elif info.loss != loss_name(learner.loss_func):
        learner.loss_func = loss_called(info.loss)
    return learner


_METRICS: dict[str, Metric] = {
    metric_name(metric): metric
    for metric in (
        *(accuracy, error_rate, mean_squared_error, mean_absolute_error, root_mean_squared_error),
        *(f1_score, roc_auc, average_precision, r2_score, mse, rmse, mae),
    )
}


def _check(folder: Path, info: BundleInfo, model: nn.Module) -> None:
    """Raises FileError where the parts of a bundle are damaged, or do not belong to one of the library's own models."""
    try:
        features = None if info.features is None else _features(info.features)
        target = None if info.target is None else _target(info.target)
    except DataError as error:
        raise FileError(f"{folder}: {error}") from error
    if type(model) is TabularModel:
        takes, gives = model.numbers + len(model.sizes), model.outputs
        fits = features is None or (features.numbers, features.sizes) == (model.numbers, model.sizes)
    elif type(model) is MLP:
        takes, gives = model.sizes[0], model.sizes[-1]
        fits = features is None or len(features.names) == takes
    else:
        return
    if info.input_shape is not None:
        fits = fits and prod(info.input_shape) == takes
    if not fits or (target is not None and target.outputs > gives):
        raise FileError(
            f"{folder}: the model takes {takes:,} numbers and gives {gives:,}, which is not what the preprocessing "
            "makes; take an undamaged copy, or export the model again"
        )


def _features(written: Any) -> "Features":
    from onecycle.tables.features import Features

    return Features.from_dict(written)


def _target(written: Any) -> "Target":
    from onecycle.tables.target import Target

    return Target.from_dict(written)
