"""Arrays of every byte order, size and layout give the same training and the same predictions, or an error of ours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onecycle import MLP, DataBunch, Learner, Predictor, load_predictor
from onecycle.cli.app import run
from onecycle.errors import DataError

pytestmark = pytest.mark.slow

X = np.random.default_rng(0).integers(-8, 8, (60, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def read_only(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS: dict[str, Any] = {
    **{code: X.astype(code) for code in ("<f4", ">f4", "f8", ">f8", "f2", ">f2", "g", "i1", ">i2", ">i4", ">i8")},
    "read-only": read_only(X),
    "reversed": X[::-1].copy()[::-1],
    "columns reversed": X[:, ::-1].copy()[:, ::-1],
    "Fortran": np.asfortranarray(X),
    "every other row": np.repeat(X, 2, 0)[::2],
}
REFUSED = {
    "no rows": X[:0],
    "no columns": X[:, :0],
    "complex": X.astype("c8"),
    "text": X.astype(str),
    "0-d": np.array(1),
}
TARGETS = [Y.astype(code) for code in (">i4", ">i8", "u1", ">u2", "?")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    np.savez(folder / "rows.npz", x=X, y=Y)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onecycle.cli.train.drawable", lambda record: {})
        patch.setattr("onecycle.cli.train.write_report", lambda record, path: path.touch())
        args = ["--epochs", "1", "--lr", "0.01", "--device", "cpu", "--out", str(folder / "table")]
        assert run(["train", str(folder / "rows.npz"), *args]) == 0
    learn = Learner(DataBunch.create((X, Y), bs=8, device="cpu"), MLP(3, 4, 2), silent=True)
    learn.fit(1, 1e-2)
    learn.export((folder / "arrays").absolute())
    return {"table": folder / "table" / "model", "arrays": folder / "arrays"}


@pytest.mark.parametrize("model", ["table", "arrays"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_predictions(
    models: dict[str, Path], model: str, layout: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor: Predictor = load_predictor(models[model], device="cpu")
    x = LAYOUTS[layout]
    # whole numbers are what they are, however many bytes they have
    torch.testing.assert_close(predictor.get_preds(x)[0], predictor.get_preds(X)[0], rtol=0, atol=0)
    np.save("x.npy", X)
    assert run(["predict", str(models[model]), "x.npy"]) == 0
    expected = capsys.readouterr().out
    np.save("x.npy", x)
    np.savez("x.npz", x=x)
    for name in ("x.npy", "x.npz"):
        assert run(["predict", str(models[model]), name]) == 0
        assert capsys.readouterr().out == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training(layout: str, here: Path) -> None:
    x = LAYOUTS[layout]
    expected = DataBunch.from_table((X, Y), bs=8, seed=1, device="cpu").train_ds.tensors
    np.savez("x.npz", x=x, y=Y)
    for source in ((x, Y), "x.npz", {"x": x, "y": Y}):
        found = DataBunch.from_table(source, bs=8, seed=1, device="cpu").train_ds.tensors
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    for y in TARGETS:
        data = DataBunch.create((x, y), bs=8, device="cpu")
        assert torch.equal(data.train_ds.tensors[1], torch.from_numpy(Y))
        assert torch.equal(data.train_ds.tensors[0].float(), torch.from_numpy(X))


@pytest.mark.parametrize("layout", REFUSED)
def test_what_cannot_be_used(
    models: dict[str, Path], layout: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = REFUSED[layout]
    with pytest.raises(DataError):
        DataBunch.from_table((x, Y[: len(x)] if x.ndim else Y), seed=1)
    np.save("x.npy", x)
    for model in models.values():
        assert run(["predict", str(model), "x.npy"]) == 2
        assert "bug" not in capsys.readouterr().err
    np.savez("x.npz", x=X, y=np.array(1))
    with pytest.raises(DataError, match="y is a single number; expected one for each row"):
        DataBunch.from_table("x.npz", seed=1)
