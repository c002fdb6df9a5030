"""A learner from a bundle."""

from pathlib import Path

from torch import nn

from onecycle.core.device import pick_device
from onecycle.data.bunch import DataBunch
from onecycle.keep.export import load_bundle
from onecycle.learner import Learner
from onecycle.train.losses import NamedLoss


def load_learner(
    path: str | Path,
    model: nn.Module | type[nn.Module] | None = None,
    data: DataBunch | None = None,
    device: str | None = None,
) -> Learner:
    """A learner from a bundle that `export` wrote, ready to predict; with `data` it can be trained on.

    `model` is the model's class or an instance; the library's own models need none. `device` is where it predicts, by
    default the data's, else the fastest there is. Raises FileError for a missing or
    damaged bundle, ModelError where the class is needed or does not fit.
    """
    place = data.device if data is not None else pick_device(device)
    module, info = load_bundle(Path(path), model)
    learner = Learner(data, module)
    learner.device, learner.model = place, module.to(place)
    learner._info = info  # pyright: ignore[reportPrivateUsage] -- its own module
    if data is None:
        learner.loss_func = NamedLoss(info.loss)
    return learner
