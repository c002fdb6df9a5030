"""What objects of a fit hold besides weights: saved, restored in place, or said when the fit begins."""

import itertools
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from durability.resume_cases import CASES, Stop, made, plain_and_resumed
from onecycle import CheckpointConfig
from onecycle.checkpoint.objects import Objects
from onecycle.checkpoint.run_folder import RunFolder
from onecycle.core.trees import Packer, Unpacker

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def stop():
    yield
    Stop.at = None


class Part:
    """A user's object."""

    def __init__(self) -> None:
        self.count, self.setting, self.rng = 0, 0.1, np.random.default_rng(1)
        self.items: list[Any] = [{"n": 1}]


class Whole:
    def __init__(self) -> None:
        self.parts, self.name = (Part(), [Part()]), "a"


def test_what_changed_is_saved_and_the_rest_is_left_alone():
    first, second = Whole(), Whole()
    objects = Objects({"whole": first})
    first.parts[0].count = 3
    first.parts[1][0].items.append(2)
    first.parts[0].rng.normal()
    packer = Packer({}, CPU)
    packed = objects.pack(packer)
    assert {path: [*values] for path, values in packed.items()} == {
        "whole.parts.0": ["count", "rng"],
        "whole.parts.1.0": ["rng", "items"],
    }
    second.parts[0].setting = 0.5
    rng = second.parts[0].rng
    assert Objects({"whole": second}).unpack(packed, Unpacker(packer.tensors, {}, CPU)) == []
    assert (second.parts[0].count, second.parts[1][0].items, second.parts[0].setting) == (3, [{"n": 1}, 2], 0.5)
    assert second.parts[0].rng is rng
    assert rng.normal() == first.parts[0].rng.normal()


def test_what_has_no_place_is_named():
    first = Whole()
    objects = Objects({"whole": first})
    first.later = Part()
    packer = Packer({}, CPU)
    packed = objects.pack(packer)
    missing = Objects({"whole": Whole()}).unpack(packed, Unpacker(packer.tensors, {}, CPU))
    assert "whole.later.rng" in missing


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (itertools.count(), "count is an iterator"),
        ((i for i in range(3)), "generator is an iterator"),
        (random.SystemRandom(), "it draws from the operating system"),
    ],
)
def test_what_cannot_be_saved_is_known(value: Any, reason: str):
    first = Whole()
    first.parts[0].items = value
    objects = Objects({"whole": first})
    objects.pack(Packer({}, CPU))
    assert objects.unkept == {"whole.parts.0.items": reason}


def test_a_damaged_path_changes_nothing():
    packed = {"global tests": {"np": 1}, "whole.parts": {"0": 5}, "class Part": {"__init__": 1}, "none": {"a": 1}}
    whole = Whole()
    assert len(Objects({"whole": whole}).unpack(packed, Unpacker({}, {}, CPU))) == 4
    assert isinstance(whole.parts[0], Part)


SAME = [
    *("callback Decay", "callback Eps", "callback Unfreeze", "callback FrozenNorm", "callback OwnGenerators"),
    *("callback OwnEMA", "callback Anchor", "callback Warms", "callback GradientMean", "callback of a closure"),
    *("a model with a memory", "a loss with buffers", "a transform with a generator", "a sampler with a generator"),
    *("a batch sampler with a generator", "weights of rows by their losses", "a data set with a cache"),
]


@pytest.mark.parametrize("at", [13, 17])
@pytest.mark.parametrize("name", SAME)
def test_it_is_resumed_bit_for_bit(name: str, at: int, tmp_path: Path):
    plain, resumed = plain_and_resumed(name, at, tmp_path)
    assert resumed.recorder.record.batch_losses == plain.recorder.record.batch_losses
    assert all(map(torch.equal, resumed.model.state_dict().values(), plain.model.state_dict().values()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("callback Iterates", r"callback Iterates.scales \(list_iterator is an iterator\)"),
        ("callback OutOfTheSystem", r"callback OutOfTheSystem.rng \(it draws from the operating system\)"),
        ("callback LazyModel", r"callback LazyModel.teacher \(it is made while the fit runs\)$"),
        ("an iterable data set over an iterator", r"training data.dataset.rows \(cycle is an iterator\)"),
        ("one generator for data and model", r"training data.dataset.*draws from it too"),
    ],
)
def test_what_cannot_be_resumed_is_said_when_the_fit_begins(name: str, message: str, tmp_path: Path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made(name).fit(1, 1e-2, checkpoint=tmp_path)
    assert len(caught) == 1
    assert caught[0].category is UserWarning
    with pytest.warns(UserWarning, match=message):
        made(name).fit(1, 1e-2, checkpoint=CheckpointConfig(tmp_path, overwrite=True))
    made(name).fit(1, 1e-2)  # without checkpoints nothing is said


def test_generators_of_Python_and_NumPy_go_on(tmp_path: Path):
    for number in (0, 1):  # other states before the fit that resumes
        random.seed(number)
        np.random.seed(number)
        if not number:
            plain = made("callback MixUp")
            plain.fit(2, 1e-2)
            random.seed(number)
            np.random.seed(number)
        Stop.at = 17 if not number else None
        learn = made("callback MixUp")
        learn.fit(2, 1e-2, checkpoint=tmp_path) if not number else learn.resume(tmp_path)
    assert learn.recorder.record.batch_losses == plain.recorder.record.batch_losses


def test_generators_that_nothing_draws_from_are_left_alone(tmp_path: Path):
    CASES["plain"] = dict
    Stop.at = 5
    made("plain").fit(2, 1e-2, checkpoint=tmp_path)
    Stop.at = None
    before = random.getstate(), np.random.get_state()[1].tolist()
    random.random()
    after = random.getstate()
    made("plain").resume(tmp_path)
    assert random.getstate() == after != before[0]
    assert np.random.get_state()[1].tolist() == before[1]


def test_a_checkpoint_holds_no_rows_of_the_data(tmp_path: Path):
    made("augmentation by the global generators").fit(1, 1e-2, checkpoint=tmp_path)
    folder = RunFolder(tmp_path).checkpoints / RunFolder(tmp_path).names()[0]
    assert (folder / "objects-data.safetensors").stat().st_size < 1_000
