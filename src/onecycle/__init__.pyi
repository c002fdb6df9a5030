# The public names of onecycle: the one list of them. `__init__.py` reads it to load each name on first use.

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
from onecycle.errors import DataError as DataError
from onecycle.errors import DeviceError as DeviceError
from onecycle.errors import FileError as FileError
from onecycle.errors import ModelError as ModelError
from onecycle.errors import NonFiniteLossError as NonFiniteLossError
from onecycle.errors import OneCycleError as OneCycleError
from onecycle.errors import OutputError as OutputError
from onecycle.errors import SettingError as SettingError
from onecycle.errors import UnsafeFileError as UnsafeFileError
from onecycle.learner import Learner as Learner
from onecycle.learner import load_learner as load_learner
from onecycle.optim.optimizer import AdamW as AdamW
from onecycle.predictor import Predictor as Predictor
from onecycle.predictor import load_predictor as load_predictor
from onecycle.show.interpret import ClassificationInterpretation as ClassificationInterpretation
from onecycle.show.interpret import RegressionInterpretation as RegressionInterpretation
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
from onecycle.train.fit import Fit as Fit
from onecycle.train.lr_find import LRFindResult as LRFindResult
from onecycle.train.metrics import accuracy as accuracy
from onecycle.train.metrics import epoch_metric as epoch_metric
from onecycle.train.metrics import error_rate as error_rate
from onecycle.train.metrics import mean_absolute_error as mean_absolute_error
from onecycle.train.metrics import mean_squared_error as mean_squared_error
from onecycle.train.metrics import root_mean_squared_error as root_mean_squared_error
from onecycle.train.metrics import top_k_accuracy as top_k_accuracy
from onecycle.train.recorder import Recorder as Recorder

__version__: str
__all__: list[str]
