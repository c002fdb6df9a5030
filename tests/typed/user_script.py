"""A user's script with types, checked by pyright --strict and mypy --strict, and run by tests/typing/test_types.py."""

from pathlib import Path

import torch
from torch import Tensor, nn

from onecycle import (
    MLP,
    AdamW,
    Callback,
    CheckpointConfig,
    DataBunch,
    EarlyStopping,
    Fit,
    Learner,
    LRFindResult,
    OneCycleError,
    Predictor,
    Recorder,
    SaveBest,
    accuracy,
    epoch_metric,
    load_learner,
    load_predictor,
    rmse,
)


class Warm(Callback):
    """Counts batches, and may skip one."""

    def __init__(self) -> None:
        self.batches = 0

    def on_batch_end(self, fit: Fit) -> None:
        self.batches += 1
        if fit.epoch > 100:
            fit.stop("enough")


@epoch_metric
def spread(preds: Tensor, targets: Tensor) -> float:
    return float(preds.std())


def train(folder: Path) -> tuple[Recorder, list[float]]:
    x = torch.rand(256, 8)
    y = x[:, :4].argmax(1)
    data = DataBunch.create((x, y), (x, y), bs=32, seed=1)
    model: nn.Module = MLP(8, 16, 4)
    learn = Learner(
        data, model, metrics=[accuracy, spread], opt_func=AdamW, engine="auto", precision="fp32", path=folder
    )
    result: LRFindResult = learn.lr_find(num_it=60)
    rate: float = result.suggestion
    reason: str = result.suggestion.why
    assert reason
    config = CheckpointConfig(folder / "run", every="1 epoch")
    warm = Warm()
    callbacks = [warm, EarlyStopping(patience=2), SaveBest(folder / "best")]
    learn.fit_one_cycle(2, rate, callbacks=callbacks, checkpoint=config)
    assert warm.batches == 16
    probabilities, targets = learn.get_preds("valid")
    assert targets is not None
    assert probabilities.shape == (256, 4)
    loss, *_ = learn.validate("valid")
    learn.export("model.onecycle")
    predictor: Predictor = load_predictor(folder / "model.onecycle")
    rows: list[object] = predictor.predict_rows(x[:3])
    assert len(rows) == 3
    again: Learner = load_learner(folder / "model.onecycle", data=data)
    again.fit(1, 1e-4)
    return learn.recorder, [loss, *learn.recorder.losses]


def train_on_a_table() -> list[float | None]:
    table = {"size": [float(i % 50) for i in range(200)], "city": ["Oslo", "Rome"] * 100}
    table |= {"price": [2.0 * (i % 50) for i in range(200)]}
    data = DataBunch.from_table(table, target="price", task="regression", kinds={"city": "category"}, split="random")
    learn = Learner(data, metrics=rmse, silent=True)
    try:
        learn.fit_one_cycle(1, slice(1e-3, 1e-2))
    except OneCycleError as error:
        raise SystemExit(str(error)) from error
    return learn.recorder.val_losses
