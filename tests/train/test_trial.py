"""The trial before a fit copies only what it writes to, and looks at few objects; lazy layers get their sizes."""

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conftest import Net, seeded, toy_arrays
from onecycle import Callback, DataBunch, Learner, ModelError, load_predictor
from onecycle.core.writes import WatchedMemory
from onecycle.train import snapshot as snapshots
from onecycle.train.snapshot import restoring

LARGE = np.zeros(snapshots.LARGE_ARRAY // 4, np.float32)  # a global that losses refer to


@pytest.fixture(autouse=True)
def nothing_in_large():
    yield
    assert not LARGE.any()
    assert LARGE.flags.writeable


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that each snapshot copied of tensors: at once, then when they were written to."""
    sizes = [0, 0]
    clone, before_write = Tensor.clone, WatchedMemory.before_write

    def counted(tensor: Tensor, **options: Any) -> Tensor:
        sizes[0] += tensor.nbytes
        return clone(tensor, **options)

    def counted_write(memory: WatchedMemory, tensor: Tensor) -> None:
        had = memory.copied
        before_write(memory, tensor)
        sizes[1] += memory.copied - had

    monkeypatch.setattr(Tensor, "clone", counted)
    monkeypatch.setattr(WatchedMemory, "before_write", counted_write)
    return sizes


class Frozen(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("big", torch.zeros(1 << 20))
        self.register_buffer("n", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return super().forward(x) + self.big[0]


def test_the_trial_copies_only_the_memory_that_is_written_to(toy: DataBunch, copied: list[int]):
    learn = Learner(toy, seeded(Frozen()), silent=True)
    learn.fit(0)
    assert copied[1] == 12  # n, once for both sets
    assert copied[0] < 1 << 20
    assert learn.model.n.tolist() == [0, 0, 0]


def test_the_finder_copies_the_parameters_once(toy: DataBunch, copied: list[int]):
    class Holds(Callback):
        def __init__(self, model: nn.Module) -> None:
            self.model = model

    model = seeded(Frozen())
    Learner(toy, model, silent=True, callbacks=Holds(model), engine="eager").lr_find(num_it=2)
    assert model.big.nbytes <= copied[0] < 2 * model.big.nbytes


def write_to_view(model: Any) -> None:
    model.held[2:4].mul_(3)


def write_data(model: Any) -> None:
    model.held.data.add_(1)


def write_numpy(model: Any) -> None:
    model.held.numpy()[1] = 7


def write_asarray(model: Any) -> None:
    np.asarray(model.held)[1] = 7


def write_many(model: Any) -> None:
    torch._foreach_add_([model.held, model.other], 1.0)


def write_out(model: Any) -> None:
    torch.add(model.held, 1, out=model.held)


def write_in_norm(model: Any) -> None:
    F.batch_norm(torch.rand(4, 6), model.held, model.other, training=True)


def resize(model: Any) -> None:
    model.held.resize_(600).fill_(2)


def rebind(model: Any) -> None:
    model.held.data = torch.ones(2)


def gradient(model: Any) -> None:
    model.weight.grad.zero_()
    model.weight.grad = None


WRITES = [write_to_view, write_data, write_numpy, write_asarray, write_many, write_out, write_in_norm, resize, rebind]


@pytest.mark.parametrize("write", [*WRITES, gradient])
def test_whatever_writes_is_noticed(write: Any):
    model: Any = nn.Linear(2, 2)
    model.weight.grad = torch.ones(2, 2)
    model.held, model.other = torch.arange(6.0), torch.arange(6.0)
    memory = model.held.data_ptr()
    with restoring(model, is_trial=True) as snapshot:
        for _ in range(2):
            with torch.no_grad(), snapshot.trying():
                write(model)
            assert model.held.tolist() == model.other.tolist() == [0, 1, 2, 3, 4, 5]
            assert model.weight.grad.tolist() == [[1, 1], [1, 1]]
    assert model.held.data_ptr() == memory or write is resize
    assert snapshot.memory is not None
    assert not snapshot.memory.unseen()


def test_what_torch_does_not_show_is_said(toy: DataBunch):
    from threading import Thread

    class Threaded(Frozen):
        def forward(self, x: Tensor) -> Tensor:
            thread = Thread(target=self.n.add_, args=(1,))
            thread.start()
            thread.join()
            return Net.forward(self, x)

    with pytest.warns(RuntimeWarning, match=r"changed a tensor of shape \(3,\) in a way that torch does not show"):
        Learner(toy, seeded(Threaded()), silent=True).fit(0)


def reads(preds: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(preds, targets) + float(LARGE[0])


def writes(preds: Tensor, targets: Tensor) -> Tensor:
    LARGE[0] += 1
    return F.cross_entropy(preds, targets)


def writes_with_torch(preds: Tensor, targets: Tensor) -> Tensor:
    torch.from_numpy(LARGE).add_(1)
    return F.cross_entropy(preds, targets)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("loss", [reads, writes, writes_with_torch])
def test_a_large_array_is_copied_only_if_it_is_written_to(toy: DataBunch, monkeypatch: pytest.MonkeyPatch, loss: Any):
    copies: list[int] = []

    def save_array(snapshot: Any, value: Any) -> Any:
        before = len(snapshot._undo)
        held = save(snapshot, value)
        copies.extend([value.nbytes] * (len(snapshot._undo) - before))
        return held

    save = snapshots.Snapshot._save_array
    monkeypatch.setattr(snapshots.Snapshot, "_save_array", save_array)
    Learner(toy, seeded(Net()), loss_func=loss, silent=True).fit(0)
    assert copies == ([LARGE.nbytes] if loss is writes else [])


def test_a_vocabulary_is_not_walked_item_by_item(toy: DataBunch):
    model: Any = seeded(Net())
    with restoring(model, is_trial=True) as snapshot:
        without = snapshot.visited
    model.vocabulary = {f"w{i}": i for i in range(200_000)}
    model.words = [*model.vocabulary, [0]]
    with restoring(model, is_trial=True) as snapshot, snapshot.trying():
        model.vocabulary["new"] = 1
        model.words.pop()[0] = 1
    assert snapshot.is_complete
    assert snapshot.visited == without + 3
    assert (len(model.vocabulary), model.words[-1]) == (200_000, [0])
    model.words = [(f"{i}.jpg", i % 7) for i in range(200_000)]
    with restoring(model, is_trial=True) as snapshot, snapshot.trying():
        model.words[5] = ("other.jpg", 1)
    assert snapshot.is_complete
    assert model.words[5] == ("5.jpg", 5)


def test_a_model_of_too_many_objects_is_not_tried(toy: DataBunch, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshots, "MOST_OBJECTS", 500)
    model: Any = seeded(Net())
    model.held = [[i] for i in range(600)]
    with restoring(model, is_trial=True) as snapshot:
        assert not snapshot.is_complete
        assert snapshot.visited == 501
    with restoring(model) as snapshot:
        assert snapshot.is_complete
        model.held[599][0] = -1
    assert model.held[599] == [599]


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predict_reads_the_weights_only_if_the_output_is_nan(toy: DataBunch, monkeypatch: pytest.MonkeyPatch):
    import onecycle.predictor as module

    checks: list[str] = []
    check = module.check_weights
    monkeypatch.setattr(module, "check_weights", lambda *args: (checks.append(args[1]), check(*args)))
    learn = Learner(toy, seeded(Net()), silent=True)
    row = toy.valid_ds.tensors[0][0]
    learn.predict(row)
    assert not checks
    learn.model.lin2.weight.data[0, 0] = math.nan
    with pytest.raises(ModelError, match=r"weights contain NaN \(first in lin2.weight: 1 of"):
        learn.predict(row)


def test_a_model_that_returns_whole_numbers_has_its_weights_checked(toy: DataBunch):
    class Labels(Net):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return out if self.training else out.argmax(1)

    learn = Learner(toy, seeded(Labels()), silent=True)
    learn.get_preds(toy.valid_dl)
    learn.model.lin1.bias.data[:] = math.nan
    with pytest.raises(ModelError, match="lin1.bias"):
        learn.get_preds(toy.valid_dl)


# --- lazy layers ------------------------------------------------------------------------------------------------------


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b, self.calls = nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.b(torch.relu(self.norm(self.a(x))))


ACTIONS: dict[str, Any] = {
    "fit": lambda learn: None,
    "lr_find": lambda learn: learn.lr_find(num_it=3),
    "split": lambda learn: learn.split([learn.model.b]),
    "freeze": lambda learn: (learn.split([learn.model.b]).freeze(), learn.unfreeze()),
    "save": lambda learn: learn.load(file) if learn.save(file := io.BytesIO()) and not file.seek(0) else None,
}


@pytest.mark.parametrize("action", ACTIONS)
def test_lazy_layers_get_their_sizes(toy: DataBunch, action: str):
    torch.manual_seed(5)
    called = Lazy()
    called(toy.one_batch()[0][:2])
    called.calls = 0
    called.norm.reset_running_stats()
    torch.manual_seed(5)
    model = Lazy()
    for learn in (Learner(toy, called, silent=True), Learner(toy, model, silent=True)):
        ACTIONS[action](learn)
        learn.fit(1, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(called.parameters(), model.parameters(), strict=True))
    assert called.calls == model.calls
    assert called.norm.num_batches_tracked == model.norm.num_batches_tracked


def test_a_lazy_layer_that_no_batch_reaches_is_named(toy: DataBunch):
    model: Any = seeded(Net())
    model.unused = nn.LazyLinear(2)
    with pytest.raises(ModelError, match="call the model on a batch first"):
        Learner(toy, model, silent=True).fit(1)


def test_lazy_layers_that_cannot_take_the_rows_are_an_error_of_ours(toy: DataBunch):
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(5, 4))
    with pytest.raises(ModelError, match="takes 5 columns and gets 4"):
        Learner(toy, model, silent=True).fit(1)


# --- export -----------------------------------------------------------------------------------------------------------


def use_tanh(model: Any) -> None:
    model.layers[1] = nn.Tanh()


def add_hook(model: Any) -> None:
    model.layers[0].register_forward_hook(lambda module, args, out: out * 3)


def replace_head(model: Any) -> None:
    model.layers[2] = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))


def patch_forward(model: Any) -> None:
    model.forward = lambda x: model.layers(x.flatten(1)) * 2


@pytest.mark.parametrize("change", [use_tanh, add_hook, replace_head, patch_forward])
def test_a_model_of_the_librarys_that_was_changed_is_traced(change: Any):
    from onecycle import MLP

    x, y = toy_arrays(64)
    data = DataBunch.create((x, y), bs=16, seed=1)
    learn, file = Learner(data, seeded(MLP(20, 8, 4)), silent=True), io.BytesIO()
    change(learn.model)
    learn.export(file)
    file.seek(0)
    loaded = load_predictor(file)
    assert torch.equal(loaded.get_preds(data.train_dl)[0], learn.get_preds(data.train_dl)[0])


def test_a_buffer_that_was_changed_shows_in_the_numbers():
    from onecycle import TabularModel

    x, y = torch.rand(64, 2), torch.arange(64) % 2
    learn = Learner(DataBunch.create((x, y), bs=16, seed=1), TabularModel(2, [], 2), silent=True)
    for change in (lambda: None, lambda: learn.model._feet.add_(0.5)):
        change()
        learn.export(file := io.BytesIO())
        file.seek(0)
        loaded = load_predictor(file)
        assert torch.equal(loaded.get_preds(x)[0], learn.get_preds(x)[0])
    assert type(loaded.model).__name__ == "TracedModel"
