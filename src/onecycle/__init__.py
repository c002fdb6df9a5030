"""onecycle: bunch the data, find the learning rate, run one cycle, look at the plots.

Names are loaded on first use, so that `import onecycle` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onecycle.core.config import Config as Config
    from onecycle.core.errors import OneCycleError as OneCycleError
    from onecycle.core.models import MLP as MLP
    from onecycle.core.models import TabularModel as TabularModel
    from onecycle.core.record import Record as Record
    from onecycle.data.bunch import DataBunch as DataBunch
    from onecycle.data.fetch import fetch as fetch
    from onecycle.data.lesson import mnist as mnist
    from onecycle.data.safe_pickle import load_pickle as load_pickle
    from onecycle.keep.save_best import SaveBest as SaveBest
    from onecycle.keep.saver import Checkpoints as Checkpoints
    from onecycle.learner import Learner as Learner
    from onecycle.loading import load_bundle as load_bundle
    from onecycle.loading import load_learner as load_learner
    from onecycle.optim.optimizers import AdamW as AdamW
    from onecycle.show.interpret import ClassificationInterpretation as ClassificationInterpretation
    from onecycle.train.accumulate import GradientAccumulation as GradientAccumulation
    from onecycle.train.callbacks import Callback as Callback
    from onecycle.train.callbacks import GradientClip as GradientClip
    from onecycle.train.csv_log import CSVLog as CSVLog
    from onecycle.train.early_stopping import EarlyStopping as EarlyStopping
    from onecycle.train.ema import EMA as EMA
    from onecycle.train.epoch_metrics import average_precision as average_precision
    from onecycle.train.epoch_metrics import f1_score as f1_score
    from onecycle.train.epoch_metrics import mae as mae
    from onecycle.train.epoch_metrics import mse as mse
    from onecycle.train.epoch_metrics import r2_score as r2_score
    from onecycle.train.epoch_metrics import rmse as rmse
    from onecycle.train.epoch_metrics import roc_auc as roc_auc
    from onecycle.train.lr_find import LRFindResult as LRFindResult
    from onecycle.train.metrics import accuracy as accuracy
    from onecycle.train.metrics import error_rate as error_rate
    from onecycle.train.metrics import mean_absolute_error as mean_absolute_error
    from onecycle.train.metrics import mean_squared_error as mean_squared_error
    from onecycle.train.metrics import over_the_epoch as over_the_epoch
    from onecycle.train.metrics import root_mean_squared_error as root_mean_squared_error
    from onecycle.train.metrics import top_k_accuracy as top_k_accuracy

__version__ = "0.1.0"

__all__ = [
    "EMA",
    "MLP",
    "AdamW",
    "CSVLog",
    "Callback",
    "Checkpoints",
    "ClassificationInterpretation",
    "Config",
    "DataBunch",
    "EarlyStopping",
    "GradientAccumulation",
    "GradientClip",
    "LRFindResult",
    "Learner",
    "OneCycleError",
    "Record",
    "SaveBest",
    "TabularModel",
    "accuracy",
    "average_precision",
    "error_rate",
    "f1_score",
    "fetch",
    "load_bundle",
    "load_learner",
    "load_pickle",
    "mae",
    "mean_absolute_error",
    "mean_squared_error",
    "mnist",
    "mse",
    "over_the_epoch",
    "r2_score",
    "rmse",
    "roc_auc",
    "root_mean_squared_error",
    "top_k_accuracy",
]

_HOMES = {
    "core.config": ("Config",),
    "core.errors": ("OneCycleError",),
    "core.models": ("MLP", "TabularModel"),
    "core.record": ("Record",),
    "data.bunch": ("DataBunch",),
    "data.fetch": ("fetch",),
    "data.lesson": ("mnist",),
    "data.safe_pickle": ("load_pickle",),
    "keep.save_best": ("SaveBest",),
    "keep.saver": ("Checkpoints",),
    "learner": ("Learner",),
    "loading": ("load_bundle", "load_learner"),
    "optim.optimizers": ("AdamW",),
    "show.interpret": ("ClassificationInterpretation",),
    "train.accumulate": ("GradientAccumulation",),
    "train.callbacks": ("Callback", "GradientClip"),
    "train.csv_log": ("CSVLog",),
    "train.early_stopping": ("EarlyStopping",),
    "train.ema": ("EMA",),
    "train.epoch_metrics": ("average_precision", "f1_score", "mae", "mse", "r2_score", "rmse", "roc_auc"),
    "train.lr_find": ("LRFindResult",),
    "train.metrics": (
        "accuracy",
        "error_rate",
        "mean_absolute_error",
        "mean_squared_error",
        "over_the_epoch",
        "root_mean_squared_error",
        "top_k_accuracy",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'onecycle' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"onecycle.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
