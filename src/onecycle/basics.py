"""What the lesson starts with: `from onecycle.basics import *`."""

import gzip
import pickle
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from onecycle import (
    MLP,
    AdamW,
    Callback,
    ClassificationInterpretation,
    Config,
    DataBunch,
    GradientClip,
    Learner,
    LRFindResult,
    OneCycleError,
    Record,
    accuracy,
    error_rate,
    fetch,
    load_learner,
    load_pickle,
    mean_absolute_error,
    mean_squared_error,
    mnist,
    root_mean_squared_error,
    top_k_accuracy,
)

__all__ = [
    "MLP",
    "AdamW",
    "Callback",
    "ClassificationInterpretation",
    "Config",
    "DataBunch",
    "DataLoader",
    "F",
    "GradientClip",
    "LRFindResult",
    "Learner",
    "OneCycleError",
    "Path",
    "Record",
    "TensorDataset",
    "accuracy",
    "error_rate",
    "fetch",
    "gzip",
    "load_learner",
    "load_pickle",
    "mean_absolute_error",
    "mean_squared_error",
    "mnist",
    "nn",
    "np",
    "optim",
    "partial",
    "pickle",
    "plt",
    "root_mean_squared_error",
    "top_k_accuracy",
    "torch",
]
