"""The lesson's star import: `from onecycle.basics import *` brings every public name and the lesson's other imports."""

# names are imported for the star import
# ruff: noqa: F401
# pyright: reportUnusedImport=false

from onecycle.core.process import freeze_import_objects as _freeze_import_objects

with _freeze_import_objects():
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

    from onecycle import *  # noqa: F403 -- every public name
