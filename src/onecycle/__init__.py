"""onecycle: bunch the data, find the learning rate, run one cycle, look at the plots.

Names are loaded on first use, so that `import onecycle` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onecycle.core.config import Config as Config
    from onecycle.core.errors import OneCycleError as OneCycleError
    from onecycle.core.models import MLP as MLP
    from onecycle.core.record import Record as Record
    from onecycle.data.bunch import DataBunch as DataBunch
    from onecycle.data.bunch import mnist as mnist
    from onecycle.data.fetch import fetch as fetch
    from onecycle.data.safe_pickle import load_pickle as load_pickle
    from onecycle.learner import Learner as Learner
    from onecycle.learner import load_learner as load_learner
    from onecycle.optim.optimizers import AdamW as AdamW
    from onecycle.show.interpret import ClassificationInterpretation as ClassificationInterpretation
    from onecycle.train.callbacks import Callback as Callback
    from onecycle.train.callbacks import GradientClip as GradientClip
    from onecycle.train.lr_find import LRFindResult as LRFindResult
    from onecycle.train.metrics import accuracy as accuracy
    from onecycle.train.metrics import error_rate as error_rate
    from onecycle.train.metrics import mean_absolute_error as mean_absolute_error
    from onecycle.train.metrics import mean_squared_error as mean_squared_error
    from onecycle.train.metrics import root_mean_squared_error as root_mean_squared_error
    from onecycle.train.metrics import top_k_accuracy as top_k_accuracy

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "AdamW",
    "Callback",
    "ClassificationInterpretation",
    "Config",
    "DataBunch",
    "GradientClip",
    "LRFindResult",
    "Learner",
    "OneCycleError",
    "Record",
    "accuracy",
    "error_rate",
    "fetch",
    "load_learner",
    "load_pickle",
    "mean_absolute_error",
    "mean_squared_error",
    "mnist",
    "root_mean_squared_error",
    "top_k_accuracy",
]

_HOMES = {
    "core.config": ("Config",),
    "core.errors": ("OneCycleError",),
    "core.models": ("MLP",),
    "core.record": ("Record",),
    "data.bunch": ("DataBunch", "mnist"),
    "data.fetch": ("fetch",),
    "data.safe_pickle": ("load_pickle",),
    "learner": ("Learner", "load_learner"),
    "optim.optimizers": ("AdamW",),
    "show.interpret": ("ClassificationInterpretation",),
    "train.callbacks": ("Callback", "GradientClip"),
    "train.lr_find": ("LRFindResult",),
    "train.metrics": (
        "accuracy",
        "error_rate",
        "mean_absolute_error",
        "mean_squared_error",
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
