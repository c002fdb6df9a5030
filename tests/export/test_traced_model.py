"""What somebody could put into the program of a bundle: nothing of it runs, and the error says what it is."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Net, seeded, toy_arrays
from export.unlisted_operators import UNLISTED
from onecycle import DataBunch, Learner, load_learner, load_predictor
from onecycle.core.archives import manifest_text
from onecycle.errors import FileError, OneCycleError
from onecycle.export.traced_model import TracedModel

pytestmark = pytest.mark.slow


@pytest.fixture
def bundle(toy: DataBunch, here: Path) -> Path:
    return Learner(toy, seeded(Net()), silent=True).export("b")


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the state of a bundle, as somebody would who knows how it is signed."""
    state = json.loads((folder / "state.json").read_text())
    change(state)
    (folder / "state.json").write_text(json.dumps(state))
    signed(folder)


def signed(folder: Path) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    (folder / "manifest.json").write_text(manifest_text("bundle", files))


def first_call(place: int, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["program"]["calls"][0].__setitem__(place, value)


def field(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["program"].update({name: value})


@pytest.mark.parametrize("name", UNLISTED)
def test_only_listed_operators_are_called(bundle: Path, name: str):
    changed(bundle, first_call(1, name))
    with pytest.raises(FileError, match=r"b: the program calls .*, which is none of the operators .*; nothing was run"):
        load_predictor(bundle)


DEEP: list[Any] = []
for _ in range(100):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda state: state.update(program=3), "it is 3"),
        (lambda state: state.update(program=None), "it is None"),
        (field("calls", {"a": 1}), "calls is {'a': 1}"),
        (field("calls", [3]), r"calls\[0\] is 3"),
        (field("calls", [["a", "item", [], {}, "more"]]), r"calls\[0\] is"),
        (field("inputs", [3]), "inputs is 3"),
        (field("inputs", "x"), "inputs is 'x'"),
        (field("weights", {"p": "no.such"}), "weights.'p' is 'no.such'"),
        (field("weights", {"p": ["lin1.weight"]}), "weights.'p' is"),
        (field("constants", {"c": "lin1.weight"}), "constants.'c' is 'lin1.weight'"),
        (field("output", {"of": "nothing"}), "output is {'of': 'nothing'}"),
        (field("output", {}), "output is {}"),
        (field("output", {"dtype": "float32"}), "output is"),
        (field("output", {"list": []}), "output is {'list': \\[\\]}"),
        (field("output", {"dict": {"logits": {"of": "nothing"}}}), "output is {'of': 'nothing'}"),
        (
            field("output", {"tuple": [{"tuple": [{"tuple": [{"tuple": [{"tuple": [{"of": "linear_1"}]}]}]}]}]}),
            "output",
        ),
        (field("paths", ["[0]", "[1]"]), "paths is"),
        (field("paths", [3]), "paths is 3"),
        (first_call(0, 3), r"calls\[0\] is 3"),
        (first_call(0, "x"), r"calls\[0\] is 'x'"),
        (first_call(2, [{"of": "linear_1"}]), r"calls\[0\] is {'of': 'linear_1'}"),
        (first_call(2, [{"dtype": "float"}]), r"calls\[0\] is {'dtype': 'float'}"),
        (first_call(2, [{"dtype": "os"}]), r"calls\[0\] is {'dtype': 'os'}"),
        (first_call(2, [{"device": "cuda:7"}]), r"calls\[0\] is {'device': 'cuda:7'}"),
        (first_call(2, [{"__reduce__": "os.system"}]), r"calls\[0\] is {'__reduce__': 'os.system'}"),
        (first_call(2, [{"of": ["x"]}]), r"calls\[0\] is {'of': \['x'\]}"),
        (first_call(2, [{"of": "x", "dtype": "float32"}]), r"calls\[0\] is"),
        (first_call(2, DEEP), r"calls\[0\] is \["),
        (first_call(2, [float("inf")]), r"calls\[0\] is inf"),
        (first_call(3, {"out": {"code": "x"}}), r"calls\[0\] is {'code': 'x'}"),
        (first_call(3, []), r"calls\[0\] is"),
        (first_call(3, {"nothing": 1}), r"calls\[0\] is"),
        (first_call(2, [1, 2, 3, 4, 5, 6, 7]), r"calls\[0\] is"),
        *(
            (
                field("calls", [["n", "size", [{"of": "x"}, 0], {}], ["z", "aten.zeros.default", [[2]], {key: value}]]),
                r"calls\[1\] is",
            )
            for key in ("dtype", "layout", "device")  # torch would take a number, and read past the end of its tables
            for value in (-1, 99, {"of": "n"}, {"memory_format": "preserve_format"}, [{"dtype": "int64"}])
        ),
    ],
)
def test_what_onecycle_never_writes(bundle: Path, change: Callable[[dict[str, Any]], object], part: str):
    changed(bundle, change)
    with pytest.raises(FileError, match=f"b: the program is damaged: {part}.*, which onecycle never writes"):
        load_predictor(bundle)


@pytest.mark.parametrize("format", [3, None, "1", [1]])
def test_another_format(bundle: Path, format: Any):
    changed(bundle, field("format", format))
    with pytest.raises(FileError, match="b: the program has format .*; this onecycle reads 1 and 2; upgrade it"):
        load_predictor(bundle)


@pytest.mark.parametrize("name", ["a..b", "forward", "training", "_calls.x", "_constants.c0", "train.weight", ""])
def test_a_weight_that_would_take_the_place_of_something_else(bundle: Path, name: str):
    from safetensors.torch import load_file, save_file

    tensors = load_file(bundle / "model.safetensors") | {name: torch.ones(2)}
    save_file(tensors, bundle / "model.safetensors")
    signed(bundle)
    with pytest.raises(FileError, match="the program is damaged: a name in weights is"):
        load_predictor(bundle)


def test_a_name_of_many_parts(bundle: Path):
    from safetensors.torch import load_file, save_file

    weights = load_file(bundle / "model.safetensors")
    for parts, is_read in ((100, True), (101, False), (900, False)):
        save_file(weights | {".".join("a" * parts): torch.ones(2)}, bundle / "model.safetensors")
        signed(bundle)
        if is_read:
            assert len(load_predictor(bundle).model.state_dict()) == len(weights) + 1
        else:
            with pytest.raises(FileError, match="the program is damaged: a name in weights is"):
                load_predictor(bundle)


def work(done: Callable[[], object]) -> int:
    """The number of calls that something takes, of Python's functions and of C's."""
    found = 0

    def count(*_: object) -> None:
        nonlocal found
        found += 1

    sys.setprofile(count)
    try:
        done()
    finally:
        sys.setprofile(None)
    return found


def test_twice_the_program_is_twice_the_work(bundle: Path):
    state = json.loads((bundle / "state.json").read_text())
    program, weights = state["program"], load_predictor(bundle).model.state_dict()

    def load(weight_count: int, numbers: int) -> int:
        more = {f"m{i}.w": torch.ones(1) for i in range(weight_count)}
        call = ["long", "aten.cat.default", [[{"of": program["inputs"][0]}] * numbers, 0], {}]
        return work(lambda: TracedModel(program | {"calls": [*program["calls"], call]}, weights | more, {}))

    assert load(400, 1) - load(1, 1) < 2.2 * (load(200, 1) - load(1, 1))
    assert load(1, 4_000) - load(1, 1) < 2.2 * (load(1, 2_000) - load(1, 1))


def test_more_values_than_a_program_has(bundle: Path):
    numbers = ["n", "aten.cat.default", [[0.5] * 250_001, [0.5] * 250_001], {}]
    changed(bundle, field("calls", [numbers]))
    with pytest.raises(FileError, match="the number of values in the calls, or more is 500001"):
        load_predictor(bundle)


@pytest.mark.parametrize("sizes", [[-1, True], True])
def test_a_flag_is_no_number(bundle: Path, sizes: Any):
    changed(bundle, field("calls", [["n", "aten.reshape.default", [{"of": "x"}, sizes], {}]]))
    with pytest.raises(FileError, match=r"calls\[0\] is"):
        load_predictor(bundle)


class Command:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("owned"),)


@pytest.mark.parametrize("name", ["model.safetensors", "constants.safetensors", "program.pt2", "state.json"])
def test_a_pickle_in_place_of_a_file(bundle: Path, name: str):
    torch.save({"weight": Command()}, bundle / name)
    signed(bundle)
    with pytest.raises(FileError, match=name):
        load_predictor(bundle)
    (bundle / name).write_bytes(pickle.dumps(Command()))
    signed(bundle)
    with pytest.raises(FileError, match=name):
        load_predictor(bundle)
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    "calls",
    [
        [["n", "size", [{"of": "x"}, 1], {}], *([f"n{i}", "number.mul", [{"of": f"n{i - 1}" if i else "n"}] * 2, {}] for i in range(99))],
        [["n", "number.mul", [[0], 10**18], {}]],
        [["n", "number.add", [{"of": "x"}, 1], {}]],
        [["n", "item", [{"of": "x"}, 0], {}]],
        [["n", "item", ["text", "__class__"], {}]],
        [["n", "size", [{"of": "x"}, 99], {}]],
        [["n", "size", ["text", 0], {}]],
        [["n", "aten.zeros.default", [[2**62]], {}]],
        [["n", "aten.linear.default", ["text"], {}]],
        [["n", "aten.index_select.default", [{"of": "x"}, 0, {"of": "p_lin1_weight"}], {}]],
        [["n", "aten.relu.default", [{"of": "x"}], {}], ["m", "item", [{"of": "n"}, 0], {}]],
    ],
)  # fmt: skip
def test_a_call_that_fails_is_an_error_when_it_predicts(bundle: Path, calls: list[Any]):
    changed(bundle, lambda state: state["program"].update(calls=calls, output={"of": calls[-1][0]}))
    loaded = load_predictor(bundle, device="cpu")
    with pytest.raises((OneCycleError, RuntimeError, TypeError, ValueError, IndexError)):
        loaded.get_preds(toy_arrays()[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda args: args[2].reverse(),
        lambda args: args[2].pop(),
        lambda args: args.__setitem__(4, 2),
        lambda args: args.__setitem__(4, 10**9),
        lambda args: args.__setitem__(3, False),
        lambda args: args.__setitem__(6, True),
        lambda args: args.__setitem__(7, True),
        lambda args: args.__setitem__(2, []),
        lambda args: args[1].pop(),
        lambda args: args.__setitem__(1, {"of": "x"}),
    ],
)
def test_a_recurrent_layer_with_weights_of_other_shapes(
    toy: DataBunch, here: Path, change: Callable[[list[Any]], object]
):
    """torch's operator takes the sizes on trust and would read what is behind the weights."""
    path = Learner(toy, Recurrent(), silent=True).export("b")
    x = toy.valid_ds.tensors[0]
    load_predictor(path, device="cpu").get_preds(x)[0]

    def edit(state: dict[str, Any]) -> None:
        (call,) = [call for call in state["program"]["calls"] if call[1] == "aten.lstm.input"]
        change(call[2])

    changed(path, edit)
    with pytest.raises((ValueError, IndexError, TypeError)):
        load_predictor(path, device="cpu").get_preds(x)[0]


class Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = torch.nn.LSTM(4, 6, batch_first=True), torch.nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x.reshape(-1, 5, 4))[0][:, -1])


def test_the_whole_state_of_a_bundle_may_be_anything(bundle: Path):
    for text in ("[]", "3", "null", '{"info": 3}', "[" * 100_000):
        (bundle / "state.json").write_text(text)
        signed(bundle)
        with pytest.raises(FileError):
            load_learner(bundle)
