"""A small training that keeps itself as often as it can, and what must be equal at its end."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onecycle import MLP, CheckpointConfig, DataBunch, GradientClip, Learner, accuracy
from onecycle.checkpoint.run_folder import RunFolder

EPOCHS, BATCHES = 40, 62
RATE = 1e-2


def learner(engine: str = "eager", seed: int = 0) -> Learner:
    """Rows of 20 numbers in four classes, a perceptron, AdamW; `seed` is that of the batch order."""
    random = np.random.default_rng(0)
    x = random.normal(size=(1_000, 20)).astype(np.float32)
    y = x[:, :4].argmax(1)
    data = DataBunch.create((x, y), (x[:100], y[:100]), bs=16, device="cpu", seed=seed)
    torch.manual_seed(1)
    callbacks = [GradientClip(1.0)] if engine == "eager" else []
    return Learner(data, MLP(20, 16, 4), metrics=accuracy, silent=True, engine=engine, callbacks=callbacks)


def go_on(run: Path, every: int | str = 1, engine: str = "eager") -> Learner:
    """Start the training in the folder of a run, or resume it where it was killed; to its end."""
    learn = learner(engine)
    if RunFolder(run).names():
        learn.resume(run)
    else:
        learn.fit_one_cycle(EPOCHS, RATE, checkpoint=CheckpointConfig(run, every, keep=3))
    return learn


def digest(learn: Learner) -> str:
    """The SHA-256 of weights, moments and losses."""
    total = hashlib.sha256()
    assert learn.opt is not None
    entries = sorted(learn.opt.state_dict()["state"].items())
    moments = [value for _, entry in entries for _, value in sorted(entry.items()) if isinstance(value, torch.Tensor)]
    for tensor in [*learn.model.state_dict().values(), *moments]:
        total.update(tensor.detach().numpy().tobytes())
    for numbers in (learn.recorder.losses, learn.recorder.lrs, learn.recorder.val_losses):
        total.update(np.array(numbers).tobytes())
    return total.hexdigest()


def forked(work: Any, *args: Any) -> int:
    """Do `work` in a process of its own, and give its id; torch must not have computed with threads before."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 1
    try:
        work(*args)
        code = 0
    except BaseException as error:  # a child that is no test must not go on as one
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)
