"""Weights and optimizer state: written, damaged, read again."""

import io
import json
import shutil
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import Net, seeded
from onecycle import MLP, DataBunch, Learner, accuracy, load_learner, load_predictor
from onecycle.checkpoint.weights import pack_optimizer, unpack_optimizer
from onecycle.core.files import with_checksum
from onecycle.errors import FileError, ModelError, OutputError, SettingError


def learner(data: DataBunch, model: nn.Module | None = None, **options) -> Learner:
    return Learner(data, model or seeded(Net()), metrics=accuracy, silent=True, **options)


@pytest.mark.parametrize("opt_func", [None, partial(torch.optim.SGD, momentum=0.9)])
def test_a_loaded_learner_goes_on_as_the_saved_one(toy: DataBunch, here: Path, opt_func):
    options = {} if opt_func is None else {"opt_func": opt_func}
    first = learner(toy, **options)
    first.fit_one_cycle(1, 1e-2)
    folder = first.save("stage-1")
    assert folder == Path("models/stage-1")
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    second = learner(toy, Net(), **options).load("stage-1")
    for learn in (first, second):
        learn.fit(1, 1e-3)
    assert second.recorder.record.batch_losses == first.recorder.record.batch_losses
    assert second.recorder.moms == first.recorder.moms


def test_saving_again_replaces(toy: DataBunch, here: Path):
    learn = learner(toy)
    learn.save("a", with_opt=False)
    with torch.no_grad():
        learn.model.lin1.bias.fill_(3)
    learn.save("a", with_opt=False)
    assert learner(toy, Net()).load("a").model.lin1.bias.unique().item() == 3
    assert [path.name for path in Path("models").iterdir()] == ["a"]


def test_weights_without_the_optimizer(toy: DataBunch, here: Path):
    learn = learner(toy)
    learn.fit(1, 1e-2)
    learn.save("w", with_opt=False)
    other = learner(toy, Net()).load("w")
    assert other.opt is None
    assert torch.equal(other.model.lin1.weight, learn.model.lin1.weight)


def test_a_writer_that_was_killed_while_replacing(toy: DataBunch, here: Path):
    learn = learner(toy)
    folder = learn.save("a")
    folder.rename(folder.with_name(".a.replaced"))
    recovered = learner(toy, seeded(Net(), 1)).load("a")
    for name, weight in learn.model.state_dict().items():
        assert torch.equal(recovered.model.state_dict()[name], weight), name


def test_shared_and_frozen_weights(toy: DataBunch, here: Path):
    model = Net(20, 20, 20)
    model.lin2.weight = model.lin1.weight
    learn = learner(toy, model)
    learn.save("tied")
    before = model.lin1.weight.detach().clone()
    with torch.no_grad():
        model.lin1.weight.fill_(3)
    learn.load("tied")
    assert model.lin2.weight is model.lin1.weight
    assert torch.equal(model.lin1.weight, before)
    split = learner(toy).split(lambda m: [m.lin2])
    split.freeze()
    split.fit(1, 1e-2)
    split.save("frozen")
    with pytest.warns(UserWarning, match="only the weights are loaded; the optimizer's state is of other layer groups"):
        whole = learner(toy).load("frozen")
    assert torch.equal(whole.model.lin2.weight, split.model.lin2.weight)


def test_another_optimizers_state_is_left_out_with_a_warning(toy: DataBunch, here: Path):
    sgd = learner(toy, opt_func=torch.optim.SGD)
    sgd.fit(1, 1e-2)
    sgd.save("sgd")
    with pytest.warns(
        UserWarning, match="only the weights are loaded; the optimizer's state is of SGD, the learner's is Adam"
    ):
        other = learner(toy).load("sgd")
    assert torch.equal(other.model.lin1.weight, sgd.model.lin1.weight)
    other.fit(1, 1e-2)
    assert not torch.equal(other.model.lin1.weight, sgd.model.lin1.weight)


def test_loading_keeps_the_learners_own_settings(toy: DataBunch, here: Path):
    l2 = learner(toy, true_wd=False)
    l2.fit_one_cycle(1, 1e-2)
    l2.save("l2")
    other = learner(toy, true_wd=True, wd=0.5).load("l2")
    other.fit(1, 1e-2)
    assert all(group["decoupled_weight_decay"] and group["weight_decay"] == 0.5 for group in other.opt.groups)
    assert other.opt.momentum == pytest.approx(0.95)


def test_a_neighbour_of_a_similar_name_is_left_alone(toy: DataBunch, here: Path):
    learn = learner(toy)
    Path("models/a.previous").mkdir(parents=True)
    Path("models/.a.replaced").mkdir()
    Path("models/.a.replaced/thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"models/\.a\.replaced exists and is not a checkpoint"):
        learn.save("a")
    assert Path("models/.a.replaced/thesis.txt").exists()
    assert Path("models/a.previous").is_dir()


def test_another_models_weights(toy: DataBunch, here: Path):
    learn = learner(toy)
    learn.save("a")
    with pytest.raises(
        ModelError, match=r"weights of another model \(the model's layers.0.bias, .* missing in it; it has lin1"
    ):
        learner(toy, MLP(20, 8, 4)).load("a")
    with pytest.raises(ModelError, match=r"lin1.weight has shape \(8, 20\); the model's has \(9, 20\)"):
        learner(toy, Net(hidden=9)).load("a")
    with pytest.raises(FileError, match=r"models/b: no such folder; expected a checkpoint"):
        learn.load("b")


def test_every_damage_is_found_before_use(toy: DataBunch, here: Path):
    learn = learner(toy)
    learn.fit(1, 1e-2)
    folder = learn.save("a")
    before = learn.model.lin1.weight.clone()
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for cut in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:cut])
            with pytest.raises(FileError, match=path.name):
                learn.load("a")
        for position in range(0, len(whole), max(1, len(whole) // 50)):
            flipped = bytes([whole[position] ^ 1 << position % 8])
            path.write_bytes(whole[:position] + flipped + whole[position + 1 :])
            with pytest.raises(FileError, match=path.name):
                learn.load("a")
        path.unlink()
        with pytest.raises(FileError, match=path.name):
            learn.load("a")
        path.write_bytes(whole)
    learn.load("a")
    assert torch.equal(learn.model.lin1.weight, before)


def sign_again(folder: Path, **changed: Any) -> None:
    """Change the manifest of a folder, as somebody would who knows how it is made."""
    found = json.loads((folder / "manifest.json").read_text()) | changed
    del found["sha256"]
    (folder / "manifest.json").write_text(with_checksum(found))


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd", "..", "", "a/b"])
def test_a_manifest_cannot_point_outside_its_folder(toy: DataBunch, here: Path, name: str):
    learn = learner(toy)
    folder = learn.save("a", with_opt=False)
    shutil.copy(folder / "model.safetensors", "secret.safetensors")
    secret = Path("secret.safetensors").read_bytes()
    sign_again(folder, files={name: {"bytes": len(secret), "sha256": sha256(secret).hexdigest()}})
    with pytest.raises(FileError, match=r"manifest\.json: names a file outside of the folder"):
        learn.load("a")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_manifest_of_numbers_that_json_lacks(toy: DataBunch, here: Path, number: str):
    learn = learner(toy)
    path = learn.save("a", with_opt=False) / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', f'"format": 1, "x": {number}'))
    with pytest.raises(FileError, match=r"manifest\.json: not a manifest that onecycle wrote"):
        learn.load("a")


def test_a_newer_format_and_another_kind(toy: DataBunch, here: Path):
    learn = learner(toy)
    folder = learn.save("a", with_opt=False)
    sign_again(folder, format=9)
    with pytest.raises(FileError, match="format 9 is newer than this onecycle reads"):
        learn.load("a")
    learn.export("b")
    shutil.move("b", "models/b")
    with pytest.raises(FileError, match="holds a bundle; expected a checkpoint"):
        learn.load("b")


def test_what_is_not_ours_is_not_replaced(toy: DataBunch, here: Path):
    learn = learner(toy)
    Path("models/mine").mkdir(parents=True)
    Path("models/mine/thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="models/mine exists and is not a checkpoint that onecycle wrote"):
        learn.save("mine")
    assert Path("models/mine/thesis.txt").read_text() == "years of work"
    learn.export("bundle")
    with pytest.raises(OutputError, match=r"bundle exists; give another name, or .* \(overwrite=True\)"):
        learn.export("bundle")
    learn.export("bundle", overwrite=True)


def test_a_folder_that_cannot_be_written(toy: DataBunch, here: Path):
    Path("file").write_text("")
    with pytest.raises(OutputError, match=r"file/models/a: cannot be written"):
        learner(toy, path="file").save("a")


class Counts(Net):
    """How often it was asked, kept with its weights as `made` of a number."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made, self.count = made, 0

    def get_extra_state(self) -> Any:
        return self.made(self.count)

    def set_extra_state(self, state: Any) -> None:
        self.count = int(state)


def test_a_models_extra_state_is_kept_where_it_is_a_tensor(toy: DataBunch, here: Path):
    learn = learner(toy, seeded(Counts(torch.tensor)))
    learn.model.count = 3
    learn.save("a")
    assert learner(toy, Counts(torch.tensor)).load("a").model.count == 3
    learn.fit(1, 1e-2, checkpoint="run")
    resumed = learner(toy, Counts(torch.tensor))
    resumed.resume("run")
    assert resumed.model.count == 3


@pytest.mark.parametrize("made", [lambda count: {"count": count}, lambda count: None])
def test_a_models_extra_state_that_cannot_be_kept(toy: DataBunch, here: Path, made: Any):
    learn = learner(toy, nn.Sequential(Counts(made)))
    weights = [parameter.clone() for parameter in learn.model.parameters()]
    kind = type(made(0)).__name__
    message = rf"the model's 0._extra_state is of type {kind}; expected a tensor, .*: let get_extra_state return one"
    for call in (lambda: learn.save("a"), lambda: learn.export("b"), lambda: learn.fit(1, 1e-2, checkpoint="run")):
        with pytest.raises(ModelError, match=message):
            call()
    assert all(torch.equal(a, b) for a, b in zip(weights, learn.model.parameters(), strict=True))
    assert not any(here.iterdir())
    learn.fit(1, 1e-2)


# --- file-like objects, and places that hold something else -----------------------------------------------------------


def test_weights_in_memory(toy: DataBunch, here: Path):
    first, file = learner(toy), io.BytesIO(b"before")
    first.fit(1, 1e-2)
    file.seek(0, 2)
    assert str(first.save(file)) == "<BytesIO>"
    file.seek(6)
    second = learner(toy, Net()).load(file)
    for learn in (first, second):
        learn.fit(1, 1e-3)
    assert second.recorder.record.batch_losses == first.recorder.record.batch_losses
    Path("a.zip").write_bytes(file.getvalue()[6:])
    file.seek(6)
    from_disk, from_memory = learner(toy, Net()).load(here / "a.zip"), learner(toy, Net()).load(file)
    assert torch.equal(from_disk.model.lin1.weight, from_memory.model.lin1.weight)
    with Path("b").open("wb") as opened:
        first.save(opened)
    with Path("b").open("rb") as opened:
        learner(toy, Net()).load(opened)
    assert not Path("models").exists()


def test_a_bundle_in_memory(toy: DataBunch, here: Path):
    learn = Learner(toy, MLP(20, 8, 4), silent=True)
    learn.fit(1, 1e-2)
    file = io.BytesIO()
    learn.export(file)
    learn.export("a.zip")
    assert file.getvalue() == Path("a.zip").read_bytes()
    x = toy.valid_ds.tensors[0]
    for load in (load_predictor, load_learner):
        file.seek(0)
        assert torch.equal(load(file, device="cpu").get_preds(x)[0], learn.get_preds(x)[0])


def closed() -> io.BytesIO:
    file = io.BytesIO()
    file.close()
    return file


@pytest.mark.parametrize(
    ("file", "written", "read"),
    [
        (
            io.StringIO(),
            "<StringIO>: cannot be written .*open for writing bytes",
            "<StringIO>: holds text; expected bytes",
        ),
        (closed(), "<BytesIO>: cannot be written .*closed file", "<BytesIO>: cannot be read .*closed file"),
        (3, "a int is no place for a file; expected a path, or an open file", "a int is no place for a file"),
        (b"PK", r"a bytes is no place .*; give io.BytesIO\(data\)", r"a bytes is no place .*; give io.BytesIO\(data\)"),
    ],
)
def test_what_is_no_file(toy: DataBunch, here: Path, file: Any, written: str, read: str):
    learn = learner(toy)
    for write in (learn.save, learn.export):
        with pytest.raises((OutputError, SettingError), match=written):
            write(file)
    for load in (learn.load, load_predictor, load_learner):
        with pytest.raises((FileError, SettingError), match=read):
            load(file)


def test_a_file_in_memory_is_checked_as_one_on_the_disk(toy: DataBunch):
    file = io.BytesIO()
    learn = learner(toy)
    learn.save(file)
    with pytest.raises(FileError, match=r"<BytesIO>: nothing is left to read; .*seek\(0\)"):
        learn.load(file)
    content = file.getvalue()
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    for damaged in (content[:-9], content[:300] + b"!" + content[301:], b"hello", content * 2):
        with pytest.raises(FileError, match="<BytesIO>"):
            learn.load(io.BytesIO(damaged))
    with pytest.raises(FileError, match="<BytesIO>: holds a checkpoint; expected a bundle; learn.load reads it"):
        load_predictor(io.BytesIO(content))
    assert all(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())


def test_each_wrong_place_is_named_with_what_reads_it(toy: DataBunch, here: Path):
    learn = learner(toy, MLP(20, 8, 4))
    learn.fit(1, 1e-2, checkpoint="run")
    learn.export("run2/model")
    learn.fit(1, 1e-2, checkpoint="run2")
    learn.save(here / "saved")
    learn.export("bundle")
    learn.export("b.zip")
    Path("renamed").write_bytes(Path("b.zip").read_bytes())
    torch.save(learn.model.state_dict(), "w.pt")
    for folder in ("empty", "other", "saves"):
        Path(folder).mkdir()
    Path("other/notes.txt").write_text("mine")
    learn.save(here / "saves/a")
    checkpoint, bundle = "expected a checkpoint", "expected a bundle"
    torchs = "a file; if torch.save wrote it, use learn.model.load_state_dict"
    places = {
        "bundle": ("holds a bundle; expected a checkpoint; load_predictor and load_learner read it", None),
        "b.zip": ("holds a bundle; expected a checkpoint; load_predictor and load_learner read it", None),
        "saved": (None, "holds a checkpoint; expected a bundle; learn.load reads it"),
        "run": ("the folder of a run; learn.resume continues it; " + checkpoint, "the folder of a run; .*; " + bundle),
        "run2": ("the folder of a run; ", "learn.resume continues it, and load_predictor.'run2/model'. its model; "),
        f"run/checkpoints/{next(Path('run/checkpoints').iterdir()).name}": ("holds a fit; .*; learn.resume", "a fit; "),
        "empty": ("empty; " + checkpoint, "empty; " + bundle),
        "other": ("a folder without manifest.json; " + checkpoint, "a folder without manifest.json; " + bundle),
        "saves": ("a folder that holds a; name one of them; " + checkpoint, "a folder that holds a; name one"),
        "renamed": ("a zip file of onecycle's; give it a name that ends in .zip", "a zip file of onecycle's; "),
        "w.pt": (torchs, torchs),
        "nowhere": ("no such folder; " + checkpoint, "no such folder; " + bundle),
    }
    for place, (loading, predicting) in places.items():
        if loading is not None:
            with pytest.raises(FileError, match=f"{place}: {loading}"):
                learn.load(here / place)
        for load in (load_predictor, load_learner):
            if predicting is not None:
                with pytest.raises(FileError, match=f"{place}: .*{predicting}"):
                    load(place)
    for place, found in {"bundle": "a bundle; load_predictor and load_learner read it", "empty": "empty"}.items():
        with pytest.raises(
            FileError, match=rf"{place}: holds no checkpoints \({found}\); expected the folder that a fit"
        ):
            learn.resume(place)


def test_numbers_that_safetensors_cannot_hold(toy: DataBunch, here: Path):
    class Complex(Net):
        def __init__(self) -> None:
            super().__init__()
            self.phase = nn.Parameter(torch.ones(3, dtype=torch.complex128))

    learn = learner(toy, Complex())
    for write in (learn.save, learn.export):
        with pytest.raises(
            ModelError, match="the model's phase is complex128, which safetensors files cannot hold; .*64"
        ):
            write("a")
    assert not list(here.iterdir())


# --- moments: each lands on its parameter ----------------------------------------------------------------------------


def three_layers(hidden: int = 20) -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(20, hidden), nn.ReLU(), nn.Linear(hidden, 20), nn.ReLU(), nn.Linear(20, 4)))


def moments_of(learn: Learner) -> dict[str, Any]:
    assert learn.opt is not None
    state = learn.opt.torch_opt.state
    return {f"{n}/{key}": value for n, p in learn.model.named_parameters() for key, value in state[p].items()}


@pytest.mark.parametrize("hidden", [20, 300])
def test_moments_land_on_their_parameters_after_a_layer_was_replaced(toy: DataBunch, here: Path, hidden: int):
    first = learner(toy, three_layers(hidden))
    first.fit(1, 1e-2)
    first.model[0] = nn.Linear(20, hidden)
    first.fit(2, 1e-2)  # its optimizer has the new parameters at the end
    first.save("a")
    second = learner(toy, three_layers(hidden)).load("a")
    expected, found = moments_of(first), moments_of(second)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    for learn in (first, second):
        learn.fit(1, 1e-2)
    assert second.recorder.record.batch_losses == first.recorder.record.batch_losses


def test_a_layer_that_was_replaced_after_the_fit_has_no_moments(toy: DataBunch, here: Path):
    first = learner(toy, three_layers())
    first.fit(1, 1e-2)
    first.model[0] = nn.Linear(20, 20)
    first.save("a")
    second = learner(toy, three_layers()).load("a")
    assert {name.rpartition(".")[0] for name in moments_of(second)} == {"2", "4"}
    for learn in (first, second):
        learn.fit(1, 1e-2)
    assert second.recorder.record.batch_losses == first.recorder.record.batch_losses


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("exp_avg", torch.zeros(1), r"exp_avg of lin1.weight has shape \(1,\); expected shape \(8, 20\)"),
        ("exp_avg_sq", torch.zeros(()), r"exp_avg_sq of lin1.weight has shape \(\); expected shape \(8, 20\)"),
        ("exp_avg", torch.zeros(20, 8), r"exp_avg of lin1.weight has shape \(20, 8\); expected"),
        ("exp_avg", [1], "exp_avg of lin1.weight is not a tensor; expected"),
        ("step", torch.zeros(160), r"step of lin1.weight has shape \(160,\); expected shape \(\)"),
    ],
)
def test_moments_of_another_shape_are_refused(toy: DataBunch, here: Path, key: str, value: Any, message: str):
    learn = learner(toy)
    learn.fit(1, 1e-2)
    assert learn.opt is not None
    learn.opt.torch_opt.state[learn.model.lin1.weight][key] = value
    learn.save("a")
    other = learner(toy, seeded(Net(), 1))
    before = {name: weight.clone() for name, weight in other.model.state_dict().items()}
    with pytest.raises(FileError, match=f"models/a: the optimizer's {message}"):
        other.load("a")
    assert other.opt is None
    assert all(torch.equal(weight, before[name]) for name, weight in other.model.state_dict().items())


def test_a_state_without_names_is_in_the_order_of_the_model(toy: DataBunch):
    first, second = (learner(toy, three_layers(30)) for _ in range(2))
    for learn in (first, second):
        learn.fit(1, 1e-2)
    assert first.opt is not None
    assert second.opt is not None
    tensors, values = pack_optimizer(first.opt, first.model)
    del values["parameters"]  # as earlier versions wrote it
    state = unpack_optimizer(Path("a"), values, tensors, second.opt, second.model)
    parameters = [parameter for group in second.opt.groups for parameter in group["params"]]
    named = [(parameters[int(i)], key, value) for path, value in tensors.items() for i, key in [path.split("/")]]
    assert all(torch.equal(state["state"][parameter][key], value) for parameter, key, value in named)
    first.model[0] = nn.Linear(20, 30)
    first.fit(1, 1e-2)
    tensors, values = pack_optimizer(first.opt, first.model)
    del values["parameters"]
    with pytest.raises(FileError, match=r"of 0.weight has shape \(20, 30\); expected shape \(30, 20\)"):
        unpack_optimizer(Path("a"), values, tensors, second.opt, second.model)
