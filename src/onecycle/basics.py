"""What the lesson starts with: `from onecycle.basics import *`."""

import gzip
import pickle
from functools import partial
from pathlib import Path

from onecycle.core.startup import freeze_import_objects

with freeze_import_objects():
    import matplotlib.pyplot as plt
    import numpy as np
    import torch
    from torch import nn, optim
    from torch.nn import functional as F
    from torch.utils.data import DataLoader, TensorDataset

    from onecycle import (
        EMA,
        MLP,
        AdamW,
        Callback,
        CheckpointConfig,
        ClassificationInterpretation,
        Config,
        CSVLog,
        DataBunch,
        EarlyStopping,
        GradientAccumulation,
        GradientClip,
        Learner,
        LRFindResult,
        OneCycleError,
        Record,
        SaveBest,
        TabularModel,
        accuracy,
        average_precision,
        epoch_metric,
        error_rate,
        f1_score,
        fetch,
        load_learner,
        load_pickle,
        load_predictor,
        mae,
        mean_absolute_error,
        mean_squared_error,
        mnist,
        mse,
        r2_score,
        rmse,
        roc_auc,
        root_mean_squared_error,
        top_k_accuracy,
    )

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
    "DataLoader",
    "EarlyStopping",
    "F",
    "GradientAccumulation",
    "GradientClip",
    "LRFindResult",
    "Learner",
    "OneCycleError",
    "Path",
    "Record",
    "SaveBest",
    "TabularModel",
    "TensorDataset",
    "accuracy",
    "average_precision",
    "epoch_metric",
    "error_rate",
    "f1_score",
    "fetch",
    "gzip",
    "load_learner",
    "load_pickle",
    "load_predictor",
    "mae",
    "mean_absolute_error",
    "mean_squared_error",
    "mnist",
    "mse",
    "nn",
    "np",
    "optim",
    "partial",
    "pickle",
    "plt",
    "r2_score",
    "rmse",
    "roc_auc",
    "root_mean_squared_error",
    "top_k_accuracy",
    "torch",
]
