"""What holds on the CPU holds on a GPU; skipped where there is none."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from conftest import Net, seeded, toy_arrays
from onecycle import DataBunch, GradientClip, Learner, accuracy, load_learner
from onecycle.errors import DataError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def learner(device: str, **options) -> Learner:
    data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=3, device=device)
    return Learner(data, seeded(Net()), metrics=accuracy, silent=True, **options)


def test_batches_and_model_are_on_the_device():
    learn = learner("cuda")
    x, y = learn.data.one_batch()
    assert {x.device.type, y.device.type, next(learn.model.parameters()).device.type} == {"cuda"}
    assert DataBunch.create(toy_arrays(), bs=16).device.type == "cuda"


@pytest.mark.parametrize("options", [{}, {"opt_func": torch.optim.SGD}, {"callbacks": GradientClip(0.1)}])
def test_it_trains_as_on_the_cpu(options: dict):
    losses = []
    for device in ("cpu", "cuda"):
        learn = learner(device, **options)
        learn.fit_one_cycle(2, 1e-2)
        losses.append([*learn.recorder.losses, *learn.recorder.val_losses])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_finding_leaves_no_trace():
    weights = []
    for find in (False, True):
        learn = learner("cuda")
        before = torch.cuda.get_rng_state()
        if find:
            learn.lr_find()
        learn.fit_one_cycle(1, 1e-2)
        assert torch.equal(before, torch.cuda.get_rng_state())
        weights.append(learn.model.lin1.weight)
    assert torch.equal(*weights)


def test_files_go_from_one_device_to_the_other(here: Path):
    learn = learner("cuda")
    learn.fit(1, 1e-2)
    learn.save("a")
    learn.export("b")
    on_cpu = learner("cpu").load("a")
    on_cpu.fit(1, 1e-2)
    expected = learn.get_preds()[0]
    assert expected.device.type == "cpu"
    assert torch.allclose(
        load_learner("b", Net, device="cpu").get_preds(toy_arrays(50, seed=1)[0])[0], expected, atol=1e-4
    )


def test_a_torch_loader_and_bad_labels():
    x, y = toy_arrays()
    data = DataBunch(DataLoader(TensorDataset(x, y), 16, pin_memory=True), DataLoader(TensorDataset(x, y), 16))
    Learner(data, Net(), silent=True).fit(1, 1e-2)
    bad = DataBunch.create((x, y), bs=16)
    with pytest.raises(DataError, match="labels contain 3; the model has 3 classes"):
        Learner(bad, Net(outputs=3), silent=True).fit(1, 1e-2)
