"""Makes the files that every later onecycle must load: one bundle of each kind, a checkpoint, and what they predict.

    python tests/compat/make.py [SUFFIX]

They go to a folder named after the version, which is never made again: a format that changes gets files of its own, within
a version with a suffix.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

import onecycle
from onecycle import MLP, Callback, DataBunch, Learner, TabularModel, learner, predictor, rmse
from onecycle.errors import OutputError

HERE = Path(__file__).parent


class Foreign(nn.Module):
    """A model that is not the library's own, with what a program can have: a norm, a constant, shapes, a buffer."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3)
        self.head = nn.Linear(12, 3)
        self.register_buffer("scale", torch.tensor([1.0, 0.5, 0.25]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.gelu(self.norm(self.conv(x.view(x.size(0), 1, -1))))
        return self.head((x * self.scale[:, None]).flatten(1))


def arrays() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of 6 numbers in 3 classes."""
    y = np.arange(96) % 3
    x = np.random.RandomState(0).normal(size=(96, 6)) + np.eye(3)[y].repeat(2, 1)
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)


def table() -> Any:
    """A table with a column of each kind, and gaps."""
    random = np.random.RandomState(1)
    size, city = random.uniform(20, 120, 96), random.choice(["Oslo", "Rome", "Lima"], 96)
    price = 3 * size + (city == "Rome") * 50
    return pa.table({
        "size": [None if i % 20 == 3 else float(round(s, 2)) for i, s in enumerate(size)],
        "city": city.tolist(),
        "new": (random.rand(96) < 0.5).tolist(),
        "price": price.round(2).tolist(),
    })  # fmt: skip


def learners() -> dict[str, Learner]:
    """What the bundles are made of."""
    x, y = arrays()
    data = DataBunch.create((x[:64], y[:64]), (x[64:], y[64:]), bs=16, seed=0, device="cpu")
    people = DataBunch.from_table(table(), "price", seed=0, bs=16, device="cpu")
    assert people.features is not None
    small = TabularModel(people.features.numbers, people.features.sizes, people.c, hidden=[8])
    return {
        "mlp": Learner(data, MLP(6, 8, 3), silent=True),
        "foreign": Learner(data, Foreign(), silent=True),
        "table": Learner(people, small, metrics=rmse, silent=True),
    }


def rows_of(name: str) -> Any:
    """The rows that the predictions kept beside the files are of."""
    return table().drop_columns(["price"]).slice(0, 20) if name == "table" else arrays()[0][:20]


class Stops(Callback):
    """Ends a fit of 16 batches after 9."""

    def on_batch_end(self, fit: Any) -> None:
        if fit.iteration == 8:
            fit.stop("interrupted")


def write_run(folder: Path) -> list[float]:
    """Write a run that was stopped in the middle of its third epoch; the losses of one that was not."""
    found = list[list[float]]()
    for callbacks, kept in (([Stops()], folder / "run"), ([], None)):
        torch.manual_seed(3)
        learn = learners()["mlp"]
        learn.fit_one_cycle(4, 1e-2, callbacks=callbacks, checkpoint=kept)
        found.append(learn.recorder.record.batch_losses)
    return found[1]


def main() -> None:
    """Write the files of this version. Raises OutputError where there are some."""
    folder = HERE / "-".join([onecycle.__version__, *sys.argv[1:]])
    if folder.exists():
        raise OutputError(f"{folder} exists, and what it holds is kept as it is; change the version first")
    said = {"onecycle": onecycle.__version__, "torch": torch.__version__}
    predictor.versions = learner.versions = lambda device: said  # nothing of the machine: these files are kept
    torch.manual_seed(0)
    expected = {}
    for name, learn in learners().items():
        learn.path = folder
        learn.fit_one_cycle(4, 1e-2)
        learn.export(f"{name}.onecycle")
        learn.export(f"{name}.zip")
        expected[name] = learn.get_preds(rows_of(name))[0].tolist()
        if name == "mlp":
            learn.save("saved")
            learn.recorder.record.save(folder / "record.json")
            expected["losses"] = learn.recorder.record.batch_losses
            learn.fit(1, 1e-3)
            expected["after one more epoch"] = learn.recorder.record.batch_losses
    expected["resumed"] = write_run(folder)
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
