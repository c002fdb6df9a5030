"""onecycle: bunch the data, find the learning rate, run one cycle, look at the plots.

Names are loaded on first use, so that `import onecycle` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onecycle.checkpoint.save_best import SaveBest as SaveBest
    from onecycle.checkpoint.writer import CheckpointConfig as CheckpointConfig
    from onecycle.core.config import Config as Config
    from onecycle.core.models import MLP as MLP
    from onecycle.core.models import TabularModel as TabularModel
    from onecycle.core.record import Record as Record
    from onecycle.data.bunch import DataBunch as DataBunch
    from onecycle.data.datasets import fetch as fetch
    from onecycle.data.datasets import mnist as mnist
    from onecycle.data.pickles import load_pickle as load_pickle
    from onecycle.errors import OneCycleError as OneCycleError
    from onecycle.learner import Learner as Learner
    from onecycle.learner import load_learner as load_learner
    from onecycle.optim.optimizer import AdamW as AdamW
    from onecycle.predictor import load_predictor as load_predictor
    from onecycle.show.interpret import ClassificationInterpretation as ClassificationInterpretation
    from onecycle.train.callbacks.base import Callback as Callback
    from onecycle.train.callbacks.csv_log import CSVLog as CSVLog
    from onecycle.train.callbacks.early_stopping import EarlyStopping as EarlyStopping
    from onecycle.train.callbacks.ema import EMA as EMA
    from onecycle.train.callbacks.gradient_accumulation import GradientAccumulation as GradientAccumulation
    from onecycle.train.callbacks.gradient_clip import GradientClip as GradientClip
    from onecycle.train.epoch_metrics import average_precision as average_precision
    from onecycle.train.epoch_metrics import f1_score as f1_score
    from onecycle.train.epoch_metrics import mae as mae
    from onecycle.train.epoch_metrics import mse as mse
    from onecycle.train.epoch_metrics import r2_score as r2_score
    from onecycle.train.epoch_metrics import rmse as rmse
    from onecycle.train.epoch_metrics import roc_auc as roc_auc
    from onecycle.train.lr_find import LRFindResult as LRFindResult
    from onecycle.train.metrics import accuracy as accuracy
    from onecycle.train.metrics import epoch_metric as epoch_metric
    from onecycle.train.metrics import error_rate as error_rate
    from onecycle.train.metrics import mean_absolute_error as mean_absolute_error
    from onecycle.train.metrics import mean_squared_error as mean_squared_error
    from onecycle.train.metrics import root_mean_squared_error as root_mean_squared_error
    from onecycle.train.metrics import top_k_accuracy as top_k_accuracy

__version__ = "0.1.0"

__all__ = [
    "EMA",
    "MLP",
    "AdamW",
    "CSVLog",
    "Callback",
    "CheckpointConfig",
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
    "epoch_metric",
    "error_rate",
    "f1_score",
    "fetch",
    "load_learner",
    "load_pickle",
    "load_predictor",
    "mae",
    "mean_absolute_error",
    "mean_squared_error",
    "mnist",
    "mse",
    "r2_score",
    "rmse",
    "roc_auc",
    "root_mean_squared_error",
    "top_k_accuracy",
]

# fmt: off
_HOMES = {
    "checkpoint.save_best": ("SaveBest",),
    "checkpoint.writer": ("CheckpointConfig",),
    "core.config": ("Config",),
    "core.models": ("MLP", "TabularModel"),
    "core.record": ("Record",),
    "data.bunch": ("DataBunch",),
    "data.datasets": ("fetch", "mnist"),
    "data.pickles": ("load_pickle",),
    "errors": ("OneCycleError",),
    "learner": ("Learner", "load_learner"),
    "predictor": ("load_predictor",),
    "optim.optimizer": ("AdamW",),
    "show.interpret": ("ClassificationInterpretation",),
    "train.callbacks.base": ("Callback",),
    "train.callbacks.csv_log": ("CSVLog",),
    "train.callbacks.early_stopping": ("EarlyStopping",),
    "train.callbacks.ema": ("EMA",),
    "train.callbacks.gradient_accumulation": ("GradientAccumulation",),
    "train.callbacks.gradient_clip": ("GradientClip",),
    "train.epoch_metrics": ("average_precision", "f1_score", "mae", "mse", "r2_score", "rmse", "roc_auc"),
    "train.lr_find": ("LRFindResult",),
    "train.metrics": (
        "accuracy",
        "error_rate",
        "mean_absolute_error",
        "mean_squared_error",
        "epoch_metric",
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
